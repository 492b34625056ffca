"""What waits in a topic: for a channel, for the end of a pause, for its turn."""

from nsqkit.nsqd.core.batch import KEPT
from nsqkit.nsqd.core.deadlines import SLICE
from tests.nsqd.core.flavours import in_memory, with_log
from tests.nsqd.core.sent import numbers, sized


def test_first_channel_gets_what_waited(node, publish):
    """Without a channel messages wait in the topic; the first channel gets them all, a later one none."""
    publish("t", *numbers(3))
    publish("t", b"3")
    assert 4 == node.topic("t").depth()

    first = node.client().subscribe("t", "first").ready(10)
    second = node.client().subscribe("t", "second").ready(10)

    assert (numbers(4), [], 0) == (first.bodies(), second.bodies(), node.topic("t").depth())
    assert 4 == node.channel("t", "first").message_count


def test_deferred_message_that_waits_for_a_channel(node, publish, clock):
    """The delay begins with the publish, not when a channel appears."""
    publish("t", b"soon", delay=5)
    publish("t", b"later", delay=20)
    clock.advance(10)

    consumer = node.client().subscribe("t", "c").ready(10)
    assert [b"soon"] == consumer.bodies()
    clock.advance(9.999)
    assert [] == consumer.bodies()
    clock.advance(0.001)

    assert [b"later"] == consumer.bodies()


@with_log
def test_order_of_what_waited(node, publish, settings):
    """The same for what waited in the topic, and what comes behind it."""
    settings.mem_queue_size = 4
    for body in numbers(10):
        publish("t", body)

    consumer = node.client().subscribe("t", "c")
    for body in (b"10", b"11"):
        publish("t", body)

    assert numbers(12) == consumer.ready(50).bodies()


def test_paused_topic(node, publish, clock):
    """A pause holds messages back from all channels; publishing and what was delivered go on."""
    consumer = node.client().subscribe("t", "c").ready(10)
    publish("t", b"before")
    topic = node.topic("t")
    assert not node.broker.changes.pending()

    topic.pause(True, clock.now)
    assert node.broker.changes.pending()
    batch = publish("t", b"during")
    assert ([b"before"], KEPT, 1) == (consumer.bodies(), batch.state, topic.depth())
    late = node.client().subscribe("t", "late").ready(10)
    clock.advance(60)
    assert [(b"before", 2)] == consumer.received()
    topic.pause(False, clock.now)
    node.turn()

    assert ([b"during"], [b"during"]) == (consumer.bodies(), late.bodies())


def test_held_topic_keeps_its_messages(node, publish):
    """While a topic is held its messages are kept and no channel gets any; then every channel gets all."""
    topic = node.topic("t")
    topic.await_channels()
    consumer = node.client().subscribe("t", "first").ready(10)

    assert KEPT == publish("t", b"0", b"1").state
    assert ([], 2) == (consumer.bodies(), topic.depth())
    other = node.client().subscribe("t", "second").ready(10)
    topic.channels_known(node.clock.now)
    node.turn()

    assert (numbers(2), numbers(2), 0) == (consumer.bodies(), other.bodies(), topic.depth())


def test_paused_topic_that_is_let_go_stays_paused(node, publish):
    """The end of the hold does not end a pause."""
    topic = node.topic("t")
    topic.await_channels()
    consumer = node.client().subscribe("t", "c").ready(10)
    topic.pause(True, node.clock.now)
    publish("t", b"x")

    topic.channels_known(node.clock.now)
    node.turn()
    assert [] == consumer.bodies()
    topic.pause(False, node.clock.now)
    node.turn()

    assert [b"x"] == consumer.bodies()


