"""The soak's load: steady topics at a rate, and beside them topics, channels and clients that come and go.

Bodies begin with the monotonic time at which they were sent, so each delivery tells its latency.
"""

import asyncio
import contextlib
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from random import Random
from typing import Final

from faults.clients import Refused, Wire, batch, command
from faults.server import Server
from nsqkit.wire.frames import MESSAGE

STEADY: Final = tuple(f"steady-{number}" for number in range(4))
CHANNELS: Final = ("one", "two")
BATCH: Final = 20  # messages of an MPUB; one publisher in four sends PUBs instead
READY: Final = 200
TIMEOUT_MS: Final = 10_000
STAY_S: Final = 20.0  # on average, until a consumer is replaced
GUEST_S: Final = 8.0  # how long a topic that comes and goes is there
FILLING: Final = b"." * 192
REQUEUED: Final = 0.01
DEFERRED: Final = 0.01
SILENCE_S: Final = 60.0

_STAMP: Final = struct.Struct(">q")
_GONE = (OSError, EOFError, TimeoutError, Refused)


class Load:
    """Counts of what happened, and the latencies (in ns) since they were last taken."""

    def __init__(self, server: Server, rate: float, chance: Random) -> None:
        self.server = server
        self.rate = rate  # messages a second, on all steady topics together; 0: as fast as they are answered
        self.chance = chance
        self.published = 0  # answered OK, on steady topics
        self.finished = 0
        self.delivered = 0
        self.requeued = 0
        self.deferred = 0
        self.visits = 0  # of guests: topics that came and went
        self.connects = 0
        self.failures = 0  # of clients, that nobody meant to fail
        self.latencies: list[int] = []
        self.ending = False  # nothing more is to be published
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin, in the background."""
        jobs: list[Callable[[], Awaitable[None]]] = []
        for topic in STEADY:
            for channel in CHANNELS:
                jobs.append(lambda topic=topic, channel=channel: self._consume(topic, channel))  # type: ignore[misc]
        for number, topic in enumerate(STEADY):
            many = 1 if number == 0 else BATCH
            jobs.append(lambda topic=topic, many=many: self._publish(topic, many))  # type: ignore[misc]
        jobs.append(self._invite)
        self._tasks = [asyncio.create_task(self._forever(job)) for job in jobs]

    async def stop(self) -> None:
        """Cut every client off."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _forever(self, job: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await job()
            except _GONE:
                self.failures += 1
                await asyncio.sleep(0.2)

    @contextlib.asynccontextmanager
    async def _wire(self) -> AsyncIterator[Wire]:
        self.connects += 1
        wire = await Wire.open(self.server.host, self.server.tcp_port, msg_timeout=TIMEOUT_MS)
        try:
            yield wire
        finally:
            wire.abort()

    # -- steady topics

    async def _publish(self, topic: str, many: int) -> None:
        """MPUBs of `many`, or PUBs, one at a time; now and then a DPUB."""
        share = (0.1 if many == 1 else 0.3) * self.rate
        async with self._wire() as wire:
            due = time.monotonic()
            while not self.ending:
                if share:
                    due = max(due + many / share, time.monotonic() - 0.2)
                    await asyncio.sleep(due - time.monotonic())
                body = _STAMP.pack(time.monotonic_ns()) + FILLING
                if many > 1:
                    wire.send(command(f"MPUB {topic}", batch([body] * many)))
                elif self.chance.random() < DEFERRED * 10:
                    delay_ms = self.chance.randint(100, 30_000)
                    wire.send(command(f"DPUB {topic} {delay_ms}", _STAMP.pack(0) + FILLING))
                    self.deferred += 1
                else:
                    wire.send(command(f"PUB {topic}", body))
                async with asyncio.timeout(SILENCE_S):
                    await wire.reply()
                self.published += many
        await asyncio.Event().wait()

    async def _consume(self, topic: str, channel: str) -> None:
        """Finish nearly everything; leave in the middle of it after a while."""
        async with self._wire() as wire:
            await self._subscribe(wire, topic, channel)
            leave_at = time.monotonic() + self.chance.expovariate(1 / STAY_S)
            while self.ending or time.monotonic() < leave_at:
                async with asyncio.timeout(SILENCE_S):
                    frames = await wire.frames()
                self._settle(wire, frames)

    def _settle(self, wire: Wire, frames: list[tuple[int, bytes]]) -> None:
        now = time.monotonic_ns()
        said: list[bytes] = []
        for kind, payload in frames:
            if kind != MESSAGE:
                continue
            stamp = _STAMP.unpack_from(payload, 26)[0]
            again = payload[8:10] != b"\0\1"
            if stamp and not again:
                self.latencies.append(now - stamp)
            if not again and self.chance.random() < REQUEUED:
                said.append(b"REQ %s %d\n" % (payload[10:26], self.chance.choice((0, 100, 5000))))
                self.requeued += 1
            else:
                said.append(b"FIN %s\n" % payload[10:26])
        self.delivered += len(said)
        wire.send(b"".join(said))

    async def _subscribe(self, wire: Wire, topic: str, channel: str) -> None:
        wire.send(f"SUB {topic} {channel}\n".encode())
        async with asyncio.timeout(SILENCE_S):
            await wire.reply()
        wire.send(b"RDY %d\n" % READY)

    # -- guests

    async def _invite(self) -> None:
        """A new topic each second, until the end."""
        async with asyncio.TaskGroup() as guests:
            while not self.ending:
                self.visits += 1
                guests.create_task(self._visit(self.visits))
                await asyncio.sleep(1)
        await asyncio.Event().wait()

    async def _visit(self, number: int) -> None:
        """A topic that nobody has seen before: filled, half consumed, deleted. Every third is ephemeral."""
        ephemeral = "#ephemeral" if number % 3 == 0 else ""
        topic = f"guest-{number}{ephemeral}"
        try:
            async with self._wire() as consumer, self._wire() as publisher:
                await self._subscribe(
                    consumer, topic, f"first{ephemeral}"
                )  # the last one takes its topic along
                async with self._wire() as other:
                    await self._subscribe(other, topic, "second#ephemeral")
                    for _ in range(5):
                        publisher.send(command(f"MPUB {topic}", batch([_STAMP.pack(0) + FILLING] * BATCH)))
                        await publisher.reply()
                    await other.frames()
                publisher.send(command(f"DPUB {topic} 60000", _STAMP.pack(0) + FILLING))
                await publisher.reply()
                self._settle(consumer, await consumer.frames())
                await asyncio.sleep(GUEST_S)
            if not ephemeral:
                await self.server.ask("POST", f"/channel/delete?topic={topic}&channel=first")
                await self.server.ask("POST", f"/topic/delete?topic={topic}")
        except _GONE:
            self.failures += 1
