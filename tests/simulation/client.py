"""A client and its connection: bytes go to the broker in any pieces, frames come back and are compared in order.

A client may agree on a layer; then a command is executed when the layer gives its last byte to the session.
"""

from __future__ import annotations

import json
import struct
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from nsqkit.names import is_ephemeral
from nsqkit.nsqd.connection import Connection
from nsqkit.wire.identify import Identity
from nsqkit.wire.layer import Layer
from tests.simulation.books import Command, Flight, Violation
from tests.simulation.layer import HELLO, Awkward, cut, delay_of, record, seal, unseal

if TYPE_CHECKING:
    from tests.simulation.world import World

RESPONSE: Final = 0
ERROR: Final = 1
MESSAGE: Final = 2

WHOLE: Final = 1 << 20  # bytes: more than a client has to send

ANSWERS: Final = {"CLS": b"CLOSE_WAIT"}  # of commands that are not answered OK


def _nothing() -> None:
    """What a part of a command does."""


class Transport:
    """Stands for asyncio's. While the client is stalled it holds everything."""

    def __init__(self, client: Client, high: int) -> None:
        self.client = client
        self.high = high
        self.held = 0  # bytes
        self.reading = True
        self.closing = False
        self.ended = False
        self._full = False

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        """The world has its own limits."""

    def get_extra_info(self, _: str) -> tuple[str, int]:
        """The peer."""
        return f"10.0.0.{self.client.number}", 1

    def get_write_buffer_size(self) -> int:
        """What the client did not take."""
        return self.held

    def write(self, data: bytes) -> None:
        """The broker sends something."""
        assert not self.ended, "write after write_eof"
        if self.closing:
            return
        self.client.take(data)
        if self.client.stalled:
            self.held += len(data)
            if self.held > self.high and not self._full:
                self._full = True
                self.client.world.counts["backpressure"] += 1
                self.client.connection.pause_writing()

    def drain(self) -> None:
        """The client reads again."""
        self.held = 0
        if self._full and not self.closing:
            self._full = False
            self.client.connection.resume_writing()
        if self.closing or self.ended:
            self._lose()

    def pause_reading(self) -> None:
        """Read nothing more."""
        self.reading = False

    def resume_reading(self) -> None:
        """Go on."""
        self.reading = True
        if self.client.layered:
            self.client.world.loop.call_soon(self.client.flow, WHOLE)

    def can_write_eof(self) -> bool:
        """Yes."""
        return True

    def write_eof(self) -> None:
        """The broker says good-bye; a client that reads closes then."""
        self.ended = True
        self.client.lose()
        if not self.client.stalled:
            self._lose()

    def close(self) -> None:
        """When everything is out."""
        self.closing = True
        self.client.lose()
        if not self.held:
            self._lose()

    def abort(self) -> None:
        """At once."""
        self.closing = True
        self.client.lose()
        self._lose()

    def _lose(self) -> None:
        self.client.world.loop.call_soon(self.client.hang_up, None)


