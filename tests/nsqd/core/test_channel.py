"""A channel: who gets what, pause, empty, delete, and a log that can't be read. More in test_channel_*.py."""

from nsqkit.nsqd.core.channel import CHUNK
from tests.nsqd.core.flavours import with_log

SECOND = 1_000_000_000


def test_message_goes_to_each_channel(node, publish):
    """Every channel gets its own copy, with the same id."""
    first = node.client().subscribe("t", "one").ready(1)
    second = node.client().subscribe("t", "two").ready(1)

    publish("t", b"hello")

    (one,), (two,) = first.deliveries(), second.deliveries()
    assert (b"hello", 1, node.clock.now) == (one.body, one.attempts, one.timestamp)
    assert one == two


def test_message_goes_to_one_consumer(node, publish):
    """Consumers of one channel share its messages."""
    consumers = [node.client().subscribe("t", "c").ready(10) for _ in range(3)]

    publish("t", *[b"%d" % n for n in range(9)])

    received = [body for consumer in consumers for body in consumer.bodies()]
    assert [b"%d" % n for n in range(9)] == sorted(received)


def test_ready_consumers_take_turns_in_chunks(node, publish):
    """What is queued is shared out in chunks, round robin, and nobody gets more than RDY."""
    greedy, modest = (node.client().subscribe("t", "c") for _ in range(2))
    publish("t", *[b"%d" % n for n in range(3 * CHUNK)])

    node.channel("t", "c").pause(paused=True)
    greedy.ready(1000)
    modest.ready(CHUNK + 5)
    node.channel("t", "c").pause(paused=False)
    node.turn()

    mine = [int(body) for body in greedy.bodies()]
    middle = 2 * CHUNK + CHUNK // 2
    assert [*range(CHUNK), *range(2 * CHUNK, middle), *range(middle + 5, 3 * CHUNK)] == mine
    assert [*range(CHUNK, 2 * CHUNK), *range(middle, middle + 5)] == [int(b) for b in modest.bodies()]


def test_what_is_scarce_is_shared_evenly(node, publish):
    """Idle consumers get equal parts of one publish, however much each of them would take."""
    consumers = [node.client().subscribe("t", "c").ready(100) for _ in range(4)]

    publish("t", *[b"%d" % n for n in range(32)])

    assert [8, 8, 8, 8] == [len(consumer.bodies()) for consumer in consumers]


def test_a_turn_that_gave_enough_leaves_the_rest_to_the_next(node, publish):
    """When the budget of a turn is used up, the channels that got nothing come first in the next one."""
    consumers = [node.client().subscribe("t", name).ready(100) for name in ("a", "b")]
    broker = node.broker
    node.channel("t", "a").pause(paused=True)
    node.channel("t", "b").pause(paused=True)
    publish("t", *[b"x" * 1000] * 40)
    for name in ("a", "b"):
        channel = node.channel("t", name)
        channel.paused = False
        broker.left = 1
        channel.want_dispatch()
        channel.dispatch(node.clock.now)

        assert CHUNK == channel.in_flight_count
        assert channel.awaits_dispatch

    node.turn()

    assert [40, 40] == [len(consumer.bodies()) for consumer in consumers]


def test_single_messages_are_shared_evenly(node, publish):
    """Messages that come one by one go to the ready consumers in turn."""
    consumers = [node.client().subscribe("t", "c").ready(100) for _ in range(3)]

    for _ in range(30):
        publish("t", b"x")

    assert [10, 10, 10] == [len(consumer.bodies()) for consumer in consumers]


# -- pause, empty, delete


def test_paused_channel(consumer, publish, clock, node, broker):
    """A pause stops sending; FIN, timeouts and deferred messages go on, and everything comes after it."""
    consumer.subscribe("t", "c").ready(3)
    publish("t", b"one", b"two")
    one, _ = consumer.deliveries()
    channel = node.channel("t", "c")
    broker.changes.finish(broker.changes.count, "")

    channel.pause(paused=True)
    assert broker.changes.pending()
    publish("t", b"three")
    publish("t", b"four", delay=1)
    consumer.finish(one.id)
    clock.advance(60)
    assert [] == consumer.received()
    assert (1, 1, 3) == (channel.finished_count, channel.timeout_count, channel.queue.depth())
    channel.pause(paused=False)
    node.turn()

    assert [(b"four", 1), (b"three", 1), (b"two", 2)] == sorted(consumer.received())


