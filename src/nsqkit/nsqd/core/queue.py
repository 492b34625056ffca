"""What waits to be delivered, in order: batches in memory, and after them what only the log holds.

    take <- [ items: batches and requeued messages | extents of the log ] <- put
              at most `limit` messages               any number

A batch goes to memory while there is room and nothing waits in the log, so the order is kept; otherwise only its
positions are noted. When memory is used up the next block is read from the log. The queue of an ephemeral topic or
channel does not keep what does not fit: it is dropped, after consumers had their chance.
"""

from collections import deque
from typing import Final

from mypy_extensions import i64

from nsqkit.nsqd.core.batch import Batch, behind
from nsqkit.nsqd.core.calendar import Calendar
from nsqkit.nsqd.core.guid import IdSource
from nsqkit.nsqd.core.held import UNBOUNDED, Held
from nsqkit.nsqd.core.owed import Owed
from nsqkit.nsqd.core.store import Extent, StoreError, TopicStore
from nsqkit.wire.message import NOWHERE, Message

LOOKS: Final = 200  # messages that are looked at in search of the oldest
READ_BLOCK: Final = 262_144  # bytes read from the log at a time
_WINDOW: Final = 1000  # messages that are due whose bodies are looked for together
_NEAR: Final = 8  # positions in the log: what is nearer to the one before comes with the same read
_READS: Final = 16  # reads for bodies at a time
_AHEAD: Final = 64  # requeued messages that never keep the log from being read, whatever the limit


