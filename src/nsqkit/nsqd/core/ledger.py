"""What a topic owes, written down as a checkpoint and read back from one.

A checkpoint names positions only; the messages are in the log. What was published behind the checkpoint's end is owed
by every channel. So a checkpoint that is too old, or missing, costs second deliveries and never a message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mypy_extensions import i64

from nsqkit.nsqd.core.batch import Batch, batch_of
from nsqkit.nsqd.core.queue import READ_BLOCK, ReadyQueue
from nsqkit.nsqd.core.store import ChannelRecord, Extent, Leftover, StoreError, TopicRecord
from nsqkit.wire.message import NOWHERE, Message

if TYPE_CHECKING:
    from nsqkit.nsqd.core.channel import Channel
    from nsqkit.nsqd.core.store import TopicStore
    from nsqkit.nsqd.core.topic import Topic

SPARSE: Final = 8  # a segment is worth leaving when at most one in so many of its messages is still owed


def record(topic: Topic, store: TopicStore) -> TopicRecord:
    """Write down what the topic and its channels owe now."""
    written = TopicRecord()
    written.end = store.end()
    written.needed_from = written.end
    written.last_id = topic.last_id
    waiting = ChannelRecord("")
    _note_queue(waiting, topic.waiting)
    written.channels.append(waiting)
    for channel in topic.channels.values():
        owed = ChannelRecord(channel.name)
        _note_queue(owed, channel.queue)
        _note_channel(owed, channel)
        if not channel.ephemeral:
            written.channels.append(owed)
        written.need(owed)
    written.need(waiting)
    return written


def _note_queue(owed: ChannelRecord, queue: ReadyQueue) -> None:
    for item in queue.in_memory():
        if isinstance(item, Message):
            owed.note(item, 0)
        elif item.first_position != NOWHERE:
            _extend(owed.ready, item.first_position, item.first_position + item.count)
    for extent in queue.extents():
        _extend(owed.ready, extent.start, extent.stop)
    for message in queue.matured():
        owed.note(message, 0)


def _note_channel(owed: ChannelRecord, channel: Channel) -> None:
    for message in channel.flying():
        owed.note(message, 0)
    untried: list[int] = []
    for due, _, message in channel.deferred:
        if message.attempts > 0:
            owed.note(message, due + channel.broker.calendar_ahead)
        elif message.position != NOWHERE:
            untried.append(int(message.position))
    untried.sort()
    for position in untried:
        _extend(owed.deferred, position, position + 1)


def _extend(extents: list[Extent], start: i64, stop: i64) -> None:
    if extents:
        last = extents[-1]
        if last.stop == start:
            last.stop = stop
            return
    extents.append(Extent(start, stop))


def restore(topic: Topic, store: TopicStore, now: i64) -> None:
    """Take over what the log and its checkpoint say is owed. The topic's channels exist already."""
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
                    topic.waiting.put_extent(extent.start, extent.stop)
    while tail < store.end():
        tail = _restore_tail(topic, store, tail, now)
    topic.broker.ids.skip_past(topic.last_id)
    topic.release_waiting(now)
    if store.worth_leaving():
        topic.note_change()  # a process may have ended before it gave back the space of what is finished


def _restore_channel(channel: Channel, owed: ChannelRecord, store: TopicStore, now: i64) -> None:
    for leftover in sorted(owed.leftovers, key=_position):
        if store.start() <= leftover.position < store.end():
            message = Message(b"", 0, leftover.attempts, b"", leftover.position)
            message.loaded = False
            channel.entered_count += 1
            if leftover.due > now:
                channel.defer(message, leftover.due)
            else:
                channel.queue.put_matured(message)
    for extent in _clipped(owed.ready, store):
        channel.put_extent(extent.start, extent.stop)
    for extent in _clipped(owed.deferred, store):
        at = extent.start
        while at < extent.stop:
            try:
                batches = store.read(at, extent.stop, READ_BLOCK)
            except StoreError as error:
                channel.unreadable(str(error), now)
                channel.put_extent(at, extent.stop)  # once it can be read, it is found not to be due
                break
            for batch in batches:
                _take_back(channel, _within(batch, extent), now)
            at = batches[-1].first_position + batches[-1].count if batches else extent.stop
    channel.want_dispatch()


