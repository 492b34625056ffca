"""Looks at the files of logs now and then: somebody may cut, remove or rename one of a topic to which nothing happens.

A portion of the topics at a time, in a thread, so that each has its turn within seconds. What is wrong is said once,
counted, and in the health until nobody is owed anything of that file (storage/log.py). The data path and the free space
are looked at on the same occasion.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from nsqkit.nsqd.core.broker import Broker
from nsqkit.nsqd.core.topic import Topic
from nsqkit.nsqd.machine import Machine
from nsqkit.nsqd.storage.jobs import LookJob
from nsqkit.nsqd.storage.log import TopicLog
from nsqkit.nsqd.storage.shared import Shared

PORTION: Final = 2000  # topics that are looked at together


class Watch:
    """The timer and the thread. `turn` runs a turn of the broker, if there was something to see."""

    def __init__(self, broker: Broker, shared: Shared, machine: Machine, turn: Callable[[], None]) -> None:
        self._broker = broker
        self._shared = shared
        self._interval = machine.watch_s
        self._turn = turn
        self._loop = asyncio.get_running_loop()
        self._thread = machine.executor("nsqd-watch")
        self._timer: asyncio.TimerHandle | None = None
        self._looking: asyncio.Future[None] | None = None
        self._names: list[str] = []  # of topics that have not had their turn yet

    def start(self) -> None:
        """Look from now on, unless the machine says that nobody else is there."""
        if self._interval > 0:
            self._timer = self._loop.call_later(self._interval, self._look)

    def _look(self) -> None:
        """Begin with a portion of the topics."""
        self._timer = None
        jobs = self._next_jobs()
        self._looking = self._loop.run_in_executor(self._thread, _run, [job for _, job in jobs])
        self._looking.add_done_callback(lambda _: self._looked(jobs))

    def _next_jobs(self) -> list[tuple[Topic, LookJob]]:
        if not self._names:
            self._names = list(self._broker.topics)
        portion, self._names = self._names[:PORTION], self._names[PORTION:]
        jobs: list[tuple[Topic, LookJob]] = []
        for name in portion:
            topic = self._broker.topics.get(name)
            if topic is not None and isinstance(topic.store, TopicLog):
                jobs.append((topic, topic.store.look_job()))
        return jobs

    def _looked(self, jobs: Sequence[tuple[Topic, LookJob]]) -> None:
        self._looking = None
        shared = self._shared
        before = (shared.misplaced, shared.tight())
        if not self._broker.health.reasons:  # otherwise that is looked at each second
            shared.look()
        seen = before != (shared.misplaced, shared.tight())
        if not shared.misplaced:  # otherwise none of the names leads anywhere
            for topic, job in jobs:
                if job.finish() and not topic.deleted:
                    topic.note_change()  # once nobody is owed anything of that file, all is well again
                    seen = True
        self.start()
        if seen:
            self._turn()

    async def stop(self) -> None:
        """Wait for what is running; begin nothing new."""
        self._interval = 0.0
        if self._timer is not None:
            self._timer.cancel()
        if self._looking is not None:
            await asyncio.wait([self._looking])
        self._thread.shutdown()


def _run(jobs: Sequence[LookJob]) -> None:
    for job in jobs:
        job.run()
