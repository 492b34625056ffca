"""What a restart finds after a crash, and what is carried forward so that old segments can go."""

import pytest

from nsqkit.nsqd.core.store import StoreError
from tests.nsqd.core.flavours import stored
from tests.nsqd.core.sent import numbers

# -- after a kill


@stored
def test_killed_without_a_checkpoint(node, publish):
    """Without a checkpoint every channel gets everything that is in the log."""
    consumer = node.client().subscribe("t", "c").ready(10)
    publish("t", *numbers(3))
    consumer.finish(consumer.deliveries()[0].id)

    node.restart()

    assert [(body, 1) for body in numbers(3)] == node.drained()


@stored
def test_killed_behind_a_checkpoint(node, publish, clock):
    """What was published behind the checkpoint is owed to every channel; what was finished may come again."""
    consumer = node.client().subscribe("t", "c").ready(2)
    publish("t", *numbers(4))
    node.checkpoint()
    consumer.finish(*[delivery.id for delivery in consumer.deliveries()])
    publish("t", b"4")
    publish("t", b"5", delay=10)
    node.channel("t", "new")

    node.restart()

    assert [(b"0", 2), (b"1", 2), (b"2", 1), (b"3", 1), (b"4", 1)] == node.drained()
    assert [(b"4", 1)] == node.drained(channel="new")
    clock.advance(10)
    assert [(b"5", 1)] == node.drained()
    assert [(b"5", 1)] == node.drained(channel="new")


@stored
def test_killed_behind_a_checkpoint_without_channels(node, publish):
    """What no channel has taken over yet waits for the first one again."""
    publish("t", b"0")
    node.checkpoint()
    publish("t", b"1")

    node.restart()

    assert 2 == node.topic("t").depth()
    assert [(b"0", 1), (b"1", 1)] == node.drained()


@stored
def test_power_cut(node, publish):
    """If the log lost its end, a checkpoint that knows more is followed as far as the log reaches."""
    consumer = node.client().subscribe("t", "c").ready(1)
    for body in numbers(4):
        publish("t", body)
    publish("t", b"deferred", delay=5)
    consumer.leave()
    node.checkpoint()

    node.log("t").cut_off(3)
    node.log("t")._end = 2
    node.restart()

    assert [(b"0", 2), (b"1", 1)] == node.drained()


@stored
def test_damage(node, publish, clock):
    """What can't be read any more is lost and counted; everything else is delivered."""
    consumer = node.client().subscribe("t", "c").ready(1)
    for body in numbers(3):
        publish("t", body)
    publish("t", b"3", delay=5)
    publish("t", b"4", delay=5)
    consumer.leave()
    node.checkpoint()

    for position in (0, 2, 3):
        node.log("t").damage(position)
    node.restart()
    clock.advance(5)

    assert [(b"1", 1), (b"4", 1)] == sorted(node.drained())


@stored
@pytest.mark.parametrize("size", [3, 4])
def test_a_large_log_is_looked_at_after_a_start(node, publish, size):
    """A process may have ended before it gave back the space of what was finished."""
    publish("t", *numbers(size))
    node.log("t").segment = 4

    node.restart()

    assert (size == 4) == (node.topic("t") in node.broker.dirty)


# -- leftovers that keep an old segment


@stored
def test_carry_forward(node, publish, clock):
    """A few old messages are copied to the end, keep id, time, attempts and delay, and free the oldest segment."""
    consumer = node.client().subscribe("t", "c").ready(2500)
    other = node.client().subscribe("t", "other").ready(2500)
    node.log("t").segment = 100
    publish("t", *numbers(100))
    publish("t", b"deferred", delay=3000)
    publish("t", *numbers(250))
    delivered = consumer.deliveries()
    consumer.requeue(delivered[7].id, 1_000_000)
    consumer.finish(*[delivery.id for delivery in delivered if delivery is not delivered[7]])
    theirs = other.deliveries()
    other.finish(*[delivery.id for delivery in theirs if delivery is not theirs[7]])

    assert node.carry_forward("t")

    assert [(1, True)] == [(batch.count, batch.carried) for batch in node.log("t").batches[3:]]
    node.checkpoint()
    assert 100 == node.log("t").start()
    node.restart()
    again = node.client().subscribe("t", "c").ready(10)
    assert [(b"7", 2)] == node.drained(channel="other")
    clock.advance(1000)
    (found,) = again.deliveries()
    assert (b"7", 2, delivered[7].id, delivered[7].timestamp) == (
        found.body,
        found.attempts,
        found.id,
        found.timestamp,
    )
    again.finish(found.id)
    clock.advance(2000)
    assert [(b"deferred", 1)] == again.received()


@stored
def test_killed_behind_carrying_forward(node, publish):
    """If the checkpoint is from before, the originals are still there, and the copies are given to nobody."""
    consumer = node.client().subscribe("t", "c").ready(2500)
    node.log("t").segment = 100
    publish("t", *numbers(100))
    publish("t", *numbers(100))
    delivered = consumer.deliveries()
    consumer.finish(*[delivery.id for delivery in delivered[1:]])
    node.checkpoint()

    assert node.carry_forward("t")
    node.restart()

    assert [(b"0", 2)] == node.drained()


@stored
def test_many_old_messages_are_not_carried(node, publish):
    """A segment that is still needed for a good part, or for untried messages, is left alone."""
    consumer = node.client().subscribe("t", "c").ready(2500)
    node.log("t").segment = 100
    publish("t", *numbers(100))
    publish("t", *numbers(100))
    assert not node.carry_forward("t")
    consumer.finish(*[delivery.id for delivery in consumer.deliveries()[13:]])

    assert not node.carry_forward("t")
    node.channel("t", "untried")
    assert 2 == len(node.log("t").batches)


@stored
def test_untried_messages_are_not_carried(node, publish):
    """What waits untried will be read in order, where it is."""
    node.channel("t", "c")
    node.log("t").segment = 100
    publish("t", *numbers(200))
    consumer = node.client().subscribe("t", "c").ready(95)
    consumer.ready(0).finish(*[delivery.id for delivery in consumer.deliveries()])

    assert not node.carry_forward("t")


@stored
def test_carrying_forward_fails(node, publish):
    """If the copies can't be written nothing has changed."""
    consumer = node.client().subscribe("t", "c").ready(2500)
    node.log("t").segment = 100
    publish("t", *numbers(100))
    publish("t", *numbers(100))
    consumer.finish(*[delivery.id for delivery in consumer.deliveries()[1:]])
    node.log("t").failure = "disk full"

    with pytest.raises(StoreError, match="disk full"):
        node.carry_forward("t")
    node.log("t").failure = ""
    node.checkpoint()
    node.restart()

    assert [(b"0", 2)] == node.drained()
