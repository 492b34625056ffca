"""The document of /stats."""

import json
from typing import Any

import pytest

from nsqkit.nsqd.core.authority import Authority, Permissions
from nsqkit.nsqd.core.broker import Broker
from nsqkit.nsqd.core.session import Outlet, Session
from nsqkit.nsqd.core.settings import SECOND, Settings
from nsqkit.nsqd.memory import GcPauses
from nsqkit.nsqd.stats import MERGED, Question, topic_stats
from nsqkit.nsqd.stats_pages import PORTION, json_page, text_page

NOW = 1_700_000_000 * SECOND
STARTED = NOW - 3_661_500_000_000

CLIENT_KEYS = [
    "client_id",
    "hostname",
    "version",
    "remote_address",
    "state",
    "ready_count",
    "in_flight_count",
    "message_count",
    "finish_count",
    "requeue_count",
    "connect_ts",
    "sample_rate",
    "deflate",
    "snappy",
    "user_agent",
    "topology_zone",
    "topology_region",
    "tls",
    "tls_cipher_suite",
    "tls_version",
    "tls_negotiated_protocol",
    "tls_negotiated_protocol_is_mutual",
]
IDENTITY = b'{"client_id":"id","hostname":"host","user_agent":"agent/1"}'


class Silent(Outlet):
    """A connection that takes everything."""

    def send(self, data: bytes) -> None:
        """Drop it."""

    def hold(self, held: bool) -> None:
        """Nothing is read here."""

    def close(self) -> None:
        """Stay."""


def client(broker: Broker, port: int, *commands: bytes) -> Session:
    """A client that connected a minute ago and has sent these commands now."""
    session = Session(broker, Silent(), f"10.0.0.1:{port}", NOW - 65 * SECOND)
    more = session.receive(b"  V2" + b"".join(commands), NOW)
    while more:
        more = session.proceed(NOW)
    broker.changes.finish(broker.changes.count, "")  # a daemon saves it
    broker.work(NOW)
    broker.flush()
    return session


def sized(data: bytes) -> bytes:
    """Data after its size."""
    return len(data).to_bytes(4, "big") + data


def pub(topic: bytes, body: bytes) -> bytes:
    """A PUB."""
    return b"PUB %b\n" % topic + sized(body)


class Everything(Permissions):
    """Permission for everything."""

    def allow(self, topic: str, channel: str) -> bool:  # noqa: ARG002 - permissions are asked so
        """Yes."""
        return True


class Generous(Authority):
    """Says yes to everybody, when a test lets it."""

    def ask(self, session: Session, secret: bytes) -> None:
        """It does not answer by itself."""

    def forget(self, session: Session) -> None:
        """Nothing to forget."""


def question(*, memory: bool = False, **wanted: Any) -> Question:
    """A question."""
    return Question(started_at=STARTED, now=NOW, pauses=GcPauses() if memory else None, **wanted)


def look(broker: Broker, **wanted: Any) -> dict[str, Any]:
    """The document as a client reads it."""
    read: dict[str, Any] = json.loads(b"".join(json_page(broker, question(**wanted))))
    return read


def text(broker: Broker, **wanted: Any) -> str:
    """The text."""
    return b"".join(text_page(broker, question(**wanted))).decode()


@pytest.fixture
def broker():
    """A broker without a disk."""
    return Broker(Settings(), None)


def test_nothing(broker):
    """Without topics the list is empty, without producers there is null."""
    assert {
        "version": "1.3.0",
        "health": "OK",
        "start_time": 1_699_996_338,
        "topics": [],
        "producers": None,
    } == look(broker)


def test_health(broker):
    """The last error of the disk is shown."""
    broker.health.set("writing t", "disk full")

    assert "NOK - disk full" == look(broker)["health"]


def test_memory(broker):
    """Memory is a block of integers with NSQ's keys."""
    memory = look(broker, memory=True)["memory"]

    assert [
        "heap_objects",
        "heap_idle_bytes",
        "heap_in_use_bytes",
        "heap_released_bytes",
        "gc_pause_usec_100",
        "gc_pause_usec_99",
        "gc_pause_usec_95",
        "next_gc_bytes",
        "gc_total_runs",
    ] == list(memory)
    assert all(isinstance(value, int) and value >= 0 for value in memory.values())
    assert memory["heap_in_use_bytes"] > 1_000_000