@with_log
def test_what_waited_goes_to_the_channels_in_portions(node, clock):
    """However much there is; what is published meanwhile comes after it, and a restart loses nothing of it."""
    topic = node.topic("t")
    channel = node.channel("t", "c")
    topic.pause(True, clock.now)
    for n in range(2 * SLICE):
        topic.publish(sized(b"%d" % n), 1, 0, None, clock.now)
    node.turn()

    topic.pause(False, clock.now)
    assert 0 < channel.queue.depth() <= SLICE
    assert 2 * SLICE == channel.queue.depth() + topic.depth()
    topic.publish(sized(b"last"), 1, 0, None, clock.now)
    node.broker.published.remove(topic)
    topic.commit(clock.now)
    node.broker.check()
    assert 2 * SLICE + 1 == channel.queue.depth() + topic.depth()
    node.stop()
    node.restart()
    node.turn()

    assert 2 * SLICE + 1 == node.channel("t", "c").queue.depth()
    consumer = node.client().subscribe("t", "c").ready(2500)
    assert [*numbers(2 * SLICE), b"last"] == consumer.bodies()


def test_what_waited_goes_on_by_itself(node, clock):
    """One portion follows the other, without anybody who publishes or subscribes."""
    topic = node.topic("t")
    channel = node.channel("t", "c")
    topic.pause(True, clock.now)
    for n in range(3 * SLICE):
        topic.publish(sized(b"%d" % n), 1, 0, None, clock.now)
    node.turn()

    topic.pause(False, clock.now)
    assert topic.depth()
    node.turn()

    assert (0, 3 * SLICE) == (topic.depth(), channel.queue.depth())


@with_log
def test_what_waited_is_counted_by_each_channel(node, publish, settings):
    """A channel counts what it gets from its topic, in memory or only in the log, as it counts what is published."""
    settings.mem_queue_size = 2
    for n in range(5):
        publish("t", b"%d" % n)

    assert 5 == node.channel("t", "c").message_count
    publish("t", b"x")
    assert [6, 0] == [node.channel("t", name).message_count for name in ("c", "later")]


@in_memory
def test_what_waited_in_memory_and_what_waited_in_the_log(node, publish, settings):
    """They come in order, also where neither has room in the channel's memory."""
    settings.mem_queue_size = 1
    consumer = node.client().subscribe("t", "c")
    publish("t", b"0")
    topic = node.topic("t")
    topic.pause(True, node.clock.now)
    publish("t", b"1")
    publish("t", b"2", b"3")
    assert 1 == len(topic.waiting.extents())

    topic.pause(False, node.clock.now)
    node.turn()
    consumer.ready(10)

    assert numbers(4) == consumer.bodies()


def test_a_pause_stops_what_is_on_its_way(node, clock):
    """And the end of the pause goes on with it."""
    topic = node.topic("t")
    channel = node.channel("t", "c")
    topic.pause(True, clock.now)
    for n in range(SLICE + 10):
        topic.publish(sized(b"%d" % n), 1, 0, None, clock.now)
    node.turn()
    topic.pause(False, clock.now)
    topic.pause(True, clock.now)
    there = channel.queue.depth()
    node.turn()
    assert (there, SLICE + 10 - there) == (channel.queue.depth(), topic.depth())

    topic.pause(False, clock.now)
    node.turn()

    assert (SLICE + 10, 0) == (channel.queue.depth(), topic.depth())


@in_memory
def test_what_waited_in_a_pause_keeps_its_place(node, settings, publish):
    """What waited in the memory of a paused topic does not overtake what its channels have in the log."""
    settings.mem_queue_size = 3
    consumer = node.client().subscribe("t", "c")
    publish("t", *numbers(5))
    node.topic("t").pause(True, node.clock.now)
    publish("t", b"5", b"6")

    node.topic("t").pause(False, node.clock.now)
    node.turn()
    consumer.ready(10)

    assert numbers(7) == consumer.bodies()


@in_memory
def test_what_waited_stays_in_memory_if_the_log_refuses(node, settings, publish):
    """When the end of a pause finds the disk full, nothing is lost; only the order may be."""
    settings.mem_queue_size = 3
    consumer = node.client().subscribe("t", "c")
    publish("t", *numbers(5))
    node.topic("t").pause(True, node.clock.now)
    publish("t", b"5", b"6")
    node.log("t").failure = "disk full"

    node.topic("t").pause(False, node.clock.now)
    node.turn()
    node.log("t").failure = ""
    consumer.ready(10)

    assert numbers(7) == sorted(consumer.bodies())
    assert "disk full" in node.broker.health.text()
