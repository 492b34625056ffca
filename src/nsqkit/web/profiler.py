"""A sampling CPU profiler: which Python functions does the event loop's thread spend its CPU time in?

A thread looks at the loop's stack 100 times a second and books the CPU time used since the last look on it. Waiting
costs nothing and does not show. The result is in "collapsed stacks", one line each, which flame graph tools read:

    nsqkit.nsqd.daemon.Nsqd.turn;nsqkit.nsqd.core.topic.Topic.commit 41250        (CPU microseconds)

Compiled functions have no Python frame: their time is booked on whoever called them. To see inside, run an uncompiled
build, or `perf`. Where the system has no CPU clock per thread (macOS), wall time is booked instead.
"""

import asyncio
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Final

INTERVAL: Final = 0.01
"""Seconds between two looks."""


class ProfilerBusy(Exception):
    """There is a profile being taken already."""


class Profiler:
    """Takes one profile at a time."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    async def profile(self, seconds: float) -> str:
        """Watch the calling thread for so many seconds; its collapsed stacks. ProfilerBusy if one is under way."""
        if self._thread is not None:
            raise ProfilerBusy
        loop = asyncio.get_running_loop()
        done: asyncio.Future[str] = loop.create_future()
        watched = threading.get_ident()

        def watch() -> None:
            result = collapsed_stacks(watched, seconds, self._stop)
            loop.call_soon_threadsafe(_deliver, done, result)

        self._stop.clear()
        self._thread = threading.Thread(target=watch, name="profiler", daemon=True)
        self._thread.start()
        try:
            return await done
        finally:
            self.stop()

    def stop(self) -> None:
        """End the profile that is being taken, if there is one."""
        thread = self._thread
        if thread is not None:
            self._stop.set()
            thread.join()
            self._thread = None


def collapsed_stacks(watched: int, seconds: float, stop: threading.Event) -> str:
    """Sample a thread, which must stay alive, until the time is over or `stop` is set."""
    clock = _cpu_clock(watched)
    spent: Counter[str] = Counter()
    end = time.monotonic() + seconds
    before = clock()
    while time.monotonic() < end and not stop.wait(INTERVAL):
        now = clock()
        microseconds = (now - before) // 1000
        if microseconds > 0:
            before = now
            frame = sys._current_frames().get(watched)  # noqa: SLF001 - the documented way to do this
            spent[_stack(frame)] += microseconds
    return "".join(f"{stack} {microseconds}\n" for stack, microseconds in spent.most_common())


def _cpu_clock(thread: int) -> Callable[[], int]:
    """The CPU time that a thread has used, in ns."""
    if not hasattr(time, "pthread_getcpuclockid"):
        return time.monotonic_ns
    clock = time.pthread_getcpuclockid(thread)
    return lambda: time.clock_gettime_ns(clock)


def _stack(frame: FrameType | None) -> str:
    """Outermost function first."""
    names: list[str] = []
    while frame is not None:
        names.append(f"{frame.f_globals.get('__name__', '?')}.{frame.f_code.co_qualname}")
        frame = frame.f_back
    return ";".join(reversed(names)) or "?"


def _deliver(done: asyncio.Future[str], result: str) -> None:
    if not done.done():
        done.set_result(result)
