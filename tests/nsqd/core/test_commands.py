"""The command table: what each command takes, does and answers."""

import struct

import pytest

from nsqkit.nsqd.core.commands import COMMANDS
from nsqkit.wire.frames import ERROR, RESPONSE
from tests.nsqd.core.sent import mpub, sized

OK = (RESPONSE, b"OK")
ID = b"0123456789abcdef"
NOT_A_NAME = b"not/a/name"
LONG_NAME = b"x" * 65


@pytest.fixture
def flavour():
    """Commands do not know what is under the broker."""
    return "os"


def int32(*numbers: int) -> bytes:
    """Numbers as sizes and counts are sent."""
    return struct.pack(f">{len(numbers)}i", *numbers)


@pytest.fixture
def settings(settings):
    """Small limits."""
    settings.max_msg_size = 100
    settings.max_body_size = 200
    settings.limits.max_rdy_count = 50
    return settings


def in_state(node, state: str):
    """A client in one of the protocol's states."""
    client = node.client()
    if state != "init":
        client.subscribe("t", "c")
    if state == "closing":
        client.send(b"CLS\n").replies()
    return client


def test_all_commands():
    """These are the commands of the protocol."""
    expected = {"IDENTIFY", "AUTH", "SUB", "PUB", "MPUB", "DPUB", "RDY", "FIN", "REQ", "TOUCH", "CLS", "NOP"}

    assert expected == {name.decode() for name in COMMANDS}
    assert expected == {command.name for command in COMMANDS.values()}


# -- errors in any state


@pytest.mark.parametrize(
    "sent, payload",
    [
        (b"\n", b"E_INVALID invalid command "),
        (b"\r\n", b"E_INVALID invalid command "),
        (b" PUB t\n", b"E_INVALID invalid command "),
        (b"pub t\n", b"E_INVALID invalid command pub"),
        (b"PUBX\n", b"E_INVALID invalid command PUBX"),
        (b"GET / HTTP/1.1\r\n", b"E_INVALID invalid command GET"),
        (b"\xff\xfe \n", b"E_INVALID invalid command \xff\xfe"),
        (b"PUB\n", b"E_INVALID PUB insufficient number of parameters"),
        (b"MPUB\n", b"E_INVALID MPUB insufficient number of parameters"),
        (b"DPUB\n", b"E_INVALID DPUB insufficient number of parameters"),
        (b"DPUB t\n", b"E_INVALID DPUB insufficient number of parameters"),
        (b"PUB \n", b'E_BAD_TOPIC PUB topic name "" is not valid'),
        (b"PUB  t\n", b'E_BAD_TOPIC PUB topic name "" is not valid'),
        (b"PUB not/a/name\n", b'E_BAD_TOPIC PUB topic name "not/a/name" is not valid'),
        (b'PUB "\\\xff\n', b'E_BAD_TOPIC PUB topic name "\\"\\\\\\xff" is not valid'),
        (b"PUB %s\n" % LONG_NAME, b'E_BAD_TOPIC PUB topic name "%s" is not valid' % LONG_NAME),
        (b"PUB #ephemeral\n", b'E_BAD_TOPIC PUB topic name "#ephemeral" is not valid'),
        (b"MPUB not/a/name\n", b'E_BAD_TOPIC E_BAD_TOPIC MPUB topic name "not/a/name" is not valid'),
        (b"DPUB not/a/name x\n", b'E_BAD_TOPIC DPUB topic name "not/a/name" is not valid'),
        (b"DPUB t x\n", b"E_INVALID DPUB could not parse timeout x"),
        (b"DPUB t -1\n", b"E_INVALID DPUB could not parse timeout -1"),
        (b"DPUB t \xff\n", b"E_INVALID DPUB could not parse timeout \xff"),
        (b"DPUB t 3600001\n", b"E_INVALID DPUB timeout 3600001 out of range 0-3600000"),
        (b"PUB t\n" + int32(0), b"E_BAD_MESSAGE PUB invalid message body size 0"),
        (b"PUB t\n" + int32(-5), b"E_BAD_MESSAGE PUB invalid message body size -5"),
        (b"PUB t\n" + int32(101), b"E_BAD_MESSAGE PUB message too big 101 > 100"),
        (b"DPUB t 1\n" + int32(0), b"E_BAD_MESSAGE DPUB invalid message body size 0"),
        (b"DPUB t 1\n" + int32(101), b"E_BAD_MESSAGE DPUB message too big 101 > 100"),
        (b"MPUB t\n" + int32(0), b"E_BAD_BODY MPUB invalid body size 0"),
        (b"MPUB t\n" + int32(-5), b"E_BAD_BODY MPUB invalid body size -5"),
        (b"MPUB t\n" + int32(201), b"E_BAD_BODY MPUB body too big 201 > 200"),
        (b"MPUB t\n" + int32(20, 0), b"E_BAD_BODY MPUB invalid message count 0"),
        (b"MPUB t\n" + int32(20, -1), b"E_BAD_BODY MPUB invalid message count -1"),
        (b"MPUB t\n" + int32(20, 40), b"E_BAD_BODY MPUB invalid message count 40"),
        (b"MPUB t\n" + int32(20, 2, 0), b"E_BAD_MESSAGE MPUB invalid message(0) body size 0"),
        (mpub(b"t", b"a", b"b", b""), b"E_BAD_MESSAGE MPUB invalid message(2) body size 0"),
        (b"MPUB t\n" + int32(20, 2, 101), b"E_BAD_MESSAGE MPUB message too big 101 > 100"),
    ],
)
@pytest.mark.parametrize("state", ["init", "subscribed", "closing"])
def test_fatal_error(node, chunks, sent, payload, state):
    """The error frame is the last thing that is sent, and nothing after the mistake is executed."""
    client = in_state(node, state)

    client.send_chunks(chunks(sent, tail=b"PUB t\n" + sized(b"x")))

    assert payload == client.error()
    assert "closed" == client.ended
    assert 0 == sum(topic.message_count for topic in node.broker.topics.values())


