"""Taking a node out of service: nothing comes in any more, consumers go on, and nsqd ends when nothing is left.

Nothing is left when no topic or channel has a message that waits, is in flight or is deferred, paused or not. As
nothing comes in, what was found empty stays so: each topic and channel is looked at until it is empty, one after the
other, and none again. What is left when the time is over is counted, kept, and there at the next start.

nsqlookupds go on naming this nsqd: consumers that start meanwhile must find what is left here.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

from nsqkit.log import Log
from nsqkit.nsqd.core.broker import Broker
from nsqkit.nsqd.core.channel import Channel
from nsqkit.nsqd.core.topic import Topic
from nsqkit.options.duration import Duration
from nsqkit.web.long_answer import Slices

LOOK_S: Final = 0.1  # between two looks at what is not empty
VISITS: Final = 100  # topics and channels looked at in one pass of the loop


class Drain:
    """The one drain of a daemon. `over` is called when it may stop."""

    def __init__(
        self,
        broker: Broker,
        log: Log,
        slices: Slices,
        now: Callable[[], int],
        over: Callable[[], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._broker = broker
        self._log = log
        self._slices = slices
        self._now = now
        self._over = over
        self._sleep = sleep
        self._task: asyncio.Task[None] | None = None

    def begin(self, most: int) -> None:
        """Take nothing in any more. It may last at most that long, in ns; 0: as long as it takes."""
        self._broker.draining = True
        limit = f", or in {Duration(most)}" if most else ""
        self._log.info(f"DRAIN: publishes are refused; nsqd ends when every message is finished{limit}")
        self._task = asyncio.get_running_loop().create_task(self._run(most))
        self._task.add_done_callback(self._done)

    def stop(self) -> None:
        """Look no more: the daemon stops."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self, most: int) -> None:
        began = self._now()
        if await self._emptied(began + most if most else 0):
            self._log.info(f"DRAIN: every message is finished, after {Duration(self._now() - began)}")
        else:
            waiting, in_flight, deferred = await self._left()
            self._log.warning(
                f"DRAIN: --drain-timeout is over, and {waiting + in_flight + deferred} messages are left: {waiting} "
                f"waiting, {in_flight} in flight, {deferred} deferred; but for ephemeral ones they are kept, and "
                f"delivered after the next start"
            )
        self._over()

    async def _emptied(self, end: int) -> bool:
        """Return when nothing is left. False: not before `end`."""
        for number, one in enumerate(self._all()):
            if number % VISITS == 0:
                await self._slices.turn()
            while self._broker.published or coming(one) or sum(owed(one)):
                if end and self._now() >= end:
                    return False
                await self._sleep(LOOK_S)
        return True

    async def _left(self) -> tuple[int, int, int]:
        """How many messages wait, are in flight, and are deferred."""
        totals = [0, 0, 0]
        for number, one in enumerate(self._all()):
            if number % VISITS == 0:
                await self._slices.turn()
            totals = [total + count for total, count in zip(totals, owed(one), strict=True)]
        return totals[0], totals[1], totals[2]

    def _all(self) -> Iterator[Topic | Channel]:
        """Each topic before its channels, which get what waits there."""
        for topic in list(self._broker.topics.values()):
            yield topic
            yield from list(topic.channels.values())

    def _done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error(f"DRAIN: a defect of ours: {error!r}")
            self._over()


def coming(one: Topic | Channel) -> bool:
    """Does the log of a topic have to be opened before what was published gets there?"""
    return isinstance(one, Topic) and one.opening and not one.deleted


def owed(one: Topic | Channel) -> tuple[int, int, int]:
    """Messages that wait, are in flight, and are deferred."""
    if one.deleted:
        return 0, 0, 0
    if isinstance(one, Topic):
        return one.depth(), 0, 0
    return one.queue.depth(), one.in_flight_count, one.deferred_count()
