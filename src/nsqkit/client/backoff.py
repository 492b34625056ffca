"""Back-off: how long a consumer whose handlers fail takes no messages. No clock, no I/O.

    normal --failure--> paused --time is over--> testing --success--> normal, or paused at a lower level
                          ^                         |
                          +-------- failure --------+   at a higher level, up to the longest pause

At level n the pause is multiplier x 2^n, so 2, 4, 8 ... s by default. While it is paused, what comes of messages that
were under way before means nothing.
"""

import enum
from random import Random
from typing import Final

_LEVELS: Final = 62  # more would be no number of seconds


class BackoffState(enum.Enum):
    """What the consumer may have: as much as it wants, nothing, or one message at a time."""

    NORMAL = "normal"
    PAUSED = "paused"
    TESTING = "testing"


class Signal(enum.Enum):
    """What became of a message."""

    RESUME = "finished"
    BACKOFF = "failed"
    CONTINUE = "given back for another reason"


class Backoff:
    """The back-off of one consumer. `level` is 0 when all is well."""

    def __init__(
        self, multiplier: float, longest: float, full_jitter: bool, random: Random, recovery: str = "step"
    ) -> None:
        """`multiplier` and `longest`, the longest pause, are in seconds; a longest pause of 0 means no back-off.

        With `full_jitter` each pause is anything up to what it would be. `recovery` is what a success does: "step" goes
        one level down, "halve" to the half, "immediate" to 0.
        """
        self.level = 0
        self.state = BackoffState.NORMAL
        self._multiplier = multiplier
        self._longest = longest
        self._jitter = full_jitter
        self._recovery = recovery
        self._random = random

    def signal(self, signal: Signal) -> float | None:
        """Take in what became of a message. The seconds of a pause that begins now; None if none does."""
        if self._longest <= 0:
            return None
        if self.state is BackoffState.PAUSED:
            return None
        if self.state is BackoffState.NORMAL:
            if signal is not Signal.BACKOFF:
                return None
            self.level = 1
        elif signal is Signal.BACKOFF:
            if self.level < _LEVELS and self._pause(self.level + 1) <= self._longest:
                self.level += 1
        elif signal is Signal.RESUME:
            self.level = self._lower()
            if self.level == 0:
                self.state = BackoffState.NORMAL
                return None
        self.state = BackoffState.PAUSED
        pause = min(self._pause(self.level), self._longest)
        return self._random.uniform(0, pause) if self._jitter else pause

    def pause_over(self) -> None:
        """The pause is over: try one message."""
        if self.state is BackoffState.PAUSED:
            self.state = BackoffState.TESTING

    def _lower(self) -> int:
        if self._recovery == "immediate":
            return 0
        return self.level // 2 if self._recovery == "halve" else self.level - 1

    def _pause(self, level: int) -> float:
        return self._multiplier * 2.0**level
