"""When a program that ended is started again. Pure: the time is an argument, in seconds of any clock that only rises.

At once the first time, then after 1 s, 2 s, 4 s ... 30 s at most; from the beginning once it was alive for a minute.
A program that refuses to start three times in a row (exit code 1 or 2, soon after its start) will not start the
fourth time either: that is a wrong option or a port in use, and somebody must look at it.
"""

from typing import Final

LONGEST_PAUSE_S: Final = 30.0
FORGIVEN_AFTER_S: Final = 60.0
AT_START_S: Final = 10.0  # an nsqd listens within a second, unless the machine is busy with other things
START_ATTEMPTS: Final = 3

_REFUSALS: Final = (1, 2)  # exit codes of our programs for what a new attempt does not change


class Restarts:
    """The lives and deaths of one program."""

    def __init__(self) -> None:
        self._deaths = 0
        self._refusals = 0
        self._started_at = 0.0

    def started(self, now: float) -> None:
        """It was started."""
        self._started_at = now

    def ended(self, code: int, now: float) -> float | None:
        """How long to wait before it is started again, in seconds; None to give up. `code` is -N for signal N."""
        alive = now - self._started_at
        if alive >= FORGIVEN_AFTER_S:
            self._deaths = 0
        refused = code in _REFUSALS and alive < AT_START_S
        self._refusals = self._refusals + 1 if refused else 0
        if self._refusals == START_ATTEMPTS:
            return None
        pause = min(2.0 ** (self._deaths - 1), LONGEST_PAUSE_S) if self._deaths else 0.0
        self._deaths = min(self._deaths + 1, 10)  # 2 ** 9 is far above the longest pause
        return pause
