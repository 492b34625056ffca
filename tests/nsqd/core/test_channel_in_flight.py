"""What a channel has in flight: FIN, REQ, TOUCH and timeouts."""

import pytest

from nsqkit.nsqd.core.channel import CHUNK, FEW
from nsqkit.nsqd.core.deadlines import SLICE

SECOND = 1_000_000_000
MILLISECOND = 1_000_000


def test_what_is_overdue_at_one_moment_comes_back_in_portions(node, clock, publish, settings):
    """One turn takes SLICE of what a consumer did not finish in time, and the next one goes on by itself."""
    settings.limits.max_rdy_count = 10 * SLICE
    gone = node.client().subscribe("t", "c").ready(2 * SLICE)
    publish("t", *[b"x"] * 2 * SLICE)
    gone.leave()
    channel = node.channel("t", "c")

    clock.now += 60 * SECOND
    node.broker.work(clock.now)
    assert SLICE + 1 <= channel.in_flight_count < 2 * SLICE

    node.turn()
    assert (0, 2 * SLICE, 2 * SLICE) == (
        channel.in_flight_count,
        channel.queue.depth(),
        channel.timeout_count,
    )


# -- FIN, REQ, TOUCH


def test_finished_message_never_comes_back(consumer, publish, clock, node):
    """FIN is silent, and the end of a message."""
    consumer.subscribe("t", "c").ready(1)
    publish("t", b"one")

    consumer.finish(consumer.deliveries()[0].id)
    clock.advance(3600)

    assert [] == consumer.received()
    assert [] == consumer.replies()
    channel = node.channel("t", "c")
    assert (1, 0, 0) == (channel.finished_count, channel.in_flight_count, channel.queue.depth())


def test_unfinished_message_comes_back(clock, consumer, publish, node):
    """A message not finished within msg_timeout is delivered again, with one more attempt and the same id."""
    consumer.subscribe("t", "c").ready(1)
    publish("t", b"one")

    clock.advance(59.999)
    (first,) = consumer.deliveries()
    assert (b"one", 1) == (first.body, first.attempts)
    clock.advance(0.001)

    (second,) = consumer.deliveries()
    assert (b"one", 2, first.id, first.timestamp) == (
        second.body,
        second.attempts,
        second.id,
        second.timestamp,
    )
    assert 1 == node.channel("t", "c").timeout_count


def test_timeout_of_the_client(clock, consumer, publish):
    """The time to finish is what the consumer asked for in IDENTIFY."""
    consumer.identify(msg_timeout=2000)
    consumer.subscribe("t", "c").ready(1)

    publish("t", b"one")
    clock.advance(6)

    assert [(b"one", 1), (b"one", 2), (b"one", 3), (b"one", 4)] == consumer.received()


def test_timeouts_of_several_messages(clock, node, publish):
    """Each message has its own deadline, also when they were delivered at different times."""
    consumer = node.client().identify(msg_timeout=10_000).subscribe("t", "c").ready(10)
    channel = node.channel("t", "c")

    timeouts = []
    for body in (b"a", b"b", b"c"):
        publish("t", body)
        clock.advance(3)
    consumer.ready(0)
    for _ in range(4):
        timeouts.append(int(channel.timeout_count))
        clock.advance(3)

    assert [0, 1, 2, 3] == timeouts
    assert 3 == channel.queue.depth()


def test_requeued_at_once(consumer, publish, node):
    """REQ with 0 gives a message back to the end of the queue."""
    consumer.subscribe("t", "c").ready(1)
    publish("t", b"one", b"two")

    consumer.requeue(consumer.deliveries()[0].id)

    (two,) = consumer.deliveries()
    assert (b"two", 1) == (two.body, two.attempts)
    consumer.finish(two.id)
    assert [(b"one", 2)] == consumer.received()
    channel = node.channel("t", "c")
    assert (1, 2) == (channel.requeue_count, channel.message_count)