def _position(leftover: Leftover) -> int:
    return int(leftover.position)


def _restore_tail(topic: Topic, store: TopicStore, start: i64, now: i64) -> i64:
    """Give the next block behind the checkpoint to all channels; returns where to go on.

    Copies are owed by those whom a checkpoint names. Without a checkpoint nobody knows who that is: everybody.
    """
    try:
        batches = store.read(start, store.end(), READ_BLOCK)
    except StoreError as error:
        topic.unreadable(str(error), now)
        if topic.withholds():
            topic.waiting.put_extent(start, store.end())
        else:
            for channel in topic.channels.values():
                channel.put_extent(start, store.end())
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
            topic.waiting.put_extent(piece.first_position, piece.first_position + piece.count)
        else:
            for channel in topic.channels.values():
                _take_back(channel, piece, now)
    return batches[-1].first_position + batches[-1].count


def _take_back(channel: Channel, batch: Batch, now: i64) -> None:
    if channel.is_early(batch, now):
        channel.entered_count += batch.count
        channel.defer_batch(batch)
    else:
        channel.put_extent(batch.first_position, batch.first_position + batch.count)


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
    _save_queue(topic.waiting, store, copies)
    for channel in topic.channels.values():
        if channel.ephemeral:
            continue
        _save_queue(channel.queue, store, copies)
        for message in channel.flying():
            _save(message, 0, store, copies)
        for due, _, message in channel.deferred:
            _save(message, due + channel.broker.calendar_ahead, store, copies)
    store.write()
    for message, copy in copies:  # not before: the log has none of them if it could not be written
        message.position = copy.first_position


def _save_queue(queue: ReadyQueue, store: TopicStore, copies: list[tuple[Message, Batch]]) -> None:
    items = queue.in_memory()
    for item in items:
        if isinstance(item, Message):
            _save(item, 0, store, copies)
        elif item.first_position == NOWHERE:
            item.carried = True
            store.append(item)
    # What is left of the batch in use is a batch of its own, and it is that one which got positions.
    queue.replace_memory(items)


def _save(message: Message, due: i64, store: TopicStore, copies: list[tuple[Message, Batch]]) -> None:
    if message.position == NOWHERE:
        copy = batch_of(message, due)
        store.append(copy)
        copies.append((message, copy))


def carry_forward(topic: Topic, store: TopicStore) -> bool:
    """Copy the few messages that keep the log's oldest segment alive to its end. True if it is free now.

    Messages with a long delay, or retried for days, must not pin a disk full of finished ones. What waits untried is
    no leftover: it will be read in order.
    """
    oldest = store.oldest()
    if oldest is None:
        return False
    stuck: list[Message] = []
    untried = topic.waiting
    if _first_untried(untried) < oldest.stop:
        return False
    for channel in topic.channels.values():
        if _first_untried(channel.queue) < oldest.stop:
            return False
        singles = channel.flying() + channel.queue.matured() + [entry[2] for entry in channel.deferred]
        singles.extend([item for item in channel.queue.in_memory() if isinstance(item, Message)])
        stuck.extend([m for m in singles if m.position != NOWHERE and m.position < oldest.stop])
    if not stuck or len(stuck) * SPARSE > oldest.stop - oldest.start:
        return False
    copies = _copies(stuck, store)
    for copy in copies.values():
        store.append(copy)
    store.write()
    for message in stuck:
        moved = copies.get(int(message.position))
        if moved is not None:
            message.position = moved.first_position
    return True


def _copies(messages: list[Message], store: TopicStore) -> dict[int, Batch]:
    """What the log has at the messages' positions, ready to be appended to it again."""
    copies: dict[int, Batch] = {}
    for message in messages:
        if int(message.position) in copies:
            continue
        for batch in store.read(message.position, message.position + 1, 1):
            if batch.first_position <= message.position:
                copies[int(message.position)] = batch.copy(message.position - batch.first_position)
    return copies


def _first_untried(queue: ReadyQueue) -> i64:
    first: i64 = 1 << 62
    for item in queue.in_memory():
        if isinstance(item, Batch) and item.first_position != NOWHERE:
            first = min(first, item.first_position)
    for extent in queue.extents():
        first = min(first, extent.start)
    return first
