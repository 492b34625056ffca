"""The calendar, which somebody may set at any time, beside the loop's steady time; and when deferred messages are due.

A delay that was asked for in this life of the process goes by the steady time. One from an earlier life goes by the
calendar: what is written down is when it is due by the calendar that nsqd saw, which looks at it once a second.
"""

from __future__ import annotations

from typing import Final

LOOK: Final = 1_001_000_000  # ns within which nsqd sees that the calendar was set


class Due:
    """When a message is due: `at` by the steady time, asked for at `since`; `calendar` is the earliest written down."""

    __slots__ = ("at", "calendar", "over", "since")

    def __init__(self, at: int, since: int, ahead: int) -> None:
        self.at = at
        self.since = since
        self.calendar = at + ahead
        self.over = False  # its time came in an earlier life


class Calendar:
    """How far it is ahead of the steady time, now and in the last lives of the process."""

    def __init__(self) -> None:
        self.ahead = 0
        self.most_ahead = 0  # that it ever was
        self._until: list[tuple[int, int]] = []  # how far it was ahead until a moment
        self._began = 0  # this life
        self._reached = 0  # the latest that it showed in this life, until it was set last
        self._open: list[Due] = []  # dues that may still count in another life

    def set(self, ahead: int, now: int) -> None:
        """Somebody sets it."""
        self._reached = self._latest(now)
        self._until.append((now, self.ahead))
        self.ahead = ahead
        self.most_ahead = max(ahead, self.most_ahead)

    def seen(self, now: int) -> tuple[int, int]:
        """Between what nsqd may believe it to be ahead."""
        return self._between(now)

    def due(self, delay: int, now: int) -> Due:
        """A delay that is asked for now."""
        due = Due(now + delay, now, self._between(now)[0])
        self._open.append(due)
        return due

    def is_early(self, due: Due | None, now: int) -> bool:
        """Must it not come yet?"""
        if due is None or due.over:
            return False
        return due.at > now if due.since >= self._began else due.calendar > self._latest(now)

    def end(self, now: int) -> None:
        """The process ends; the next one goes by the calendar."""
        still = [due for due in self._open if self.is_early(due, now)]
        for due in self._open:
            due.over = True
        for due in still:
            due.over = False
            if due.since >= self._began:
                due.calendar = due.at + self._between(due.since)[0]
        self._open = still
        self._began = now + 1
        self._reached = now + self.ahead

    def _latest(self, now: int) -> int:
        return max(self._reached, now + self.ahead)

    def _between(self, since: int) -> tuple[int, int]:
        seen = [self.ahead, *(ahead for until, ahead in self._until if until > since - LOOK)]
        return min(seen), max(seen)
