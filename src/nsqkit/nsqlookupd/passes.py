"""How long the event loop was held up: each pass in which something happens is measured at its end.

Asking for the CPU time costs a system call, so passes that follow each other within SHORT are measured together.
"""

import asyncio
from collections.abc import Callable
from time import perf_counter, thread_time
from typing import Final

SHORT: Final = 0.001  # seconds


class Passes:
    """The longest pass. Whoever does something in one calls `note`."""

    def __init__(
        self, cpu_time: Callable[[], float] = thread_time, now: Callable[[], float] = perf_counter
    ) -> None:
        self.longest = 0.0  # seconds of CPU, give or take SHORT
        self._cpu_time = cpu_time
        self._now = now
        self._cpu_at = cpu_time()
        self._asked_at = now()
        self._noted = False

    def note(self) -> None:
        """Something happens in this pass."""
        if not self._noted:
            self._noted = True
            asyncio.get_running_loop().call_soon(self._measure)

    def _measure(self) -> None:
        self._noted = False
        now = self._now()
        if now - self._asked_at < SHORT:
            return
        self._asked_at = now
        cpu_at = self._cpu_time()
        self.longest = max(self.longest, cpu_at - self._cpu_at)
        self._cpu_at = cpu_at
