"""One run: an nsqd in one mode, load, the faults of one family for some seconds; then everything is drained and judged.

Topics and channels, all made before the first publish:

    orders/ordered    one consumer that only finishes: order is checked
    orders/shared     three consumers that requeue, touch, forget and vanish
    orders/behind     one that is slower than the publishers, so that most of its messages are on disk only
    events/vanishing  two that vanish over and over
"""

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

from faults import checker, facts
from faults.clients import Consumer, Habits, Publisher
from faults.controls import Controls
from faults.facts import now
from faults.machine import SmallDisk, Wire
from faults.proxy import Proxy
from faults.server import HarnessError, Server

MEM_QUEUE_SIZE: Final = 200
TIMEOUT_MS: Final = 1500
CHECKPOINT_MS: Final = 200
JOIN_S: Final = 30.0
DRAIN_S: Final = 45.0
QUIET_S: Final = 1.0  # after the last, clean restart: nothing must come
STALL_S: Final = 0.1  # without CPU for so long, the harness trusts no time

FLAGS: Final = (
    f"--mem-queue-size={MEM_QUEUE_SIZE}",
    f"--checkpoint-interval={CHECKPOINT_MS}ms",
    "--sync-timeout=200ms",
    "--max-bytes-per-file=300000",
)

# topic, what it publishes with, share of the rate
PUBLISHERS: Final = (
    ("orders", "PUB", 0.25),
    ("orders", "MPUB", 0.35),
    ("orders", "DPUB", 0.05),
    ("events", "PUB", 0.15),
    ("events", "MPUB", 0.15),
    ("events", "DPUB", 0.05),
)

_SHARED = Habits(ready=60, requeue=0.04, hold=0.01, forget=0.01, stay_s=4)

# topic, channel, habits of each consumer
CONSUMERS: Final = (
    ("orders", "ordered", (Habits(ready=150),)),
    ("orders", "shared", (_SHARED, _SHARED, _SHARED)),
    ("orders", "behind", (Habits(ready=10, pause_s=0.2),)),
    ("events", "vanishing", (Habits(stay_s=0.7), Habits(ready=5, stay_s=1.5, requeue=0.02))),
)

_WRONG_LINE = re.compile(
    r"Traceback|exception was never retrieved|Exception in callback|Assertion|MemoryError"
)


@dataclass
class Tools:
    """What this run's faults are done with, as far as there is any."""

    controls: Controls
    proxy: Proxy | None = None
    disk: SmallDisk | None = None
    wire: Wire | None = None
    asks: bool = False  # for nsqd's health: it has HTTP all the time, not only in the end
    given_back: bool = False  # --requeue-on-disconnect


@dataclass
class Outcome:
    """What is to be said of a run."""

    name: str
    faults: int
    refused: int
    report: checker.Report
    journal: Path


async def nothing(_: "Run") -> None:
    """The fault undoes itself."""


@dataclass(frozen=True)
class Family:
    """A fault, done over and over, and what is to be done after the last."""

    fault: Callable[["Run", Random], Awaitable[None]]
    after: Callable[["Run"], Awaitable[None]] = nothing


