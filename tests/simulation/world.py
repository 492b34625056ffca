"""The world: one machine with one disk, one nsqd at a time, clients, and operators who stop and kill it.

`run` executes steps; after each of them the books must be balanced, and in the end everything owed must come.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any, Final

from nsqkit.errors import StartError
from nsqkit.names import is_ephemeral
from nsqkit.nsqd.core.channel import Channel
from nsqkit.nsqd.core.topic import Topic
from nsqkit.nsqd.saver import METADATA
from tests.simulation import machine, operators
from tests.simulation.books import Violation
from tests.simulation.client import Client
from tests.simulation.disk import Died, SimulatedDisk
from tests.simulation.drain import drain
from tests.simulation.loop import Loop, running
from tests.simulation.model import Model
from tests.simulation.node import Lines, Process, options_of
from tests.simulation.steps import MS, SECOND, Step
from tests.simulation.system import SimulatedMachine

BEGIN: Final = 1_700_000_000 * SECOND
CALM: Final = 3 * MS  # a job that takes no longer is no trouble
START: Final = 2 * MS  # for a process to start; ids have ticks of a millisecond
DOWN: Final = (0, 10 * MS, SECOND, 40 * SECOND)  # times between a stop and a start
MOST_CLIENTS: Final = 8


class World:
    """Everything there is, from a configuration."""

    def __init__(self, config: dict[str, Any], *, trace: bool = False) -> None:
        self.config = config
        self._options = options_of(config)
        self.counts: Counter[str] = Counter()
        self.trace: list[str] = []
        self._tracing = trace
        self.disk = SimulatedDisk(config["sector"])
        self.disk.counts = self.counts
        self.disk.trouble = self.trouble
        self.disk.removed = self.removed
        self.model = Model(config["durability"], config, config["max_msg_timeout"])
        self.model.counts = self.counts
        self.chance = Random(0)
        self.log = Lines()
        self.loop = Loop(BEGIN, self.duration)
        self.process: Process | None = None
        self.clients: list[Client] = []
        self.numbers = 0
        self.layers = config.get("layers", 0)  # each client, or the second one, …, has a layer; 0: nobody
        self.opens_later = config.get(
            "opens_later", 0
        )  # a thread makes the logs of new topics, or the loop does
        self.bodies = 0
        self.slow = 0  # jobs that will take long
        self.held = False  # the loop waits for the next step
        self.touching = ""  # the topic that an operator is changing
        self.broken = False  # a call of the disk failed since it was healed
        self.failures = 0  # calls that failed
        self.failing = False  # one did, since the disk was healed
        self.slow_jobs = 0  # that are being done
        self.interrupted = False  # the process died in the middle of something
        self.unsaved = False  # the metadata on the disk may be old
        self.stopping = False
        self._ephemeral: dict[tuple[str, str], Topic | Channel] = {}  # those that were seen last

    # -- to be told

    def note(self, line: str) -> None:
        """A line of the trace."""
        if self._tracing:
            self.trace.append(f"{(self.loop.now - BEGIN) / SECOND:14.6f}  {line}")

    def trouble(self, what: str) -> None:
        """A call of the disk failed."""
        self.broken = True
        self.failures += 1
        if not self.failing:
            self.failing = True
            self.model.trouble(self.loop.now, over=False)
        self.note(f"trouble: {what}")

    def removed(self, path: str) -> None:
        """A file is gone."""
        self.counts["segment removed"] += path.endswith(".log") and self.loop.in_job

    def may_refuse(self, failures: int) -> bool:
        """Is there a reason for an error to what was sent when so many calls had failed?"""
        if self.process is None or self.process.broker.exiting:
            return True
        # A save of the metadata that failed may be answered after the disk was healed; the next one is a second away.
        unsaved = METADATA in self.process.broker.health.reasons
        return self.broken or unsaved or self.failures > failures

    def relied(self, topic: str, channel: str) -> None:
        """A client was told that these are there; the channel may be "" for none."""
        book = self.model.topics.get(topic)
        if book is not None:
            book.saved = True
            if channel in book.channels:
                book.channels[channel].saved = True

    def duration(self, _: str) -> int:
        """How long a job of an executor takes."""
        if self.slow <= 0:
            return self.chance.randint(100_000, CALM)
        self.slow -= 1
        duration = self.chance.choice((50 * MS, 700 * MS, 3 * SECOND))
        self.counts["slow job"] += 1
        self.slow_jobs += 1
        self.model.trouble(self.loop.now, over=False)
        self.loop.call_in(duration + 1, self._slow_job_done)
        return duration

    def _slow_job_done(self) -> None:
        self.slow_jobs -= 1
        self.model.trouble(self.loop.now, over=True)

    # -- the life of a process

    def start(self) -> None:
        """Start nsqd; a disk that fails is healed after some tries."""
        self.model.trouble(self.loop.now, over=False)  # nothing is synced while nothing runs
        for attempt in range(4):
            self.loop = Loop(self.loop.now + START + self.chance.choice(DOWN), self.duration)
            self.clients = []
            self.process = None
            self._ephemeral = {}
            try:
                with running(self.loop):
                    board = SimulatedMachine(self.disk, self.loop, self.model.calendar, Random(1))
                    self.process = Process(self._options, self.log, board)
                    self.loop.complete(self.process.start(), SECOND)
            except StartError as error:
                self.note(f"no start: {error}")
                if not self.broken:
                    raise Violation("no start", str(error)) from error
                self.counts["start failed"] += 1
                self.disk.kill()
                if attempt == 2:
                    self.heal()
            except Died as death:
                self.note(f"died at the start: {death}")
                self._die(self.chance.random() < 0.4)
            else:
                self._started()
                return
        raise Violation("no start", "four times")

    def _started(self) -> None:
        assert self.process is not None
        self.model.trouble(self.loop.now, over=True)
        topics = self.process.broker.topics
        self.process.storage.opens_later = bool(self.opens_later)
        self.counts["torn end cut off"] += int(self.process.storage.shared.torn_count)
        self._tally()
        self.model.found(
            self.process.there(),
            {name: topic.paused for name, topic in topics.items()},
            certain=not self.unsaved and not self.interrupted,
        )
        self.unsaved = self.interrupted = False
        self._pass()

    def _tally(self) -> None:
        """Count what the log tells of."""
        for line in self.log.lines:
            self.counts["journal replayed"] += "JOURNAL" in line
            self.counts["damage passed over"] += "damaged bytes" in line

    def end(self, how: str) -> None:
        """The process ends: "restart", "kill" or "cut"."""
        if how == "restart":
            self._stop()
        else:
            self._die(how == "cut")
        self.start()

    def _stop(self) -> None:
        assert self.process is not None
        failures = self.failures
        failing = self.failing
        self.stopping = True
        with running(self.loop):
            self.loop.complete(self.process.stop(), 60 * SECOND)
            self.loop.run_ready()
        self.stopping = False
        self.counts["clean stop"] += 1
        leaks = self.disk.opened()
        now = self.loop.now
        self.unsaved = self.process.broker.changes.pending()
        if not self.unsaved:
            self.model.saved()
        if failing or self.failures != failures:
            self.model.killed(now, self.clients)
            self.model.stopped_badly()
        else:
            self.model.stopped(now, self.clients)
            if leaks:
                raise Violation("files left open", ", ".join(leaks))
        self.disk.kill()
        self._end_slow_jobs()

    def _end_slow_jobs(self) -> None:
        while self.slow_jobs:
            self._slow_job_done()

    def _die(self, cut: bool) -> None:
        """Kill the process, or cut the power."""
        now = self.loop.now
        if self.touching:
            self.interrupted = True
            self.model.doubt(self.touching)
            self.touching = ""
        if self.disk.unsynced():
            self.counts["cut with unsynced data" if cut else "kill with unsynced data"] += 1
        if cut:
            self.counts["cut"] += 1
            self.model.lost_power(now, self.clients)
            self.disk.cut(self.chance)
        else:
            self.counts["kill"] += 1
            self.model.killed(now, self.clients)
            self.disk.kill()
        if self.stopping:
            self.stopping = False
            self.model.stopped_badly()
        self._end_slow_jobs()
        self.process = None

    def heal(self) -> None:
        """The disk is well again."""
        self._well_again()
        self.disk.heal()
        self.broken = False
        self.slow = 0

    def _well_again(self) -> None:
        if self.failing:
            self.failing = False
            self.model.trouble(self.loop.now, over=True)

    # -- steps

    def run(self, steps: list[Step], *, finish: bool = True) -> None:
        """Execute them all, and look whether everything owed comes in the end."""
        callbacks = list(gc.callbacks)
        try:
            self._run(steps, finish=finish)
        finally:
            gc.callbacks[:] = callbacks  # a killed daemon leaves its own

    def _run(self, steps: list[Step], *, finish: bool) -> None:
        self.start()
        for number, step in enumerate(steps):
            self.note(f"-- {number} {step}")
            self.counts["steps"] += 1
            self.chance.seed(step[4])
            self.disk.chance = self.chance
            self._step(step)
        if finish:
            self.note("-- the end")
            self.chance.seed(len(steps))
            drain(self)

    def _step(self, step: Step) -> None:
        name, a, b, c, _ = step
        self.held = False
        if self.failing and self.disk.well():
            self._well_again()
        try:
            with running(self.loop):
                steps = machine if hasattr(machine, name) else operators
                act: Callable[[World, int, int, int], None] = getattr(steps, name)
                act(self, a, b, c)
                self.touching = ""
                if not self.held:
                    self._pass()
        except Died as death:
            self.note(str(death))
            self.interrupted = True
            self.end("cut" if self.chance.random() < 0.5 else "kill")
        self._show_log()

    def _pass(self) -> None:
        """What is ready is done, and the books are compared."""
        with running(self.loop):
            self.loop.run_ready()
        self.settle()

    def settle(self) -> None:
        """A turn is over."""
        process = self.process
        if process is None:
            return
        self.counts["carried forward"] += process.carried()
        self.observe()
        self.model.turned(self.loop.now, process.opening())
        self._forget_ephemeral()
        self.unsaved = process.broker.changes.pending()
        if not self.unsaved:
            self.model.saved()
        process.check()
        self._show_log()

    def _show_log(self) -> None:
        for line in self.log.lines:
            self.note(f"log: {line}")
        self.log.lines.clear()

    def catch_up(self) -> None:
        """Before a client's bytes are executed: tell the checker what came of those before."""
        self.observe()
        if self.process is not None and not self.process.broker.published:
            self.model.turned(
                self.loop.now, self.process.opening()
            )  # what was published before has gone where it belongs

    def observe(self) -> None:
        """Tell the checker which topics and channels there are."""
        process = self.process
        if process is None:
            return
        model, now = self.model, self.loop.now
        there = process.broker.topics
        for name, topic in there.items():
            self._see_ephemeral(topic)
            book = model.topics.get(name)
            if book is None:
                model.created(name, "", now)
                book = model.topics[name]
            if len(book.channels) != len(topic.channels) or book.channels.keys() != topic.channels.keys():
                for channel in topic.channels:
                    model.created(name, channel, now)
                for channel in list(book.channels):
                    if channel not in topic.channels and not is_ephemeral(channel) and not topic.ephemeral:
                        raise Violation("channel vanished", f"{name}:{channel}")
        for name in list(model.topics):
            if name not in there and not is_ephemeral(name):
                if not self.broken:
                    raise Violation("topic vanished", name)
                model.removed(name, "", now)

    def _see_ephemeral(self, topic: Topic) -> None:
        """An ephemeral one may go, and another of its name come, within a turn."""
        all_of_it: list[tuple[str, Topic | Channel]] = [("", topic), *topic.channels.items()]
        for name, one in all_of_it:
            if not one.ephemeral:
                continue
            before = self._ephemeral.get((topic.name, name), one)
            self._ephemeral[topic.name, name] = one
            book = self.model.topics.get(topic.name)
            if before is not one and book is not None and (not name or name in book.channels):
                self.model.removed(topic.name, name, self.loop.now)

    def _forget_ephemeral(self) -> None:
        process = self.process
        assert process is not None
        there = process.broker.topics
        for name, book in list(self.model.topics.items()):
            if name not in there:
                self.model.removed(name, "", self.loop.now)
                continue
            for channel in list(book.channels):
                if channel not in there[name].channels:
                    self.model.removed(name, channel, self.loop.now)

    # -- helpers of the steps

    def client(self, timeout: int = 0) -> Client:
        """A new client, which has said the magic, and the message timeout (ms) that it wants, if it does.

        The oldest goes if there are too many.
        """
        live = self.live()
        if len(live) >= MOST_CLIENTS:
            live[0].hang_up(None)
        self.numbers += 1
        layered = self.layers > 0 and self.numbers % self.layers == 0
        client = Client(self, self.numbers, self.config["high_water"], layered=layered)
        self.clients.append(client)
        client.send(b"  V2", lambda: None)
        client.identify(timeout)
        return client

    def live(self) -> list[Client]:
        """Clients with an open connection."""
        self.clients = [client for client in self.clients if not client.lost]
        return [client for client in self.clients if not client.dead]

    def pick(self, number: int, fits: Callable[[Client], bool]) -> Client | None:
        """One of the clients."""
        some = [client for client in self.live() if fits(client)]
        return some[number % len(some)] if some else None

    def new_bodies(self, count: int, size: int) -> list[bytes]:
        """Bodies that nobody else has."""
        self.bodies += count
        return [b"%d" % n + b"." * size for n in range(self.bodies - count, self.bodies)]