def test_requeued_for_later(consumer, publish, clock, node):
    """REQ with a delay holds the message back for exactly so long."""
    consumer.subscribe("t", "c").ready(1)
    publish("t", b"one")

    consumer.requeue(consumer.deliveries()[0].id, 5000)
    assert 1 == len(node.channel("t", "c").deferred)
    clock.advance(4.999)
    assert [] == consumer.received()
    clock.advance(0.001)

    assert [(b"one", 2)] == consumer.received()


def test_requeue_delay_is_capped(consumer, publish, clock):
    """A delay above max-req-timeout is taken for max-req-timeout, however large it is."""
    consumer.subscribe("t", "c").ready(2)
    publish("t", b"one", b"two")

    for delay, delivery in zip((3_600_001, 10**30), consumer.deliveries(), strict=True):
        consumer.requeue(delivery.id, delay)
    assert [] == consumer.replies()
    clock.advance(3599.999)
    assert [] == consumer.received()
    clock.advance(0.001)

    assert [(b"one", 2), (b"two", 2)] == sorted(consumer.received())


def test_touch_begins_the_timeout_anew(consumer, publish, clock):
    """A touched message times out msg_timeout after the touch, the others in their own time."""
    consumer.subscribe("t", "c").ready(2)
    publish("t", b"one", b"two")
    one, _ = consumer.deliveries()

    clock.advance(40)
    consumer.touch(one.id)
    clock.advance(20)
    assert [(b"two", 2)] == consumer.received()
    clock.advance(39.999)
    assert [] == consumer.received()
    clock.advance(0.001)

    assert [(b"one", 2)] == consumer.received()


def test_touch_is_capped(clock, node, publish, settings):
    """However often it is touched, a message is taken back max-msg-timeout after its delivery."""
    settings.limits.max_msg_timeout = 150 * SECOND
    consumer = node.client().subscribe("t", "c").ready(1)
    publish("t", b"one")
    (one,) = consumer.deliveries()

    for _ in range(14):
        clock.advance(10)
        consumer.touch(one.id)
    clock.advance(9.999)
    assert [] == consumer.received()
    clock.advance(0.001)

    assert [] == consumer.replies()
    assert [(b"one", 2)] == consumer.received()


def test_timeouts_after_a_touch(clock, node, publish):
    """A message delivered after another was touched still times out in its own time."""
    consumer = node.client().identify(msg_timeout=10_000).subscribe("t", "c").ready(10)
    publish("t", b"touched")
    (touched,) = consumer.deliveries()

    clock.advance(9)
    consumer.touch(touched.id)
    clock.advance(2)
    publish("t", b"later")
    assert [(b"later", 1)] == consumer.received()
    clock.advance(8)
    assert [(b"touched", 2)] == consumer.received()
    clock.advance(2)

    assert [(b"later", 2)] == consumer.received()


@pytest.mark.parametrize("command", ["FIN", "REQ", "TOUCH"])
def test_too_late(command, consumer, publish, clock, node):
    """After its timeout a message is not the consumer's any more; saying so changes nothing and does not close."""
    consumer.subscribe("t", "c").ready(1)
    publish("t", b"one")
    (one,) = consumer.deliveries()
    consumer.ready(0)
    clock.advance(60)

    consumer.send(b"%s %s 0\n" % (command.encode(), one.id))

    assert (
        b"E_%s_FAILED %s %s failed ID not in flight" % (command.encode(), command.encode(), one.id)
        == consumer.error()
    )
    channel = node.channel("t", "c")
    assert (1, 0, 0, 1) == (
        channel.queue.depth(),
        channel.in_flight_count,
        channel.requeue_count,
        channel.timeout_count,
    )
    assert not consumer.ended


