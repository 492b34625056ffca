"""The calendar is set while the broker runs: what outlasts a restart follows it, timeouts and new delays do not."""

import pytest

from nsqkit.nsqd.core.calendar import MOST_STEPS
from nsqkit.nsqd.core.deadlines import SLICE
from tests.nsqd.core.flavours import stored
from tests.nsqd.core.sent import sized

SECOND = 1_000_000_000
HOUR = 3600


@pytest.fixture(params=[HOUR, -HOUR])
def step(request) -> int:
    """By how many seconds the calendar is set."""
    return int(request.param)


def test_timestamps_and_ids_follow(node, publish, step):
    """A message is stamped by the calendar; ids rise all the same."""
    consumer = node.client().subscribe("t", "c").ready(10)
    publish("t", b"before")
    node.broker.follow_calendar(step * SECOND)
    publish("t", b"after")

    before, after = consumer.deliveries()

    assert step * SECOND == after.timestamp - before.timestamp
    assert after.id > before.id


def test_timeouts_stay(node, publish, clock, step):
    """What is in flight times out when it was to."""
    consumer = node.client().subscribe("t", "c").ready(1)
    publish("t", b"x")
    node.broker.follow_calendar(step * SECOND)
    channel = node.channel("t", "c")

    clock.advance(59)
    assert 0 == channel.timeout_count
    clock.advance(1)
    assert 1 == channel.timeout_count
    assert [1, 2] == [delivery.attempts for delivery in consumer.deliveries()]


@pytest.mark.parametrize("when", ["before", "after"])
def test_delays_of_this_process_stay(node, publish, clock, step, when):
    """Deferred publishes and requeued messages come after the delay that was asked for."""
    consumer = node.client().subscribe("t", "c").ready(1)
    publish("t", b"requeued")
    (delivery,) = consumer.deliveries()
    if when == "before":
        node.broker.follow_calendar(step * SECOND)
    consumer.ready(10).requeue(delivery.id, 5000)
    publish("t", b"deferred", delay=6)
    if when == "after":
        node.broker.follow_calendar(step * SECOND)
    consumer.bodies()

    clock.advance(4.9)
    assert 2 == len(node.channel("t", "c").deferred)
    clock.advance(0.2)
    assert 1 == len(node.channel("t", "c").deferred)
    clock.advance(1)

    assert [b"requeued", b"deferred"] == [delivery.body for _, _, delivery in node.sent[-2:]]


@pytest.mark.parametrize("in_memory", [0, 100])
def test_delays_of_this_process_stay_while_there_is_no_channel(
    node, publish, clock, settings, step, in_memory
):
    """What waits in its topic, in memory or only in the log, comes after the delay that was asked for."""
    if node.storage is not None:
        settings.mem_queue_size = in_memory
    publish("t", b"before", delay=6)
    node.broker.follow_calendar(step * SECOND)
    publish("t", b"after", delay=7)

    consumer = node.client().subscribe("t", "c").ready(10)
    clock.advance(5.9)
    assert [] == consumer.bodies()
    clock.advance(0.2)
    assert [b"before"] == consumer.bodies()
    clock.advance(1)
    assert [b"before", b"after"] == [delivery.body for _, _, delivery in node.sent]


def test_delays_in_bulk_stay(node, clock, step):
    """What came deferred in bulk and is not taken apart yet comes after the delay that was asked for."""
    channel = node.channel("t", "c")
    for _ in range(3):
        node.topic("t").publish(sized(*[b"x"] * SLICE), SLICE, clock.now + 6 * SECOND, None, clock.now)
    node.broker.work(clock.now)
    assert channel.early

    node.broker.follow_calendar(step * SECOND)
    clock.advance(5.9)
    assert (3 * SLICE, 0) == (channel.deferred_count(), channel.queue.depth())
    clock.advance(0.2)
    assert (0, 3 * SLICE) == (channel.deferred_count(), channel.queue.depth())


@stored
def test_delays_of_before_the_restart_follow_when_the_log_is_read_later(node, publish, clock):
    """What waited in its topic over the restart is due by the calendar, whenever it gets a channel."""
    publish("t", b"x", delay=100)
    node.restart()
    publish("t", b"y", delay=100)
    node.broker.follow_calendar(-HOUR * SECOND)
    consumer = node.client().subscribe("t", "c").ready(10)
    clock.advance(101)
    assert [b"y"] == taken(consumer)

    node.broker.follow_calendar(0)
    clock.jump(0)

    assert [b"x"] == taken(consumer)


def test_only_so_many_steps_are_kept(node, publish):
    """A calendar that is set again and again takes no more memory; what is older than them goes by the oldest."""
    batch = publish("t", b"x", delay=1)
    for number in range(1, 2 * MOST_STEPS):
        node.broker.follow_calendar(number * SECOND)

    assert batch.due - (MOST_STEPS - 1) * SECOND == node.broker.calendar.due(batch)


@stored
def test_delays_of_before_the_restart_follow(node, publish, clock):
    """A machine that starts an hour in the past delivers what is due once its calendar is right; new ones wait."""
    node.channel("t", "c")
    consumer = node.client().subscribe("t", "c").ready(1)
    publish("t", b"requeued")
    (delivery,) = consumer.deliveries()
    consumer.ready(0).requeue(delivery.id, 1_000_000)
    publish("t", b"deferred", delay=2000)
    publish("t", b"late", delay=3000)
    node.checkpoint()
    clock.now -= HOUR * SECOND
    node.restart()
    channel = node.channel("t", "c")
    publish("t", b"new", delay=600)
    assert 4 == len(channel.deferred)

    clock.advance(10)
    node.broker.follow_calendar((HOUR + 2000) * SECOND)
    clock.jump(0)

    assert [b"new", b"late"] == [body(channel, message) for _, _, message in sorted(channel.deferred)]
    consumer = node.client().subscribe("t", "c").ready(10)
    assert {b"requeued", b"deferred"} == set(taken(consumer))
    clock.advance(600)
    assert [b"new"] == taken(consumer)
    clock.advance(400)
    assert [b"late"] == taken(consumer)
    node.check()


def taken(consumer) -> list[bytes]:
    """What the consumer got, and finishes."""
    found = consumer.deliveries()
    consumer.finish(*[delivery.id for delivery in found])
    return [delivery.body for delivery in found]


def body(channel, message) -> bytes:
    """A message's body, from the log if it is not in memory."""
    (batch,) = channel.topic.store.read(message.position, message.position + 1, 1)
    return bytes(batch.message(0, 0).body)


@stored
def test_a_checkpoint_is_written_by_the_calendar(node, publish, clock, step):
    """After another restart, with a right clock, a delay is what is left of it."""
    consumer = node.client().subscribe("t", "c").ready(1)
    node.broker.follow_calendar(step * SECOND)
    publish("t", b"requeued")
    (delivery,) = consumer.deliveries()
    consumer.ready(0).requeue(delivery.id, 100_000)
    publish("t", b"deferred", delay=200)
    node.checkpoint()
    clock.now += step * SECOND
    node.restart()

    consumer = node.client().subscribe("t", "c").ready(10)
    clock.advance(99)
    assert [] == taken(consumer)
    clock.advance(2)
    assert [b"requeued"] == taken(consumer)
    clock.advance(100)
    assert [b"deferred"] == taken(consumer)