@pytest.mark.parametrize(
    "sent, payload",
    [
        (b"IDENTIFY\n" + int32(0), b"E_BAD_BODY IDENTIFY invalid body size 0"),
        (b"IDENTIFY\n" + int32(-5), b"E_BAD_BODY IDENTIFY invalid body size -5"),
        (b"IDENTIFY\n" + int32(201), b"E_BAD_BODY IDENTIFY body too big 201 > 200"),
        (b"IDENTIFY\n" + sized(b"nonsense"), b"E_BAD_BODY IDENTIFY failed to decode JSON body"),
        (
            b"IDENTIFY\n" + sized(b'{"heartbeat_interval":5}'),
            b"E_BAD_BODY IDENTIFY heartbeat interval (5) is invalid",
        ),
        (
            b"IDENTIFY\n" + sized(b'{"snappy":true,"deflate":true,"feature_negotiation":true}'),
            b"E_IDENTIFY_FAILED cannot enable both deflate and snappy compression",
        ),
        (b"AUTH x\n" + sized(b"secret"), b"E_INVALID AUTH invalid number of parameters"),
        (b"AUTH \n" + sized(b"secret"), b"E_INVALID AUTH invalid number of parameters"),
        (b"AUTH\n" + int32(0), b"E_BAD_BODY AUTH invalid body size 0"),
        (b"AUTH\n" + int32(201), b"E_BAD_BODY AUTH body too big 201 > 200"),
        (b"AUTH\n" + sized(b"secret"), b"E_AUTH_DISABLED AUTH disabled"),
        (b"SUB\n", b"E_INVALID SUB insufficient number of parameters"),
        (b"SUB t\n", b"E_INVALID SUB insufficient number of parameters"),
        (b"SUB not/a/name c\n", b'E_BAD_TOPIC SUB topic name "not/a/name" is not valid'),
        (b"SUB not/a/name not/a/name\n", b'E_BAD_TOPIC SUB topic name "not/a/name" is not valid'),
        (b"SUB  t c\n", b'E_BAD_TOPIC SUB topic name "" is not valid'),
        (b"SUB t not/a/name\n", b'E_BAD_CHANNEL SUB channel name "not/a/name" is not valid'),
        (b"SUB t \n", b'E_BAD_CHANNEL SUB channel name "" is not valid'),
        *[
            (b"%s%s\n" % (name, params), b"E_INVALID cannot %s in current state" % name)
            for name in (b"RDY", b"FIN", b"REQ", b"TOUCH", b"CLS")
            for params in (b"", b" x")
        ],
    ],
)
def test_fatal_error_before_sub(node, chunks, sent, payload):
    """The same for what is only wrong, or only read, in the first state."""
    client = node.client()

    client.send_chunks(chunks(sent))

    assert payload == client.error()
    assert "closed" == client.ended


