"""A session: bytes in, replies out in order, heartbeats and deadlines."""

import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsqkit.nsqd.core.session import SHARE, SHARE_TOPICS, Outlet, Session
from nsqkit.wire.frames import ERROR, RESPONSE
from tests.nsqd.core.sent import identify, mpub, pub, sized

OK = (RESPONSE, b"OK")
ID = b"0123456789abcdef"
NOT_IN_FLIGHT = (ERROR, b"E_FIN_FAILED FIN 0123456789abcdef failed ID not in flight")


# -- the beginning


def test_magic(node, chunks):
    """The magic is not answered, and commands may follow it at once."""
    client = node.client(greeted=False)

    client.send_chunks(chunks(b"  V2SUB t c\n", tail=b"NOP\n"))

    assert [OK] == client.replies()


@pytest.mark.parametrize("magic", [b"  V1", b"GET ", b"V2  ", b"\0\0\0\0", b"  v2"])
def test_bad_magic(node, chunks, magic):
    """Anything else is answered with a bare code, and nothing after it is looked at."""
    client = node.client(greeted=False)

    client.send_chunks(chunks(magic, tail=b"SUB t c\n"))

    assert b"E_BAD_PROTOCOL" == client.error()
    assert "closed" == client.ended
    assert {} == node.broker.topics


@pytest.mark.parametrize("sent", [b"", b" ", b"  V"])
def test_short_magic(node, sent):
    """Who goes before the magic is complete hears nothing."""
    client = node.client(greeted=False).send(sent)

    client.session.end()
    node.turn()

    assert ([], "closed") == (client.replies(), client.ended)


def test_sessions_are_numbered(node):
    """Sessions are known to the broker by a number that is not used again."""
    first, second = node.client(), node.client()

    first.leave()
    third = node.client()

    assert (1, 2, 3) == (first.session.number, second.session.number, third.session.number)
    assert {2, 3} == set(node.broker.sessions)


@pytest.mark.parametrize("address, name", [("10.0.0.1:4321", "10.0.0.1"), ("[::1]:4321", "[::1]"), ("@", "")])
def test_names_before_identify(node, address, name):
    """Until IDENTIFY says otherwise a client is called by its address."""
    client = node.client(address)

    assert (name, name) == (client.session.identity.client_id, client.session.identity.hostname)
    client.identify()
    assert ("", "") == (client.session.identity.client_id, client.session.identity.hostname)


@pytest.mark.parametrize("length, closed", [(16383, False), (16384, True), (40_000, True)])
def test_line_too_long(node, length, closed):
    """A line that does not end is not answered: the connection is closed."""
    client = node.client().send(b"x" * length)

    assert ([], "closed" if closed else "") == (client.replies(), client.ended)


# -- splitting


_DONE = b"SUB other c\nSUB other c\n"
commands = st.lists(
    st.one_of(
        st.builds(pub, st.sampled_from([b"t", b"u", b"t/"]), st.binary(min_size=1, max_size=30)),
        st.builds(
            lambda bodies: mpub(b"t", *bodies),
            st.lists(st.binary(min_size=1, max_size=9), min_size=1, max_size=5),
        ),
        st.builds(lambda ms: b"DPUB t %d\n" % ms + sized(b"later"), st.integers(0, 10**7)),
        st.sampled_from(
            [
                b"NOP\n",
                b"NOP\r\n",
                b"SUB t c\n",
                b"RDY 3\n",
                b"RDY\n",
                b"RDY x\n",
                b"FIN %s\n" % ID,
                b"FIN %s\r\n" % ID,
                b"FIN 0123456\nNOP\nNOP\n\n",
                b"TOUCH %s\n" % ID,
                b"REQ %s 0\n" % ID,
                b"CLS\n",
                b"\n",
                b"MPUB t\n\0\0\0\x0f\0\0\0\x02\0\0\0\x01a\0\0\0\0",
                identify(client_id="x", feature_negotiation=True),
                identify(heartbeat_interval=-1),
                identify(msg_timeout=1),
                b"IDENTIFY\n\0\0\0\0",
                b"AUTH\n" + sized(b"x"),
            ]
        ),
    ),
    max_size=8,
)


@given(commands=commands, data=st.data(), turns=st.booleans())
def test_any_split_gives_the_same_replies(new_node, commands, data, turns):
    """However commands are cut into chunks, and chunks into turns, the same frames are sent."""
    stream = b"  V2" + b"SUB busy c\nRDY 1\n" * data.draw(st.booleans()) + b"".join(commands) + _DONE
    whole, split = (new_node(flavour="os").client(greeted=False) for _ in range(2))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]

    whole.send(stream)
    if turns:
        for piece in pieces:
            split.send(piece)
    else:
        split.send_chunks(pieces)

    assert whole.replies() == split.replies()
    assert ("closed", "closed") == (whole.ended, split.ended)
    assert turns or whole.bodies() == split.bodies()
    assert {n: t.message_count for n, t in whole.node.broker.topics.items()} == {
        n: t.message_count for n, t in split.node.broker.topics.items()
    }