class ReadyQueue:
    """The ready messages of one channel, or those of a topic that no channel has yet."""

    def __init__(
        self,
        limit: i64,
        store: TopicStore | None,
        held: Held | None = None,
        calendar: Calendar | None = None,
        *,
        keeps: bool,
    ) -> None:
        self.limit = limit
        self.held = held or Held(UNBOUNDED)
        self.calendar = calendar or Calendar(IdSource(0))
        self.store = store
        self.keeps = keeps  # False: drop what is beyond the limit
        self.memory_count: i64 = 0  # messages in head and items
        self.stored_count: i64 = 0  # messages in extents and matured
        self.read_count: i64 = 0  # times that the log was read
        self.lost_count: i64 = 0  # messages that the log could not give back: damage
        self.dropped_count: i64 = 0  # messages beyond the limit of a queue that does not keep them
        self._returned_count: i64 = 0  # messages at the end of memory, put back while others wait in the log
        self._head: Batch | None = None  # the batch being used up
        self._index: i64 = 0
        self._offset: i64 = 0
        self._items: deque[Batch | Message] = deque()
        self._extents: deque[Extent] = deque()
        self._matured: deque[Message] = deque()  # deferred messages now due whose bodies are in the log

    def depth(self) -> i64:
        """Messages that wait."""
        return self.memory_count + self.stored_count

    def backend_depth(self) -> i64:
        """Messages that wait beyond what may be in memory."""
        over: i64 = self.memory_count - self.limit
        return self.stored_count + (over if over > 0 and self.keeps else 0)

    def has_room(self, count: i64) -> bool:
        """Would `count` more messages be kept in memory?"""
        if not self.keeps:
            return True
        return self.stored_count == 0 and self.memory_count + count <= self.limit and not self.held.full()

    def put(self, batch: Batch) -> None:
        """Add a batch at the back.

        Without room only its positions are noted; a batch that has none (it waited in the memory of its topic, so
        it is within twice the limit) stays in memory all the same.
        """
        if batch.first_position == NOWHERE or self.has_room(batch.count):
            self._items.append(batch)
            self.memory_count += batch.count
            self.held.add(batch)
        else:
            first = batch.first_position
            self.put_extent(first, first + batch.count, batch.timestamp)

    def put_extent(self, start: i64, stop: i64, since: i64 = 0) -> None:
        """Add what the log holds at [start, stop) at the back; `since` is when the first was published, if known."""
        assert start != NOWHERE
        self.stored_count += stop - start
        if self._extents:
            last = self._extents[-1]
            if last.stop == start:
                self._extents[-1] = Extent(last.start, stop, last.since)
                return
        self._extents.append(Extent(start, stop, since))

    def put_again(self, message: Message) -> None:
        """Add a message that was in flight or deferred, wherever its body is."""
        if message.loaded:
            self.put_back(message)
        else:
            self.put_matured(message)

    def put_back(self, message: Message) -> None:
        """Add a requeued message after what is in memory."""
        self._items.append(message)
        self.held.add_message(message)
        self.memory_count += 1
        if self.stored_count > 0:
            self._returned_count += 1

    def put_matured(self, message: Message) -> None:
        """Add a deferred message that is due and has its body in the log."""
        self._matured.append(message)
        self.stored_count += 1

    def take(self) -> Message | None:
        """The next message in memory; None: `refill` and try again.

        When only requeued messages are left, what the log holds is read before they come again: a message that
        nobody can process must not keep the others waiting.
        """
        if self.stored_count > 0 and self.memory_count <= self._returned_count < self.limit + _AHEAD:
            return None
        head = self._head
        if head is None:
            if not self._items:
                return None
            item = self._items.popleft()
            if isinstance(item, Message):
                self.memory_count -= 1
                self.held.remove_message(item)
                return item
            head = item
            self._head = head
            self._index = 0
            self._offset = 0
        message = head.message(self._index, self._offset)
        self.memory_count -= 1
        self._index += 1
        if self._index == head.count:
            self._head = None
            self.held.remove(head)
        else:
            size: i64 = len(message.body)
            self._offset += 4 + size
        return message

    def take_first(self) -> Batch | Extent | None:
        """The first of what was put here, out of it, where nothing is ever taken or put back; None: there is nothing.

        A batch still counts as held.
        """
        if self._items:
            item = self._items.popleft()
            assert isinstance(item, Batch)
            self.memory_count -= item.count
            return item
        if self._extents:
            extent = self._extents.popleft()
            self.stored_count -= extent.stop - extent.start
            return extent
        return None

    def refill(self, now: i64) -> list[Batch]:
        """Read the next block from the log; to be called when `take` has nothing. Returns batches not yet due.

        StoreError if the log can't be read now: nothing is changed, so it may be called again later.
        """
        early: list[Batch] = []
        store = self.store
        if store is None or self.stored_count == 0:
            return early
        before = self.memory_count
        while self.memory_count == before and (self._matured or self._extents):
            try:
                self._read_next(store, now, early)
            except StoreError:
                if not early and self.memory_count == before:
                    self._returned_count = 0  # what is in memory need not wait for the disk
                    raise
                break  # what was read comes first; the next call meets the error again
        self._returned_count = 0
        return early

    def _read_next(self, store: TopicStore, now: i64, early: list[Batch]) -> None:
        """Read one block, matured messages or a part of the first extent. On a StoreError everything stays in place."""
        if self._matured and self._is_next(self._matured[0]):
            self._load_matured(store)
            return
        extent = self._extents[0]
        start = extent.start
        stop = extent.stop
        if self._matured:
            stop = min(stop, max(self._matured[0].position, start + 1))
        self.read_count += 1
        batches = store.read(start, stop, READ_BLOCK)
        reached = start
        for batch in batches:
            reached = self._accept(batch, reached, stop, now, early)
        if not batches:
            self.lost_count += stop - start
            reached = stop
        self.stored_count -= reached - start
        if reached < extent.stop:
            since = batches[-1].timestamp if batches else extent.since
            self._extents[0] = Extent(reached, extent.stop, since)
        else:
            self._extents.popleft()

    def _is_next(self, message: Message) -> bool:
        """Does a matured message stand before what is next in the log?"""
        return not self._extents or message.position < self._extents[0].start

    def _accept(self, batch: Batch, reached: i64, stop: i64, now: i64, early: list[Batch]) -> i64:
        """Take what a batch has of [reached, stop); returns how far it goes."""
        first = batch.first_position
        if first > reached:
            self.lost_count += min(first, stop) - reached
            reached = min(first, stop)
        end = min(first + batch.count, stop)
        if end <= reached:
            return reached
        piece = batch.part(reached - first, end - first)
        if self.calendar.due(piece) > now:
            early.append(piece)
        else:
            self._items.append(piece)
            self.memory_count += piece.count
            self.held.add(piece)
        return end

    def _load_matured(self, store: TopicStore) -> None:
        """Bring bodies of the first due messages into memory, about a block, in the log's order and in few reads."""
        window: list[Message] = []
        for message in self._matured:
            if len(window) == _WINDOW or not self._is_next(message):
                break
            window.append(message)
        for _ in range(len(window)):
            self._matured.popleft()
        window.sort(key=_position)
        done: i64 = 0
        size: i64 = 0
        count: i64 = len(window)
        most = self.read_count + _READS
        try:
            while done < count and size < READ_BLOCK and self.read_count < most:
                stop = done + 1
                while stop < count and window[stop].position - window[stop - 1].position <= _NEAR:
                    stop += 1
                self.read_count += 1
                batches = store.read(window[done].position, window[stop - 1].position + 1, READ_BLOCK)
                if not batches:
                    self._lose(stop - done)
                    done = stop
                for batch in batches:
                    size += len(batch.data)
                    done = self._fill_from(batch, window, done, stop)
        finally:
            self._matured.extendleft(reversed(window[done:]))

    def _fill_from(self, batch: Batch, window: list[Message], done: i64, stop: i64) -> i64:
        """Give the bodies in a batch to their messages, the next ones of the window; returns how far that went."""
        first = batch.first_position
        index: i64 = 0
        offset: i64 = 0
        while done < stop and window[done].position < first + batch.count:
            message = window[done]
            done += 1
            if message.position < first:
                self._lose(1)
                continue
            offset = behind(batch.data, offset, message.position - first - index)
            index = message.position - first
            _fill(message, batch.message(index, offset))
            self.stored_count -= 1
            self.put_back(message)
        return done

    def _lose(self, count: i64) -> None:
        self.stored_count -= count
        self.lost_count += count

    def trim(self) -> None:
        """Drop what is beyond the limit, newest first, if that is this queue's way; to be called after a dispatch."""
        if self.keeps:
            return
        held = self.held
        while self.memory_count > self.limit or (self.memory_count > 0 and held.overfull()):
            over = self.memory_count if held.overfull() else self.memory_count - self.limit
            if self._items:
                count = self._drop_last(over)
            else:
                head = self._head
                assert head is not None
                self._head = head.part(0, head.count - over) if head.count - over > self._index else None
                held.remove(head)
                if self._head is not None:
                    held.add(self._head)
                count = over
            self.memory_count -= count
            self.dropped_count += count

    def _drop_last(self, over: i64) -> i64:
        """Drop the last item, or as much of it as is over; returns how many messages that was."""
        item = self._items.pop()
        if isinstance(item, Message):
            self.held.remove_message(item)
            return 1
        self.held.remove(item)
        if item.count <= over:
            return item.count
        rest = item.part(0, item.count - over)
        self._items.append(rest)
        self.held.add(rest)
        return over

    def oldest(self) -> i64:
        """When the oldest was published, ns since the epoch; 0 if nothing waits.

        Messages that were put back stand after newer ones. Of many, LOOKS at each end are looked at.
        """
        head = self._head
        found: i64 = 0 if head is None else head.timestamp
        if self._matured:
            found = older(found, self._matured[0].timestamp)
        if self._extents:
            found = older(found, self._extents[0].since)
        for number, item in enumerate(self._items):
            if number == LOOKS:
                break
            found = older(found, item.timestamp)
        for number, item in enumerate(reversed(self._items)):
            if number == LOOKS:
                break
            found = older(found, item.timestamp)
        return found

    def clear(self) -> list[object]:
        """Drop everything; returns what was in memory, for `Waste`."""
        dropped: list[object] = list(self._items)
        dropped.extend(self._matured)
        if self._head is not None:
            dropped.append(self._head)
        self._head = None
        self._items = deque()
        self._extents = deque()
        self._matured = deque()
        self.memory_count = 0
        self.stored_count = 0
        self._returned_count = 0
        return dropped

    def in_memory(self) -> list[Batch | Message]:
        """What is in memory, in order; the batch in use only with what is left of it."""
        rest: list[Batch | Message] = []
        head = self._head
        if head is not None:
            rest.append(head.part(self._index, head.count))
        rest.extend(self._items)
        return rest

    def counted(self) -> list[Batch | Message]:
        """What counts as held in memory."""
        whole = list(self._items)
        if self._head is not None:
            whole.append(self._head)
        return whole

    def extents(self) -> list[Extent]:
        """What only the log holds, in order."""
        return list(self._extents)

    def owed(self) -> Owed:
        """All that waits here now."""
        return Owed(self.in_memory(), list(self._extents), list(self._matured))

    def replace_memory(self, items: list[Batch | Message]) -> None:
        """Put other items, with as many messages, in place of those in memory: they moved in the log."""
        if self._head is not None:
            self.held.remove(self._head)
            first = items[0]
            assert isinstance(first, Batch)  # what is left of it
            self.held.add(first)
        self._head = None
        self._items = deque(items)


def older(one: i64, other: i64) -> i64:
    """The earlier of two times, of which 0 is none."""
    return one if other == 0 or 0 < one < other else other


def load(message: Message, store: TopicStore) -> bool:
    """Read a message of which only the position is in memory. False: the log has lost it. StoreError: try again."""
    for batch in store.read(message.position, message.position + 1, 1):
        if batch.first_position <= message.position:
            index = message.position - batch.first_position
            _fill(message, batch.message(index, batch.offset_of(index)))
            return True
    return False


def _fill(message: Message, found: Message) -> None:
    message.id = found.id
    message.timestamp = found.timestamp
    message.body = found.body
    message.loaded = True


def _position(message: Message) -> int:
    return int(message.position)