def test_empty_channel(consumer, publish, clock, node):
    """Emptying drops what is ready, in flight and deferred; finishing it fails, and new messages come."""
    consumer.subscribe("t", "c").ready(1)
    publish("t", b"one", b"two")
    publish("t", b"three", delay=5)
    (one,) = consumer.deliveries()
    channel = node.channel("t", "c")

    channel.empty()
    consumer.finish(one.id)
    clock.advance(100)

    assert b"E_FIN_FAILED FIN %s failed ID not in flight" % one.id == consumer.error()
    assert (3, 0, 0, 0) == (
        channel.emptied_count,
        channel.in_flight_count,
        channel.queue.depth(),
        len(channel.deferred),
    )
    publish("t", b"four")
    assert [(b"four", 1)] == consumer.received()


def test_emptying_forgets_departed_consumers(node, publish, clock):
    """What was in flight to a consumer that left is dropped too."""
    gone = node.client().subscribe("t", "c").ready(1)
    publish("t", b"one")
    gone.leave()
    channel = node.channel("t", "c")

    channel.empty()
    clock.advance(60)

    assert ([], 0, 0) == (channel.departed, channel.in_flight_count, channel.queue.depth())


def test_deleted_channel(node, publish, broker, clock):
    """Its consumers are hung up on without a frame; a new channel of that name is empty."""
    consumer = node.client().subscribe("t", "c").ready(1)
    node.channel("t", "other")
    publish("t", b"one", b"two")
    old = node.channel("t", "c")

    broker.topic("t").delete_channel("c")
    node.turn()

    assert "closed" == consumer.ended
    assert [] == consumer.replies()
    assert {"other"} == set(broker.topic("t").channels)
    again = node.client().subscribe("t", "c").ready(10)
    clock.advance(60)
    assert [] == again.received()
    old.check()


# -- ephemeral


def test_ephemeral_channel_goes_with_its_last_consumer(node, broker, publish):
    """It lives as long as somebody is there, and what it had goes with it."""
    first, second = (node.client().subscribe("t", "c#ephemeral") for _ in range(2))
    publish("t", b"one")

    first.leave()
    assert {"c#ephemeral"} == set(broker.topic("t").channels)
    second.leave()

    assert {} == broker.topic("t").channels
    assert [] == node.client().subscribe("t", "c#ephemeral").ready(1).received()


def test_ephemeral_channel_without_consumers_stays(node, broker, publish):
    """A channel that nobody has used yet is not deleted."""
    node.channel("t", "c#ephemeral")

    publish("t", b"one")

    assert [b"one"] == node.client().subscribe("t", "c#ephemeral").ready(1).bodies()


def test_ephemeral_channel_drops_what_does_not_fit(node, publish, settings):
    """Consumers get what they can take; of the rest the oldest messages stay, up to the limit."""
    settings.mem_queue_size = 3
    consumer = node.client().subscribe("t", "c#ephemeral").ready(2)

    publish("t", *[b"%d" % n for n in range(10)])

    channel = node.channel("t", "c#ephemeral")
    assert (5, 3, 0) == (channel.queue.dropped_count, channel.queue.depth(), channel.queue.backend_depth())
    consumer.ready(10)
    assert [b"0", b"1", b"2", b"3", b"4"] == consumer.bodies()


# -- a log that can't be read


@with_log
def test_log_that_cannot_be_read_now(node, publish, settings, clock):
    """Nothing is lost when the disk fails: what is in memory is delivered, the rest when it can be read."""
    settings.mem_queue_size = 2
    consumer = node.client().subscribe("t", "c")
    for n in range(5):
        publish("t", b"%d" % n)
    node.log("t").read_failure = "read error"

    consumer.ready(10)
    clock.advance(5)
    assert ([b"0", b"1"], "read error") == (consumer.bodies(), node.broker.health.text())
    node.log("t").read_failure = ""
    clock.advance(1)

    assert ([b"2", b"3", b"4"], "") == (consumer.bodies(), node.broker.health.text())
    assert 0 == node.channel("t", "c").queue.lost_count


@with_log
def test_requeued_messages_do_not_wait_for_the_disk(node, publish, settings, clock):
    """What was given back is in memory, and comes again although what is behind it can't be read."""
    settings.mem_queue_size = 1
    consumer = node.client().subscribe("t", "c").ready(1)
    for n in range(3):
        publish("t", b"%d" % n)
    node.log("t").read_failure = "read error"

    consumer.requeue(consumer.deliveries()[0].id)
    consumer.finish(consumer.deliveries()[0].id)
    clock.advance(2)

    assert [(b"0", 2)] == consumer.received()