@given(garbage=st.binary(max_size=200), data=st.data())
def test_garbage(new_node, garbage, data):
    """Any bytes are executed or refused, the same way in whatever pieces they come."""
    stream = b"  V2" + garbage
    whole, split = (new_node(flavour="os").client(greeted=False) for _ in range(2))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))

    whole.send(stream)
    split.send_chunks([stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)])

    assert (whole.replies(), whole.ended) == (split.replies(), split.ended)


def test_deliveries_stand_between_replies(node):
    """A consumer may publish; its replies keep their order, whatever is delivered in between."""
    client = node.client().subscribe("t", "c").ready(100)

    client.send(pub(b"t", b"a") + b"FIN %s\n" % ID + pub(b"t", b"b") + b"CLS\n")

    assert [OK, NOT_IN_FLIGHT, OK, (RESPONSE, b"CLOSE_WAIT")] == client.replies()
    assert 2 == len(node.topic("t").channels["c"].queue.in_memory()) + len(client.bodies())


# -- shares


def test_many_commands_in_one_chunk(node):
    """A chunk is executed in shares of SHARE steps, two for a command with a body; what comes meanwhile follows."""
    client = node.client()
    session = client.session
    client.send(pub(b"t", b"x"))

    assert session.receive(pub(b"t", b"x") * SHARE, node.clock.now)
    node.turn()
    assert SHARE // 2 + 1 == node.broker.topics["t"].message_count
    session.keep(pub(b"t", b"x"))
    assert session.proceed(node.clock.now)
    assert not session.proceed(node.clock.now)
    node.turn()

    assert SHARE + 2 == node.broker.topics["t"].message_count


def test_a_share_that_makes_topics(node):
    """A command that makes a topic is the last of its share."""
    client = node.client()

    assert client.session.receive(pub(b"a", b"x") + pub(b"b", b"x"), node.clock.now)
    assert ["a"] == list(node.broker.topics)
    assert not client.session.proceed(node.clock.now)

    assert ["a", "b"] == list(node.broker.topics)


def test_a_share_that_publishes_to_many_topics(node):
    """A share publishes to SHARE_TOPICS topics, for each is a write to a log."""
    client = node.client()
    commands = b"".join(pub(b"t%d" % number, b"x") for number in range(2 * SHARE_TOPICS))
    client.send(commands)

    assert client.session.receive(commands, node.clock.now)
    assert SHARE_TOPICS == len(node.broker.published)


# -- the end


def test_gone_twice(node):
    """A session that is gone is gone."""
    client = node.client().subscribe("t", "c")

    client.leave()
    client.leave()

    assert ({}, []) == (node.broker.sessions, node.channel("t", "c").subscribers)


def test_session_that_is_gone_is_not_kept(node):
    """Its heartbeat stands among the alarms until it is due, but does not keep the session in memory."""
    gc.collect()
    before = sum(isinstance(thing, Session) for thing in gc.get_objects())
    client = node.client()

    client.leave()
    node.clients.clear()
    del client
    gc.collect()

    assert before == sum(isinstance(thing, Session) for thing in gc.get_objects())


def test_nothing_is_executed_after_hanging_up(node):
    """A session that was hung up on takes no more commands."""
    client = node.client()

    client.session.hang_up()
    client.session.receive(pub(b"t", b"x"), node.clock.now)
    client.session.end()
    node.turn()

    assert ([], "closed", {}) == (client.replies(), client.ended, node.broker.topics)


def test_output_goes_out_in_one_piece(node, publish):
    """All output of a turn is handed to the transport at once."""
    client = node.client().subscribe("t", "c").ready(100)
    before = len(client.outlet.sends)

    client.send(pub(b"t", b"a") + mpub(b"t", b"b", b"c") + b"FIN %s\n" % ID)

    assert before + 1 + (node.flavour == "fsync") == len(client.outlet.sends)


def test_large_output(node, publish):
    """An output buffer that has grown is not kept, and nothing is lost or sent twice."""
    client = node.client().subscribe("t", "c").ready(100)

    publish("t", b"a" * 100_000)
    publish("t", b"b")

    assert [b"a" * 100_000, b"b"] == client.bodies()


def test_outlet_is_an_interface():
    """An outlet must be able to do everything the session asks for."""
    outlet = Outlet()

    for call in (
        lambda: outlet.send(b""),
        lambda: outlet.hold(held=True),
        outlet.close,
        outlet.abort,
    ):
        with pytest.raises(NotImplementedError):
            call()


def test_session_that_is_gone_is_let_go(node, broker):
    """No alarm keeps a session in memory after its client has gone, also not one that IDENTIFY replaced."""
    client = node.client().identify(heartbeat_interval=10_000).identify(heartbeat_interval=1000)
    gone = client.session

    client.leave()
    node.turn()

    assert [] == [a for a in broker.deadlines._alarms.values() if getattr(a, "_session", None) is gone]
