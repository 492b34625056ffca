"""The connections that make the load: raw asyncio protocols, one event per chunk of bytes.

There is no future, task or timestamp per message. A publisher sends one prebuilt command again and again and keeps at
most `window` of them unanswered; a consumer answers each chunk with one buffer of FINs. They receive into buffers of
their own: fresh ones cost a page fault per 4 KB, which was half of a consumer's time. All connections of a round share
one `Run`, which counts, decides when enough was sent, and ends the round at the first error.
"""

import asyncio
import json
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from time import perf_counter_ns
from typing import Final, TypeVar, cast

from nsqkit.bench import frames
from nsqkit.bench.layers import client_layer
from nsqkit.bench.process import UNIX
from nsqkit.wire.layer import Layer, LayerError, Layers

CONNECT_TIMEOUT_S: Final = 10.0
PROGRESS_INTERVAL_S: Final = 0.2
RECEIVE_BYTES: Final = 256 * 1024

_NO_LIMIT: Final = 1 << 62

C = TypeVar("C", bound="Connection")
P = TypeVar("P", bound=asyncio.BaseProtocol)


class BenchError(Exception):
    """Something that makes a result worthless: refused, cut off, an error from the server, messages that never came."""


class Run:
    """What the connections of one round have in common. Times are ns of `perf_counter_ns`."""

    def __init__(
        self, on_progress: Callable[[int], None], stall_timeout_s: float, layers: Sequence[str] = ()
    ) -> None:
        self.layers = layers
        self.raw = memoryview(bytearray(RECEIVE_BYTES))  # what one connection received, for its layers
        self.acknowledged = 0
        self.received = 0
        self.expected: int | None = None
        self.redelivered = 0
        self.latencies_ns: array[int] = array("q")
        self.failure: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.consumers: list[Consumer] = []
        self._left = 0
        self._deadline = _NO_LIMIT
        self._on_progress = on_progress
        self._stall_timeout_s = stall_timeout_s

    def allow(self, messages: int | None, duration_s: float | None) -> None:
        """Let the publishers send this many messages or for this long from now, whichever ends first."""
        self._left = _NO_LIMIT if messages is None else messages
        self._deadline = _NO_LIMIT if duration_s is None else perf_counter_ns() + int(duration_s * 1e9)

    def take(self, batch: int, now: int) -> bool:
        """Whether one more command of `batch` messages may be sent."""
        if self._left < batch or now >= self._deadline:
            return False
        self._left -= batch
        return True

    def expect(self, messages: int) -> None:
        """Consumers are done when this many messages have arrived."""
        self.expected = messages
        self.check_received()

    def check_received(self) -> None:
        """Close the consumers once everything expected has arrived."""
        if self.expected is not None and self.received >= self.expected:
            for consumer in self.consumers:
                consumer.close()

    def fail(self, reason: str) -> None:
        """End the round. Only the first reason counts; what follows is its consequence."""
        if not self.failure.done():
            self.failure.set_result(reason)

    async def finish(self, parts: Iterable[asyncio.Future[None]]) -> None:
        """Wait for these parts of the round; raises BenchError when it fails or nothing moves any more."""
        waiting = asyncio.gather(*parts)
        seen, since = -1, perf_counter_ns()
        try:
            while not waiting.done() and not self.failure.done():
                await asyncio.wait(
                    (waiting, self.failure), timeout=PROGRESS_INTERVAL_S, return_when=asyncio.FIRST_COMPLETED
                )
                done = self.acknowledged + self.received
                self._on_progress(done)
                if done != seen:
                    seen, since = done, perf_counter_ns()
                elif perf_counter_ns() - since > self._stall_timeout_s * 1e9:
                    self.fail(self._stalled())
            if self.failure.done():
                raise BenchError(self.failure.result())
            await waiting
        finally:
            waiting.cancel()

    def _stalled(self) -> str:
        missing = (
            ""
            if self.expected is None
            else f", {self.expected - self.received} of {self.expected} messages lost"
        )
        return f"nothing arrived for {self._stall_timeout_s:g} s{missing}"


