"""The daemon's clock: ns since the epoch, never going back, and never moved by somebody who sets the calendar.

Timeouts and delays must be what they were promised to be, while times that outlast a restart need the calendar. So this
clock starts where the calendar is, and runs with one that goes on while the machine sleeps.
"""

import time
from collections.abc import Callable
from typing import Final

from mypy_extensions import i64

_SLEEPLESS: Final[int] = getattr(
    time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC
)  # macOS: the latter counts sleep


def _since_boot() -> int:
    return time.clock_gettime_ns(_SLEEPLESS)


class Clock:
    """Ask `now` for the time. The two sources are replaced in tests."""

    def __init__(
        self, calendar: Callable[[], int] = time.time_ns, monotonic: Callable[[], int] = _since_boot
    ) -> None:
        self._monotonic = monotonic
        self._offset: i64 = calendar() - monotonic()

    def now(self) -> i64:
        """Nanoseconds since the epoch."""
        return i64(self._monotonic()) + self._offset
