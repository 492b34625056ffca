"""What a channel keeps for later: deferred messages, one by one and in bulk."""

import pytest

from nsqkit.nsqd.core.channel import Channel
from nsqkit.nsqd.core.deadlines import SLICE
from tests.nsqd.core.flavours import stored, with_log
from tests.nsqd.core.sent import sized

SECOND = 1_000_000_000


def test_what_is_due_at_one_moment_becomes_ready_in_portions(node, clock, publish):
    """One turn takes SLICE of what is due, the alarm among it, and the next one goes on by itself."""
    channel = node.channel("t", "c")
    publish("t", *[b"x"] * 2 * SLICE, delay=10)
    node.turn()

    clock.now += 10 * SECOND
    node.broker.work(clock.now)
    assert SLICE + 1 == len(channel.deferred)
    assert node.broker.busy()

    node.turn()
    assert (0, 2 * SLICE) == (len(channel.deferred), channel.queue.depth())


@pytest.fixture
def bulk(node) -> Channel:
    """A channel to which 3 * SLICE deferred messages came at once, of which one turn has taken apart the first."""
    channel: Channel = node.channel("t", "c")
    body = sized(*[b"x"] * SLICE)
    for _ in range(3):
        node.broker.topic("t").publish(body, SLICE, node.clock.now + 10 * SECOND, None, node.clock.now)
    for _ in range(2):
        node.broker.work(node.clock.now)
    assert (3 * SLICE, SLICE) == (channel.deferred_count(), len(channel.deferred))
    node.broker.check()
    return channel


def test_what_comes_deferred_in_bulk_is_taken_apart_in_portions(node, bulk, clock):
    """A batch in each turn; all of it comes at its time."""
    consumer = node.client().subscribe("t", "c").ready(2500)
    node.turn()
    assert 3 * SLICE == len(bulk.deferred)

    clock.advance(9)
    assert [] == consumer.deliveries()
    clock.advance(1)
    assert (2500, 3 * SLICE - 2500) == (len(consumer.deliveries()), bulk.queue.depth())


def test_deferred_in_bulk_and_emptied(node, bulk):
    """What is not taken apart yet goes as well."""
    bulk.empty()
    node.broker.check()
    node.turn()

    assert (0, 3 * SLICE, 0) == (bulk.deferred_count(), bulk.emptied_count, node.broker.held.bytes)


@with_log
def test_deferred_in_bulk_and_restarted(node, bulk):
    """What is not taken apart yet is in the checkpoint, with its time."""
    node.stop()
    node.restart()
    node.turn()

    channel = node.topic("t").channels["c"]
    assert (3 * SLICE, 0) == (channel.deferred_count(), channel.queue.depth())


def test_deferred_message(consumer, publish, clock, node):
    """A deferred message counts at once, and is delivered when it is due."""
    consumer.subscribe("t", "c").ready(10)

    publish("t", b"later", delay=5)
    publish("t", b"now")

    channel = node.channel("t", "c")
    assert (1, 2, 0) == (len(channel.deferred), channel.message_count, channel.queue.depth())
    assert [(b"now", 1)] == consumer.received()
    clock.advance(4.999)
    assert [] == consumer.received()
    clock.advance(0.001)
    assert [(b"later", 1)] == consumer.received()


def test_deferred_messages_come_in_order_of_their_times(consumer, publish, clock):
    """The order of publishing does not matter."""
    consumer.subscribe("t", "c").ready(10)

    for delay in (3, 1, 2):
        publish("t", b"%d" % delay, delay=delay)
    clock.advance(10)

    assert [b"1", b"2", b"3"] == consumer.bodies()


def test_deferred_body_is_not_kept_in_memory(consumer, publish, node, flavour):
    """If the log has a deferred message, memory holds only its entry."""
    consumer.subscribe("t", "c")

    publish("t", b"x" * 1000, delay=60)

    ((_, _, message),) = node.channel("t", "c").deferred
    assert message.loaded == (flavour in ("nothing", "memory"))
    assert (1000 if message.loaded else 0) == len(message.body)


@stored
def test_deferred_and_lost(consumer, publish, clock, node):
    """A deferred message that the log can't give back is counted as lost; the others come."""
    consumer.subscribe("t", "c").ready(10)
    publish("t", b"one", delay=5)
    publish("t", b"two", delay=5)

    node.log("t").damage(0)
    clock.advance(5)

    assert [(b"two", 1)] == consumer.received()
    assert 1 == node.channel("t", "c").queue.lost_count


def test_deferred_message_of_an_ephemeral_channel(node, publish, clock):
    """Delays work there as anywhere."""
    consumer = node.client().subscribe("t", "c#ephemeral").ready(2)

    publish("t", b"one", delay=3)
    clock.advance(3)

    assert [(b"one", 1)] == consumer.received()


@stored
def test_deferred_message_that_cannot_be_read_now(node, publish, clock):
    """It is late, and not lost."""
    consumer = node.client().subscribe("t", "c").ready(10)
    publish("t", b"x", delay=3)
    node.log("t").read_failure = "read error"
    clock.advance(10)
    assert [] == consumer.bodies()

    node.log("t").read_failure = ""
    clock.advance(1)

    assert [b"x"] == consumer.bodies()
