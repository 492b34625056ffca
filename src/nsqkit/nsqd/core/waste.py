"""What was emptied or deleted, on its way out of memory: giving up 200,000 messages takes longer than a turn may."""

from collections import deque
from typing import Final

from mypy_extensions import i64

from nsqkit.nsqd.core.batch import Batch
from nsqkit.nsqd.core.deadlines import Alarm, Deadlines
from nsqkit.wire.message import Message

_PAGE_BITS: Final = 12  # a large body costs as much as so many small ones as it has pages


class Waste(Alarm):
    """Holds what nobody needs any more, and lets a slice of it go in each turn."""

    def __init__(self, deadlines: Deadlines) -> None:
        super().__init__()
        self._deadlines = deadlines
        self._piles: deque[list[object]] = deque()

    def take(self, items: list[object]) -> None:
        """Let batches, messages, or entries of deferred messages go in a while."""
        if items:
            self._piles.append(items)
            self._deadlines.set(self, self._deadlines.now)

    def ring(self, now: i64) -> i64:
        """Let go of a slice."""
        deadlines = self._deadlines
        piles = self._piles
        while piles:
            pile = piles[0]
            while pile:
                if deadlines.left <= 0:
                    return now
                deadlines.left -= 1 + (_size(pile.pop()) >> _PAGE_BITS)
            piles.popleft()
        return 0


def _size(item: object) -> i64:
    if isinstance(item, Batch):
        return len(item.data)
    if isinstance(item, tuple):
        item = item[2]
    return len(item.body) if isinstance(item, Message) else 0
