"""A topic: publishing, keeping, and giving every channel its copy."""

import pytest

from nsqkit.nsqd.core.batch import FAILED, KEPT, PENDING
from nsqkit.nsqd.core.topic import MOST_BYTES
from tests.nsqd.core.flavours import in_memory, stored, with_log
from tests.nsqd.core.sent import numbers, sized


def test_publish_is_committed_in_the_turn(node, broker):
    """Publishing only notes the batch; the turn settles it."""
    topic = node.topic("t")

    batch = topic.publish(sized(b"x"), 1, 0, None, node.clock.now)
    assert (PENDING, 0, True) == (batch.state, topic.message_count, broker.busy())
    node.turn()

    assert (KEPT, 1, False) == (batch.state, topic.message_count, broker.busy())


@stored
def test_one_write_for_all_publishes_of_a_turn(node):
    """However many clients publish in a turn, the log is written once."""
    topic = node.topic("t")

    for body in (b"a", b"b", b"c"):
        topic.publish(sized(body), 1, 0, None, node.clock.now)
    node.turn()

    assert 1 == node.log("t").writes
    assert [sized(b"a"), sized(b"b"), sized(b"c")] == [batch.data for batch in node.log("t").batches]


@stored
def test_failing_write(node, publish):
    """If the log can't be written the publishes fail, nothing is delivered, and the health says why."""
    consumer = node.client().subscribe("t", "c").ready(10)
    publisher = node.client()
    node.log("t").failure = "disk full"

    failed = publish("t", b"lost")
    publisher.send(b"PUB t\n" + sized(b"lost too"))

    assert (FAILED, "disk full", "disk full") == (failed.state, failed.cause, node.broker.health.text())
    assert (b"E_PUB_FAILED PUB failed disk full", "closed") == (publisher.error(), publisher.ended)
    assert ([], 0) == (consumer.bodies(), node.topic("t").message_count)

    node.log("t").failure = ""
    publish("t", b"kept")

    assert ([b"kept"], "") == (consumer.bodies(), node.broker.health.text())
    assert [0] == [batch.first_position for batch in node.log("t").batches]


@stored
def test_failing_mpub_of_several_batches(node):
    """An MPUB of more messages than a batch can hold is answered once, and none of it is delivered."""
    consumer = node.client().subscribe("t", "c").ready(10)
    publisher = node.client()
    node.log("t").failure = "disk full"

    bodies = sized(*[b"x"] * 5000)
    publisher.send(b"MPUB t\n" + (len(bodies) + 4).to_bytes(4, "big") + (5000).to_bytes(4, "big") + bodies)

    assert b"E_MPUB_FAILED MPUB failed disk full" == publisher.error()
    assert [] == consumer.bodies()


@in_memory
def test_memory_mode_does_not_write(node, publish):
    """While everything fits into memory, nothing is written."""
    node.channel("t", "c")

    publish("t", *numbers(10))
    publish("t", b"x", delay=10)

    assert (0, 0) == (node.log("t").writes, node.channel("t", "c").queue.backend_depth())


@in_memory
@pytest.mark.parametrize("channels", [0, 1, 3])
def test_memory_mode_spills(node, publish, settings, channels):
    """What does not fit is written once, however many channels there are, and comes in order."""
    settings.mem_queue_size = 3
    for n in range(channels):
        node.channel("t", f"c{n}")

    for body in numbers(10):
        publish("t", body)

    assert 7 == sum(batch.count for batch in node.log("t").batches)
    for n in range(max(channels, 1)):
        assert numbers(10) == node.client().subscribe("t", f"c{n}").ready(20).bodies()


@in_memory
def test_memory_mode_spills_for_the_fullest_channel(node, publish, settings):
    """A channel that is read does not need the log, but what another one has to put there is written."""
    settings.mem_queue_size = 2
    reader = node.client().subscribe("t", "read").ready(100)
    node.channel("t", "idle")

    for body in numbers(5):
        publish("t", body)

    assert numbers(5) == reader.bodies()
    assert (5, 3) == (
        node.channel("t", "idle").queue.depth(),
        node.channel("t", "idle").queue.backend_depth(),
    )
    assert numbers(5) == node.client().subscribe("t", "idle").ready(10).bodies()


@in_memory
def test_memory_mode_and_a_failing_write(node, publish, settings):
    """What fits into memory is taken even if the disk is full; what does not fit fails."""
    settings.mem_queue_size = 2
    consumer = node.client().subscribe("t", "c")
    node.log("t").failure = "disk full"

    states = [publish("t", body).state for body in numbers(4)]

    assert [KEPT, KEPT, FAILED, FAILED] == states
    assert numbers(2) == consumer.ready(10).bodies()


@in_memory
def test_memory_mode_spills_deferred_messages(node, publish, settings, clock):
    """Deferred messages beyond the limit are held with their entries only."""
    settings.mem_queue_size = 2
    consumer = node.client().subscribe("t", "c").ready(10)

    for body in numbers(5):
        publish("t", body, delay=5)
    assert [True, True, False, False, False] == [m.loaded for _, _, m in node.channel("t", "c").deferred]
    clock.advance(5)

    assert numbers(5) == sorted(consumer.bodies())


@with_log
@pytest.mark.parametrize("limit", [0, 1, 5])
def test_order_beyond_memory(node, publish, settings, limit):
    """Whatever does not fit into memory is read from the log in its place."""
    settings.mem_queue_size = limit
    consumer = node.client().subscribe("t", "c")

    for start in range(0, 30, 3):
        publish("t", *numbers(30)[start : start + 3])
    consumer.ready(4)
    received = []
    while deliveries := consumer.deliveries():
        received += [delivery.body for delivery in deliveries]
        consumer.finish(*[delivery.id for delivery in deliveries])

    assert numbers(30) == received


