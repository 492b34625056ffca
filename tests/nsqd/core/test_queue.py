"""What waits to be delivered."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsqkit.nsqd.core.batch import Batch
from nsqkit.nsqd.core.queue import READ_BLOCK, ReadyQueue, load
from nsqkit.wire.message import NOWHERE, Message

NOW = 1_700_000_000_000_000_000


class Source:
    """Makes batches with consecutive ids, and writes them to a log if there is one."""

    def __init__(self, log=None) -> None:
        self.log = log
        self.made = 0

    def batch(self, count: int, due: int = 0, size: int = 1) -> Batch:
        """A batch whose bodies are their numbers."""
        bodies = [b"%0*d" % (size, self.made + index) for index in range(count)]
        batch = Batch(b"".join(struct.pack(">i", len(b)) + b for b in bodies), count, NOW, due, None)
        batch.first_id = 4096 * 4096 + self.made
        self.made += count
        if self.log is not None:
            self.log.append(batch)
            self.log.write()
        return batch


def take(queue: ReadyQueue) -> Message | None:
    """The next message, from memory or the log."""
    message = queue.take()
    while message is None and queue.stored_count:
        assert [] == queue.refill(NOW)
        message = queue.take()
    return message


def drain(queue: ReadyQueue) -> list[int]:
    """The numbers of everything that waits."""
    numbers = []
    while (message := take(queue)) is not None:
        numbers.append(int(message.body[-9:]))
    assert 0 == queue.depth() == queue.memory_count == queue.stored_count
    return numbers


def test_empty_queue(new_log):
    """There is nothing in a new queue."""
    queue = ReadyQueue(10, new_log(), keeps=True)

    assert queue.take() is None
    assert [] == queue.refill(NOW)
    assert (0, 0, 0) == (queue.depth(), queue.backend_depth(), len(queue.clear()))


def test_first_in_first_out(new_log):
    """Messages come out in order, batch by batch."""
    source = Source(new_log())
    queue = ReadyQueue(10, source.log, keeps=True)

    queue.put(source.batch(3))
    queue.put(source.batch(1))
    queue.put(source.batch(2))

    assert (6, 0) == (queue.depth(), queue.backend_depth())
    assert list(range(6)) == drain(queue)


def test_what_does_not_fit_is_only_in_the_log(new_log):
    """Beyond the limit only positions are kept, and everything behind them too, so that the order stays."""
    source = Source(new_log())
    queue = ReadyQueue(4, source.log, keeps=True)

    for count in (3, 2, 1):
        queue.put(source.batch(count))

    assert (3, 3, 3) == (queue.memory_count, queue.stored_count, queue.backend_depth())
    assert [(3, 6)] == [(extent.start, extent.stop) for extent in queue.extents()]
    assert not queue.has_room(1)
    assert list(range(6)) == drain(queue)
    assert queue.has_room(4)
    assert not queue.has_room(5)


def test_without_positions_it_stays_in_memory(new_log):
    """A batch that is in no log is kept in memory even beyond the limit, and shown as such."""
    source = Source()
    queue = ReadyQueue(2, new_log(), keeps=True)

    queue.put(source.batch(5))

    assert (5, 0, 3) == (queue.memory_count, queue.stored_count, queue.backend_depth())
    assert list(range(5)) == drain(queue)


def test_extents_of_adjacent_positions_are_one(new_log):
    """A long queue in the log costs one entry."""
    queue = ReadyQueue(0, new_log(), keeps=True)

    for start, stop in ((0, 5), (5, 7), (9, 10)):
        queue.put_extent(start, stop)

    assert [(0, 7), (9, 10)] == [(extent.start, extent.stop) for extent in queue.extents()]
    assert 8 == queue.depth()


def test_log_is_read_in_blocks(new_log):
    """Only a block at a time is brought into memory."""
    source = Source(new_log())
    queue = ReadyQueue(0, source.log, keeps=True)
    for _ in range(10):
        queue.put(source.batch(1, size=READ_BLOCK // 4))

    queue.refill(NOW)

    assert (4, 6) == (queue.memory_count, queue.stored_count)
    assert list(range(10)) == drain(queue)


@pytest.mark.parametrize("start, stop", [(0, 4), (1, 4), (1, 3), (3, 7), (0, 10), (5, 6)])
def test_extent_within_batches(new_log, start, stop):
    """An extent may begin and end inside a batch."""
    source = Source(new_log())
    for count in (4, 2, 4):
        source.batch(count)
    queue = ReadyQueue(10, source.log, keeps=True)

    queue.put_extent(start, stop)

    assert list(range(start, stop)) == drain(queue)


@pytest.mark.parametrize("damaged", [0, 3, 9])
def test_damaged_log(new_log, damaged):
    """What the log can't give back any more is counted as lost; the rest comes."""
    source = Source(new_log())
    for _ in range(5):
        source.batch(2)
    queue = ReadyQueue(10, source.log, keeps=True)
    queue.put_extent(0, 10)

    source.log.damage(damaged)

    first = damaged // 2 * 2
    assert [n for n in range(10) if n not in (first, first + 1)] == drain(queue)
    assert 2 == queue.lost_count


