"""Python's garbage collector, kept from holding up the event loop.

Nearly everything here is freed at the moment nobody needs it, for nothing of ours is left in a cycle. The collector
finds the few cycles that come about all the same; but a full collection looks at every object there is, which takes
0.1 s beside 10,000 topics, and comes when it wants: in the midst of the most work. So:

young   what was made lately is looked at as always, a few thousand objects at a time
frozen  what is still there then is put aside, where no collection looks (gc.freeze); that costs nothing
full    garbage among what was frozen is found when the loop is idle, or after ten minutes in which it never was

The collector belongs to the whole process. So this is for programs; a daemon that is embedded leaves it alone, and
whoever embeds it may do likewise: `with Garbage(loop):`.
"""

import asyncio
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Self

LOOK_S: Final = 1.0  # between two looks whether the loop is idle, while something frozen was not looked at
IDLE: Final = 0.01  # of the CPU that the loop's thread may use then
REST: Final = 10_000  # a full collection is followed by so many times its length without one
AT_LATEST_S: Final = 600.0  # then there is one, idle or not

_NEVER: Final = 1 << 30


class Garbage:
    """Takes over the collector of the process, from `start` to `stop`, both in the thread of the loop."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, cpu_time: Callable[[], float] = time.thread_time
    ) -> None:
        self._loop = loop
        self._cpu_time = cpu_time  # of the loop's thread, in seconds
        self._thresholds = gc.get_threshold()
        self._wanted = False  # something was frozen since the last full collection
        self._timer: asyncio.TimerHandle | None = None
        self._cpu_at = 0.0
        self._not_before = 0.0  # in the loop's time
        self._at_latest = 0.0

    def start(self) -> None:
        """Freeze what there is, and let no full collection come by itself."""
        self._thresholds = gc.get_threshold()
        gc.set_threshold(*self._thresholds[:2], _NEVER)
        gc.callbacks.append(self._collected)
        gc.freeze()

    def stop(self) -> None:
        """Leave the collector as it was found."""
        gc.callbacks.remove(self._collected)
        gc.set_threshold(*self._thresholds)
        gc.unfreeze()
        if self._timer is not None:
            self._timer.cancel()

    def _collected(self, phase: str, about: dict[str, int]) -> None:
        """A collection begins or ends, in whichever thread."""
        if phase == "stop" and about["generation"] > 0:
            gc.freeze()
            if not self._wanted:
                self._wanted = True
                self._loop.call_soon_threadsafe(self._begin_to_look)

    def _begin_to_look(self) -> None:
        self._at_latest = self._loop.time() + AT_LATEST_S
        self._look_later()

    def _look_later(self) -> None:
        self._cpu_at = self._cpu_time()
        self._timer = self._loop.call_later(LOOK_S, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        idle = self._cpu_time() - self._cpu_at < IDLE * LOOK_S
        if (idle and now >= self._not_before) or now >= self._at_latest:
            self._collect(now)
        else:
            self._look_later()

    def _collect(self, now: float) -> None:
        began = self._cpu_time()
        with thawed():
            gc.collect()
        self._not_before = now + REST * (self._cpu_time() - began)
        self._timer = None
        self._wanted = False

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()


@contextmanager
def thawed() -> Iterator[None]:
    """Let the collector see what was frozen, too; if something was, it is frozen again at the end."""
    frozen = gc.get_freeze_count()
    gc.unfreeze()
    try:
        yield
    finally:
        if frozen:
            gc.freeze()
