"""The daemon's clock: ns since the epoch, never going back.

Timeouts must not depend on somebody setting the clock, while times that outlast a restart need the calendar. So this
clock runs with the monotonic one from where the calendar was at the start; if the calendar gets ahead (a suspended
machine, a clock that was set) it follows, and if the calendar goes back it does not.
"""

import time
from collections.abc import Callable
from typing import Final

from mypy_extensions import i64

FOLLOW_NS: Final = 1_000_000_000  # how far the calendar must be ahead to be followed


class Clock:
    """Ask `now` for the time. The two sources are replaced in tests."""

    def __init__(
        self, calendar: Callable[[], int] = time.time_ns, monotonic: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._calendar = calendar
        self._monotonic = monotonic
        self._offset: i64 = calendar() - monotonic()

    def now(self) -> i64:
        """Nanoseconds since the epoch."""
        return i64(self._monotonic()) + self._offset

    def follow(self) -> bool:
        """Catch up with a calendar that is ahead; to be called now and then. True if it was."""
        offset: i64 = self._calendar() - self._monotonic()
        if offset > self._offset + FOLLOW_NS:
            self._offset = offset
            return True
        return False