class Connection(asyncio.BufferedProtocol):
    """A connection to nsqd: says hello, answers heartbeats, and reports errors and cuts to the run.

    `opened` is done when every command of the hello was answered; `done` when the connection's part is.
    The run's layers are put in one by one: each answers OK, then the next; the hello follows through them all.
    """

    def __init__(self, run: Run, reader: frames.FrameReader, hello: Iterable[bytes] = ()) -> None:
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()
        self.done: asyncio.Future[None] = loop.create_future()
        self.server: dict[str, object] = {}
        self._run = run
        self._hello = list(hello)
        self._answers_due = 1 + len(run.layers) + len(self._hello)
        self._layers_due = list(run.layers)
        self._layers: Layers | None = None
        self._newest: Layer | None = None
        self._early = b""  # what came before a layer was put in, and may be for it
        self._reader = reader
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one only by its methods
        identity: dict[str, object] = {"user_agent": "nsqkit-bench", "feature_negotiation": True}
        wanted = dict.fromkeys(self._layers_due, True)
        self._transport.write(frames.MAGIC + frames.identify(identity | wanted))
        if not self._layers_due:
            self._transport.write(b"".join(self._hello))

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        """Receive into the reader's buffer, or, where there are layers, into one of the run's."""
        return self._run.raw if self._run.layers else self._reader.room()

    def buffer_updated(self, nbytes: int) -> None:
        """Handle a chunk of bytes as it came from the socket."""
        if not self._run.layers:
            self.received(nbytes)
            return
        data = bytes(self._run.raw[:nbytes])
        try:
            if self._layers is None:
                self._read_piece(data)
            else:
                self._layers.received(data)
            self._read_through_layers()
        except LayerError as error:
            self._fail(str(error))

    def _read_through_layers(self) -> None:
        layers = self._layers
        if layers is None:
            return
        while not self.done.done() and (piece := layers.take()):
            self._read_piece(piece)
        unasked = layers.send(b"")
        if unasked:
            self._transport.write(unasked)

    def _read_piece(self, piece: bytes) -> None:
        while self._layers_due:
            frame, self._early = frames.cut_first(self._early + piece)
            if not frame:
                return
            piece = b""
            due = len(self._layers_due)
            self._read(frame)
            if len(self._layers_due) < due and self._newest is not None:
                self._newest.received(self._early)
                self._early = b""
                return
        self._read(piece)

    def _read(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            room = self._reader.room()
            part = data[at : at + len(room)]
            room[: len(part)] = part
            at += len(part)
            self.received(len(part))

    def send(self, data: bytes) -> None:
        """Send, through the layers if there are any."""
        self._transport.write(data if self._layers is None else self._layers.send(data))

    def received(self, nbytes: int) -> None:
        """Handle what the reader's buffer got: its replies here, its messages in the subclass."""
        try:
            self._reader.received(nbytes)
        except frames.NotNsqd as error:
            self._fail(str(error))
            return
        for kind, payload in self._take_replies():
            if payload == frames.HEARTBEAT:
                self.send(frames.NOP)
            elif kind == frames.ERROR:
                self._fail(payload.decode(errors="replace"))
            elif not self.opened.done():
                self._hello_answered(payload)
            else:
                self.reply_received(payload)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the run, unless we are done or hung up ourselves."""
        if not self.done.done():
            self._fail(f"the server closed the connection{f': {exc}' if exc else ''}")

    def reply_received(self, payload: bytes) -> None:
        """A response that is not a heartbeat and not part of the hello."""

    def abort(self) -> None:
        """Hang up."""
        self._settle()
        self._transport.abort()

    def _take_replies(self) -> list[tuple[int, bytes]]:
        replies = self._reader.replies
        if replies:
            self._reader.replies = []
        return replies

    def _hello_answered(self, payload: bytes) -> None:
        if payload.startswith(b"{"):
            self.server = json.loads(payload)
        self._answers_due -= 1
        if self._layers_due:
            self._put_in(self._layers_due.pop(0))
        elif self._layers is not None and self._answers_due == len(self._hello):
            self.send(b"".join(self._hello))
        if self._answers_due == 0:
            self.opened.set_result(None)

    def _put_in(self, layer: str) -> None:
        if self.server.get(layer) is not True:
            self._fail(f"the server does not offer {layer}")
            return
        if self._layers is None:
            self._layers = Layers()
        self._newest = client_layer(layer, self.server)
        self._layers.add(self._newest)
        self._transport.write(self._layers.send(b""))

    def _fail(self, reason: str) -> None:
        if not self.opened.done():
            self.opened.set_exception(BenchError(reason))
            self._transport.abort()  # nobody else knows of it, and a loop waits for it to end
        else:
            self._run.fail(reason)
        self._settle()

    def _settle(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


class Publisher(Connection):
    """Sends `command`, which publishes `batch` messages, keeping up to `window` unanswered."""

    def __init__(self, run: Run, command: bytes, *, batch: int, window: int) -> None:
        super().__init__(run, frames.FrameReader())
        self._command = command
        self._batch = batch
        self._window = window
        self._sent_at: deque[int] = deque()

    def start(self) -> None:
        """Send the first commands; `done` follows when the run allows no more and all are answered."""
        self._fill(perf_counter_ns())

    def received(self, nbytes: int) -> None:
        """Handle a chunk, which nearly always is one OK."""
        if self._sent_at and self._reader.received_only_ok(nbytes):
            self._answered(perf_counter_ns())
        else:
            super().received(nbytes)

    def reply_received(self, payload: bytes) -> None:
        """Count an OK that came together with something else."""
        if payload == frames.OK and self._sent_at:
            self._answered(perf_counter_ns())
        else:
            self._fail(f"a reply nobody asked for: {payload!r}")

    def _answered(self, now: int) -> None:
        run = self._run
        run.latencies_ns.append(now - self._sent_at.popleft())
        run.acknowledged += self._batch
        self._fill(now)

    def _fill(self, now: int) -> None:
        sent_at = self._sent_at
        while len(sent_at) < self._window and self._run.take(self._batch, now):
            sent_at.append(now)
            self.send(self._command)
        if not sent_at:
            self._settle()


class Consumer(Connection):
    """Finishes whatever it gets. With `stamped`, measures from the stamp in the body to arrival."""

    def __init__(self, run: Run, topic: str, channel: str, *, stamped: bool = False) -> None:
        reader = frames.FrameReader(stamped=stamped, buffer_bytes=RECEIVE_BYTES)
        super().__init__(run, reader, [frames.subscribe(topic, channel)])
        self._closing = False

    def start(self, ready: int) -> None:
        """Ask for messages, up to `ready` in flight or what the server allows."""
        limit = self.server.get("max_rdy_count")
        self.send(frames.ready(min(ready, limit) if isinstance(limit, int) else ready))

    def close(self) -> None:
        """Send CLS. Its answer proves that the server has handled every FIN before it, and then we are `done`."""
        if not self._closing:
            self._closing = True
            self.send(frames.CLS)

    def received(self, nbytes: int) -> None:
        """Handle a chunk: finish all its messages at once."""
        super().received(nbytes)
        reader, run = self._reader, self._run
        if not reader.message_ids:
            return
        if reader.stamps:
            now = perf_counter_ns()
            run.latencies_ns.extend([now - stamp for stamp in reader.stamps])
            reader.stamps.clear()
        self.send(frames.finish_all(reader.message_ids))
        run.received += len(reader.message_ids)
        run.redelivered += reader.redelivered
        reader.message_ids.clear()
        reader.redelivered = 0
        run.check_received()

    def reply_received(self, payload: bytes) -> None:
        """Take CLOSE_WAIT, which comes after everything else."""
        if payload == frames.CLOSE_WAIT:
            self._settle()


async def reach(host: str, port: int, make: Callable[[], P]) -> P:
    """Connect, to a port or (with UNIX for it) the path of a unix socket. Raises BenchError."""
    loop = asyncio.get_running_loop()
    where = host if port == UNIX else f"{host}:{port}"
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            if port == UNIX:
                _, made = await loop.create_unix_connection(make, host)
            else:
                _, made = await loop.create_connection(make, host, port)
    except TimeoutError:
        raise BenchError(f"{where} did not answer for {CONNECT_TIMEOUT_S:.0f} s") from None
    except OSError as error:
        raise BenchError(f"cannot connect to {where}: {error.strerror or error}") from None
    return made


async def open_connection(host: str, port: int, make: Callable[[], C]) -> C:
    """Connect and wait for the answers to the hello; raises BenchError."""
    connection = await reach(host, port, make)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await connection.opened
    except TimeoutError:
        where = host if port == UNIX else f"{host}:{port}"
        raise BenchError(f"{where} did not answer for {CONNECT_TIMEOUT_S:.0f} s") from None
    return connection
