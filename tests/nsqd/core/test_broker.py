"""The broker and its turns."""

import pytest

from nsqkit.nsqd.core.batch import FAILED, KEPT, PENDING
from nsqkit.nsqd.core.broker import FLUSHES, JOURNAL, TURN
from nsqkit.nsqd.core.health import READING, WRITING
from nsqkit.nsqd.core.store import StoreError
from tests.nsqd.core.flavours import stored
from tests.nsqd.core.sent import sized


def test_idle_broker(node, broker):
    """A broker with nothing to do has no next deadline, and wants no turn."""
    node.channel("t", "c")
    node.turn()

    assert 0 == broker.deadlines.next()
    assert not broker.busy()


def test_nothing_is_sent_before_the_flush(node, broker):
    """Work and flush are apart."""
    client = node.client()

    client.session.receive(b"SUB t c\n", node.clock.now)
    broker.changes.finish(broker.changes.count, "")  # a daemon saves it
    broker.work(node.clock.now)
    assert [] == client.replies()
    broker.flush()

    assert 1 == len(client.replies())


def test_a_turn_covers_all_sessions(node, broker):
    """What one client publishes is delivered to another one in the same turn."""
    consumer = node.client().subscribe("t", "c").ready(1)
    publisher = node.client()

    publisher.session.receive(b"PUB t\n\0\0\0\1x", node.clock.now)
    broker.changes.finish(broker.changes.count, "")  # a daemon saves it
    broker.work(node.clock.now)
    broker.flush()

    assert [b"x"] == consumer.bodies()


@pytest.mark.parametrize("flavour", ["memory", "os"], indirect=True)
def test_topic_that_cannot_be_opened(node, broker):
    """There is no topic whose log can't be opened; later there may be."""
    node.storage.failure = "no space"

    with pytest.raises(StoreError, match="no space"):
        broker.topic("t")
    node.storage.failure = ""

    assert {} == broker.topics
    assert "t" == broker.topic("t").name


@pytest.mark.parametrize(
    "topic, channel, dirty",
    [
        ("t", "c", True),
        ("t", "c#ephemeral", False),
        ("t#ephemeral", "c", False),
        ("t#ephemeral", "c#ephemeral", False),
    ],
)
def test_what_a_restart_must_know(node, broker, topic, channel, dirty):
    """New channels, their pauses and their end are metadata, unless they or their topic are ephemeral."""
    node.topic(topic)

    for change in (
        lambda: node.channel(topic, channel),
        lambda: node.channel(topic, channel).pause(paused=True),
        lambda: node.topic(topic).delete_channel(channel),
    ):
        broker.changes.finish(broker.changes.count, "")
        change()
        assert dirty == broker.changes.pending()


def test_pausing_twice_is_no_change(node, broker):
    """Only a change is one."""
    node.channel("t", "c").pause(paused=True)
    node.topic("t").pause(True, node.clock.now)
    broker.changes.finish(broker.changes.count, "")

    node.channel("t", "c").pause(paused=True)
    node.topic("t").pause(True, node.clock.now)

    assert not broker.changes.pending()


@pytest.mark.parametrize("flavour", ["fsync"], indirect=True)
def test_sync_groups(node, broker, publish):
    """A sync takes everything that was written so far, of all topics; what follows is for the next one."""
    node.syncing = False
    first = [publish("a", b"1"), publish("b", b"2")]
    group = broker.take_unsynced()
    second = publish("a", b"3")

    assert [("a", first[0]), ("b", first[1])] == group
    broker.synced(group, "")

    assert [KEPT, KEPT, PENDING] == [batch.state for batch in (*first, second)]
    assert [("a", second)] == broker.take_unsynced()


@pytest.mark.parametrize("flavour", ["fsync"], indirect=True)
def test_ephemeral_topics_are_not_synced(node, broker, publish):
    """What is never kept needs no sync."""
    node.syncing = False

    assert KEPT == publish("t#ephemeral", b"x").state
    assert [] == broker.take_unsynced()