@pytest.mark.parametrize(
    "sent, payload",
    [
        (b"IDENTIFY\n", b"E_INVALID cannot IDENTIFY in current state"),
        (b"AUTH x y\n", b"E_INVALID cannot AUTH in current state"),
        (b"SUB\n", b"E_INVALID cannot SUB in current state"),
        (b"SUB t c\n", b"E_INVALID cannot SUB in current state"),
        (b"FIN\n", b"E_INVALID FIN insufficient number of params"),
        (b"REQ\n", b"E_INVALID REQ insufficient number of params"),
        (b"REQ %s\n" % ID, b"E_INVALID REQ insufficient number of params"),
        (b"TOUCH\n", b"E_INVALID TOUCH insufficient number of params"),
        (b"FIN 0123456789abcde\n", b"E_INVALID invalid message ID"),
        (b"FIN 0123456789abcde\r\n", b"E_INVALID invalid message ID"),
        (b"FIN 0123456789abcdef0\n", b"E_INVALID invalid message ID"),
        (b"FIN 01234567 9abcdef\n", b"E_INVALID invalid message ID"),
        (b"FIN 0123456\nNOP\nNOP\n\n", b"E_INVALID invalid message ID"),
        (b"FIN \n", b"E_INVALID invalid message ID"),
        (b"FIN  %s\n" % ID, b"E_INVALID invalid message ID"),
        (b"REQ x 0\n", b"E_INVALID invalid message ID"),
        (b"REQ x y\n", b"E_INVALID invalid message ID"),
        (b"TOUCH x\n", b"E_INVALID invalid message ID"),
        (b"REQ %s -1\n" % ID, b"E_INVALID REQ could not parse timeout -1"),
        (b"REQ %s x\xff\n" % ID, b"E_INVALID REQ could not parse timeout x\xff"),
    ],
)
@pytest.mark.parametrize("state", ["subscribed", "closing"])
def test_fatal_error_after_sub(node, chunks, sent, payload, state):
    """The same for what is only wrong, or only read, after SUB."""
    client = in_state(node, state)

    client.send_chunks(chunks(sent))

    assert payload == client.error()
    assert "closed" == client.ended


@pytest.mark.parametrize(
    "sent, payload",
    [
        (b"RDY x\n", b"E_INVALID RDY could not parse count x"),
        (b"RDY -1\n", b"E_INVALID RDY could not parse count -1"),
        (b"RDY 51\n", b"E_INVALID RDY count 51 out of range 0-50"),
    ],
)
def test_rdy_out_of_range(node, chunks, sent, payload):
    """RDY takes a number up to max-rdy-count; after CLS it takes anything and means nothing."""
    client, closing = in_state(node, "subscribed"), in_state(node, "closing")

    client.send_chunks(chunks(sent))
    closing.send_chunks(chunks(sent))

    assert (payload, "closed") == (client.error(), client.ended)
    assert ([], "") == (closing.replies(), closing.ended)


def test_cls_twice(node):
    """CLS is allowed once."""
    assert b"E_INVALID cannot CLS in current state" == in_state(node, "closing").send(b"CLS\n").error()


