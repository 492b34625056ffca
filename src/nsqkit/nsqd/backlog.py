"""Connections that sent more than one pass of the event loop may execute.

A chunk may hold thousands of commands, a few compressed bytes millions. What was sent is executed in shares, every
connection in its turn, and the rest waits for the next pass; so whoever sends little is not kept waiting.
"""

from collections import deque
from collections.abc import Callable
from typing import Final

from mypy_extensions import i64

from nsqkit.clock import Clock
from nsqkit.nsqd.core.broker import Broker

BUDGET: Final = 1_000_000  # ns in a pass for what was put off
MOST_LOGS: Final = 32  # topics whose logs the pass will write, above which nothing more is executed


class Backlog:
    """Those who wait for their next share."""

    def __init__(self, broker: Broker, clock: Clock) -> None:
        self._broker = broker
        self._clock = clock
        self._waiting: deque[Callable[[i64], bool]] = deque()

    def add(self, share: Callable[[i64], bool]) -> None:
        """Call this, with the time, until it says that it is done: False."""
        self._waiting.append(share)

    def empty(self) -> bool:
        """Does nobody wait?"""
        return not self._waiting

    def work(self, now: i64) -> None:
        """Execute what one pass may, at least one share, and none after one that made topics: files are to be made."""
        waiting = self._waiting
        until: i64 = now + BUDGET
        broker = self._broker
        made: i64 = broker.made
        while waiting:
            share = waiting.popleft()
            if share(now):
                waiting.append(share)
            now = self._clock.now()
            if now >= until or broker.made != made or len(broker.published) >= MOST_LOGS:
                return
