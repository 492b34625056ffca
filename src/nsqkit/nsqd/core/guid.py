"""Message ids: unique on a node, roughly ordered by time (spec/tcp-protocol.md, section 10).

    63                                  22 21          12 11          0
    +-------------------------------------+--------------+------------+
    | ticks of 2^20 ns since NSQ's epoch  | node id      | sequence   |
    +-------------------------------------+--------------+------------+

Ids of one batch are consecutive, so a batch stores only its first. When more than 4096 ids are wanted within a
tick, or the clock goes back, the source runs ahead of the clock instead of waiting for it.
"""

from typing import Final

from mypy_extensions import i64

EPOCH_TICKS: Final = 1288834974288
SEQUENCES: Final = 4096  # ids in a tick, and so the most that one batch can hold

_SUFFIXES: Final = [b"%03x" % number for number in range(SEQUENCES)]


class IdSource:
    """Hands out ids. `node_id` is in [0, 1024)."""

    def __init__(self, node_id: i64) -> None:
        self._node: i64 = node_id << 12
        self._tick: i64 = 0
        self._sequence: i64 = 0
        self.first_id: i64 = 0  # the first that was handed out; 0: none was

    def next_id(self) -> i64:
        """No id below this one will be handed out."""
        return (self._tick << 22) | self._node | self._sequence

    def take(self, count: i64, now: i64) -> i64:
        """The first of `count` consecutive ids, 1 <= count <= SEQUENCES."""
        tick: i64 = (now >> 20) - EPOCH_TICKS
        if tick > self._tick:
            self._tick = tick
            self._sequence = 0
        elif self._sequence + count > SEQUENCES:
            self._tick += 1
            self._sequence = 0
        first = self.next_id()
        self._sequence += count
        if self.first_id == 0:
            self.first_id = first
        return first

    def skip_past(self, used: i64) -> None:
        """Never hand out an id up to `used` again: a log from before the restart has it."""
        tick: i64 = used >> 22
        if tick >= self._tick:
            self._tick = tick + 1
            self._sequence = 0


def id_prefix(value: i64) -> bytes:
    """The first 13 of an id's 16 hex digits; the ids of a batch share them."""
    return b"%013x" % ((value >> 12) & 0xF_FFFF_FFFF_FFFF)


def id_suffix(value: i64) -> bytes:
    """The last 3 of an id's 16 hex digits."""
    return _SUFFIXES[value & 4095]


def id_text(value: i64) -> bytes:
    """An id as clients see it: 16 lower-case hex digits."""
    return id_prefix(value) + id_suffix(value)
