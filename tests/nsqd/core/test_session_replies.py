"""Replies of a session keep their order, also those that wait for a sync."""

import pytest

from nsqkit.nsqd.core.session import MAX_REPLIES, MAX_WAITING
from nsqkit.wire.frames import ERROR, RESPONSE
from tests.nsqd.core.sent import mpub, pub

OK = (RESPONSE, b"OK")
ID = b"0123456789abcdef"
NOT_IN_FLIGHT = (ERROR, b"E_FIN_FAILED FIN 0123456789abcdef failed ID not in flight")


@pytest.mark.parametrize("flavour", ["fsync"], indirect=True)
def test_ok_waits_for_the_sync(node):
    """OK, and every reply after it, is held back until the sync is done; messages are delivered meanwhile."""
    node.syncing = False
    client = node.client().subscribe("t", "c").ready(10)

    client.send(pub(b"t", b"a") + b"FIN %s\n" % ID)
    client.send(pub(b"t", b"b"))
    client.send(b"CLS\n")
    assert [] == client.replies()
    assert [b"a", b"b"] == client.bodies()
    node.sync()

    assert [OK, NOT_IN_FLIGHT, OK, (RESPONSE, b"CLOSE_WAIT")] == client.replies()


@pytest.mark.parametrize("flavour", ["fsync"], indirect=True)
def test_each_sync_covers_what_came_before(node):
    """What was published while a sync was under way waits for the next one."""
    node.syncing = False
    client = node.client()
    client.send(pub(b"t", b"a"))
    group = node.broker.take_unsynced()
    client.send(pub(b"t", b"b"))

    node.broker.synced(group, "")
    node.turn()
    assert [OK] == client.replies()
    node.sync()

    assert [OK] == client.replies()
    assert {"t": 2} == client.session.pub_counts


@pytest.mark.parametrize("flavour", ["fsync"], indirect=True)
def test_failing_sync(node):
    """A publish that can't be synced is answered with its error, and the connection is closed."""
    node.syncing = False
    client, other = node.client(), node.client()
    client.send(pub(b"t", b"a") + pub(b"u", b"b") + b"NOP\n")
    other.send(mpub(b"t", b"c", b"d"))

    node.sync("disk on fire")

    assert b"E_PUB_FAILED PUB failed disk on fire" == client.error()
    assert b"E_MPUB_FAILED MPUB failed disk on fire" == other.error()
    assert ("closed", "closed") == (client.ended, other.ended)
    assert "disk on fire" == node.broker.health.text()
    node.client().send(pub(b"t", b"a"))
    node.sync()
    assert "" == node.broker.health.text()


@pytest.mark.parametrize("flavour", ["fsync"], indirect=True)
def test_fatal_error_after_a_publish(node):
    """The error waits for the OK before it, then the connection is closed; nothing after the error is executed."""
    node.syncing = False
    client = node.client()

    client.send(pub(b"t", b"a") + b"NONSENSE\n" + pub(b"t", b"b"))
    client.send(pub(b"t", b"c"))
    assert ([], "") == (client.replies(), client.ended)
    node.sync()

    assert [OK, (ERROR, b"E_INVALID invalid command NONSENSE")] == client.replies()
    assert "closed" == client.ended
    assert 1 == node.topic("t").message_count


@pytest.mark.parametrize("flavour", ["fsync"], indirect=True)
def test_client_that_sends_no_more_gets_its_replies(node):
    """After the end of its input a publisher still hears what became of its messages."""
    node.syncing = False
    client = node.client()
    client.send(pub(b"t", b"a") + b"PUB t\n")

    client.session.end()
    node.turn()
    assert ([], "") == (client.replies(), client.ended)
    node.sync()

    assert [OK, (ERROR, b"E_BAD_MESSAGE PUB failed to read message body size")] == client.replies()
    assert "closed" == client.ended


@pytest.mark.parametrize("flavour", ["fsync"], indirect=True)
def test_publisher_that_is_gone(node, publish):
    """A connection that is gone when the sync is done troubles nobody; its message is kept."""
    node.syncing = False
    client = node.client()
    client.send(pub(b"t", b"a"))

    client.leave()
    node.sync()

    assert [b"a"] == node.client().subscribe("t", "c").ready(1).bodies()


@pytest.mark.parametrize("flavour", ["fsync"], indirect=True)
@pytest.mark.parametrize("second", [pub(b"t", b"x"), b"FIN %s\n" % ID])
def test_open_replies_are_limited(node, second):
    """With too many open replies of whatever kind the client is not read on until half of them are out."""
    node.syncing = False
    client = node.client().subscribe("t", "c")

    client.send(pub(b"t", b"x") + second * (MAX_REPLIES - 1))
    assert not client.outlet.held
    client.send(second)
    assert client.outlet.held
    node.sync()

    assert not client.outlet.held
    assert MAX_REPLIES + 1 == len(client.replies())


def test_publishes_to_several_topics(node):
    """Replies keep their order, whichever topic is written first."""
    client = node.client()

    client.send(pub(b"a", b"1") + pub(b"b", b"2") + b"SUB a c\n" + pub(b"a", b"3") + b"FIN %s\n" % ID)

    assert [OK, OK, OK, OK, NOT_IN_FLIGHT] == client.replies()


@pytest.mark.parametrize("flavour", ["fsync"], indirect=True)
def test_what_waits_is_limited_in_bytes(node):
    """With 16 MiB that wait for the disk the client is not read on until half of it is kept."""
    node.syncing = False
    client = node.client()
    body = bytes(MAX_WAITING // 16)

    for _ in range(15):
        client.send(pub(b"t", body))
    assert not client.outlet.held
    client.send(pub(b"t", body))
    assert client.outlet.held
    node.sync()

    assert not client.outlet.held
    assert [OK] * 16 == client.replies()
