"""Publishers and consumers that connect again whenever they are cut off, and note what they said and heard.

Each connection has a name of its own in the journal, such as `events-2.15`. A consumer ends each heap of commands with
a FIN of nothing, which is answered with an error: then everything before it was executed.
"""

import asyncio
import contextlib
import json
import socket
import struct
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from faults import facts
from faults.facts import FIN, OK, REFUSED, REQ, TOUCH, UNKNOWN, now
from nsqkit.wire.frames import HEARTBEAT, MESSAGE, FrameReader

if TYPE_CHECKING:
    from faults.run import Run

CONNECT_S = 3.0
ANSWER_S = 6.0  # a publisher gives up on its connection
SILENCE_S = 3.0  # a consumer does: three heartbeats
HEARTBEAT_MS = 1000
AGAIN_S = 0.05  # until a client that was cut off tries again
READ_BYTES = 1 << 18
CHUNK_S = 0.02  # publishers get going so often

_NOTHING = b"nothing-of-this!"  # 16 bytes, as an id has, and none
_ECHO = b"E_FIN_FAILED FIN " + _NOTHING


class Refused(Exception):
    """nsqd answered with an error; says which."""


class Wire:
    """One V2 connection. Everything raises OSError, EOFError or TimeoutError when it breaks."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._frames = FrameReader()
        self._read: deque[tuple[int, bytes]] = deque()

    @classmethod
    async def open(cls, host: str, port: int, **identity: object) -> "Wire":
        """Connect, and IDENTIFY."""
        async with asyncio.timeout(CONNECT_S):
            reader, writer = await asyncio.open_connection(host, port)
            wire = cls(reader, writer)
            wire.send(b"  V2" + command("IDENTIFY", json.dumps(identity).encode()))
            try:
                await wire.reply()
            except BaseException:
                wire.abort()
                raise
        return wire

    def send(self, data: bytes) -> None:
        """Send bytes. There is little under way at a time, so nobody waits for the socket."""
        if self.writer.is_closing():
            raise EOFError
        self.writer.write(data)

    async def frames(self) -> list[tuple[int, bytes]]:
        """The frames of at least one chunk; maybe none but heartbeats, which are answered here."""
        chunk = await self.reader.read(READ_BYTES)
        if not chunk:
            raise EOFError
        frames = self._frames.feed(chunk)
        kept = [frame for frame in frames if frame[1] != HEARTBEAT]
        if len(kept) != len(frames):
            self.send(b"NOP\n")
        return kept

    async def reply(self) -> bytes:
        """The next response; Refused if it is an error."""
        while not self._read:
            self._read.extend(await self.frames())
        kind, payload = self._read.popleft()
        if kind != 0:
            raise Refused(payload.decode(errors="replace"))
        return payload

    def abort(self) -> None:
        """Hang up without a word: a reset, if anything is left unread."""
        raw = self.writer.get_extra_info("socket")
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


def command(line: str, body: bytes) -> bytes:
    """A command with a body."""
    return line.encode() + b"\n" + struct.pack(">i", len(body)) + body


def batch(bodies: Iterable[bytes]) -> bytes:
    """The body of an MPUB."""
    sized = [struct.pack(">i", len(body)) + body for body in bodies]
    return struct.pack(">i", len(sized)) + b"".join(sized)


class Publisher:
    """Publishes `rate` messages a second to a topic: PUBs of up to `many` at once, or MPUBs, or DPUBs."""

    def __init__(self, run: "Run", name: str, topic: str, verb: str, rate: float, chance: Random) -> None:
        self.run = run
        self.name = name
        self.topic = topic
        self.verb = verb
        self.rate = rate
        self.chance = chance
        self.sessions = 0

    async def live(self) -> None:
        """Publish until the run wants no more."""
        while not self.run.published_enough:
            self.sessions += 1
            with contextlib.suppress(OSError, EOFError, TimeoutError, Refused):
                wire = await Wire.open(self.run.host, self.run.port)
                try:
                    await self._publish(wire, f"{self.name}.{self.sessions}")
                finally:
                    wire.abort()
            await asyncio.sleep(AGAIN_S)

    async def _publish(self, wire: Wire, name: str) -> None:
        serial = number = 0
        loop = asyncio.get_running_loop()
        due = loop.time()
        while not self.run.published_enough:
            count = max(1, round(self.rate * CHUNK_S * self.chance.uniform(0.2, 1.8)))
            due = max(due + count / self.rate, loop.time() - 0.5)  # what was missed is not made up for
            await asyncio.sleep(due - loop.time())
            bodies = [facts.body_of(name, serial + i, self._size()) for i in range(count)]
            heaps = [bodies] if self.verb == "MPUB" else [[body] for body in bodies]
            first = number
            for heap in heaps:
                delay = self.chance.choice((50, 300, 1000, 2500)) if self.verb == "DPUB" else 0
                self.run.note(facts.Published(now(), name, self.topic, number, serial, len(heap), delay))
                wire.send(self._command(heap, delay))
                serial += len(heap)
                number += 1
            await self._answers(wire, name, first, number)

    def _size(self) -> int:
        return self.chance.choice((60, 100, 100, 200, 400, 2000))

    def _command(self, heap: list[bytes], delay: int) -> bytes:
        if self.verb == "MPUB":
            return command(f"MPUB {self.topic}", batch(heap))
        line = f"DPUB {self.topic} {delay}" if self.verb == "DPUB" else f"PUB {self.topic}"
        return command(line, heap[0])

    async def _answers(self, wire: Wire, name: str, first: int, end: int) -> None:
        """Note the answer to each command; those after a refusal get none, as nsqd hangs up."""
        answered = first
        try:
            async with asyncio.timeout(ANSWER_S):
                while answered < end:
                    await wire.reply()
                    self.run.note(facts.Answered(now(), name, answered, OK))
                    answered += 1
        except Refused:
            self.run.note(facts.Answered(now(), name, answered, REFUSED))
            self.run.refused += 1
            answered += 1
            raise
        finally:
            for number in range(answered, end):
                self.run.note(facts.Answered(now(), name, number, UNKNOWN))


@dataclass(frozen=True)
class Habits:
    """What a consumer does with what it gets: shares of messages, in [0, 1], and how long it stays."""

    ready: int = 100
    requeue: float = 0.0
    hold: float = 0.0  # touched, and finished in the end
    forget: float = 0.0  # never finished
    stay_s: float = 0.0  # on average, until it vanishes; 0: it stays
    pause_s: float = 0.0  # after each chunk: a consumer that falls behind


class Consumer:
    """Consumes a channel, with its habits, and with good manners once the run drains."""

    def __init__(
        self, run: "Run", name: str, topic: str, channel: str, habits: Habits, chance: Random
    ) -> None:
        self.run = run
        self.name = name
        self.topic = topic
        self.channel = channel
        self.habits = habits
        self.chance = chance
        self.sessions = 0
        self._wire: Wire
        self._connection = ""
        self.joined = asyncio.Event()  # at least once
        self._joined = False
        self._said = 0  # heaps of commands, on this connection
        self._heard = 0

    async def live(self) -> None:
        """Consume until the run is over."""
        while not self.run.over:
            self.sessions += 1
            self._connection = f"{self.topic}/{self.channel}/{self.name}.{self.sessions}"
            with contextlib.suppress(OSError, EOFError, TimeoutError, Refused):
                identity = {"msg_timeout": self.run.timeout_ms, "heartbeat_interval": HEARTBEAT_MS}
                self._wire = await Wire.open(self.run.host, self.run.port, **identity)
                try:
                    await self._consume()
                finally:
                    self._wire.abort()
                    if self._joined:
                        self.run.note(facts.Left(now(), self._connection))
            await asyncio.sleep(AGAIN_S)

    async def _consume(self) -> None:
        wire = self._wire
        self._joined = False
        self._said = self._heard = 0
        wire.send(f"SUB {self.topic} {self.channel}\n".encode())
        async with asyncio.timeout(CONNECT_S):
            await wire.reply()
        self._joined = True
        self.joined.set()
        life, timeout_ms = self.run.life, self.run.timeout_ms
        self.run.note(facts.Joined(now(), self._connection, self.topic, self.channel, life, timeout_ms))
        wire.send(b"RDY %d\n" % self.habits.ready)
        stay_s = self.habits.stay_s and self.chance.expovariate(1 / self.habits.stay_s)
        loop = asyncio.get_running_loop()
        leave_at = loop.time() + stay_s if stay_s else float("inf")
        while not self.run.over and (self.run.draining or loop.time() < leave_at):
            async with asyncio.timeout(SILENCE_S):
                frames = await wire.frames()
            self._handle(frames)
            if self.habits.pause_s and not self.run.draining:
                await asyncio.sleep(self.habits.pause_s)

    def _handle(self, frames: list[tuple[int, bytes]]) -> None:
        """Note everything in its order, then decide."""
        ids: list[str] = []
        came: list[facts.Delivery] = []
        for kind, payload in frames:
            if kind == MESSAGE:
                attempts, raw_id = struct.unpack_from(">8xH16s", payload)
                ids.append(raw_id.decode())
                came.append(facts.Delivery(ids[-1], attempts, *facts.origin_of(payload[26:])))
                continue
            self._delivered(came)
            came = []
            if payload.startswith(_ECHO):
                self._heard += 1
                self.run.note(facts.Heard(now(), self._connection, self._heard))
            else:
                self._failed(payload.decode(errors="replace"))
        self._delivered(came)
        if ids:
            self._decide(ids)

    def _delivered(self, came: list[facts.Delivery]) -> None:
        if came:
            self.run.note(facts.Delivered(now(), self._connection, came))

    def _failed(self, text: str) -> None:
        words = text.split()
        if len(words) < 3 or words[1] not in (FIN, REQ, TOUCH):
            raise Refused(text)
        self.run.note(facts.Failed(now(), self._connection, words[1], words[2]))

    def _decide(self, ids: list[str]) -> None:
        habits = Habits() if self.run.draining else self.habits
        limits = (habits.requeue, habits.requeue + habits.hold, habits.requeue + habits.hold + habits.forget)
        if not limits[2]:
            self._say(FIN, ids)
            return
        finished = []
        for one in ids:
            luck = self.chance.random()
            if luck < limits[0]:
                self._say(REQ, [one], self.chance.choice((0, 0, 100, 800)))
            elif luck < limits[1]:
                self._hold(one, self._connection, self.chance.randint(1, 3))
            elif luck >= limits[2]:
                finished.append(one)
        if finished:
            self._say(FIN, finished)

    def _hold(self, id: str, connection: str, times: int) -> None:
        wait_s = self.run.timeout_ms / 1000 * 0.6
        asyncio.get_running_loop().call_later(wait_s, self._go_on, id, connection, times)

    def _go_on(self, id: str, connection: str, times: int) -> None:
        if connection != self._connection or self._wire.writer.is_closing():
            return
        if times:
            self._say(TOUCH, [id])
            self._hold(id, connection, times - 1)
        else:
            self._say(FIN, [id])

    def _say(self, verb: str, ids: list[str], delay_ms: int = 0) -> None:
        self._said += 1
        self.run.note(facts.Said(now(), self._connection, verb, ids, delay_ms, self._said))
        delay = b" %d" % delay_ms if verb == REQ else b""
        lines = [b"%s %s%s\n" % (verb.encode(), one.encode(), delay) for one in ids]
        self._wire.send(b"".join(lines) + b"FIN " + _NOTHING + b"\n")
