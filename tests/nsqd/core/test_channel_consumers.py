"""Consumers of a channel: they come and go, are slow, near, or sampled."""

from collections import Counter

import pytest

from nsqkit.nsqd.core.subscriber import OUTPUT_LIMIT

# -- consumers come and go


def test_departed_consumer(node, publish, clock):
    """What was in flight to a consumer that left waits for its timeout, and goes to another one."""
    gone = node.client().subscribe("t", "c").ready(2)
    publish("t", b"one", b"two")
    stays = node.client().subscribe("t", "c").ready(10)

    gone.leave()
    channel = node.channel("t", "c")
    assert ([], 2) == (stays.received(), channel.in_flight_count)
    clock.advance(60)

    assert [(b"one", 2), (b"two", 2)] == stays.received()
    assert (2, []) == (channel.timeout_count, channel.departed)


def test_requeue_on_disconnect(node, publish, settings):
    """If wanted, what was in flight goes to another consumer at once."""
    settings.requeue_on_disconnect = True
    gone = node.client().subscribe("t", "c").ready(2)
    publish("t", b"one", b"two")
    stays = node.client().subscribe("t", "c").ready(10)

    gone.leave()

    assert [(b"one", 2), (b"two", 2)] == stays.received()
    channel = node.channel("t", "c")
    assert (2, 2, 0) == (channel.in_flight_count, channel.requeue_count, channel.timeout_count)


def test_consumers_of_an_idle_channel_leave_nothing_behind(node):
    """A channel without messages does not remember who was there."""
    channel = node.channel("t", "c")

    for _ in range(5):
        node.client().subscribe("t", "c").ready(1).leave()

    assert ([], [], 0) == (channel.subscribers, channel.departed, sum(map(len, channel.willing)))


def test_nothing_is_sent_to_who_has_hung_up(node, publish):
    """A message goes to a consumer that is there, not to one whose connection is being closed in the same turn."""
    leaving = node.client().subscribe("t", "c").ready(1)
    staying = node.client().subscribe("t", "c").ready(1)

    leaving.session.receive(b"NONSENSE\n", node.clock.now)
    publish("t", b"one")

    assert ([], [b"one"]) == (leaving.bodies(), staying.bodies())


def test_max_channel_consumers(node, settings):
    """A channel takes so many consumers, and another one when one has left."""
    settings.max_channel_consumers = 2
    first, _ = (node.client().subscribe("t", "c") for _ in range(2))

    refused = node.client().send(b"SUB t c\n")
    assert b"E_SUB_FAILED SUB failed consumers for t:c exceeds limit of 2" == refused.error()
    assert "closed" == refused.ended
    node.client().subscribe("t", "other")
    first.leave()

    node.client().subscribe("t", "c")
    assert 2 == len(node.channel("t", "c").subscribers)


# -- sampling


def test_sampling(node, publish):
    """A consumer with a sample rate gets that share, and the rest is gone from the channel."""
    consumer = node.client().identify(sample_rate=29).subscribe("t", "c").ready(2500)

    publish("t", *[b"x"] * 1000)

    sent = len(consumer.bodies())
    channel = node.channel("t", "c")
    assert 250 < sent < 350
    assert (1000 - sent, sent, 0) == (channel.sampled_count, channel.in_flight_count, channel.queue.depth())


def test_sampling_is_up_to_the_consumer(node, publish):
    """Another consumer of the channel gets everything that is taken for it."""
    node.client().identify(sample_rate=1).subscribe("t", "c")
    consumer = node.client().subscribe("t", "c").ready(2500)

    publish("t", *[b"x"] * 100)

    assert 100 == len(consumer.bodies())


# -- back-pressure


def test_blocked_consumer_gets_nothing(node, publish):
    """What its transport would not take stays in the channel for others, or until it takes bytes again."""
    slow = node.client().subscribe("t", "c").ready(100)
    slow.session.blocked = True

    publish("t", b"one")
    assert [] == slow.bodies()
    slow.session.resume()
    node.turn()

    assert [b"one"] == slow.bodies()