def test_topic_and_channel(broker):
    """Depths and counts of a topic and its channels, sorted by name, keys in NSQ's order."""
    topic = broker.topic("b")
    for name in ("z", "a"):
        topic.channel(name, NOW)
    broker.topic("a")
    client(broker, 1, pub(b"b", b"12345"), b"DPUB b 3600000\n" + sized(b"678"))

    first, second = look(broker)["topics"]

    assert ("a", "b") == (first["topic_name"], second["topic_name"])
    assert ["a", "z"] == [channel["channel_name"] for channel in second["channels"]]
    channel = second.pop("channels")[0]
    latency = {"count": 0, "percentiles": None}
    assert [
        ("topic_name", "b"),
        ("depth", 0),
        ("backend_depth", 0),
        ("message_count", 2),
        ("message_bytes", 8),
        ("paused", False),
        ("e2e_processing_latency", latency),
    ] == list(second.items())
    assert [
        ("channel_name", "a"),
        ("depth", 1),
        ("backend_depth", 0),
        ("in_flight_count", 0),
        ("deferred_count", 1),
        ("message_count", 2),
        ("requeue_count", 0),
        ("timeout_count", 0),
        ("client_count", 0),
        ("clients", []),
        ("paused", False),
        ("e2e_processing_latency", latency),
    ] == list(channel.items())


def test_consumer(broker):
    """A consumer shows what it said about itself and what it was sent."""
    client(broker, 1, pub(b"t", b"x"))
    client(broker, 4242, b"IDENTIFY\n" + sized(IDENTITY), b"SUB t c\nRDY 7\n")

    channel = look(broker)["topics"][0]["channels"][0]

    assert 1 == channel["client_count"] == channel["in_flight_count"]
    me = channel["clients"][0]
    assert CLIENT_KEYS == list(me)
    shown = [me[key] for key in CLIENT_KEYS[:11]]
    assert ["id", "host", "V2", "10.0.0.1:4242", 3, 7, 1, 1, 0, 0, 1_699_999_935] == shown
    assert ("agent/1", "", False, "") == (me["user_agent"], me["topology_zone"], me["tls"], me["tls_version"])


def test_producer(broker):
    """Whoever has published is a producer, with every topic it published to; a consumer may be one as well."""
    client(broker, 1, pub(b"b", b"x"), pub(b"a", b"x"), pub(b"b", b"x"), b"SUB a c\n")
    client(broker, 2)

    document = look(broker)

    (producer,) = document["producers"]
    (consumer,) = document["topics"][0]["channels"][0]["clients"]
    assert producer == consumer
    assert [{"topic": "a", "count": 1}, {"topic": "b", "count": 2}] == producer["pub_counts"]
    assert "10.0.0.1" == producer["client_id"] == producer["hostname"]


def test_topic_filter(broker):
    """With a topic there is only that topic, and only who published to it, with that count alone."""
    client(broker, 1, pub(b"a", b"x"), pub(b"b", b"x"))
    client(broker, 2, pub(b"b", b"x"))

    document = look(broker, topic="a")

    assert ["a"] == [topic["topic_name"] for topic in document["topics"]]
    assert [[{"topic": "a", "count": 1}]] == [producer["pub_counts"] for producer in document["producers"]]


def test_topic_that_is_not_there(broker):
    """It is null, and so are its producers."""
    client(broker, 1, pub(b"a", b"x"))

    document = look(broker, topic="none")

    assert (None, None) == (document["topics"], document["producers"])


def test_channel_filter(broker):
    """With a channel there are only topics that have it, with it alone; none is an empty list."""
    for topic, channels in {"a": "xy", "b": "y", "c": ""}.items():
        broker.topic(topic)
        for channel in channels:
            broker.topic(topic).channel(channel, NOW)

    def shown(**wanted: Any) -> list[tuple[str, list[str]]]:
        topics = look(broker, **wanted)["topics"]
        return [(topic["topic_name"], [one["channel_name"] for one in topic["channels"]]) for topic in topics]

    assert [("a", ["x"])] == shown(channel="x")
    assert [("a", ["y"]), ("b", ["y"])] == shown(channel="y")
    assert [("b", ["y"])] == shown(channel="y", topic="b")
    assert [] == shown(channel="x", topic="b")