class Client:
    """One client. What is received is given to the checker when it is sent, and to the client when it reads."""

    def __init__(self, world: World, number: int, high: int, *, layered: bool = False) -> None:
        self.world = world
        self.number = number
        self.layered = layered
        self.topic = self.channel = ""
        self.msg_timeout = 0  # ns
        self.ready = 0
        self.stalled = False
        self.half_closed = False
        self.closing = False  # CLS was sent
        self.dead = False  # for the broker
        self.lost = False  # connection_lost was called
        self.last_serials: dict[int, int] = {}
        self.flights: dict[bytes, Flight] = {}
        self.awaited: deque[Command] = deque()
        self.risk: Command | None = None
        self.inbox: list[bytes] = []  # ids of messages to be answered
        self._unread: list[bytes] = []
        self._outgoing: deque[tuple[bytes, Callable[[], None]]] = deque()
        self._partial = False
        self._upgrading = False  # a layer was asked for, and the client has not greeted
        self._sealed = False  # what the broker sends comes through the layer
        self._underway: deque[tuple[int, Callable[[], None]]] = (
            deque()
        )  # in the layer: bytes, and what they do
        self._arrived = 0  # bytes of the first of these
        self.transport = Transport(self, high)
        process = world.process
        assert process is not None
        self.connection = Connection(process.turns, process.connections, self._make_layer)
        transport: Any = self.transport
        self.connection.connection_made(transport)

    # -- to the broker

    def send(self, data: bytes, execute: Callable[[], None]) -> None:
        """Queue a command; `execute` is called when its last byte arrives."""
        self._outgoing.append((data, execute))

    def await_reply(self, name: str) -> Command:
        """A command is being executed."""
        command = self.risk = Command(name)
        command.failures = -1 if self.world.broken else self.world.failures
        self.awaited.append(command)
        return command

    def await_failure(self, name: str, message_id: bytes, delay: int) -> None:
        """A command is being executed that is answered only when it fails."""
        command = Command(name)
        command.id = message_id
        self.world.model.answer(self, command, delay, self.world.loop.now)
        self.awaited.append(command)

    def identify(self, timeout: int) -> None:
        """Queue IDENTIFY, if there is something to say; `timeout` is in ms, 0 for the daemon's own."""
        fields: dict[str, object] = {"msg_timeout": timeout} if timeout else {}
        if self.layered:
            fields |= {"feature_negotiation": True, "snappy": True}
        if fields:
            body = json.dumps(fields).encode()
            self.send(b"IDENTIFY\n" + len(body).to_bytes(4, "big") + body, self._identify)

    def _identify(self) -> None:
        self.await_reply("IDENTIFY")
        self._upgrading = self.layered

    def flow(self, most: int) -> None:
        """Let up to `most` bytes arrive."""
        if self.dead or self.half_closed or not self.transport.reading:
            return
        self.world.catch_up()
        chunk = b""
        while self._outgoing and most > 0 and not self._upgrading:
            data, execute = self._outgoing.popleft()
            if len(data) > most:
                self._outgoing.appendleft((data[most:], execute))
                data = data[:most]
                self._partial = True
                execute = _nothing
            else:
                self._partial = False
            if self._sealed:
                self._underway.append((len(data), execute))
            else:
                execute()
            most -= len(data)
            chunk += data
        if chunk and self._sealed:
            for piece in cut(seal(chunk, self.world.chance), self.world.chance):
                self.connection.data_received(piece)
        elif chunk:
            self.connection.data_received(chunk)
            self.world.observe()

    def arrive(self, size: int) -> None:
        """The layer is about to give so many bytes to the session."""
        self._arrived += size
        while self._underway and self._underway[0][0] <= self._arrived:
            needed, execute = self._underway.popleft()
            self._arrived -= needed
            execute()

    def spoil(self) -> None:
        """Send what no layer understands."""
        if self.layered and not self.dead and not self.half_closed:
            self.world.counts["layer spoiled"] += self._sealed
            self.connection.data_received(b"\xff\xff\xff")

    def _make_layer(self, _: str, __: Identity, stir: Callable[[], None]) -> Layer:
        return Awkward(self, stir)

    def _greet(self) -> None:
        if not self.dead and not self.half_closed:
            self._upgrading = False
            self.connection.data_received(record(HELLO, b""))
            self.flow(WHOLE)

    def pending(self) -> bool:
        """Is there something to send?"""
        return bool(self._outgoing) and not self.dead

    def end(self) -> None:
        """Send no more."""
        if not self.dead and not self.half_closed:
            self.half_closed = True
            self.connection.eof_received()

    def hang_up(self, error: Exception | None) -> None:
        """The connection is gone."""
        if not self.lost:
            self.lost = True
            self.lose()
            self.connection.connection_lost(error)

    def lose(self) -> None:
        """The broker has no use for it any more."""
        if not self.dead:
            self.world.model.gone(self)
            self.world.note(f"client {self.number} gone")

    def read_again(self) -> None:
        """Stalled no more."""
        self.stalled = False
        self.inbox += self._unread
        self._unread = []
        if not self.lost:
            self.transport.drain()

    # -- from the broker

    def take(self, data: bytes) -> None:
        """Frames were sent."""
        self.world.observe()
        if self._sealed:
            greeted, data = unseal(data)
            if greeted:
                self.world.loop.call_in(delay_of(self.world.chance), self._greet)
        at = 0
        while at < len(data):
            size, kind = struct.unpack_from(">ii", data, at)
            payload = data[at + 8 : at + 4 + size]
            at += 4 + size
            if kind == MESSAGE:
                self._take_message(payload)
            elif kind == RESPONSE and payload == b"_heartbeat_":
                self.world.loop.call_soon(self._answer_heartbeat)
            else:
                self.world.note(f"client {self.number} < {payload[:60]!r}")
                self._take_reply(payload, error=kind == ERROR)
        if at != len(data):
            raise Violation("broken frame", repr(data[:60]))

    def _take_message(self, payload: bytes) -> None:
        attempts = int.from_bytes(payload[8:10], "big")
        message_id, body = payload[10:26], payload[26:]
        world = self.world
        world.note(f"client {self.number} < {body[:12]!r} {message_id!r} attempt {attempts}")
        world.counts["delivered"] += 1
        world.counts["redelivered"] += attempts > 1
        world.model.stamped(body, int.from_bytes(payload[:8], "big"))
        world.model.delivered(self, message_id, body, attempts, world.loop.now)
        (self._unread if self.stalled else self.inbox).append(message_id)

    def _answer_heartbeat(self) -> None:
        if not self.stalled:
            self.send(b"NOP\n", lambda: None)
            if not self._partial:
                self.flow(WHOLE)

    def _take_reply(self, payload: bytes, *, error: bool) -> None:
        model = self.world.model
        code = payload.split(b" ")[0].decode()
        if error and code in ("E_FIN_FAILED", "E_REQ_FAILED", "E_TOUCH_FAILED"):
            self.world.counts[code] += 1
            self._take_failure(code[2:-7], payload.split(b" ")[2])
            return
        while self.awaited and self.awaited[0].silent():
            model.answered(self.awaited.popleft(), "ok")
        if not self.awaited:
            if error and (self.half_closed or self._partial or self._arrived):
                return  # the last command was cut short, or is wrong in its first line
            raise Violation("reply to nothing", f"{payload!r} to client {self.number}")
        command = self.awaited.popleft()
        if error:
            self._fail(command, code, payload)
        elif not self._fits(payload, command) or command.name == "garbage":
            raise Violation("wrong reply", f"{payload!r} to {command.name}")
        else:
            command.state = "ok"
            if self._upgrading and command.name == "IDENTIFY":
                self._sealed = True
                self.await_reply("the layer")
            if command.name == "SUB":
                self.world.relied(self.topic, self.channel)
            if command.publish is not None:
                model.settled(command.publish, "ok", self.world.loop.now)
                self.world.relied(command.publish.topic, "")

    def _fits(self, payload: bytes, command: Command) -> bool:
        if self.layered and command.name == "IDENTIFY":
            return json.loads(payload)["snappy"] is True
        return payload == ANSWERS.get(command.name, b"OK")

    def _take_failure(self, name: str, message_id: bytes) -> None:
        """A command that is silent when it succeeds did not. One that has to fail is meant, if there is one."""
        fitting = [c for c in self.awaited if (c.name, c.id) == (name, message_id)]
        failed = next((c for c in fitting if c.expected != "ok"), fitting[0] if fitting else None)
        while self.awaited and self.awaited[0].silent():
            command = self.awaited.popleft()
            if command is failed:
                self.world.model.answered(command, "failed")
                return
            self.world.model.answered(command, "ok")
        raise Violation("reply out of order", f"{name} {message_id!r} failed, to client {self.number}")

    def _fail(self, command: Command, code: str, payload: bytes) -> None:
        """A fatal error: what was sent after it was not executed."""
        command.state = "failed"
        self.world.counts[code] += 1
        if command.name != "garbage" and code != f"E_{command.name}_FAILED":
            raise Violation("wrong reply", f"{payload!r} to {command.name}")
        if command.publish is not None:
            self.world.model.settled(command.publish, "refused", self.world.loop.now)
        if command.name != "garbage" and not self._may_refuse(command, payload):
            raise Violation("refused", f"{payload!r}, and the disk is well")
        for later in self.awaited:
            if later.silent():
                self.world.model.answered(later, "unknown")
            elif later.publish is not None:
                later.publish.state = "unknown"
        self.awaited.clear()

    def _may_refuse(self, command: Command, payload: bytes) -> bool:
        """Is there a reason? A topic may be deleted meanwhile, and an ephemeral one go with its last consumer."""
        publish = command.publish
        gone = (
            publish is not None
            and (publish.dropped or is_ephemeral(publish.topic))
            and payload.endswith(b" exiting")
        )
        return gone or self.world.may_refuse(command.failures)
