"""The clock that clients of one event loop go by: the loop's own, unless somebody has given the loop another.

`nsqkit.testing` gives its loop a clock that is moved by hand; nothing else needs to know of it.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol
from weakref import WeakKeyDictionary


class Timer(Protocol):
    """Something that will happen, unless it is cancelled."""

    def cancel(self) -> None:
        """Let it not happen. Does nothing the second time, or after it happened."""


class ClientClock:
    """Time in seconds, from anywhere, never going back: the loop's."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def now(self) -> float:
        """Seconds."""
        return self._loop.time()

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Have `callback` called in the loop when `now()` is `when`, or soon after."""
        return self._loop.call_at(when, callback)

    async def sleep(self, seconds: float) -> None:
        """Return after this time. A clock that is moved by hand decides when that is."""
        done: asyncio.Future[None] = self._loop.create_future()
        timer = self.call_at(self.now() + seconds, lambda: _wake(done))
        try:
            await done
        finally:
            timer.cancel()


class Nap:
    """A pause that somebody may make shorter. There is one at a time."""

    def __init__(self, clock: ClientClock) -> None:
        self._clock = clock
        self._over = asyncio.Event()
        self._timer: Timer | None = None
        self._end = 0.0

    async def until(self, when: float) -> None:
        """Return at this time of the clock, or sooner if somebody hurries."""
        self._over.clear()
        self._set(when)
        try:
            await self._over.wait()
        finally:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def hurry(self, when: float) -> bool:
        """Let the pause end then, if it would not sooner. False if there is none."""
        if self._timer is None:
            return False
        if when < self._end:
            self._set(when)
        return True

    def _set(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._end = when
        self._timer = self._clock.call_at(when, self._over.set)


_CLOCKS: WeakKeyDictionary[asyncio.AbstractEventLoop, ClientClock] = WeakKeyDictionary()


def clock_of(loop: asyncio.AbstractEventLoop) -> ClientClock:
    """The clock of this loop. Clients ask when they start."""
    return _CLOCKS.get(loop) or ClientClock(loop)


def give_clock(loop: asyncio.AbstractEventLoop, clock: ClientClock | None) -> None:
    """Have clients that start in this loop from now on go by this clock; None: by the loop's own again."""
    if clock is None:
        _CLOCKS.pop(loop, None)
    else:
        _CLOCKS[loop] = clock


def _wake(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)
