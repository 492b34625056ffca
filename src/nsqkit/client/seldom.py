"""Complaints that may come by the thousand: one line a second of each kind, which tells how many it stands for."""

import logging
from collections.abc import Callable
from typing import Final

EVERY_S: Final = 1.0


class Seldom:
    """Warns of things that are alike, seldom."""

    def __init__(self, log: logging.Logger, now: Callable[[], float]) -> None:
        self._log = log
        self._now = now
        self._said_at: dict[str, float] = {}
        self._unsaid: dict[str, int] = {}

    def warn(self, kind: str, text: str, *values: object) -> None:
        """A WARNING, or only a DEBUG if there was one of its kind within the last second."""
        now = self._now()
        if now - self._said_at.get(kind, -EVERY_S) < EVERY_S:
            self._unsaid[kind] = self._unsaid.get(kind, 0) + 1
            self._log.debug(text, *values)
            return
        self._said_at[kind] = now
        unsaid = self._unsaid.pop(kind, 0)
        if unsaid:
            self._log.warning(f"{text} (and %d more like it before)", *values, unsaid)
        else:
            self._log.warning(text, *values)