def test_without_clients(broker):
    """Clients are null then, and counted all the same."""
    client(broker, 1, pub(b"t", b"x"), b"SUB t c\n")

    document = look(broker, clients=False)

    channel = document["topics"][0]["channels"][0]
    assert (None, 1, None) == (channel["clients"], channel["client_count"], document["producers"])


def test_latency():
    """Percentiles are those of the window, and a topic's those of all its channels."""
    settings = Settings()
    settings.latency_quantiles = [1.0, 0.5]
    broker = Broker(settings, None)
    topic = broker.topic("t")
    for name, value in {"a": 100, "b": 50}.items():
        window = topic.channel(name, NOW).latency
        assert window is not None
        window.add(value, NOW)
    broker.topic("without")

    first, second = look(broker)["topics"]

    top = {"count": 2, "percentiles": [{"quantile": 1, "value": 100}, {"quantile": 0.5, "value": 50}]}
    assert top == first["e2e_processing_latency"]
    assert 1 == first["channels"][0]["e2e_processing_latency"]["count"]
    assert {"count": 0, "percentiles": None} == second["e2e_processing_latency"]
    assert top == look(broker, channel="a")["topics"][0]["e2e_processing_latency"]


def test_latencies_of_many_channels_are_merged_in_steps():
    """No piece of the page is made of more than a few windows."""
    settings = Settings()
    settings.latency_quantiles = [1.0]
    broker = Broker(settings, None)
    topic = broker.topic("t")
    channels = [topic.channel(f"c{number:02}", NOW) for number in range(3 * MERGED + 1)]
    for channel in channels:
        assert channel.latency is not None
        channel.latency.add(7, NOW)

    steps = topic_stats(topic, channels, NOW)
    assert [b""] * 3 == [next(steps) for _ in range(3)]
    with pytest.raises(StopIteration) as end:
        next(steps)
    assert len(channels) == end.value.value.e2e_processing_latency.count

    for page, name in ((json_page, b'"channel_name"'), (text_page, b"      [c")):
        pieces = [*page(broker, question())]
        assert 1 == max(piece.count(name) for piece in pieces)
        assert len(channels) == sum(piece.count(name) for piece in pieces)


def test_half_a_surrogate_pair(broker):
    """A client's name that can't be encoded doesn't spoil the document."""
    client(
        broker,
        1,
        b"IDENTIFY\n" + sized(rb'{"hostname":"\ud800","user_agent":"\ud83d\ude00"}'),
        pub(b"t", b"x"),
    )

    (producer,) = look(broker)["producers"]

    assert ("\ufffd", "\N{GRINNING FACE}") == (producer["hostname"], producer["user_agent"])


def test_many_of_everything(broker):
    """However many topics, channels, clients and counts there are, none is missing, and each is at its place."""
    topics = [f"t{number:03}" for number in range(2 * PORTION + 1)]
    client(broker, 1, *(pub(name.encode(), b"x") for name in topics))
    channels = [f"c{number:03}" for number in range(PORTION)]
    for port, name in enumerate(channels):
        client(broker, 1000 + port, f"SUB t000 {name}\n".encode())

    document = look(broker)

    assert topics == [topic["topic_name"] for topic in document["topics"]]
    shown = document["topics"][0]["channels"]
    assert channels == [channel["channel_name"] for channel in shown]
    assert [f"10.0.0.1:{1000 + port}" for port in range(PORTION)] == [
        client["remote_address"] for channel in shown for client in channel["clients"]
    ]
    (producer,) = document["producers"]
    assert [{"topic": name, "count": 1} for name in topics] == producer["pub_counts"]


def test_topic_is_consistent_by_itself(broker):
    """What happens between two pieces shows in the topics that follow, and in no part of one that was shown."""
    for name in ("a", "b"):
        broker.topic(name).channel("c", NOW)
    pieces = json_page(broker, question(memory=False))
    read = b""
    while b'"topic_name":"a"' not in read:
        read += next(pieces)

    client(broker, 1, pub(b"a", b"x"), pub(b"b", b"x"))
    topics = json.loads(read + b"".join(pieces))["topics"]

    counts = [(topic["message_count"], topic["channels"][0]["message_count"]) for topic in topics]
    assert [(0, 0), (1, 1)] == counts


