"""A session: bytes in, replies out in order, heartbeats and deadlines."""

import gc
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsqkit.nsqd.core.session import MAX_REPLIES, SHARE, SHARE_TOPICS, Outlet, Session
from nsqkit.wire.frames import ERROR, RESPONSE
from nsqkit.wire.identify import Security

OK = (RESPONSE, b"OK")
ID = b"0123456789abcdef"
NOT_IN_FLIGHT = (ERROR, b"E_FIN_FAILED FIN 0123456789abcdef failed ID not in flight")


def sized(*bodies: bytes) -> bytes:
    """Each body after its size."""
    return b"".join(struct.pack(">i", len(body)) + body for body in bodies)


def pub(topic: bytes, body: bytes) -> bytes:
    """A PUB."""
    return b"PUB %s\n" % topic + sized(body)


def mpub(topic: bytes, *bodies: bytes) -> bytes:
    """An MPUB."""
    data = sized(*bodies)
    return b"MPUB %s\n" % topic + struct.pack(">ii", len(data) + 4, len(bodies)) + data


def identify(**fields: object) -> bytes:
    """An IDENTIFY."""
    return b"IDENTIFY\n" + sized(json.dumps(fields).encode())


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


# -- publishes that wait for a sync


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


# -- IDENTIFY


def test_negotiation(node, chunks):
    """A client that negotiates is answered with JSON, one that does not with OK."""
    client = node.client()

    client.send_chunks(chunks(identify(feature_negotiation=True, msg_timeout=2000)))
    client.send(b"NOP\n" + identify())

    (_, document), second = client.replies()
    assert 2000 == json.loads(document)["msg_timeout"]
    assert OK == second


@pytest.mark.parametrize("codec", ["snappy", "deflate"])
def test_compression(node, codec):
    """The JSON goes out in the clear, then the codec is put in place, then OK goes through it."""
    client = node.client()

    client.send(identify(feature_negotiation=True, **{codec: True}))

    (_, document), ok = client.replies()
    assert json.loads(document)[codec]
    assert [(codec, 1)] == client.outlet.upgrades
    assert OK == ok


def test_a_layer_that_is_ready_later(node):
    """OK waits until the layer is ready; what comes before that is thrown away, and commands after it count."""
    client = node.client()
    client.outlet.ready = False

    client.send(identify(feature_negotiation=True, snappy=True))
    client.send(b"NONSENSE\n")
    assert 1 == len(client.replies())
    client.session.upgraded()
    client.send(pub(b"t", b"x"))

    assert [OK, OK] == client.replies()


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


def test_what_is_sent_too_early_is_dropped(node):
    """What a client sends in the clear after such an IDENTIFY is thrown away."""
    client = node.client()

    client.send(identify(feature_negotiation=True, snappy=True) + b"NONSENSE\n")

    assert 2 == len(client.replies())
    assert "" == client.ended


def test_compression_waits_for_earlier_replies(node, flavour):
    """Replies to what was sent before IDENTIFY go out in the clear, before its own."""
    node.syncing = False
    client = node.client()

    client.send(pub(b"t", b"x") + identify(feature_negotiation=True, deflate=True))
    assert (flavour == "fsync") == (not client.outlet.upgrades)
    node.sync()

    first, (_, document), last = client.replies()
    assert (OK, OK) == (first, last)
    assert json.loads(document)["deflate"]
    assert [2] == [sent_before for _, sent_before in client.outlet.upgrades]


@pytest.mark.parametrize("flavour", ["fsync"], indirect=True)
def test_no_compression_after_a_failure(node):
    """If an earlier publish failed, its error is the last thing that is sent, in the clear."""
    node.syncing = False
    client = node.client()

    client.send(pub(b"t", b"x") + identify(feature_negotiation=True, snappy=True))
    node.sync("broken")

    assert b"E_PUB_FAILED PUB failed broken" == client.error()
    assert ([], "closed") == (client.outlet.upgrades, client.ended)


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


# -- TLS


@pytest.mark.parametrize("line", [b"PUB t", b"SUB t c", b"NOP", b"RDY 1", b"AUTH", b"WHAT"])
def test_tls_required(node, settings, line):
    """Where TLS is required every word but IDENTIFY is refused, before anything else is looked at."""
    settings.tls_required = True
    for greeting in (b"", identify()):
        client = node.client()
        client.send(greeting)
        client.replies()

        client.send(line + b"\n")

        expected = b"E_INVALID cannot %s in current state (TLS required)" % line.split()[0]
        assert expected == client.error()
        assert "closed" == client.ended


def test_tls_required_and_there(node, settings):
    """With TLS in place everything is allowed; what it came to outlives a second IDENTIFY."""
    settings.tls_required = settings.limits.tls = True
    client = node.client()
    client.outlet.ready = False
    client.send(identify(feature_negotiation=True, tls_v1=True, snappy=True))
    client.session.identity.security = Security("TLS1.3", "TLS_AES_128_GCM_SHA256", "", "")
    client.replies()

    client.outlet.ready = True
    client.session.upgraded()
    node.turn()
    assert ["tls", "snappy"] == [name for name, _ in client.outlet.upgrades]
    assert [OK, OK] == client.replies()

    client.send(identify() + b"NOP\n" + pub(b"t", b"x"))
    assert [OK, OK] == client.replies()
    assert "TLS1.3" == client.session.identity.security.version