def test_nothing_left_of_the_log(new_log):
    """An extent that can't be read at all is lost, and the queue goes on behind it."""
    source = Source(new_log())
    source.batch(2)
    source.batch(2)
    queue = ReadyQueue(10, source.log, keeps=True)
    queue.put_extent(0, 2)
    queue.put_extent(3, 4)
    source.log.damage(0)

    assert [3] == drain(queue)
    assert 2 == queue.lost_count


def test_not_yet_due(new_log):
    """Messages in the log that are not due yet are handed back when they are read."""
    source = Source(new_log())
    queue = ReadyQueue(0, source.log, keeps=True)
    for due in (0, NOW + 1, NOW, 0):
        queue.put(source.batch(1, due=due))

    early = queue.refill(NOW)

    assert [NOW + 1] == [batch.due for batch in early]
    assert [0, 2, 3] == drain(queue)


def test_everything_is_early(new_log):
    """A log full of messages that are not due leaves an empty queue."""
    source = Source(new_log())
    queue = ReadyQueue(0, source.log, keeps=True)
    for _ in range(3):
        queue.put(source.batch(2, due=NOW + 1))

    early = queue.refill(NOW)

    assert 6 == sum(batch.count for batch in early)
    assert queue.take() is None
    assert 0 == queue.depth()


def test_put_back(new_log):
    """A requeued message comes behind what is in memory."""
    source = Source(new_log())
    queue = ReadyQueue(10, source.log, keeps=True)
    queue.put(source.batch(3))
    message = queue.take()
    assert message is not None

    queue.put_back(message)

    assert [1, 2, 0] == drain(queue)


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_requeued_messages_do_not_block_the_log(new_log, limit):
    """A message that is put back each time it is taken does not keep what is in the log from being delivered."""
    source = Source(new_log())
    queue = ReadyQueue(limit, source.log, keeps=True)
    for _ in range(20):
        queue.put(source.batch(1))

    taken = []
    for _ in range(60):
        message = take(queue)
        assert message is not None
        taken.append(int(message.body[-9:]))
        if taken[-1] % 10 == 0:
            queue.put_back(message)

    assert set(range(20)) == set(taken)
    assert 2 == queue.depth()