@pytest.mark.parametrize("command", ["FIN", "REQ", "TOUCH"])
@pytest.mark.parametrize("departed", [False, True])
def test_message_of_another(command, departed, node, publish):
    """Only the consumer that has a message may speak for it, even if that one has left."""
    owner = node.client().subscribe("t", "c").ready(1)
    other = node.client().subscribe("t", "c")
    publish("t", b"one")
    (one,) = owner.deliveries()
    if departed:
        owner.leave()

    other.send(b"%s %s 0\n" % (command.encode(), one.id))

    name = command.encode()
    assert b"E_%s_FAILED %s %s failed client does not own message" % (name, name, one.id) == other.error()
    assert 1 == node.channel("t", "c").in_flight_count


@pytest.mark.parametrize("message_id", [b"0123456789abcdef", b"\xff\x00" * 8, b"0123456789ABCDE\t"])
def test_unknown_message(consumer, message_id):
    """The content of an id is not checked, and comes back in the error as it was."""
    consumer.subscribe("t", "c")

    consumer.finish(message_id)

    assert b"E_FIN_FAILED FIN %s failed ID not in flight" % message_id == consumer.error()


def test_latency_is_measured_at_the_finish(settings, node, publish, clock):
    """From publishing to FIN."""
    settings.latency_quantiles = [1.0]
    consumer = node.client().subscribe("t", "c").ready(1)
    publish("t", b"one")
    clock.advance(2)

    consumer.finish(consumer.deliveries()[0].id)

    latency = node.channel("t", "c").latency
    assert latency is not None
    count, ((_, value),) = latency.result(clock.now)
    assert 1 == count
    assert abs(value - 2 * SECOND) < 0.01 * 2 * SECOND


def test_durations_are_counted_at_the_finish(node, publish, clock):
    """Since the publish, and since the last time that it was sent; a requeue counts nothing."""
    latencies = node.channel("t", "c").latencies
    publish("t", b"one")
    clock.advance(2)
    consumer = node.client().subscribe("t", "c").ready(1)
    consumer.requeue(consumer.deliveries()[0].id)
    clock.advance(0.5)
    assert [] == latencies.since_publish().counts == latencies.since_send().counts

    consumer.finish(consumer.deliveries()[0].id)

    assert 2500 * MILLISECOND == latencies.since_publish().sum
    assert 500 * MILLISECOND == latencies.since_send().sum
    assert 1 == sum(latencies.since_publish().counts) == sum(latencies.since_send().counts)


# -- among many consumers


def test_whose_message_it_is_among_many_consumers(node, publish, clock):
    """The answer to a FIN that fails is the same however many consumers there are, and whatever happened meanwhile."""
    consumers = [node.client().subscribe("t", "c").ready(1) for _ in range(FEW + 2)]
    publish("t", *[b"x"] * len(consumers))
    asking, other, third = consumers[:3]
    ((_, _, mine, _),) = asking.deliveries()
    ((_, _, his, _),) = other.deliveries()
    ((_, _, last, _),) = third.deliveries()

    assert b"E_FIN_FAILED FIN %s failed client does not own message" % his == asking.finish(his).error()
    assert b"E_FIN_FAILED FIN %s failed ID not in flight" % (b"0" * 16) == asking.finish(b"0" * 16).error()
    other.finish(his)
    assert b"E_FIN_FAILED FIN %s failed ID not in flight" % his == asking.finish(his).error()
    publish("t", b"one more")
    ((_, _, newest, _),) = other.deliveries()
    assert b"E_FIN_FAILED FIN %s failed client does not own message" % newest == asking.finish(newest).error()
    third.leave()
    assert b"E_FIN_FAILED FIN %s failed client does not own message" % last == asking.finish(last).error()
    assert [] == asking.finish(mine).replies()


def test_the_index_of_owners_is_forgotten(node, publish):
    """What is kept for the sake of a wrong FIN does not outlive some more deliveries."""
    consumers = [node.client().subscribe("t", "c").ready(1) for _ in range(FEW + 1)]
    consumers[0].finish(b"0" * 16)
    channel = node.channel("t", "c")
    assert channel._owners is not None

    for _ in range(4 * CHUNK):
        publish("t", b"x")
        for consumer in consumers:
            consumer.finish(*[delivery.id for delivery in consumer.deliveries()])

    assert channel._owners is None