# -- text


def test_text_of_nothing(broker):
    """The head, and None twice."""
    lines = text(broker).split("\n")

    assert lines[0].startswith("nsqd v1.3.0 (built w/python")
    assert lines[1].startswith("start_time 2023-11-1")
    assert [
        "uptime 1h1m1.5s",
        "",
        "Health: OK",
        "",
        "Topics: None",
        "",
        "Producers: None",
        "",
    ] == lines[2:]


def test_text_of_memory(broker):
    """Memory is a block of its own, with a tab before each value."""
    page = text(broker, memory=True)

    assert "\nHealth: OK\n\nMemory:\n   heap_objects             \t" in page
    assert "\n   gc_total_runs            \t" in page


def test_text(broker):
    """Topics are separated by blank lines, channels and clients indented, and the paused ones marked."""
    client(broker, 7, pub(b"orders", b"x"))
    client(broker, 4242, b"IDENTIFY\n" + sized(IDENTITY), b"SUB orders billing\nRDY 2\n")
    broker.topic("other").channel("held", NOW).pause(True)
    broker.topic("other").pause(True, NOW)

    page = text(broker)

    assert page.partition("Health: OK\n")[2] == (
        "\nTopics:\n"
        "   [orders         ] depth: 0     be-depth: 0     msgs: 1        e2e%: \n"
        "      [billing                  ] depth: 0     be-depth: 0     inflt: 1    def: 0    re-q: 0     "
        "timeout: 0     msgs: 1        e2e%: \n"
        "        [V2 host:4242 agent/1    ] state: 3 inflt: 1    rdy: 2    fin: 0        re-q: 0        "
        "msgs: 1        connected: 1m5s\n"
        "\n"
        "*P [other          ] depth: 0     be-depth: 0     msgs: 0        e2e%: \n"
        "   *P [held                     ] depth: 0     be-depth: 0     inflt: 0    def: 0    re-q: 0     "
        "timeout: 0     msgs: 0        e2e%: \n"
        "\nProducers:\n"
        "   [V2 10.0.0.1:7           ] msgs: 1        topics: orders=1 connected: 1m5s\n"
    )


def test_text_of_latencies():
    """Each has the largest unit that it exceeds, and one decimal."""
    settings = Settings()
    settings.latency_quantiles = [0.5]
    broker = Broker(settings, None)
    for name, value in {"a": 0, "b": 1000, "c": 1024, "d": 1_500_000, "e": 2 * SECOND}.items():
        window = broker.topic("t").channel(name, NOW).latency
        assert window is not None
        window.add(value, NOW)

    page = text(broker)

    shown = [line.rpartition("e2e%: ")[2] for line in page.splitlines() if line.startswith("      [")]
    assert ["0.0ns", "1.0us", "1.0us", "1.5ms", "2.0s"] == shown


def test_who_was_admitted(broker):
    """A client of which the auth server said who it is has that among its fields; what is empty is left out."""
    broker.authority = Generous()
    named = client(broker, 1, b"AUTH\n" + sized(b"s3cret"))
    nameless = client(broker, 2, b"AUTH\n" + sized(b"s3cret"))
    named.answered(Everything("me", "http://id", 1, NOW + SECOND), NOW)
    nameless.answered(Everything("", "", 1, NOW + SECOND), NOW)
    for session in (named, nameless):
        session.receive(b"SUB t c\n", NOW)
    client(broker, 3)

    one, other = look(broker)["topics"][0]["channels"][0]["clients"]

    assert {"authed": True, "auth_identity": "me", "auth_identity_url": "http://id"} == {
        key: value for key, value in one.items() if key.startswith("auth")
    }
    assert {"authed": True} == {key: value for key, value in other.items() if key.startswith("auth")}
    place = list(one).index("user_agent") + 1
    assert ["authed", "auth_identity", "auth_identity_url", "topology_zone"] == list(one)[place : place + 4]
    assert "s3cret" not in json.dumps(look(broker))