def test_a_turn_dispatches_so_much(node, broker):
    """Channels that got nothing in a turn come first in the next one."""
    node.channel("t", "a")
    node.channel("t", "b")
    consumers = [node.client().subscribe("t", name).ready(2500) for name in ("a", "a", "b")]
    now = node.clock.now
    for _ in range(4):
        node.topic("t").publish(sized(*[b"x"] * 1200), 1200, 0, None, now)

    broker.work(now)
    sent = [node.topic("t").channels[name].in_flight_count for name in ("a", "b")]
    broker.work(now)

    assert 0 == sent[1] < sent[0] <= TURN
    assert node.topic("t").channels["b"].in_flight_count
    node.turn()
    assert 4800 + 2500 == sum(len(consumer.bodies()) for consumer in consumers)


def test_a_turn_flushes_so_many(node, broker):
    """Of very many sessions with output those that wait longest and the newest come first; a stop flushes them all."""
    clients = [node.client() for _ in range(2 * FLUSHES)]
    for client in clients:
        client.session.respond(b"hello")

    broker.flush()
    flushed = [bool(client.outlet.frames) for client in clients]
    half = FLUSHES // 2
    assert [True] * half + [False] * FLUSHES + [True] * half == flushed
    assert broker.busy()

    broker.exiting = True
    broker.flush()
    assert all(client.outlet.frames for client in clients)


@stored
def test_a_topic_that_is_gone_fails_no_more(node, broker, publish):
    """Its causes of bad health go with it; those of others, and of the journal, stay until they are over."""
    for name in ("a", "b"):
        publish(name, b"x")
        node.log(name).failure = "disk full"
        assert FAILED == publish(name, b"y").state
    broker.health.set(JOURNAL, "no sync")
    broker.health.set(READING + "a", "no read")

    broker.delete_topic("a")
    assert [f"{WRITING}b", JOURNAL] == list(broker.health.reasons)
    node.log("b").failure = ""
    node.syncing = False
    publish("b", b"z")

    assert [JOURNAL] == list(broker.health.reasons)


def test_hang_up_all(node, broker):
    """A broker that stops closes every connection, after what it still has to say."""
    consumer = node.client().subscribe("t", "c")
    publisher = node.client()
    publisher.session.receive(b"PUB t\n\0\0\0\1x", node.clock.now)

    broker.hang_up_all()
    node.turn()

    assert ("closed", "closed") == (consumer.ended, publisher.ended)
    assert b"E_PUB_FAILED PUB failed exiting" == publisher.error()
    assert {} == broker.sessions


@pytest.mark.parametrize("flavour", ["os"], indirect=True)
def test_restored_topic(node, publish):
    """Topics, channels and pauses are there again after a restart."""
    node.channel("t", "running")
    node.channel("t", "paused").pause(paused=True)
    node.channel("t", "gone#ephemeral")
    node.topic("u").pause(True, node.clock.now)

    node.restart()

    assert {"t", "u"} == set(node.broker.topics)
    assert {"running": False, "paused": True} == {
        name: channel.paused for name, channel in node.topic("t").channels.items()
    }
    assert (False, True) == (node.topic("t").paused, node.topic("u").paused)


@pytest.mark.parametrize("flavour", ["os"], indirect=True)
def test_ids_after_a_restart(node, publish, clock):
    """Ids go on growing even if the clock went back meanwhile."""
    consumer = node.client().subscribe("t", "c").ready(1)
    publish("t", b"x")
    (before,) = consumer.deliveries()
    consumer.finish(before.id)
    node.stop()

    clock.now -= 3600 * 10**9
    node.restart()
    consumer = node.client().subscribe("t", "c").ready(1)
    publish("t", b"y")

    (after,) = consumer.deliveries()
    assert after.id > before.id
