"""What was emptied or deleted, on its way out of memory: giving up 200,000 messages takes longer than a turn may."""

from collections import deque
from typing import Final

from mypy_extensions import i64

from nsqkit.nsqd.core.batch import Batch
from nsqkit.nsqd.core.deadlines import Alarm, Deadlines
from nsqkit.nsqd.core.held import Held
from nsqkit.wire.message import Message

_PAGE_BITS: Final = 12  # a large body costs as much as so many small ones as it has pages


class Waste(Alarm):
    """Holds what nobody needs any more, and lets a slice of it go in each turn."""

    def __init__(self, deadlines: Deadlines, held: Held) -> None:
        super().__init__()
        self._deadlines = deadlines
        self._held = held
        self._piles: deque[tuple[bool, list[object]]] = deque()

    def take(self, items: list[object], *, counted: bool) -> None:
        """Let batches, messages, or entries of deferred messages go in a while. Are their bytes counted as held?"""
        if items:
            self._piles.append((counted, items))
            self._deadlines.set(self, self._deadlines.now)

    def ring(self, now: i64) -> i64:
        """Let go of a slice."""
        deadlines = self._deadlines
        piles = self._piles
        while piles:
            counted, pile = piles[0]
            while pile:
                if deadlines.left <= 0:
                    return now
                deadlines.left -= 1 + (self._let_go(pile.pop(), counted) >> _PAGE_BITS)
            piles.popleft()
        return 0

    def _let_go(self, item: object, counted: bool) -> i64:
        """Returns the bytes that this may have freed."""
        if isinstance(item, Batch):
            self._held.remove(item)
            return len(item.data) if item.holders == 0 else 0
        message = item[2] if isinstance(item, tuple) else item
        assert isinstance(message, Message)
        if counted:
            self._held.remove_message(message)
        return len(message.body)

    def counted(self) -> list[Batch | Message]:
        """What is still counted as held."""
        left: list[Batch | Message] = []
        for counted, pile in self._piles:
            for item in pile:
                if isinstance(item, Batch):
                    left.append(item)
                elif counted:
                    message = item[2] if isinstance(item, tuple) else item
                    assert isinstance(message, Message)
                    left.append(message)
        return left