def test_sub_without_heartbeats(node):
    """A client without heartbeats can't subscribe, whatever its parameters are."""
    client = node.client().identify(heartbeat_interval=-1)

    client.send(b"SUB\n")

    assert b"E_INVALID cannot SUB with heartbeats disabled" == client.error()


def test_state_comes_before_heartbeats(node):
    """Of two mistakes the state is named."""
    client = in_state(node, "subscribed")

    client.session.identity.heartbeat_interval = 0

    assert b"E_INVALID cannot SUB in current state" == client.send(b"SUB\n").error()


@pytest.mark.parametrize(
    "command", ["FIN %s\n", "FIN %s \n", "FIN %s x\r\n", "REQ %s 0\n", "REQ %s 1 2\n", "TOUCH %s\n"]
)
@pytest.mark.parametrize("state", ["subscribed", "closing"])
def test_errors_that_do_not_close(node, chunks, command, state):
    """A message that is not there is an error of this command only."""
    client = in_state(node, state)
    name = command.split()[0].encode()

    client.send_chunks(chunks((command % ID.decode()).encode(), tail=b"NOP\n"))

    assert b"E_%s_FAILED %s %s failed ID not in flight" % (name, name, ID) == client.error()
    assert [OK] == client.send(b"PUB t\n" + sized(b"x")).replies()


# -- input that ends too early


@pytest.mark.parametrize(
    "sent, payload",
    [
        (b"PUB t\n", b"E_BAD_MESSAGE PUB failed to read message body size"),
        (b"PUB t\n\0\0\0", b"E_BAD_MESSAGE PUB failed to read message body size"),
        (b"PUB t\n\0\0\0\x05", b"E_BAD_MESSAGE PUB failed to read message body"),
        (b"PUB t\n\0\0\0\x05abcd", b"E_BAD_MESSAGE PUB failed to read message body"),
        (b"DPUB t 5\n\0", b"E_BAD_MESSAGE DPUB failed to read message body size"),
        (b"DPUB t 5\n\0\0\0\x05a", b"E_BAD_MESSAGE DPUB failed to read message body"),
        (b"MPUB t\n", b"E_BAD_BODY MPUB failed to read body size"),
        (b"MPUB t\n\0\0\0", b"E_BAD_BODY MPUB failed to read body size"),
        (b"MPUB t\n" + int32(20), b"E_BAD_BODY MPUB failed to read message count"),
        (b"MPUB t\n" + int32(20) + b"\0\0\0", b"E_BAD_BODY MPUB failed to read message count"),
        (b"MPUB t\n" + int32(20, 2), b"E_BAD_MESSAGE MPUB failed to read message(0) body size"),
        (b"MPUB t\n" + int32(20, 2, 1) + b"a\0", b"E_BAD_MESSAGE MPUB failed to read message(1) body size"),
        (b"MPUB t\n" + int32(20, 2, 3) + b"ab", b"E_BAD_MESSAGE MPUB failed to read message body"),
        (b"IDENTIFY\n\0\0\0", b"E_BAD_BODY IDENTIFY failed to read body size"),
        (b"IDENTIFY\n" + int32(5) + b"{}", b"E_BAD_BODY IDENTIFY failed to read body"),
        (b"AUTH\n", b"E_BAD_BODY AUTH failed to read body size"),
        (b"AUTH\n" + int32(5) + b"abcd", b"E_BAD_BODY AUTH failed to read body"),
    ],
)
@pytest.mark.parametrize("split", [False, True])
def test_end_of_input_in_a_body(node, sent, payload, split):
    """What could not be read is named, then the connection is closed."""
    client = node.client()
    client.send_chunks([sent[i : i + 1] for i in range(len(sent))] if split else [sent])
    assert [] == client.replies()

    client.session.end()
    node.turn()

    assert (payload, "closed") == (client.error(), client.ended)


@pytest.mark.parametrize("sent", [b"", b"PUB t", b"NOP\nNO", b"PUB t\n" + sized(b"x")])
def test_end_of_input_between_commands(node, sent):
    """A client that is done hears nothing more than its replies."""
    client = node.client().send(sent)
    client.replies()

    client.session.end()
    node.turn()

    assert ([], "closed") == (client.replies(), client.ended)


