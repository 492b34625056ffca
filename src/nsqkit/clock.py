"""The daemon's clock: ns since the epoch, never going back, and never moved by somebody who sets the calendar.

Timeouts and delays must be what they were promised to be, so this clock starts where the calendar is, and runs with one
that goes on while the machine sleeps. What outlasts a restart (timestamps, and when a message is due) needs the
calendar, and that may be set later: a machine without a battery starts in the past until NTP answers. `ahead` follows.
"""

import time
from collections.abc import Callable
from typing import Final

from mypy_extensions import i64

_SLEEPLESS: Final[int] = getattr(
    time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC
)  # macOS: the latter counts sleep
_LOOK: Final = 1_000_000_000  # ns between two looks at the calendar
_STEP: Final = 100_000_000  # ns that the calendar must differ by: less is no step


def _since_boot() -> int:
    return time.clock_gettime_ns(_SLEEPLESS)


class Clock:
    """Ask `now` for the time. The two sources are replaced in tests."""

    def __init__(
        self, calendar: Callable[[], int] = time.time_ns, monotonic: Callable[[], int] = _since_boot
    ) -> None:
        self.ahead: i64 = 0  # by how much the calendar was set forward since the start; negative: back
        self.on_step: Callable[[int], None] | None = None  # hears of a new `ahead`
        self._calendar = calendar
        self._monotonic = monotonic
        self._offset: i64 = calendar() - monotonic()
        self._look_at: i64 = 0

    def now(self) -> i64:
        """Nanoseconds since the epoch, by the calendar of the start."""
        now: i64 = i64(self._monotonic()) + self._offset
        if now >= self._look_at:
            self._look(now)
        return now

    def _look(self, now: i64) -> None:
        self._look_at = now + _LOOK
        ahead: i64 = i64(self._calendar()) - now
        step = ahead - self.ahead
        if step >= _STEP or step <= -_STEP:
            self.ahead = ahead
            if self.on_step is not None:
                self.on_step(int(ahead))
