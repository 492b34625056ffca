"""What a channel holds in memory, and gives back."""

import pytest

from nsqkit.nsqd.core.channel import LARGE
from nsqkit.nsqd.core.deadlines import SLICE
from tests.nsqd.core.flavours import stored, with_log


def test_emptied_memory_is_given_back_in_portions(node, publish, flavour):
    """An emptied channel is empty at once; its messages leave the memory a slice at a time."""
    channel = node.channel("t", "c")
    for _ in range(2):
        publish("t", *[b"x"] * 2 * SLICE, delay=60)
    node.turn()

    channel.empty()
    assert 0 == channel.queue.depth() + len(channel.deferred)
    node.broker.work(node.clock.now)
    assert 3 * SLICE < len(node.broker.waste.counted())

    node.turn()
    assert 0 == len(node.broker.waste.counted())


@with_log
def test_messages_beyond_the_bound_in_bytes_are_only_in_the_log(node, publish, broker):
    """However few they are. They are delivered in order all the same, and the memory is free again at the end."""
    broker.held.limit = 10_000
    channel = node.channel("t", "c")

    for number in range(10):
        publish("t", b"%d" % number * 4000)
    assert (3, 7) == (channel.queue.memory_count, channel.queue.stored_count)
    assert 10_000 < broker.held.bytes < 14_100
    consumer = node.client().subscribe("t", "c").ready(3)
    bodies = []
    while deliveries := consumer.deliveries():
        bodies += [delivery.body for delivery in deliveries]
        node.check()
        consumer.finish(*[delivery.id for delivery in deliveries])

    assert [b"%d" % number * 4000 for number in range(10)] == bodies
    assert 0 == broker.held.bytes


def test_a_batch_counts_once(node, publish, broker):
    """It is in memory once, however many channels have it, until the last one has used it up."""
    first = node.channel("t", "a")
    node.channel("t", "b")

    publish("t", b"x" * 1000)
    assert 1004 == broker.held.bytes
    first.empty()
    node.turn()
    assert 1004 == broker.held.bytes
    node.client().subscribe("t", "b").ready(1)

    assert 0 == broker.held.bytes


@stored
def test_large_bodies_are_not_kept_while_they_are_in_flight(node, publish, clock):
    """The log has them: who gives a message back, or is too late, gets it again with its body."""
    consumer = node.client().subscribe("t", "c").ready(1)
    publish("t", b"x" * (LARGE + 1))

    ((message_id, message),) = node.channel("t", "c").subscribers[0].in_flight.items()
    assert b"" == message.body
    consumer.requeue(message_id)
    clock.advance(60)

    assert [(b"x" * (LARGE + 1), attempts) for attempts in (1, 2, 3)] == consumer.received()


@stored
def test_no_body_is_kept_in_flight_when_memory_is_used_up(node, publish, broker):
    """Then small ones are let go as well."""
    broker.held.limit = 3
    node.channel("t", "other")
    publish("t", b"kept")
    consumer = node.client().subscribe("t", "c").ready(1)
    publish("t", b"x")

    ((message_id, message),) = node.channel("t", "c").subscribers[0].in_flight.items()
    assert b"" == message.body
    consumer.requeue(message_id)
    assert [b"x", b"x"] == [body for body, _ in consumer.received()]


@pytest.mark.parametrize("flavour", ["nothing"], indirect=True)
def test_what_no_log_keeps_is_dropped_beyond_twice_the_bound(node, publish, broker):
    """Without a log there is nowhere else; the newest go first."""
    broker.held.limit = 5000
    channel = node.channel("t", "c")

    for _ in range(20):
        publish("t", b"x" * 1000)

    assert (9, 11) == (channel.queue.memory_count, channel.queue.dropped_count)


def test_requeued_and_deferred_messages_count(node, publish, broker, flavour):
    """By their bodies, wherever these are in memory."""
    consumer = node.client().subscribe("t", "c").ready(2)
    publish("t", b"x" * 100, b"y" * 100)
    one, two = (delivery.id for delivery in consumer.deliveries())
    consumer.ready(0)

    consumer.requeue(one).requeue(two, delay_ms=1000)

    assert (200 if flavour in ("nothing", "memory") else 100) == broker.held.bytes