# -- success


@pytest.mark.parametrize("state", ["init", "subscribed", "closing"])
@pytest.mark.parametrize(
    "sent, bodies",
    [
        (b"PUB t\n" + sized(b"x"), [b"x"]),
        (b"PUB t\r\n" + sized(b"x" * 100), [b"x" * 100]),
        (b"PUB t surplus\n" + sized(b"\n"), [b"\n"]),
        (mpub(b"t", b"a"), [b"a"]),
        (mpub(b"t", b"a", b"bb", b"x" * 100), [b"a", b"bb", b"x" * 100]),
        (mpub(b"t", *[b"x"] * 39), [b"x"] * 39),
        (b"DPUB t 0\n" + sized(b"x"), [b"x"]),
        (b"DPUB t \n" + sized(b"x"), [b"x"]),
        (b"DPUB t 000 y\n" + sized(b"x"), [b"x"]),
    ],
)
def test_publishing(node, chunks, sent, bodies, state):
    """Publishing is answered OK in every state, and the messages are delivered."""
    client = in_state(node, state)
    consumer = node.client().subscribe("t", "other").ready(50)

    client.send_chunks(chunks(sent, tail=b"NOP\n"))

    assert [OK] == client.replies()
    assert bodies == consumer.bodies()
    topic = node.topic("t")
    assert (len(bodies), sum(map(len, bodies))) == (topic.message_count, topic.message_bytes)
    assert {"t": len(bodies)} == client.session.pub_counts


def test_dpub(node, clock):
    """DPUB holds a message back for so many ms from its publishing."""
    client = node.client()
    consumer = node.client().subscribe("t", "c").ready(1)

    client.send(b"DPUB t 3600000\n" + sized(b"x"))
    assert [OK] == client.replies()
    clock.advance(3599.999)
    assert [] == consumer.bodies()
    clock.advance(0.001)

    assert [b"x"] == consumer.bodies()


def test_mpub_with_more_messages_than_ids_in_a_tick(node, settings):
    """An MPUB may have more than 4096 messages; each has its own id, growing."""
    settings.max_body_size = 5_000_000
    settings.limits.max_rdy_count = 20_000
    consumer = node.client().subscribe("t", "c").ready(20_000)

    client = node.client().send(mpub(b"t", *[b"%d" % n for n in range(10_000)]))

    deliveries = consumer.deliveries()
    assert [OK] == client.replies()
    assert [b"%d" % n for n in range(10_000)] == [delivery.body for delivery in deliveries]
    ids = [delivery.id for delivery in deliveries]
    assert sorted(set(ids)) == ids
    assert {"t": 10_000} == client.session.pub_counts


def test_rejected_mpub_makes_the_topic(node):
    """As in NSQ the topic of an MPUB is made before its body is looked at, that of a PUB is not."""
    node.client().send(b"MPUB many\n" + int32(0))
    node.client().send(b"PUB one\n" + int32(0))

    assert {"many"} == set(node.broker.topics)


def test_rejected_mpub_publishes_nothing(node):
    """All messages are checked before any is taken."""
    consumer = node.client().subscribe("t", "c").ready(10)

    node.client().send(mpub(b"t", b"a", b"b", b""))

    assert [] == consumer.bodies()


def test_sub(node, chunks):
    """SUB makes the topic and the channel."""
    client = node.client()

    client.send_chunks(chunks(b"SUB t c#ephemeral surplus\n"))

    assert [OK] == client.replies()
    assert {"c#ephemeral"} == set(node.broker.topics["t"].channels)
    assert 3 == client.session.state


@pytest.mark.parametrize(
    "names", [(b"a", b"b"), (b"x" * 64, b"y" * 64), (b".-_9Z", b"x" * 54 + b"#ephemeral")]
)
def test_names(node, names):
    """Names may have up to 64 characters, the suffix included."""
    assert [OK] == node.client().send(b"SUB %s %s\n" % names).replies()


