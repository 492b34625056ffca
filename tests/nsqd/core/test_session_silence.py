"""Heartbeats of a session, and clients that are silent or do not read."""

import pytest

from tests.nsqd.core.sent import identify, pub

ID = b"0123456789abcdef"


# -- those who do not begin


def test_a_layer_that_is_never_ready(node, clock):
    """Who does not finish a handshake in time is hung up on; one that is finished too late changes nothing."""
    client = node.client()
    client.outlet.ready = False
    client.send(identify(feature_negotiation=True, snappy=True, heartbeat_interval=-1))

    clock.advance(10)

    assert "closed" == client.ended
    client.session.upgraded()
    client.send(pub(b"t", b"x"))
    assert 1 == len(client.replies())


@pytest.mark.parametrize("said", [b"", b"  V"])
def test_who_does_not_say_the_magic(node, clock, said):
    """A connection without the magic is closed after the handshake timeout, without a word."""
    client = node.client(greeted=False)
    client.send(said)

    clock.advance(9.9)
    assert "" == client.ended
    clock.advance(0.1)

    assert ("closed", []) == (client.ended, client.outlet.frames)


def test_who_says_the_magic_may_be_silent(node, clock):
    """The handshake timeout ends with the magic."""
    client = node.client(greeted=False)
    clock.advance(9)

    client.send(b"  V2")
    clock.advance(20)

    assert "" == client.ended


def test_no_handshake_timeout(node, clock):
    """With a timeout of 0 a client may wait as long as it likes."""
    node.broker.settings.handshake_timeout = 0
    client = node.client(greeted=False)

    clock.advance(1000)

    assert "" == client.ended


# -- heartbeats and deadlines


def test_heartbeats(node, clock):
    """A client gets a heartbeat every 30 s, whatever else it is sent, and stays as long as it answers."""
    client = node.client()

    clock.advance(29.999)
    assert 0 == client.outlet.heartbeats
    clock.advance(0.001)
    assert 1 == client.outlet.heartbeats
    clock.advance(300)

    assert (11, "", []) == (client.outlet.heartbeats, client.ended, client.replies())


def test_heartbeat_interval(node, clock):
    """The interval that IDENTIFY asks for begins with IDENTIFY."""
    client = node.client()
    clock.advance(10)

    client.identify(heartbeat_interval=2000)
    clock.advance(20)

    assert 10 == client.outlet.heartbeats


def test_the_tick_of_the_first_identify_stays(node, clock):
    """A second IDENTIFY does not change the ticks."""
    client = node.client().identify(heartbeat_interval=10_000).identify(heartbeat_interval=1000)
    client.lively = True

    clock.advance(1.5)
    assert 0 == client.outlet.heartbeats
    client.send(b"NOP\n")

    clock.advance(1.9)
    assert "" == client.ended


def test_no_heartbeats(node, clock):
    """A client that wants none gets none, and may be silent for ever."""
    client = node.client().identify(heartbeat_interval=-1)

    clock.advance(10_000)

    assert (0, "") == (client.outlet.heartbeats, client.ended)


@pytest.mark.parametrize("interval_ms", [1000, 30_000])
def test_silent_client(node, clock, interval_ms):
    """A client that says nothing for two intervals is hung up on without a word."""
    client = node.client().identify(heartbeat_interval=interval_ms)
    client.lively = False

    clock.advance(interval_ms * 2 / 1000 - 0.001)
    assert "" == client.ended
    clock.advance(0.001)

    assert ([], "closed") == (client.replies(), client.ended)
    assert {} == node.broker.sessions


def test_any_command_is_a_sign_of_life(node, clock):
    """Also one that is not answered; but bytes of a body are none."""
    client = node.client()
    client.lively = False
    clock.advance(59)
    client.send(b"NOP\n")
    clock.advance(59)
    client.send(b"PUB t\n\0\0\0\x05")
    clock.advance(59)
    client.send(b"abc")
    assert "" == client.ended

    clock.advance(1)

    assert "closed" == client.ended


def test_finish_is_a_sign_of_life(node, clock):
    """The most frequent command is no exception."""
    client = node.client().subscribe("t", "c")
    client.lively = False

    for _ in range(5):
        clock.advance(50)
        client.send(b"FIN %s\n" % ID)

    assert "" == client.ended


def test_long_sleep(node, clock):
    """After a long sleep of the machine there is one heartbeat for all that were missed, or few, and no flood."""
    client = node.client().identify(heartbeat_interval=20_000)

    clock.jump(39)
    clock.advance(2)

    assert 1 <= client.outlet.heartbeats <= 2
    assert "" == client.ended


def test_client_that_does_not_read(node, clock):
    """A client whose transport is full for a whole interval is aborted, without further heartbeats."""
    client = node.client()
    client.session.blocked = True

    clock.advance(30)
    assert "" == client.ended
    for _ in range(30):
        clock.advance(1)
        if not client.ended:
            client.send(b"NOP\n")

    assert ("aborted", 0) == (client.ended, client.outlet.heartbeats)


def test_client_that_reads_slowly(node, clock):
    """A client whose transport is mostly full, but drains now and then, is not aborted."""
    client = node.client()

    for _ in range(20):
        client.session.blocked = True
        clock.advance(20)
        client.session.resume()
        client.send(b"NOP\n")

    assert "" == client.ended


def test_blocked_client_without_heartbeats(node, clock):
    """Without heartbeats there is no deadline for writing either."""
    client = node.client().identify(heartbeat_interval=-1)
    client.session.blocked = True

    clock.advance(1000)

    assert "" == client.ended
