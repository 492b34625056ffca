"""Time as brokers and clients of one event loop see it: it runs like real time, and can be moved forward.

`advance` goes from one deadline to the next, whoever has it, and lets the loop come to rest in between, so that all
happens in the order in which it would have happened.

When is the loop at rest? Both nsqd and the clients look at the clock whenever they receive something. So nothing goes
on when nobody asked for the time during a number of passes, and no broker waits for anything.
"""

import asyncio
import itertools
import time
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Final, Protocol

from nsqkit.client.clock import ClientClock, clock_of, give_clock

QUIET: Final = 20  # passes of the loop in which nothing happens, before it counts as being at rest
RESTLESS_S: Final = (
    0.1  # real seconds after which the clock goes on although there is no rest: somebody never stops
)
PATIENCE_S: Final = 1.0  # the same, while a broker waits, be it for clients elsewhere to answer a heartbeat
LOOK_S: Final = 0.0002  # real seconds between two looks at a broker that waits
SECOND: Final = 1_000_000_000  # ns


class Place(Protocol):
    """What goes by this time, beside clients: a broker."""

    def wait(self) -> int | None:
        """Nanoseconds until something is due there; None: nothing is."""

    def turn(self) -> None:
        """Do what is due."""

    def busy(self) -> bool:
        """Whether something goes on that needs no time."""


class VirtualTimer:
    """One call to come."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Let it not happen."""
        self.callback = None


class VirtualTime(ClientClock):
    """The time of one event loop, and the clock of all clients there."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._ahead = 0  # ns
        self._looks = 0  # at the clock
        self._places: list[Place] = []
        self._timers: list[tuple[float, int, VirtualTimer]] = []  # heap
        self._order = itertools.count()
        self._alarm: asyncio.TimerHandle | None = None
        self._moving = asyncio.Lock()

    @staticmethod
    def enter(place: Place) -> "VirtualTime":
        """The time of the running loop, which has it as long as there is a place that goes by it."""
        loop = asyncio.get_running_loop()
        clock = clock_of(loop)
        if not isinstance(clock, VirtualTime):
            clock = VirtualTime(loop)
            give_clock(loop, clock)
        clock._places.append(place)
        return clock

    def leave(self, place: Place) -> None:
        """The place is gone. Does nothing the second time."""
        if place in self._places:
            self._places.remove(place)
        if not self._places and clock_of(self._loop) is self:
            give_clock(self._loop, None)

    # -- what brokers ask

    def calendar(self) -> int:
        """Nanoseconds since the epoch."""
        return time.time_ns() + self._ahead

    def monotonic(self) -> int:
        """Nanoseconds."""
        self._looks += 1
        return time.monotonic_ns() + self._ahead

    # -- what clients ask

    def now(self) -> float:
        """Seconds."""
        self._looks += 1
        return self._now()

    def call_at(self, when: float, callback: Callable[[], None]) -> VirtualTimer:
        """Have it called when the time has come: by itself, or because it was moved."""
        timer = VirtualTimer(callback)
        heappush(self._timers, (when, next(self._order), timer))
        self._set_alarm()
        return timer

    def _now(self) -> float:
        return self._loop.time() + self._ahead / SECOND

    def _next_timer(self) -> float | None:
        while self._timers and self._timers[0][2].callback is None:
            heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        when = self._next_timer()
        if when is not None:
            self._alarm = self._loop.call_at(when - self._ahead / SECOND, self._ring)

    def _ring(self) -> None:
        now = self._now()
        while (when := self._next_timer()) is not None and when <= now:
            timer = heappop(self._timers)[2]
            if timer.callback is not None:
                self._loop.call_soon(timer.callback)
        self._set_alarm()

    # -- moving it

    async def advance(self, seconds: float) -> None:
        """Let so much time pass, and everything happen that is due in it. ValueError if it is negative."""
        if seconds < 0:
            raise ValueError(f"time does not go back: {seconds}")
        async with self._moving:
            await self.settle()
            end = time.monotonic_ns() + self._ahead + round(seconds * SECOND)
            left = end
            while left > 0:
                left = end - time.monotonic_ns() - self._ahead
                step = min([left, *self._waits()])
                self._ahead += max(step, 0)
                left -= step
                for place in self._places:
                    place.turn()
                self._ring()
                await self.settle()

    def _waits(self) -> list[int]:
        """Nanoseconds until the next deadline of each who has one."""
        waits = [wait for place in self._places if (wait := place.wait()) is not None]
        when = self._next_timer()
        if when is not None:
            waits.append(int((when - self._now()) * SECOND) + 1)
        return waits

    async def settle(self) -> None:
        """Return when the loop has come to rest, or never will."""
        began = time.monotonic()
        quiet = 0
        while quiet < QUIET:
            looks = self._looks
            await asyncio.sleep(0)
            waited = time.monotonic() - began
            if waited < PATIENCE_S and any(place.busy() for place in self._places):
                quiet = 0
                await asyncio.sleep(LOOK_S)
            elif waited < RESTLESS_S and looks != self._looks:
                quiet = 0
            else:
                quiet += 1