class Run:
    """What clients and faults share: the server, the journal, and how far the run has got."""

    def __init__(self, name: str, mode: str, directory: Path, server: Server, tools: Tools) -> None:
        self.name = name
        self.mode = mode
        self.directory = directory
        self.server = server
        self.tools = tools
        self.timeout_ms = TIMEOUT_MS
        self.published_enough = False
        self.draining = False
        self.over = False
        self.faults = 0
        self.refused = 0
        self.latest_shift_ns = 0  # of the calendar
        self.complaints: list[str] = []
        self._checkpoints: dict[Path, tuple[int, int]] = {}

    @property
    def host(self) -> str:
        """Where clients connect."""
        return "127.0.0.1" if self.tools.proxy else self.server.host

    @property
    def port(self) -> int:
        """Where clients connect."""
        return self.tools.proxy.port if self.tools.proxy else self.server.tcp_port

    @property
    def life(self) -> int:
        """The server's."""
        return self.server.life

    def note(self, fact: facts.AnyFact) -> None:
        """Write a fact down."""
        self.server.journal.note(fact)

    @contextlib.contextmanager
    def disturbing(self, what: str) -> Iterator[None]:
        """Note that times were not to be trusted meanwhile."""
        self.faults += 1
        since = now()
        try:
            yield
        finally:
            self.note(facts.Disturbed(now(), since, what))

    async def play(self, family: Family, chance: Random, rate: float, seconds: float) -> None:
        """The whole of it. HarnessError if it can't go on, or the server does not drain."""
        self.server.http = self.tools.asks
        await self.server.start()
        if self.tools.proxy:
            await self.tools.proxy.start(self.server.host, self.server.tcp_port)
        clients = self._consumers(chance)
        watch = asyncio.create_task(self._watch())
        consumers = [asyncio.create_task(one.live()) for one in clients]
        publishers: list[asyncio.Task[None]] = []
        try:
            async with asyncio.timeout(JOIN_S):
                await asyncio.gather(*(one.joined.wait() for one in clients))
            publishers += [asyncio.create_task(one.live()) for one in self._publishers(chance, rate)]
            await self._attack(family, chance, seconds)
            self.published_enough = True
            await asyncio.gather(*publishers)
            await family.after(self)
            self.draining = True
            if not self.server.http:
                await self.server.stop()
                self.server.http = True
                await self.server.start()
            await self._drained()
            await self.server.stop()
            await self.server.start()
            await asyncio.sleep(QUIET_S)
            await self._drained()
        finally:
            self.over = True
            watch.cancel()
            for task in (*consumers, *publishers):
                task.cancel()
            results = await asyncio.gather(*consumers, *publishers, watch, return_exceptions=True)
            if self.tools.proxy:
                await self.tools.proxy.stop()
            self.server.close()
            for result in results:
                if isinstance(result, Exception):
                    raise result

    async def _attack(self, family: Family, chance: Random, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while loop.time() < end:
            await asyncio.sleep(min(chance.uniform(0.4, 1.6), max(0.0, end - loop.time())))
            if loop.time() < end:
                await family.fault(self, chance)

    def _publishers(self, chance: Random, rate: float) -> list[Publisher]:
        return [
            Publisher(self, f"{topic}-{number}", topic, verb, share * rate, Random(chance.random()))
            for number, (topic, verb, share) in enumerate(PUBLISHERS)
        ]

    def _consumers(self, chance: Random) -> list[Consumer]:
        return [
            Consumer(self, str(number), topic, channel, habits, Random(chance.random()))
            for topic, channel, several in CONSUMERS
            for number, habits in enumerate(several)
        ]

    async def _watch(self) -> None:
        """Note when this process got no CPU: then it saw late what came. And when checkpoints are replaced."""
        pause = STALL_S / 4
        while True:
            before = now()
            await asyncio.sleep(pause)
            after = now()
            if after - before > (pause + STALL_S) * 1e9:
                self.note(facts.Disturbed(after, before, "the harness got no CPU"))
            self._look_at_checkpoints(before, after)

    def _look_at_checkpoints(self, before: int, after: int) -> None:
        for path in self.server.data_path.glob("*/checkpoint"):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                version = (status.st_ino, status.st_mtime_ns)
                if version != self._checkpoints.get(path):
                    self._checkpoints[path] = version
                    self.note(facts.Checkpointed(after, before, path.parent.name))

    async def _drained(self) -> None:
        """Return when every topic and channel is empty. HarnessError if that takes too long."""
        depths: dict[str, int] = {}
        loop = asyncio.get_running_loop()
        give_up = loop.time() + DRAIN_S
        while loop.time() < give_up:
            with contextlib.suppress(OSError):
                depths = depths_of(await self.server.stats())
                if not any(depths.values()):
                    return
            await asyncio.sleep(0.1)
        raise HarnessError(f"not empty after {DRAIN_S:.0f} s: {depths}")

    # -- the verdict

    def judge(self) -> Outcome:
        """Read the journal and the log."""
        rules = checker.Rules(
            kept=self.mode != "memory",
            in_memory=3 * MEM_QUEUE_SIZE + 3 * 60,
            ordered=frozenset({"orders/ordered"}),
            prompt=frozenset({"orders/shared"}),
            given_back=self.tools.given_back,
            refused_may_come=self.mode == "fsync",
        )
        self.server.journal.close()
        report = checker.check(facts.read(self.server.journal.path), rules)
        for complaint in self.complaints:
            report.find("not well", complaint)
        for line in self.server.log().splitlines():
            if _WRONG_LINE.search(line):
                report.find("a line in the log", line)
        return Outcome(self.name, self.faults, self.refused, report, self.server.journal.path)


def depths_of(stats: dict[str, object]) -> dict[str, int]:
    """What waits, is deferred or in flight in each topic and channel."""
    found: dict[str, int] = {}
    topics = stats["topics"]
    assert isinstance(topics, list)
    for topic in topics:
        found[topic["topic_name"]] = topic["depth"]
        for channel in topic["channels"] or []:
            counts = channel["depth"] + channel["in_flight_count"] + channel["deferred_count"]
            found[f"{topic['topic_name']}/{channel['channel_name']}"] = counts
    return found
