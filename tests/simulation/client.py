"""A client and its connection: bytes go to the broker in any pieces, frames come back and are compared in order."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from nsqkit.names import is_ephemeral
from nsqkit.nsqd.connection import Connection
from tests.simulation.books import Command, Flight, Violation

if TYPE_CHECKING:
    from tests.simulation.world import World

RESPONSE: Final = 0
ERROR: Final = 1
MESSAGE: Final = 2

ANSWERS: Final = {"CLS": b"CLOSE_WAIT"}  # of commands that are not answered OK


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

    def __init__(self, world: World, number: int, high: int) -> None:
        self.world = world
        self.number = number
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
        self.transport = Transport(self, high)
        process = world.process
        assert process is not None
        self.connection = Connection(process.turns, process.connections)
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

    def flow(self, most: int) -> None:
        """Let up to `most` bytes arrive."""
        if self.dead or self.half_closed or not self.transport.reading:
            return
        chunk = b""
        while self._outgoing and most > 0:
            data, execute = self._outgoing.popleft()
            if len(data) > most:
                self._outgoing.appendleft((data[most:], execute))
                data = data[:most]
                self._partial = True
            else:
                self._partial = False
                execute()
            most -= len(data)
            chunk += data
        if chunk:
            self.connection.data_received(chunk)
            self.world.observe()

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
        world.model.delivered(self, message_id, body, attempts, world.loop.now)
        (self._unread if self.stalled else self.inbox).append(message_id)

    def _answer_heartbeat(self) -> None:
        if not self.stalled:
            self.send(b"NOP\n", lambda: None)
            if not self._partial:
                self.flow(1 << 20)

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
            if error and (self.half_closed or self._partial):
                return  # the last command was cut short, or is wrong in its first line
            raise Violation("reply to nothing", f"{payload!r} to client {self.number}")
        command = self.awaited.popleft()
        if error:
            self._fail(command, code, payload)
        elif payload != ANSWERS.get(command.name, b"OK") or command.name == "garbage":
            raise Violation("wrong reply", f"{payload!r} to {command.name}")
        else:
            command.state = "ok"
            if command.name == "SUB":
                self.world.relied(self.topic, self.channel)
            if command.publish is not None:
                model.settled(command.publish, "ok", self.world.loop.now)
                self.world.relied(command.publish.topic, "")

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
        """Is there a reason? An ephemeral topic may go, with its last consumer, in the turn that it is published in."""
        publish = command.publish
        gone = publish is not None and is_ephemeral(publish.topic) and payload.endswith(b" exiting")
        return gone or self.world.may_refuse(command.failures)
