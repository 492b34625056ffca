"""What the broker tells of in its log."""

import pytest

from nsqkit.nsqd.core.events import Events


class Notes(Events):
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[object, ...]] = []

    def client_came(self, address):
        """Note it."""
        self.heard.append(("came", address))

    def client_identified(self, address, identity):
        """Note it."""
        self.heard.append(("identified", address, identity.user_agent))

    def command_came(self, address, line):
        """Note it."""
        self.heard.append(("command", address, line))

    def client_failed(self, address, error):
        """Note it."""
        self.heard.append(("failed", address, error))

    def client_dropped(self, address, reason):
        """Note it."""
        self.heard.append(("dropped", address, reason))

    def client_left(self, address):
        """Note it."""
        self.heard.append(("left", address))

    def topic_made(self, topic):
        """Note it."""
        self.heard.append(("made", topic))

    def topic_deleted(self, topic):
        """Note it."""
        self.heard.append(("deleted", topic))

    def channel_made(self, topic, channel):
        """Note it."""
        self.heard.append(("made", topic, channel))

    def channel_deleted(self, topic, channel):
        """Note it."""
        self.heard.append(("deleted", topic, channel))


CLIENT = "10.0.0.1:4321"


@pytest.fixture
def heard(broker):
    """What the broker told."""
    broker.events = Notes()
    return broker.events.heard


def test_a_client_comes_and_goes(node, heard):
    """Each connection is told of once at its beginning, at its IDENTIFY and at its end."""
    client = node.client()
    body = b'{"user_agent":"u"}'
    client.send(b"IDENTIFY\n" + len(body).to_bytes(4, "big") + body)
    client.leave()

    assert [("came", CLIENT), ("identified", CLIENT, "u"), ("left", CLIENT)] == heard


def test_topics_and_channels_are_made_and_deleted(node, broker, heard):
    """Each is told of when it is made, and when it goes."""
    node.client().send(b"SUB t c\n")
    broker.topics["t"].delete_channel("c")
    broker.delete_topic("t")

    assert [("made", "t"), ("made", "t", "c"), ("deleted", "t", "c"), ("deleted", "t")] == [
        one for one in heard if one[0] in {"made", "deleted"}
    ]


@pytest.mark.parametrize(
    "sent,error",
    [
        (b"WHAT\n", b"E_INVALID invalid command WHAT"),
        (b"SUB t c\nFIN 0123456789abcdef\n", b"E_FIN_FAILED FIN 0123456789abcdef failed"),
    ],
)
def test_errors_are_told(node, heard, sent, error):
    """What a client is answered, fatal or not, is told with its address."""
    node.client().send(sent)

    ((_, address, told),) = [one for one in heard if one[0] == "failed"]
    assert CLIENT == address
    assert told.startswith(error)


def test_commands_are_told_if_somebody_wants_to_know(node, broker, heard):
    """Each command is told of with its line: without bodies, and of AUTH nothing but its name."""
    broker.events.traced = True
    client = node.client()
    client.send(b"PUB t\n\x00\x00\x00\x03oneSUB t c\nRDY 1\n")
    message_id = client.deliveries()[0].id
    client.send(b"FIN " + message_id + b"\nCLS\n")
    node.client().send(b"AUTH\n\x00\x00\x00\x06secret")
    node.client().send(b"AUTH secret\n")

    commands = [line for what, *_, line in heard if what == "command"]
    assert [b"PUB t", b"SUB t c", b"RDY 1", b"FIN " + message_id, b"CLS", b"AUTH", b"AUTH"] == commands
    assert [] == list(broker.topics["t"].channels["c"].owed().flying)


def test_commands_are_not_told_otherwise(node, heard):
    """Without a wish for it no command is told of."""
    node.client().send(b"SUB t c\nRDY 1\nNOP\n")

    assert [] == [one for one in heard if one[0] == "command"]


def test_failed_publish_is_told(node, heard):
    """A message that could not be kept is told with the cause."""
    if node.storage is None:
        pytest.skip("without a disk nothing fails")
    node.storage.failure = "disk on fire"
    node.client().send(b"PUB t\n\x00\x00\x00\x01x")

    error = b"E_PUB_FAILED PUB failed disk on fire"
    assert ("failed", CLIENT, error) in heard


def test_command_cut_short_is_told(node, heard):
    """A client that goes in the middle of a command made an error, too."""
    client = node.client().send(b"PUB t\n\x00\x00")
    client.session.end()

    assert ("failed", CLIENT, b"E_BAD_MESSAGE PUB failed to read message body size") in heard


def test_bad_magic_is_told(node, heard):
    """The bytes that came in its place are named."""
    node.client(greeted=False).send(b"GET \n")

    assert ("dropped", CLIENT, 'bad protocol magic "GET "') in heard


def test_endless_line_is_told(node, heard):
    """A line without an end ends the connection."""
    node.client().send(b"x" * 100_000)

    assert ("dropped", CLIENT, "a command's line does not end") in heard


def test_who_says_nothing_is_told(node, heard, clock):
    """Neither a missing magic nor missing answers to heartbeats go unsaid."""
    node.client(greeted=False)
    node.client().lively = False

    clock.advance(100)

    dropped = [one[2] for one in heard if one[0] == "dropped"]
    assert ["handshake not finished in time", "no answer to two heartbeats"] == dropped


def test_who_does_not_read_is_told(node, heard, clock):
    """A client that takes nothing for a heartbeat's time is closed, and that is said."""
    client = node.client()
    client.session.blocked = True

    clock.advance(100)

    assert ("dropped", CLIENT, "it does not read what it is sent") in heard