@pytest.mark.parametrize(
    "sent, count", [(b"RDY\n", 1), (b"RDY \n", 0), (b"RDY 0\n", 0), (b"RDY 50\n", 50), (b"RDY 07 x\n", 7)]
)
def test_rdy(node, chunks, sent, count):
    """RDY without a number means 1, with an empty one 0. It is not answered."""
    client = in_state(node, "subscribed")

    client.send_chunks(chunks(sent))

    assert [] == client.replies()
    assert count == client.session.subscriber.ready_count


def test_cls(node, publish):
    """After CLS nothing is delivered; what is in flight can be finished, and the connection stays."""
    client = node.client().subscribe("t", "c").ready(2)
    publish("t", b"a", b"b")
    first, second = client.deliveries()

    client.send(b"CLS\n")
    assert [(RESPONSE, b"CLOSE_WAIT")] == client.replies()
    client.ready(10).finish(first.id).touch(second.id).requeue(second.id)
    publish("t", b"c")

    assert ([], [], "") == (client.replies(), client.bodies(), client.ended)
    assert 4 == client.session.state
    assert (1, 2) == (node.channel("t", "c").finished_count, node.channel("t", "c").queue.depth())


@pytest.mark.parametrize("state", ["init", "subscribed", "closing"])
def test_nop(node, state):
    """NOP is allowed everywhere and never answered."""
    client = in_state(node, state).send(b"NOP\nNOP x\n")

    assert ([], "") == (client.replies(), client.ended)


def test_identify_twice(node):
    """IDENTIFY may be repeated before SUB; the second one counts."""
    client = node.client().identify(msg_timeout=1000).identify(msg_timeout=2000, client_id="x")

    assert (2_000_000_000, "x") == (client.session.identity.msg_timeout, client.session.identity.client_id)


def test_topic_that_cannot_be_opened(node):
    """If the disk refuses a topic's log, publishing and subscribing fail with that cause."""
    node.storage.failure = "disk full"

    assert b"E_PUB_FAILED PUB failed disk full" == node.client().send(b"PUB t\n" + sized(b"x")).error()
    assert b"E_MPUB_FAILED MPUB failed disk full" == node.client().send(mpub(b"t", b"x")).error()
    assert b"E_DPUB_FAILED DPUB failed disk full" == node.client().send(b"DPUB t 1\n" + sized(b"x")).error()
    assert b"E_SUB_FAILED SUB failed disk full" == node.client().send(b"SUB t c\n").error()
    assert {} == node.broker.topics


def test_commands_while_exiting(node, broker):
    """A broker that is stopping takes no messages and no consumers."""
    clients = [node.client() for _ in range(4)]
    broker.exiting = True

    for client, sent in zip(
        clients,
        [b"PUB t\n" + sized(b"x"), mpub(b"t", b"x"), b"DPUB t 1\n" + sized(b"x"), b"SUB t c\n"],
        strict=True,
    ):
        client.send(sent)

    assert [
        b"E_PUB_FAILED PUB failed exiting",
        b"E_MPUB_FAILED MPUB failed exiting",
        b"E_DPUB_FAILED DPUB failed exiting",
        b"E_SUB_FAILED SUB failed exiting",
    ] == [client.error() for client in clients]


def test_error_frames_are_errors(node):
    """An error has its own type of frame."""
    assert [(ERROR, b"E_INVALID invalid command X")] == node.client().send(b"X\n").replies()


@pytest.mark.parametrize("command", [b"IDENTIFY", b"AUTH"])
def test_large_documents(node, settings, command):
    """IDENTIFY and AUTH take 64 KiB; more is refused before it comes, even where other bodies may be larger."""
    settings.max_body_size = 5_242_880
    client = node.client()

    client.send(command + b"\n" + int32(65_536))
    assert [] == client.replies()
    refused = node.client()
    refused.send(command + b"\n" + int32(65_537))

    assert b"E_BAD_BODY %s body too big 65537 > 65536" % command == refused.error()