@pytest.mark.parametrize("name", ["t#ephemeral", "t"])
@pytest.mark.parametrize("flavour", ["nothing"], indirect=True)
def test_overflow_without_a_store(node, publish, settings, name):
    """Where nothing is kept, messages beyond the limit are dropped, newest first, and the publish succeeds."""
    settings.mem_queue_size = 3

    states = [publish(name, body).state for body in numbers(5)]
    consumer = node.client().subscribe(name, "c")
    publish(name, b"more")

    assert [KEPT] * 5 == states
    assert numbers(3) == consumer.ready(10).bodies()


def test_ephemeral_topic_is_not_written(node, publish):
    """An ephemeral topic has no log, and no trace in the metadata."""
    publish("t#ephemeral", b"x")
    node.client().subscribe("t#ephemeral", "c")

    assert node.topic("t#ephemeral").store is None
    assert 0 == node.broker.changes.count


def test_ephemeral_topic_goes_with_its_last_channel(node, broker):
    """It lives as long as it has a channel; one without channels yet stays."""
    node.topic("other#ephemeral")
    node.channel("t#ephemeral", "kept")
    consumer = node.client().subscribe("t#ephemeral", "c#ephemeral")

    consumer.leave()
    assert {"t#ephemeral", "other#ephemeral"} == set(broker.topics)
    broker.topic("t#ephemeral").delete_channel("kept")

    assert {"other#ephemeral"} == set(broker.topics)


def test_empty_topic(node, publish):
    """Emptying a topic drops what waits there, and nothing of its channels."""
    consumer = node.client().subscribe("t", "c")
    publish("t", b"in the channel")
    topic = node.topic("t")
    topic.pause(True, node.clock.now)
    publish("t", b"waiting")

    topic.empty()
    topic.pause(False, node.clock.now)
    node.turn()

    assert (0, [b"in the channel"]) == (topic.depth(), consumer.ready(10).bodies())


def test_delete_topic(node, publish, broker):
    """Consumers are hung up on, the log goes, and a topic of that name begins anew."""
    consumer = node.client().subscribe("t", "c").ready(10)
    publish("t", b"x")
    old = node.topic("t")
    batch = old.publish(sized(b"y"), 1, 0, None, node.clock.now)

    broker.delete_topic("t")
    node.turn()

    assert (FAILED, "exiting") == (batch.state, batch.cause)
    assert "closed" == consumer.ended
    assert {} == broker.topics
    assert node.storage is None or node.log("t").deleted
    assert [] == node.client().subscribe("t", "c").ready(10).bodies()
    assert node.topic("t") is not old


def test_ids_are_unique_and_grow(node, publish, clock):
    """Ids grow from message to message, also when the clock goes back."""
    consumer = node.client().subscribe("t", "c").ready(1000)

    for step in (0, 1, -5, 0, 3):
        clock.now += step * 1_000_000_000
        publish("t", *numbers(50))

    ids = [delivery.id for delivery in consumer.deliveries()]
    assert 250 == len(ids)
    assert sorted(set(ids)) == ids


@with_log
def test_changes_are_noted_for_the_checkpoint(node, publish, broker):
    """Each change of what is owed makes the topic dirty, once."""
    consumer = node.client().subscribe("t", "c").ready(1)

    def is_dirty() -> bool:
        dirty = bool(broker.dirty == [node.topic("t")])
        assert dirty or not broker.dirty
        node.checkpoint()
        return dirty

    assert is_dirty()
    assert not is_dirty()
    publish("t", b"x")
    assert is_dirty()
    consumer.finish(consumer.deliveries()[0].id)
    assert is_dirty()
    node.channel("t", "c").empty()
    assert is_dirty()
    node.topic("t").delete_channel("c")
    assert is_dirty()


@with_log
def test_sampling_is_a_change(node, publish):
    """What was sampled out must not come back after a restart, so the checkpoint follows."""
    node.client().identify(sample_rate=1).subscribe("t", "c").ready(1)
    node.channel("t", "c").pause(paused=True)
    publish("t", b"x")
    node.checkpoint()

    while node.channel("t", "c").sampled_count == 0:
        node.channel("t", "c").pause(paused=False)
        publish("t", b"x")

    assert [node.topic("t")] == node.broker.dirty


def test_a_turn_writes_so_many_bytes_of_a_topic(node, clock):
    """The rest has the next turns, in order, and comes before what is published meanwhile."""
    topic = node.topic("t")
    channel = node.channel("t", "c")
    half = bytes(MOST_BYTES // 2 - 8)
    batches = [topic.publish(sized(b"%04d" % n + half), 1, 0, None, clock.now) for n in range(4)]
    large = topic.publish(sized(bytes(2 * MOST_BYTES)), 1, 0, None, clock.now)

    node.broker.work(clock.now)
    assert 2 == channel.queue.depth()
    later = topic.publish(sized(b"later"), 1, 0, None, clock.now)
    assert node.broker.busy()
    node.broker.work(clock.now)
    assert 4 == channel.queue.depth()
    node.broker.work(clock.now)
    assert 5 == channel.queue.depth()
    node.turn()

    ids = [batch.first_id for batch in [*batches, large, later]]
    assert (6, sorted(ids)) == (channel.queue.depth(), ids)
    assert not node.broker.busy()