def test_consumer_that_is_blocked_by_a_send(node, publish):
    """Deliveries stop when the transport is full, and go on where they stopped."""
    consumer = node.client().subscribe("t", "c")
    consumer.outlet.blocks_above = 1000
    publish("t", *[b"%04d" % n * 25 for n in range(200)])

    rounds = 0
    consumer.ready(1000)
    while consumer.session.blocked:
        rounds += 1
        consumer.session.resume()
        node.turn()

    assert [b"%04d" % n * 25 for n in range(200)] == consumer.bodies()
    assert 1 <= rounds


def test_output_of_a_turn_is_limited(node, publish):
    """Large messages are handed to the transport in parts, not gathered without a limit."""
    consumer = node.client().subscribe("t", "c")
    body = b"x" * (OUTPUT_LIMIT // 2)
    publish("t", *[body] * 8)

    consumer.ready(100)

    assert [body] * 8 == consumer.bodies()
    assert max(map(len, consumer.outlet.sends)) < OUTPUT_LIMIT + 2 * len(body)


def test_message_nobody_can_process_does_not_block_the_others(node, publish, settings):
    """However often a message is given back at once, the messages behind it are delivered."""
    settings.mem_queue_size = 1
    consumer = node.client().subscribe("t", "c")
    for body in (b"poison", b"a", b"b", b"c"):
        publish("t", body)
    if node.flavour == "nothing":
        return  # there what does not fit is dropped

    consumer.ready(1)
    seen: Counter[bytes] = Counter()
    for _ in range(20):
        for delivery in consumer.deliveries():
            seen[delivery.body] += 1
            if delivery.body == b"poison":
                consumer.requeue(delivery.id)
            else:
                consumer.finish(delivery.id)

    assert {b"poison", b"a", b"b", b"c"} == set(seen)
    assert 10 < seen[b"poison"]


# -- those that are gone


def test_consumer_that_is_gone_is_let_go(node, publish):
    """Its session is not kept for the sake of what is in flight to it."""
    gone = node.client().subscribe("t", "c").ready(1)
    publish("t", b"one")

    gone.leave()

    (departed,) = node.channel("t", "c").departed
    assert (None, 1) == (departed.session, len(departed.in_flight))


# -- consumers in this nsqd's zone


@pytest.fixture
def near(settings):
    """Who is near comes first; this nsqd is in zone z of region r."""
    settings.prefer_near = True
    settings.limits.topology_region = "r"
    settings.limits.topology_zone = "z"


def at(node, zone: str, region: str, ready: int):
    """A consumer of channel `c` there."""
    client = node.client().identify(topology_zone=zone, topology_region=region)
    return client.subscribe("t", "c").ready(ready)


@pytest.mark.usefixtures("near")
def test_who_is_near_is_served_first(node, publish):
    """The zone, the region, then everybody else: whoever can take a message now."""
    far, regional, zonal = at(node, "y", "q", 2), at(node, "y", "r", 2), at(node, "z", "r", 2)

    publish("t", *[b"x"] * 5)

    assert (1, 2, 2) == tuple(len(one.deliveries()) for one in (far, regional, zonal))
    assert [2, 2, 1] == list(node.channel("t", "c").sent_counts)


@pytest.mark.usefixtures("near")
def test_who_is_near_and_busy_does_not_keep_others_waiting(node, publish):
    """And it is first again as soon as it has room."""
    far, zonal = at(node, "y", "q", 10), at(node, "z", "r", 1)
    publish("t", b"1", b"2")
    (first,) = zonal.deliveries()
    assert [b"2"] == far.bodies()

    zonal.finish(first.id)
    publish("t", b"3", b"4")

    assert ([b"3"], [b"4"]) == (zonal.bodies(), far.bodies())


@pytest.mark.usefixtures("near")
def test_who_is_near_and_leaves(node, publish):
    """Its place in the line is given up."""
    far, zonal = at(node, "y", "q", 10), at(node, "z", "r", 1)
    zonal.leave()

    publish("t", b"x")

    assert [b"x"] == far.bodies()


def test_nobody_is_near_unless_it_matters(node, publish):
    """Without the experiment all are alike, and counted as elsewhere."""
    one, other = at(node, "", "", 10), at(node, "z", "r", 10)

    publish("t", b"1", b"2")

    assert (1, 1) == (len(one.bodies()), len(other.bodies()))
    assert [0, 0, 2] == list(node.channel("t", "c").sent_counts)
