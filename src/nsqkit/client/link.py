"""One connection to an nsqd, once its socket is open: bytes to replies and messages, and commands to bytes.

It is what asyncio calls a protocol, without inheriting from it: it is compiled. Commands of one pass of the event loop
leave in one write. Replies have no name: they answer publishes in the order in which these were sent. Who opens a
connection asks for one reply after the other (`reply`); from `begin` on, replies and messages are taken as they come.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from librt.strings import BytesWriter, read_i32_be, read_i64_be, write_i32_be
from mypy_extensions import i32, i64

from nsqkit.client.message import Inbox, Message
from nsqkit.errors import ConnectionFailed, NotSent, OutcomeUnknown, Refused
from nsqkit.wire.frames import ERROR, HEARTBEAT, MESSAGE, RESPONSE
from nsqkit.wire.layer import Layer, LayerError, Layers

MAX_FRAME: Final = 128 << 20  # bytes; no option of nsqd makes sense that lets it send more
HIGH_WATER: Final = 1 << 20  # bytes in the transport above which nothing more is published for now
LOW_WATER: Final = 256 << 10
PIECES: Final = 16  # of layers, 64 KiB each, that are taken in one pass of the loop
_LARGE: Final = 1 << 18  # bytes of commands that leave before the pass ends
_OK: Final = b"OK"
_CLOSE_WAIT: Final = b"CLOSE_WAIT"
_LATE: Final = (b"E_FIN_FAILED", b"E_REQ_FAILED", b"E_TOUCH_FAILED")


class Link:
    """A connection. `lost` says that it is over, and `reason` why."""

    def __init__(self, nsqd: str, clock: Callable[[], float], max_frame: int, inbox: Inbox | None) -> None:
        """Messages go to `inbox`. A publisher has none, and gets an empty one that nobody reads."""
        self.nsqd = nsqd
        self.inbox: Inbox = inbox or Inbox("", "", clock, _no_delay)
        self.msg_timeout = 60.0  # seconds, as agreed on with nsqd; this and the next two
        self.max_msg_timeout = 900.0
        self.max_rdy_count: i64 = 2500
        self.heartbeat = 30.0  # seconds between two heartbeats of nsqd; 0: it sends none
        self.write_timeout = 1.0
        self.max_pending: i64 = 1000
        self.max_pending_bytes: i64 = 16 << 20
        self.busy: dict[Message, None] = {}  # messages that somebody works on, the next to be touched first
        self.in_flight: i64 = 0  # received and not answered
        self.lost = False
        self.reason = ""
        self.misled = False  # it is over because a layer could not make sense of what came
        self.published: i64 = 0
        self.refused: i64 = 0  # publishes
        self.on_received: Callable[[Link], None] | None = None  # messages came, once for each chunk
        self.on_lost: Callable[[Link], None] | None = None
        self.on_complaint: Callable[[Link, str], None] | None = None  # nsqd knows a message no more
        self.heard_at = 0.0
        self.drained = False  # it answered CLS: no message comes any more
        self._clock = clock
        self._max_frame: i64 = max_frame or MAX_FRAME
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._layers: Layers | None = None
        self._pumping = False
        self._out = BytesWriter()
        self._flush_is_due = False
        self._flush: Callable[[], None] = self.flush
        self._parts: list[bytes] = []  # of a frame that is not complete
        self._held: i64 = 0  # bytes in _parts
        self._need: i64 = 0  # bytes without which the frame can't go on
        self._open = False  # `begin` was called
        self._replies: deque[bytes] = deque()
        self._refusal: Refused | None = None  # instead of a reply
        self._reply_waiter: asyncio.Future[None] | None = None
        self._pending: deque[tuple[asyncio.Future[None], i64]] = deque()
        self._pending_bytes: i64 = 0
        self._unsent: i64 = 0  # publishes that are still in _out
        self._choked = False
        self._room_waiters: deque[asyncio.Future[None]] = deque()

    # -- called by the event loop

    def connection_made(self, transport: asyncio.Transport) -> None:
        """The socket is connected."""
        self._transport = transport
        self.heard_at = self._clock()
        transport.set_write_buffer_limits(high=HIGH_WATER, low=LOW_WATER)

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        if self.lost:
            return
        self.heard_at = self._clock()
        if self._layers is None:
            self._take(data)
        else:
            self._layers.received(data)
            if not self._pumping:
                self._pump()

    def eof_received(self) -> bool:
        """Nothing more comes."""
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """It is over."""
        if isinstance(error, OSError) and error.strerror:
            self._end(error.strerror.lower())
        else:
            self._end(str(error) if error is not None else "it closed the connection")

    def pause_writing(self) -> None:
        """The transport holds as much as it should."""
        self._choked = True
        size = self._transport.get_write_buffer_size() if self._transport is not None else 0
        self._loop.call_later(self.write_timeout, self._check_writing, size)

    def resume_writing(self) -> None:
        """It has room again."""
        self._choked = False
        self._admit()

    def _check_writing(self, size: int) -> None:
        """Whether nsqd took anything of what it is sent, since there was too much of it."""
        if self._transport is None or not self._choked:
            return
        left = self._transport.get_write_buffer_size()
        if left >= size:
            self.abort(f"it took nothing of what it is sent for {self.write_timeout:g} s (write_timeout)")
        else:
            self._loop.call_later(self.write_timeout, self._check_writing, left)

    # -- opening

    async def reply(self) -> bytes:
        """The next reply, before `begin`. Refused for an error, ConnectionFailed if none comes."""
        if not self._replies:
            self._go_on()
        while not self._replies:
            if self._refusal is not None:
                raise self._refusal
            if self.lost:
                raise ConnectionFailed(self.nsqd, self.reason)
            self._reply_waiter = self._loop.create_future()
            await self._reply_waiter
        return self._replies.popleft()

    def add_layer(self, layer: Layer) -> None:
        """Everything goes through one layer more from here on, also what has come already."""
        self.flush()
        rest = b"".join(self._parts)
        self._parts = []
        self._held = self._need = 0
        if rest:
            layer.received(rest)
        if self._layers is None:
            self._layers = Layers()
        self._layers.add(layer)
        self._pump()

    def begin(self) -> None:
        """The connection is of use: take what comes."""
        self._open = True
        self._go_on()

    def _go_on(self) -> None:
        if self._parts:
            rest = b"".join(self._parts)
            self._parts = []
            self._held = self._need = 0
            self._take(rest)

    # -- bytes

    def _pump(self) -> None:
        """Take pieces out of the layers, a share in each pass of the loop."""
        paused, self._pumping = self._pumping, False
        layers = self._layers
        if layers is None or self.lost:
            return
        pieces = 0
        try:
            while True:
                piece = layers.take()
                unasked = layers.send(b"")
                if unasked and self._transport is not None:
                    self._transport.write(unasked)
                if not piece:
                    break
                self._take(piece)
                if self.lost:
                    return
                pieces += 1
                if pieces == PIECES:
                    self._pumping = True
                    self._loop.call_soon(self._pump)
                    break
        except LayerError as error:
            self.misled = True
            self.abort(str(error))
            return
        if self._transport is not None and self._pumping != paused:
            if self._pumping:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def _take(self, data: bytes) -> None:
        """Bytes of frames. After a reply that nobody has taken yet, they may be of another layer."""
        if self._replies:
            self._parts.append(data)
            self._held += len(data)
            return
        if self._parts:
            self._parts.append(data)
            self._held += len(data)
            if self._held < self._need:
                return
            data = b"".join(self._parts)
            self._parts = []
        received: i64 = self.in_flight
        at, need = self._take_frames(data)
        if self.lost:
            return
        if at < len(data):
            self._parts.append(data[at:] if at else data)
            self._held = len(data) - at
            self._need = need
        if self.in_flight > received:
            if self.on_received is not None:
                self.on_received(self)
            self.inbox.arrived()
        if self._room_waiters:
            self._admit()

    def _take_frames(self, data: bytes) -> tuple[i64, i64]:
        """Where the first frame begins that is not complete, or not to be read for now, and how long it is."""
        at: i64 = 0
        end: i64 = len(data)
        while end - at >= 8:
            size: i64 = i64(read_i32_be(data, at))
            if size < 4 or size > self._max_frame:
                self.abort(f"a frame of {size} bytes: it is no nsqd, or max_msg_size is too small")
                break
            if end - at < 4 + size:
                return at, 4 + size
            kind: i64 = i64(read_i32_be(data, at + 4))
            first = at + 8
            at += 4 + size
            if kind == MESSAGE and size >= 30:
                self._add_message(data, first, at)
            elif not self._reply_came(kind, data[first:at]):
                break
        return at, 8

    def _add_message(self, data: bytes, at: i64, end: i64) -> None:
        attempts: i64 = i64(data[at + 8]) * 256 + data[at + 9]
        timestamp: i64 = read_i64_be(data, at)
        message_id = data[at + 10 : at + 26]
        self.in_flight += 1
        self.inbox.add(Message(self, message_id, timestamp, attempts, data[at + 26 : end], self.heard_at))

    def _reply_came(self, kind: i64, payload: bytes) -> bool:
        """A frame that is no message. False: nothing more is to be read for now."""
        if kind == RESPONSE:
            if payload == _OK and self._open and self._pending:
                self._settle()
                return True
            return self._respond(payload)
        if kind == ERROR:
            return self._complain(payload)
        self.abort(f"a frame of kind {kind}: it is no nsqd")
        return False

    def _respond(self, payload: bytes) -> bool:
        """A reply came that settles no publish. False: nothing more is to be read for now."""
        if payload == HEARTBEAT:
            self.write(b"NOP\n")
            return True
        if not self._open:
            self._replies.append(payload)
            self._wake_reply()
            return False
        if payload == _CLOSE_WAIT:
            self.drained = True
            self.inbox.wake_all()
        elif payload == _OK:
            self.abort("it answers more than it was asked")
            return False
        return True

    def _settle(self) -> None:
        future, size = self._pending.popleft()
        self._pending_bytes -= size
        self.published += 1
        if not future.done():  # who waited may have been cancelled
            future.set_result(None)

    def _complain(self, payload: bytes) -> bool:
        """An error came. False: the connection is over."""
        text = payload.decode("utf-8", "replace")
        code, _, detail = text.partition(" ")
        if payload.startswith(_LATE):
            if self.on_complaint is not None:
                self.on_complaint(self, text)
            return True
        error = Refused(code, detail, self.nsqd)
        if not self._open:
            self._refusal = error
        elif self._pending:
            future, size = self._pending.popleft()
            self._pending_bytes -= size
            self.refused += 1
            if not future.done():
                future.set_exception(error)
        self.abort(f"it answered {text[:500]}")
        return False

    # -- commands

    def write(self, command: bytes) -> None:
        """Send a command with what else this pass of the loop sends."""
        self._out.write(command)
        self._flush_soon()

    def finish(self, message_id: bytes) -> None:
        """FIN."""
        self.in_flight -= 1
        out = self._out
        out.write(b"FIN ")
        out.write(message_id)
        out.write(b"\n")
        self._flush_soon()

    def requeue(self, message_id: bytes, delay_ms: i64) -> None:
        """REQ."""
        self.in_flight -= 1
        self.write(b"REQ %b %d\n" % (message_id, delay_ms))

    def touch(self, message_id: bytes) -> None:
        """TOUCH."""
        self.write(b"TOUCH %b\n" % message_id)

    def ready(self, count: int) -> None:
        """RDY."""
        self.write(b"RDY %d\n" % count)

    def has_room(self) -> bool:
        """Whether something may be published now."""
        return (
            not self._choked
            and len(self._pending) < self.max_pending
            and self._pending_bytes < self.max_pending_bytes
        )

    def room(self) -> asyncio.Future[None]:
        """What is done when there may be room again, or never will be; counted from this call on."""
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._room_waiters.append(waiter)
        return waiter

    def forget(self, waiter: asyncio.Future[None]) -> None:
        """Nobody waits for this one any more."""
        if waiter in self._room_waiters:
            self._room_waiters.remove(waiter)
        elif not waiter.cancelled():
            self._admit()  # the room is for another

    def publish(self, line: bytes, body: bytes | bytearray | memoryview) -> asyncio.Future[None]:
        """Send a command with a body. The future is done when it is answered, and fails by a PublishError."""
        size: i64 = len(body)
        out = self._out
        out.write(line)
        write_i32_be(out, i32(size))
        out.write(body if isinstance(body, bytes) else bytes(body))
        future: asyncio.Future[None] = self._loop.create_future()
        self._pending.append((future, size))
        self._pending_bytes += size
        self._unsent += 1
        if len(out) > _LARGE:
            self.flush()
        else:
            self._flush_soon()
        return future

    @property
    def pending(self) -> int:
        """Publishes without an answer."""
        return len(self._pending)

    def unanswered(self) -> list[asyncio.Future[None]]:
        """The futures of these."""
        return [future for future, _ in self._pending if not future.done()]

    def _flush_soon(self) -> None:
        if not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self._flush)

    def flush(self) -> None:
        """Hand to the transport what was written."""
        self._flush_is_due = False
        out = self._out
        size: i64 = len(out)
        transport = self._transport
        if size == 0 or transport is None or self.lost:
            return
        data = out.getvalue()
        if size > _LARGE:
            self._out = BytesWriter()
        else:
            out.truncate(0)
        self._unsent = 0
        if self._layers is not None:
            try:
                data = self._layers.send(data)
            except LayerError as error:
                self.abort(str(error))
                return
        if data:
            transport.write(data)

    def _admit(self) -> None:
        """Wake as many who wait for room as there is room for."""
        room: i64 = self.max_pending - len(self._pending)
        if not self.lost and (self._choked or self._pending_bytes >= self.max_pending_bytes):
            room = 0
        while self._room_waiters and (room > 0 or self.lost):
            waiter = self._room_waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                room -= 1

    # -- the end

    def close(self) -> None:
        """Send what was written, and close."""
        self.flush()
        transport = self._transport
        if transport is not None:
            if self._layers is not None:
                try:
                    last = self._layers.end()
                except LayerError:
                    last = b""
                if last:
                    transport.write(last)
            transport.close()
        self._end("it was closed here")

    def abort(self, reason: str) -> None:
        """Close at once."""
        transport = self._transport
        self._end(reason)
        if transport is not None:
            transport.abort()

    def _wake_reply(self) -> None:
        waiter = self._reply_waiter
        self._reply_waiter = None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _end(self, reason: str) -> None:
        """It is over: tell everybody who waits for something."""
        if self.lost:
            return
        self.lost = True
        self.reason = reason
        self._transport = None
        self._layers = None
        self._parts = []
        self.busy.clear()
        self.inbox.lose(self)
        self._wake_reply()
        sent: i64 = len(self._pending) - self._unsent
        while self._pending:
            future, _ = self._pending.popleft()
            if not future.done():
                if sent > 0:
                    future.set_exception(
                        OutcomeUnknown(f"nsqd {self.nsqd} may have it, or not: no answer came, as {reason}")
                    )
                else:
                    future.set_exception(NotSent(f"it was not sent to nsqd {self.nsqd}: {reason}"))
            sent -= 1
        self._pending_bytes = 0
        self._admit()
        self.inbox.wake_all()
        if self.on_lost is not None:
            self.on_lost(self)

    @property
    def is_open(self) -> bool:
        """Whether it is of use."""
        return self._open and not self.lost


def _no_delay(_: object) -> int:
    return 0
