"""When the broker gets its turn: at the end of each pass of the event loop, and when an alarm is due.

All connections that were read in a pass share one turn, so they share one write to each log, and each of them is
flushed once. There is one timer, for the broker's next deadline; without one and without bytes nothing runs at all.

Nothing may hold up the loop for long. A turn is where that is measured: each pass in which something happens has one.
"""

import asyncio
from collections.abc import Callable
from time import thread_time
from typing import Final

from mypy_extensions import i64

from nsqkit.clock import Clock
from nsqkit.nsqd.backlog import Backlog
from nsqkit.nsqd.core.broker import Broker

SHORT: Final = 1_000_000  # ns; passes that are shorter are not told apart

_SECOND: Final = 1e9
_LOOK_S: Final = 10.0  # the longest wait for a deadline: somebody may have set the calendar that it goes by


class Turns:
    """`save` sees to it that changed metadata is saved, `after` looks for other work on the side."""

    def __init__(
        self,
        broker: Broker,
        clock: Clock,
        save: Callable[[], None],
        after: Callable[[], None],
        cpu_time: Callable[[], float] = thread_time,
    ) -> None:
        self.longest_pass = 0.0  # seconds of CPU, give or take SHORT
        self.longest_turn: i64 = 0  # ns of time that one turn took
        self._cpu_time = cpu_time
        self._cpu_at = cpu_time()
        self._asked_at: i64 = 0
        self.broker = broker
        self.clock = clock
        self.backlog = Backlog(broker, clock)
        self._save = save
        self._after = after
        self._loop = asyncio.get_running_loop()
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: i64 = 0
        self._run: Callable[[], None] = self._run_scheduled
        self._ring: Callable[[], None] = self._on_timer

    def schedule(self) -> None:
        """Ask for a turn at the end of this pass of the event loop."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._run)

    def _run_scheduled(self) -> None:
        self._scheduled = False
        self.run()

    def run(self) -> None:
        """Do what is due, and answer. One that is scheduled stays so, and is the only one."""
        broker = self.broker
        now = self.clock.now()
        began = now
        if not self.backlog.empty():
            self.backlog.work(now)
            now = self.clock.now()
        broker.work(now)
        if broker.changes.count != broker.changes.saved:
            self._save()
        broker.flush()
        if broker.unsynced or broker.unopened or broker.dirty or broker.health.reasons:
            self._after()
        self._measure(began)
        if broker.busy() or not self.backlog.empty():
            self.schedule()
            return
        when = broker.deadlines.next()
        if when != 0 and (self._timer is None or when < self._timer_at):
            self._set_timer(when, now)

    def forget(self) -> None:
        """Begin anew with the longest ones."""
        self.longest_pass = 0.0
        self.longest_turn = 0

    def _measure(self, began: i64) -> None:
        """What used the CPU since it was asked last did so in one pass, but for SHORT: asking for it costs too much."""
        now: i64 = self.clock.now()
        if now - began > self.longest_turn:
            self.longest_turn = now - began
        if now - self._asked_at < SHORT:
            return
        self._asked_at = now
        cpu_at = self._cpu_time()
        used = cpu_at - self._cpu_at
        self._cpu_at = cpu_at
        if used > self.longest_pass:
            self.longest_pass = used

    def clock_moved(self) -> None:
        """The clock went on, and the loop's did not: do what is due, and set the timer anew."""
        self.stop()
        self._timer = None
        self.run()

    def stop(self) -> None:
        """Set no timer any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _set_timer(self, when: i64, now: i64) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = when
        wait: i64 = when - now
        self._timer = self._loop.call_later(min(max(float(wait) / _SECOND, 0.0), _LOOK_S), self._ring)

    def _on_timer(self) -> None:
        self._timer = None
        self.run()
