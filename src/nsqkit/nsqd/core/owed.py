"""What a channel owes, in one place for all who ask: the checkpoint, a clean stop, `nsqkit export`, /debug, the tests.

A state that joins later, as dead letters will, joins here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mypy_extensions import i64

from nsqkit.nsqd.core.batch import Batch
from nsqkit.wire.message import NOWHERE, Message

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nsqkit.nsqd.core.store import Extent, TopicStore
    from nsqkit.nsqd.core.topic import Topic


class Owed:
    """Every message that one channel owes at one moment, once; or that a topic owes to channels it does not have yet.

    The lists are copies and keep that moment, so they can be walked while the channel goes on. The messages in them
    are the channel's own. Making it costs some 10 ns for each message that is in memory.
    """

    def __init__(self, ready: list[Batch | Message], extents: list[Extent], matured: list[Message]) -> None:
        self.ready = ready  # in memory, in order of delivery; of the batch in use what is left of it
        self.extents = extents  # comes after it, untried, only in the log
        self.matured = matured  # tried before or deferred, due now, body only in the log
        self.flying: list[Message] = []  # sent, not yet answered
        self.early: list[Batch] = []  # never tried, waits for its time
        self.deferred: list[tuple[int, int, Message]] = []  # due time, serial; a heap

    def singles(self, most: int) -> Iterator[list[Message]]:
        """All that are on their own, tried before or with a time of their own: `most` at a time."""
        for begin in range(0, len(self.ready), most):
            yield [item for item in self.ready[begin : begin + most] if isinstance(item, Message)]
        for messages in (self.matured, self.flying):
            for begin in range(0, len(messages), most):
                yield messages[begin : begin + most]
        for begin in range(0, len(self.deferred), most):
            yield [entry[2] for entry in self.deferred[begin : begin + most]]

    def first_untried(self, none: i64) -> i64:
        """The first position in the log that was never tried and is due, or `none`."""
        first = none
        for item in self.ready:
            if isinstance(item, Batch) and item.first_position != NOWHERE:
                first = min(first, item.first_position)
        for extent in self.extents:
            first = min(first, extent.start)
        return first

    def positions(self) -> list[tuple[int, int]]:
        """The ranges of the log that hold all this, sorted. No two may overlap."""
        ranges = [(int(extent.start), int(extent.stop)) for extent in self.extents]
        for item in [*self.ready, *self.early]:
            if isinstance(item, Batch) and item.first_position != NOWHERE:
                ranges.append((int(item.first_position), int(item.first_position + item.count)))
        for messages in self.singles(1000):
            ranges += [(int(m.position), int(m.position) + 1) for m in messages if m.position != NOWHERE]
        return sorted(ranges)

    def check(self, name: str) -> None:
        """Assert that no position is in two places."""
        before = 0
        for start, stop in self.positions():
            assert before <= start, f"{name}: position {start} is in two places"
            before = stop


class TopicOwed:
    """What a topic and all its channels owe at one moment."""

    def __init__(self, topic: Topic, store: TopicStore) -> None:
        self.topic = topic
        self.store = store
        self.end: i64 = store.end()
        self.oldest = store.oldest()
        self.last_id = topic.last_id
        self.unsaved = topic.changed > topic.broker.changes.saved  # a start would find older metadata
        self.ahead = topic.broker.calendar.ahead
        self.waiting = topic.waiting.owed()
        self.channels = [
            (channel.name, channel.ephemeral, channel.owed()) for channel in topic.channels.values()
        ]
