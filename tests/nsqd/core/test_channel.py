"""A channel and its consumers."""

from collections import Counter

import pytest

from nsqkit.nsqd.core.channel import CHUNK, FEW, LARGE, Channel
from nsqkit.nsqd.core.deadlines import SLICE
from nsqkit.nsqd.core.subscriber import OUTPUT_LIMIT

SECOND = 1_000_000_000


def sized(*bodies: bytes) -> bytes:
    """Each body behind its size."""
    return b"".join(len(body).to_bytes(4, "big") + body for body in bodies)


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


@pytest.mark.parametrize("flavour", ["memory", "os", "fsync"], indirect=True)
def test_deferred_in_bulk_and_restarted(node, bulk):
    """What is not taken apart yet is in the checkpoint, with its time."""
    node.stop()
    node.restart()
    node.turn()

    channel = node.topic("t").channels["c"]
    assert (3 * SLICE, 0) == (channel.deferred_count(), channel.queue.depth())


def test_what_is_overdue_at_one_moment_comes_back_in_portions(node, clock, publish, settings):
    """The same is true of what one consumer did not finish in time."""
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


# -- deferred


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


@pytest.mark.parametrize("flavour", ["os", "fsync"], indirect=True)
def test_deferred_and_lost(consumer, publish, clock, node):
    """A deferred message that the log can't give back is counted as lost; the others come."""
    consumer.subscribe("t", "c").ready(10)
    publish("t", b"one", delay=5)
    publish("t", b"two", delay=5)

    node.log("t").damage(0)
    clock.advance(5)

    assert [(b"two", 1)] == consumer.received()
    assert 1 == node.channel("t", "c").queue.lost_count


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


def test_deferred_message_of_an_ephemeral_channel(node, publish, clock):
    """Delays work there as anywhere."""
    consumer = node.client().subscribe("t", "c#ephemeral").ready(2)

    publish("t", b"one", delay=3)
    clock.advance(3)

    assert [(b"one", 1)] == consumer.received()


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


# -- a log that can't be read

needs_the_log = pytest.mark.parametrize("flavour", ["memory", "os", "fsync"], indirect=True)


@needs_the_log
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


@needs_the_log
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


@pytest.mark.parametrize("flavour", ["os", "fsync"], indirect=True)
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


# -- many of them


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


def test_consumer_that_is_gone_is_let_go(node, publish):
    """Its session is not kept for the sake of what is in flight to it."""
    gone = node.client().subscribe("t", "c").ready(1)
    publish("t", b"one")

    gone.leave()

    (departed,) = node.channel("t", "c").departed
    assert (None, 1) == (departed.session, len(departed.in_flight))


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


# -- bytes in memory


@pytest.mark.parametrize("flavour", ["memory", "os", "fsync"], indirect=True)
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


@pytest.mark.parametrize("flavour", ["os", "fsync"], indirect=True)
def test_large_bodies_are_not_kept_while_they_are_in_flight(node, publish, clock):
    """The log has them: who gives a message back, or is too late, gets it again with its body."""
    consumer = node.client().subscribe("t", "c").ready(1)
    publish("t", b"x" * (LARGE + 1))

    ((message_id, message),) = node.channel("t", "c").subscribers[0].in_flight.items()
    assert b"" == message.body
    consumer.requeue(message_id)
    clock.advance(60)

    assert [(b"x" * (LARGE + 1), attempts) for attempts in (1, 2, 3)] == consumer.received()


@pytest.mark.parametrize("flavour", ["os", "fsync"], indirect=True)
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
