"""What a topic owes, written down as a checkpoint and read back from one.

A checkpoint names positions only; the messages are in the log. What was published after the checkpoint's end is owed
by every channel. So a checkpoint that is too old, or missing, costs second deliveries and never a message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mypy_extensions import i64

from nsqkit.nsqd.core.batch import Batch, batch_of
from nsqkit.nsqd.core.queue import READ_BLOCK
from nsqkit.nsqd.core.store import ChannelRecord, Extent, Leftover, StoreError, TopicRecord
from nsqkit.wire.message import NOWHERE, Message

if TYPE_CHECKING:
    from collections.abc import Callable

    from nsqkit.nsqd.core.channel import Channel
    from nsqkit.nsqd.core.owed import Owed, TopicOwed
    from nsqkit.nsqd.core.store import TopicStore
    from nsqkit.nsqd.core.topic import Topic

SPARSE: Final = 8  # a segment is worth leaving when at most one in so many of its messages is still owed
SLICE: Final = 1000  # messages that are written down at a time: a few tenths of a millisecond
CARRIED: Final = 200  # messages that are copied at a time
CARRIED_BYTES: Final = 1 << 20  # after which no more are read


def without_pause() -> None:
    """For `record` and `stuck` where nobody waits."""


def record(owed: TopicOwed, pause: Callable[[], None] = without_pause) -> TopicRecord:
    """Write down what a topic and its channels owe. It may be done in a thread; `pause` is called in between."""
    written = TopicRecord()
    written.end = owed.end
    written.needed_from = owed.end
    written.last_id = owed.last_id
    written.unsaved = owed.unsaved
    for name, ephemeral, owed_here in [("", False, owed.waiting), *owed.channels]:
        channel = ChannelRecord(name)
        _note_ready(channel, owed_here, pause)
        _note_singles(channel, owed_here.matured, pause)
        _note_singles(channel, owed_here.flying, pause)
        _note_deferred(channel, owed_here, owed.ahead, pause)
        written.needed_from = min(written.needed_from, channel.lowest)
        if not ephemeral:
            written.channels.append(channel)
    return written


def _note_ready(channel: ChannelRecord, owed: Owed, pause: Callable[[], None]) -> None:
    for begin in range(0, len(owed.ready), SLICE):
        for item in owed.ready[begin : begin + SLICE]:
            if isinstance(item, Message):
                channel.note_single(item, 0)
            elif item.first_position != NOWHERE:
                channel.note_ready(item.first_position, item.first_position + item.count)
        pause()
    for begin in range(0, len(owed.extents), SLICE):
        for extent in owed.extents[begin : begin + SLICE]:
            channel.note_ready(extent.start, extent.stop)
        pause()


def _note_singles(channel: ChannelRecord, messages: list[Message], pause: Callable[[], None]) -> None:
    for begin in range(0, len(messages), SLICE):
        for message in messages[begin : begin + SLICE]:
            channel.note_single(message, 0)
        pause()


def _note_deferred(channel: ChannelRecord, owed: Owed, ahead: i64, pause: Callable[[], None]) -> None:
    """Those that were never tried are due as the log says, so ranges of them will do."""
    deferred = owed.deferred
    untried: list[list[i64]] = []
    count: i64 = 0
    low: i64 = 1 << 62
    high: i64 = 0
    for begin in range(0, len(deferred), SLICE):
        positions: list[i64] = []
        for due, _, message in deferred[begin : begin + SLICE]:
            position = message.position
            if message.attempts > 0:
                channel.note_single(message, due + ahead)
            elif position != NOWHERE:
                positions.append(position)
                low = min(low, position)
                high = max(high, position)
        count += len(positions)
        untried.append(positions)
        pause()
    # To sort all at once would take too long: first into shelves, and then each of them.
    shelves: list[list[i64]] = [[] for _ in range(count // SLICE + 1)]
    shelf_count: i64 = len(shelves)
    width: i64 = (high - low) // shelf_count + 1
    while untried:
        for position in untried.pop():
            shelves[(position - low) // width].append(position)
        pause()
    for shelf in shelves:
        shelf.sort()
        for position in shelf:
            channel.note_deferred(position, position + 1)
        pause()
    for batch in owed.early:
        if batch.first_position != NOWHERE:
            channel.note_deferred(batch.first_position, batch.first_position + batch.count)


def restore(topic: Topic, store: TopicStore, now: i64) -> None:
    """Take over what the log and its checkpoint say is owed. The topic's channels exist already.

    When it was published is only in the log. Until that is read, it counts as published now.
    """
    found = store.recovered()
    tail = store.start()
    if found is not None:
        topic.last_id = found.last_id
        tail = found.end
        for owed in found.channels:
            channel = topic.channels.get(owed.name)
            if channel is not None:
                _restore_channel(channel, owed, store, now)
            elif not owed.name:
                for extent in _clipped(owed.ready, store):
                    topic.waiting.put_extent(extent.start, extent.stop, now)
    while tail < store.end():
        tail = _restore_tail(topic, store, tail, now)
    topic.broker.ids.skip_past(topic.last_id)
    topic.release_waiting(now)
    if store.worth_leaving():
        topic.note_change()  # a process may have ended before it gave back the space of what is finished


def _restore_channel(channel: Channel, owed: ChannelRecord, store: TopicStore, now: i64) -> None:
    for leftover in sorted(owed.leftovers, key=_position):
        if store.start() <= leftover.position < store.end():
            message = Message(b"", now, leftover.attempts, b"", leftover.position)
            message.loaded = False
            channel.entered_count += 1
            if leftover.due > now:
                channel.defer(message, leftover.due, by_calendar=True)
            else:
                channel.queue.put_matured(message)
    for extent in _clipped(owed.ready, store):
        channel.put_extent(extent.start, extent.stop, now)
    for extent in _clipped(owed.deferred, store):
        at = extent.start
        while at < extent.stop:
            try:
                batches = store.read(at, extent.stop, READ_BLOCK)
            except StoreError as error:
                channel.unreadable(str(error), now)
                channel.put_extent(at, extent.stop, now)  # once it can be read, it is found not to be due
                break
            for batch in batches:
                _take_back(channel, _within(batch, extent), now)
            at = batches[-1].first_position + batches[-1].count if batches else extent.stop
    channel.want_dispatch()


def _position(leftover: Leftover) -> int:
    return int(leftover.position)


def _restore_tail(topic: Topic, store: TopicStore, start: i64, now: i64) -> i64:
    """Give the next block after the checkpoint to all channels; returns where to go on.

    Copies are owed by those whom a checkpoint names. Without a checkpoint nobody knows who that is: everybody.
    """
    try:
        batches = store.read(start, store.end(), READ_BLOCK)
    except StoreError as error:
        topic.unreadable(str(error), now)
        if topic.withholds():
            topic.waiting.put_extent(start, store.end(), now)
        else:
            for channel in topic.channels.values():
                channel.put_extent(start, store.end(), now)
        return store.end()
    if not batches:
        return store.end()
    tail = Extent(start, store.end())
    for batch in batches:
        piece = _within(batch, tail)
        topic.last_id = max(topic.last_id, batch.first_id + batch.count - 1)
        if batch.carried and store.recovered() is not None:
            continue
        if topic.withholds():
            first = piece.first_position
            topic.waiting.put_extent(first, first + piece.count, piece.timestamp)
        else:
            for channel in topic.channels.values():
                _take_back(channel, piece, now)
    return batches[-1].first_position + batches[-1].count


def _take_back(channel: Channel, batch: Batch, now: i64) -> None:
    if channel.is_early(batch, now):
        channel.entered_count += batch.count
        channel.defer_batch(batch)
    else:
        first = batch.first_position
        channel.put_extent(first, first + batch.count, batch.timestamp)


def _within(batch: Batch, extent: Extent) -> Batch:
    first = batch.first_position
    return batch.part(max(extent.start - first, 0), min(extent.stop - first, batch.count))


def _clipped(extents: list[Extent], store: TopicStore) -> list[Extent]:
    """The extents as far as the log reaches: a power cut may have taken its end, not the checkpoint."""
    low = store.start()
    high = store.end()
    clipped = [Extent(max(e.start, low), min(e.stop, high)) for e in extents]
    return [e for e in clipped if e.start < e.stop]


def save_memory(topic: Topic, store: TopicStore) -> None:
    """Append what is only in memory to the log, in order of delivery: the exit of a broker in memory mode."""
    copies: list[tuple[Message, Batch]] = []
    topic.waiting.replace_memory(_save(topic.waiting.owed(), 0, store, copies))
    for channel in topic.channels.values():
        if not channel.ephemeral:
            ready = _save(channel.owed(), channel.broker.calendar.ahead, store, copies)
            channel.queue.replace_memory(ready)
    store.write()
    for message, copy in copies:  # not before: the log has none of them if it could not be written
        message.position = copy.first_position


def _save(
    owed: Owed, ahead: i64, store: TopicStore, copies: list[tuple[Message, Batch]]
) -> list[Batch | Message]:
    """Append it. Returns what is ready: what is left of the batch in use is one of its own, which got positions."""
    for item in owed.ready:
        if isinstance(item, Message):
            _save_single(item, 0, store, copies)
        elif item.first_position == NOWHERE:
            item.carried = True
            store.append(item)
    for message in owed.flying:
        _save_single(message, 0, store, copies)
    for batch in owed.early:
        if batch.first_position == NOWHERE:
            batch.carried = True
            store.append(batch)
    for due, _, message in owed.deferred:
        _save_single(message, due + ahead, store, copies)
    return owed.ready


def _save_single(message: Message, due: i64, store: TopicStore, copies: list[tuple[Message, Batch]]) -> None:
    if message.position == NOWHERE:
        copy = batch_of(message, due)
        store.append(copy)
        copies.append((message, copy))


def stuck(owed: TopicOwed, oldest: Extent, pause: Callable[[], None] = without_pause) -> list[Message]:
    """The few messages that keep the log's oldest segment alive; none if they are many. For a thread, as `record` is.

    Messages with a long delay, or retried for days, must not pin a disk full of finished ones. What waits untried is
    no leftover: it will be read in order.
    """
    most = (oldest.stop - oldest.start) // SPARSE
    found: list[Message] = []
    for owed_here in [owed.waiting, *[entry[2] for entry in owed.channels]]:
        if owed_here.first_untried(oldest.stop) < oldest.stop:
            return []
        for messages in owed_here.singles(SLICE):
            found += [m for m in messages if m.position != NOWHERE and m.position < oldest.stop]
            if len(found) > most:
                return []
            pause()
    return found


def carry_forward(stuck: list[Message], store: TopicStore) -> i64:
    """Copy some of the messages that `stuck` found to the end of the log; returns how many.

    Some may be finished by now, of which a copy does no harm. The next checkpoint names the copies, and lets the old
    segment go once it has none that is owed. StoreError: nothing has changed.
    """
    some = sorted(stuck, key=_place)[:CARRIED]
    if some:
        store.leave(some[0].position)
    copies: dict[int, Batch] = {}
    batches: list[Batch] = []
    size: i64 = 0
    for message in some:
        position = message.position
        if int(position) in copies:
            continue
        if not batches or position >= batches[-1].first_position + batches[-1].count:
            if size > CARRIED_BYTES:
                break
            batches = store.read(position, position + 1, 1)
            size += sum([len(batch.data) for batch in batches])
        for batch in batches:
            if batch.first_position <= position < batch.first_position + batch.count:
                copies[int(position)] = batch.copy(position - batch.first_position)
    for copy in copies.values():
        store.append(copy)
    store.write()
    for message in stuck:
        moved = copies.get(int(message.position))
        if moved is not None:
            message.position = moved.first_position
    return len(copies)


def _place(message: Message) -> int:
    return int(message.position)