def test_requeueing_everything_does_not_fill_the_memory(new_log):
    """A consumer that gives everything back does not bring the whole log into memory."""
    source = Source(new_log())
    queue = ReadyQueue(10, source.log, keeps=True)
    for _ in range(100):
        queue.put(source.batch(10, size=READ_BLOCK // 100))

    for _ in range(2000):
        message = take(queue)
        assert message is not None
        queue.put_back(message)

    assert 300 >= queue.memory_count
    assert 1000 == queue.depth()


def test_matured(new_log):
    """A deferred message that is due is read from the log where its turn is."""
    source = Source(new_log())
    for _ in range(4):
        source.batch(1)
    queue = ReadyQueue(10, source.log, keeps=True)
    queue.put_extent(1, 4)
    message = Message(b"", 0, 2, b"", 0)
    message.loaded = False

    queue.put_matured(message)

    assert [message] == queue.owed().matured
    assert 4 == queue.depth()
    first = take(queue)
    assert first is message
    assert (b"0", b"%016x" % (4096 * 4096), NOW, 2) == (first.body, first.id, first.timestamp, first.attempts)
    assert [1, 2, 3] == drain(queue)


def test_matured_and_lost(new_log):
    """A due message that can't be read any more is lost, and does not hold up the others."""
    source = Source(new_log())
    for _ in range(3):
        source.batch(1)
    queue = ReadyQueue(10, source.log, keeps=True)
    for position in (0, 1, 2):
        message = Message(b"", 0, 1, b"", position)
        message.loaded = False
        queue.put_matured(message)
    source.log.damage(0)
    source.log.damage(2)

    assert [1] == drain(queue)
    assert 2 == queue.lost_count


@given(st.lists(st.integers(0, 30), unique=True), st.lists(st.integers(0, 30), unique=True, max_size=8))
def test_matured_and_extents_in_any_order(new_log, positions, matured):
    """However due messages and extents are mixed, each is delivered once."""
    source = Source(new_log())
    for count in (1, 5, 10, 15):
        source.batch(count)
    queue = ReadyQueue(5, source.log, keeps=True)
    for position in positions:
        queue.put_extent(position, position + 1)
    for position in matured:
        message = Message(b"", 0, 1, b"", position)
        message.loaded = False
        queue.put_matured(message)

    assert sorted(positions + matured) == sorted(drain(queue))
    assert 0 == queue.lost_count


@pytest.mark.parametrize(
    "limit, taken, kept",
    [
        (4, 0, [0, 1, 2, 3]),
        (4, 1, [1, 2, 3, 4]),
        (1, 1, [1]),
        (0, 0, []),
        (0, 1, []),
        (3, 4, [4, 5, 6]),
        (9, 0, [*range(8)]),
    ],
)
def test_trim(limit, taken, kept):
    """A queue that does not keep what is beyond its limit drops the newest."""
    source = Source()
    queue = ReadyQueue(limit, None, keeps=False)
    for count in (3, 1, 4):
        queue.put(source.batch(count))
    for _ in range(taken):
        queue.take()

    queue.trim()

    assert 8 - taken - len(kept) == queue.dropped_count
    assert (len(kept), 0) == (queue.depth(), queue.backend_depth())
    assert kept == drain(queue)


def test_trim_drops_requeued_messages_too():
    """Among the newest are those that were put back last."""
    source = Source()
    queue = ReadyQueue(2, None, keeps=False)
    queue.put(source.batch(3))
    message = queue.take()
    assert message is not None
    queue.put_back(message)

    queue.trim()

    assert [1, 2] == drain(queue)


def test_a_queue_that_keeps_is_not_trimmed(new_log):
    """Messages of an ordinary topic are never dropped."""
    source = Source()
    queue = ReadyQueue(1, new_log(), keeps=True)
    queue.put(source.batch(3))

    queue.trim()

    assert [0, 1, 2] == drain(queue)


def test_clear(new_log):
    """Clearing tells how many messages there were, and leaves nothing, also of the batch in use."""
    source = Source(new_log())
    queue = ReadyQueue(4, source.log, keeps=True)
    queue.put(source.batch(4))
    queue.put(source.batch(4))
    queue.take()
    message = Message(b"", 0, 1, b"", 0)
    queue.put_matured(message)

    assert 8 == queue.depth()
    assert 2 == len(queue.clear())  # the batch in use, and the matured one

    assert [] == drain(queue)
    assert ([], [], []) == (queue.in_memory(), queue.extents(), queue.owed().matured)


def test_in_memory(new_log):
    """Of the batch in use only what is left of it is shown, with its positions; that may be put in its place."""
    source = Source(new_log())
    queue = ReadyQueue(10, source.log, keeps=True)
    queue.put(source.batch(3))
    queue.put(source.batch(1))
    queue.take()

    items = queue.in_memory()
    queue.replace_memory(items)

    assert [(1, 2), (3, 1)] == [(i.first_position, i.count) for i in items if isinstance(i, Batch)]
    assert items == queue.in_memory()
    assert [1, 2, 3] == drain(queue)


def test_load(new_log):
    """A message is found inside its batch."""
    source = Source(new_log())
    source.batch(5)
    message = Message(b"", 0, 7, b"", 3)
    message.loaded = False

    assert load(message, source.log)

    assert (b"3", 7, 3, True) == (message.body, message.attempts, message.position, message.loaded)


def test_load_what_is_lost(new_log):
    """A message whose batch is damaged can't be loaded, even if there is something behind it."""
    source = Source(new_log())
    source.batch(2)
    source.batch(2)
    source.log.damage(0)

    assert not load(Message(b"", 0, 1, b"", 1), source.log)


def test_without_a_position():
    """NOWHERE is not a position that could be put."""
    with pytest.raises(AssertionError):
        ReadyQueue(1, None, keeps=True).put_extent(NOWHERE, 1)


@given(st.data(), st.integers(0, 8))
def test_order_is_kept(new_log, data, limit):
    """Whatever is put and taken in turns, messages come out in the order in which they went in."""
    source = Source(new_log())
    queue = ReadyQueue(limit, source.log, keeps=True)
    taken = []

    for count in data.draw(st.lists(st.integers(-6, 6), max_size=30)):
        if count > 0:
            queue.put(source.batch(count))
        for _ in range(-count):
            message = take(queue)
            if message is not None:
                taken.append(int(message.body[-9:]))
        assert source.made == len(taken) + queue.depth()
    taken += drain(queue)

    assert list(range(source.made)) == taken
