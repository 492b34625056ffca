"""nsqlookupd's HTTP API without a server: every endpoint, every error, field by field."""

import json

import pytest

from nsqkit.log import Level, Log
from nsqkit.nsqlookupd.http import ENDPOINTS
from nsqkit.nsqlookupd.options import NsqlookupdOptions
from nsqkit.nsqlookupd.pages import PORTION
from nsqkit.nsqlookupd.registrations import Registrations
from nsqkit.nsqlookupd.session import Session
from nsqkit.version import build
from nsqkit.web.access import Access
from nsqkit.web.app import HttpApp
from nsqkit.web.long_answer import Slices
from nsqkit.web.profiler import Profiler
from nsqkit.wire.registration import MAGIC, encode_identify
from tests.nsqlookupd.conftest import INACTIVE_AFTER, MOST, MOST_OF_PEER, NOW, SECOND, TOMBSTONE_LIFETIME

GO_ZERO_TIME = -6795364578871345152


class StandIn:
    """A daemon in name: registrations, a clock that is set by hand, a log in a list."""

    def __init__(self) -> None:
        self.options = NsqlookupdOptions()
        self.lines: list[str] = []
        self.log = Log("", Level.DEBUG, write=self.lines.append)
        self.access = Access("", self.log)
        self.profiler = Profiler()
        self.slices = Slices()
        self.registrations = Registrations(INACTIVE_AFTER, TOMBSTONE_LIFETIME, MOST, MOST_OF_PEER)
        self.time = NOW

    def now(self) -> int:
        """What the clock was set to."""
        return self.time

    def nsqd(self, name: str, *registered: str) -> Session:
        """An nsqd that registered something: "topic" or "topic channel"."""
        document = {"broadcast_address": name, "hostname": f"{name}.example", "tcp_port": 4150, "http_port": 4151,
                    "version": "1.2.1", "topology_zone": "z"}  # fmt: skip
        session = Session(self.registrations, f"{name}:50000", b"{}", self.log)
        session.receive(MAGIC + encode_identify(json.dumps(document).encode()), self.time)
        for one in registered:
            session.receive(f"REGISTER {one}\n".encode(), self.time)
        return session


@pytest.fixture
def lookupd():
    """What the client talks to."""
    return StandIn()


@pytest.fixture
def http(http_client, lookupd):
    """A client of the HTTP API."""
    return http_client(HttpApp(lookupd, ENDPOINTS))


def peer(name):
    """What /lookup says of an nsqd, in its order."""
    return (
        f'{{"remote_address":"{name}:50000","hostname":"{name}.example","broadcast_address":"{name}","tcp_port":4150,'
        '"http_port":4151,"version":"1.2.1","topology_zone":"z","topology_region":""}'
    )


def is_json(got, expected):
    """Check every byte of a good answer."""
    assert (200, expected) == (got.status, got.body.decode())
    assert "application/json; charset=utf-8" == got.headers["content-type"]
    assert "nsq; version=1.0" == got.headers["x-nsq-content-type"]


def is_done(got):
    """Check the answer to a change."""
    assert (200, b"", "nsq; version=1.0") == (got.status, got.body, got.headers["x-nsq-content-type"])


# -- queries


@pytest.mark.parametrize("method, body", [("GET", b"OK"), ("HEAD", b"OK")])
def test_ping(http, method, body):
    """/ping is OK."""
    got = http(method, "/ping")

    assert (200, body, "text/plain; charset=utf-8") == (got.status, got.body, got.headers["content-type"])


def test_info(http):
    """/info has NSQ's version alone; ours is in a header."""
    got = http.get("/info")

    is_json(got, '{"version":"1.3.0"}')
    assert build() == got.headers["x-nsqkit-version"]


def test_topics(http, lookupd):
    """/topics lists every topic, sorted, whoever has it."""
    is_json(http.get("/topics"), '{"topics":[]}')

    lookupd.nsqd("a", "zebra", "apple").gone(NOW)
    http.post("/topic/create?topic=mango%23ephemeral")

    is_json(http.get("/topics"), '{"topics":["apple","mango#ephemeral","zebra"]}')


def test_channels(http, lookupd):
    """/channels lists a topic's channels, sorted and each once; none of an unknown topic."""
    lookupd.nsqd("a", "t z", "t a", "u other")
    lookupd.nsqd("b", "t a")

    is_json(http.get("/channels?topic=t"), '{"channels":["a","z"]}')
    is_json(http.get("/channels?topic=unknown"), '{"channels":[]}')
    is_json(http.get("/channels?topic=bad%24"), '{"channels":[]}')


def test_lookup(http, lookupd):
    """/lookup lists channels and producers of a topic."""
    lookupd.nsqd("a", "t z", "t a")
    lookupd.nsqd("b", "t a", "u")
    lookupd.nsqd("c", "u")

    is_json(http.get("/lookup?topic=t"), f'{{"channels":["a","z"],"producers":[{peer("a")},{peer("b")}]}}')
    is_json(http.get("/lookup?topic=u"), f'{{"channels":[],"producers":[{peer("b")},{peer("c")}]}}')


def test_lookup_of_a_topic_without_producers(http, lookupd):
    """A topic whose producers are gone or inactive is known, with its channels."""
    lookupd.nsqd("a", "t c")
    lookupd.nsqd("b", "u c").gone(NOW)
    lookupd.time += INACTIVE_AFTER + 1

    is_json(http.get("/lookup?topic=t"), '{"channels":["c"],"producers":[]}')
    is_json(http.get("/lookup?topic=u"), '{"channels":["c"],"producers":[]}')


@pytest.mark.parametrize("topic", ["unknown", "bad%24", "", "%FF", "t%23ephemeral"])
def test_lookup_of_an_unknown_topic(http, lookupd, topic):
    """What is not known, or can't be, is not found."""
    lookupd.nsqd("a", "t")

    http.is_error(http.get(f"/lookup?topic={topic}"), 404, "TOPIC_NOT_FOUND")


def test_nodes(http, lookupd):
    """/nodes lists active nsqds with their topics, sorted, and tombstones beside them."""
    is_json(http.get("/nodes"), '{"producers":[]}')

    lookupd.nsqd("a", "u", "t c")
    lookupd.nsqd("b")
    lookupd.nsqd("c", "gone").gone(NOW)
    http.post("/topic/tombstone?topic=u&node=a:4151")

    more_a, more_b = '"tombstones":[false,true],"topics":["t","u"]}', '"tombstones":[],"topics":[]}'
    expected = f'{{"producers":[{peer("a")[:-1]},{more_a},{peer("b")[:-1]},{more_b}]}}'
    is_json(http.get("/nodes"), expected)
    lookupd.time += TOMBSTONE_LIFETIME
    is_json(http.get("/nodes"), expected.replace("true", "false"))
    lookupd.time = NOW + INACTIVE_AFTER + 1
    is_json(http.get("/nodes"), '{"producers":[]}')


def test_debug(http, lookupd):
    """/debug lists producers by key, with NSQ's keys in alphabetical order; keys without producers are absent."""
    is_json(http.get("/debug"), "{}")

    lookupd.nsqd("a", "t c")
    lookupd.nsqd("b", "gone").gone(NOW)
    lookupd.time += SECOND
    http.post("/topic/tombstone?topic=t&node=a:4151")
    lookupd.time += TOMBSTONE_LIFETIME

    def entry(tombstoned: str, at: int) -> str:
        return (
            f'[{{"broadcast_address":"a","hostname":"a.example","http_port":4151,"id":"a:50000","last_update":{NOW},'
            f'"tcp_port":4150,"tombstoned":{tombstoned},"tombstoned_at":{at},"topology_region":"",'
            '"topology_zone":"z","version":"1.2.1"}]'
        )

    never, once = entry("false", GO_ZERO_TIME), entry("true", NOW + SECOND)
    is_json(http.get("/debug"), f'{{"client::":{never},"topic:t:":{once},"channel:t:c":{never}}}')


# -- changes


def test_topic_create(http):
    """A created topic is known, without channels or producers."""
    for _ in range(2):
        is_done(http.post("/topic/create?topic=t"))

    is_json(http.get("/lookup?topic=t"), '{"channels":[],"producers":[]}')


def test_topic_delete(http, lookupd):
    """A deleted topic is unknown with its channels; deleting an unknown one is fine."""
    lookupd.nsqd("a", "t c")
    for _ in range(2):
        is_done(http.post("/topic/delete?topic=t"))

    is_json(http.get("/topics"), '{"topics":[]}')
    is_json(http.get("/channels?topic=t"), '{"channels":[]}')


def test_channel_create(http):
    """A created channel is known, and its topic."""
    for _ in range(2):
        is_done(http.post("/channel/create?topic=t&channel=c%23ephemeral"))

    is_json(http.get("/lookup?topic=t"), '{"channels":["c#ephemeral"],"producers":[]}')


def test_channel_delete(http, lookupd):
    """A deleted channel is unknown, its topic is not; deleting an unknown one is an error."""
    lookupd.nsqd("a", "t c", "t d")

    is_done(http.post("/channel/delete?topic=t&channel=c"))

    is_json(http.get("/lookup?topic=t"), f'{{"channels":["d"],"producers":[{peer("a")}]}}')
    http.is_error(http.post("/channel/delete?topic=t&channel=c"), 404, "CHANNEL_NOT_FOUND")


def test_tombstone(http, lookupd):
    """A tombstoned node is hidden in that topic for the lifetime."""
    lookupd.nsqd("a", "t", "u")
    lookupd.nsqd("b", "t")

    is_done(http.post("/topic/tombstone?topic=t&node=a:4151"))

    is_json(http.get("/lookup?topic=t"), f'{{"channels":[],"producers":[{peer("b")}]}}')
    is_json(http.get("/lookup?topic=u"), f'{{"channels":[],"producers":[{peer("a")}]}}')
    lookupd.time += TOMBSTONE_LIFETIME
    is_json(http.get("/lookup?topic=t"), f'{{"channels":[],"producers":[{peer("a")},{peer("b")}]}}')


@pytest.mark.parametrize("target", ["topic=t&node=nowhere:1", "topic=t&node=", "topic=unknown&node=a:4151"])
def test_tombstone_of_something_unknown(http, lookupd, target):
    """A node or topic that is not known is no error."""
    lookupd.nsqd("a", "t")

    is_done(http.post(f"/topic/tombstone?{target}"))

    is_json(http.get("/lookup?topic=t"), f'{{"channels":[],"producers":[{peer("a")}]}}')


# -- errors

ERRORS = [
    ("GET", "/lookup", 400, "MISSING_ARG_TOPIC"),
    ("GET", "/lookup?topic=*", 400, "INVALID_ARG_TOPIC"),
    ("GET", "/channels", 400, "MISSING_ARG_TOPIC"),
    ("GET", "/channels?topic=*", 400, "INVALID_ARG_TOPIC"),
    ("POST", "/topic/create", 400, "MISSING_ARG_TOPIC"),
    ("POST", "/topic/create?topic=", 400, "INVALID_ARG_TOPIC"),
    ("POST", "/topic/create?topic=bad%24", 400, "INVALID_ARG_TOPIC"),
    ("POST", "/topic/create?topic=*", 400, "INVALID_ARG_TOPIC"),
    ("POST", "/topic/delete", 400, "MISSING_ARG_TOPIC"),
    ("POST", "/topic/delete?topic=*", 400, "INVALID_ARG_TOPIC"),
    ("POST", "/topic/delete?topic=%2A", 400, "INVALID_ARG_TOPIC"),
    ("POST", "/topic/tombstone", 400, "MISSING_ARG_TOPIC"),
    ("POST", "/topic/tombstone?topic=t", 400, "MISSING_ARG_NODE"),
    ("POST", "/topic/tombstone?topic=*&node=a:4151", 400, "INVALID_ARG_TOPIC"),
    *[
        ("POST", f"/channel/{verb}{query}", 400, text)
        for verb in ("create", "delete")
        for query, text in [
            ("", "MISSING_ARG_TOPIC"),
            ("?channel=c", "MISSING_ARG_TOPIC"),
            ("?topic=bad%24", "INVALID_ARG_TOPIC"),
            ("?topic=*&channel=c", "INVALID_ARG_TOPIC"),
            ("?topic=t", "MISSING_ARG_CHANNEL"),
            ("?topic=t&channel=", "INVALID_ARG_CHANNEL"),
            ("?topic=t&channel=bad%24", "INVALID_ARG_CHANNEL"),
            ("?topic=t&channel=*", "INVALID_ARG_CHANNEL"),
        ]
    ],
    ("POST", "/channel/delete?topic=t&channel=unknown", 404, "CHANNEL_NOT_FOUND"),
    ("POST", "/channel/delete?topic=unknown&channel=c", 404, "CHANNEL_NOT_FOUND"),
]


@pytest.mark.parametrize("method, target, status, text", ERRORS)
def test_errors(http, lookupd, method, target, status, text):
    """What is missing or wrong is said in NSQ's texts, `*` for every topic is refused, and nothing changes."""
    lookupd.nsqd("a", "t c")
    before = http.get("/debug").body

    http.is_error(http(method, target), status, text)

    assert before == http.get("/debug").body
    is_json(http.get("/topics"), '{"topics":["t"]}')


@pytest.mark.parametrize("query", ["topic=%zz", "topic=t;channel=c&node=a:1", "topic=t&channel=c&node=a%"])
@pytest.mark.parametrize(
    "route", [one for one in ENDPOINTS if "topic" in one.params], ids=lambda one: one.path.strip("/")
)
def test_bad_query(http, route, query):
    """A query that cannot be read is refused wherever a parameter is wanted."""
    got = http((route.methods or ("POST",))[0], f"{route.path}?{query}")

    assert b"INVALID_REQUEST" in got.body
    assert got.status in {400, 500}


@pytest.mark.parametrize(
    "method, target, allow",
    [
        ("POST", "/lookup?topic=t", "GET, OPTIONS"),
        ("POST", "/nodes", "GET, OPTIONS"),
        ("GET", "/topic/create?topic=t", "POST, OPTIONS"),
        ("GET", "/channel/delete?topic=t&channel=c", "POST, OPTIONS"),
        ("DELETE", "/topic/delete?topic=t", "POST, OPTIONS"),
    ],
)
def test_wrong_method(http, method, target, allow):
    """A known path with another method is 405 and says what is allowed."""
    got = http(method, target)

    http.is_error(got, 405, "METHOD_NOT_ALLOWED")
    assert allow == got.headers["allow"]


@pytest.mark.parametrize("path", ["/", "/nothing", "/topic", "/stats", "/pub", "/config/log_level", "/mpub"])
def test_unknown_path(http, path):
    """What is no path is 404; nsqd's are none here."""
    http.is_error(http.get(path), 404, "NOT_FOUND")


@pytest.mark.parametrize(
    "path", ["/debug/pprof", "/debug/pprof/", "/debug/pprof/goroutine", "/debug/pprof/heap"]
)
def test_pprof(http, path):
    """The debug pages of every daemon are here too."""
    got = http.get(path)

    assert 200 == got.status
    assert got.body


def test_request_is_logged(http, lookupd):
    """Each request is a line."""
    http.get("/lookup?topic=t")

    assert "INFO: 404 GET /lookup?topic=t (127.0.0.1:50000) " in lookupd.lines[0]


def test_body_over_the_limit(http):
    """The body of a change is not wanted, and is bounded."""
    http.is_error(http.post("/topic/create?topic=t", b"x" * 65_537), 413, "BODY_TOO_BIG")
    is_done(http.post("/topic/create?topic=t", b"x" * 65_536))


# -- the endpoints of NSQ 0.2


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
def test_legacy_endpoints(http, lookupd, method):
    """Scripts of 2013 change topics and channels with any method, and are answered in the envelope."""
    done = {"status_code": 200, "status_txt": "OK", "data": None}

    assert done == http(method, "/create_topic?topic=t").json()
    assert done == http(method, "/create_channel?topic=t&channel=c").json()
    is_json(http.get("/lookup?topic=t"), '{"channels":["c"],"producers":[]}')
    lookupd.nsqd("a", "t c")
    assert done == http(method, "/tombstone_topic_producer?topic=t&node=a:4151").json()
    is_json(http.get("/lookup?topic=t"), '{"channels":["c"],"producers":[]}')
    assert done == http(method, "/delete_channel?topic=t&channel=c").json()
    is_json(http.get("/channels?topic=t"), '{"channels":[]}')
    assert done == http(method, "/delete_topic?topic=t").json()
    is_json(http.get("/topics"), '{"topics":[]}')


@pytest.mark.parametrize(
    "target, text",
    [
        ("/create_topic", "MISSING_ARG_TOPIC"),
        ("/create_topic?topic=bad%24", "INVALID_ARG_TOPIC"),
        ("/delete_topic?topic=*", "INVALID_ARG_TOPIC"),
        ("/create_channel?topic=t", "MISSING_ARG_CHANNEL"),
        ("/delete_channel?topic=t&channel=unknown", "CHANNEL_NOT_FOUND"),
        ("/tombstone_topic_producer?topic=t", "MISSING_ARG_NODE"),
    ],
)
def test_legacy_errors(http, target, text):
    """Errors are in the envelope with status 500, unless today's form is asked for."""
    got = http.get(target)
    assert (500, {"status_code": 500, "status_txt": text, "data": None}) == (got.status, got.json())

    today = http.get(target, headers=[(b"accept", b"application/vnd.nsq; version=1.0")])
    assert {"message": text} == today.json()


def test_every_endpoint_says_what_it_means():
    """No row of the table lacks a meaning for the docs, and none comes twice."""
    rows = [(method, route.path) for route in ENDPOINTS for method in route.methods or ("any",)]

    assert all(route.meaning for route in ENDPOINTS)
    assert len(set(rows)) == len(rows)


@pytest.mark.parametrize("path", ["/topic/create?topic=t", "/channel/create?topic=t&channel=c"])
def test_no_room_for_another_name(http, lookupd, path):
    """When as many names are known as may be, none can be made."""
    lookupd.registrations = Registrations(INACTIVE_AFTER, TOMBSTONE_LIFETIME, 1, 1)
    lookupd.registrations.create_topic("only")

    text = "TOO_MANY_REGISTRATIONS: more topics and channels than --max-registrations=1"
    http.is_error(http.post(path), 503, text)


def test_long_lists(http, lookupd):
    """However many names and producers there are, none is missing, and each is at its place."""
    channels = [f"c{number:04}" for number in range(2 * PORTION + 1)]
    names = [f"n{number:04}" for number in range(PORTION + 1)]
    lookupd.nsqd(names[0], *(f"t {channel}" for channel in channels))
    for name in names[1:]:
        lookupd.nsqd(name, "t")
    lookupd.nsqd("other", *channels)

    found = http.get("/lookup?topic=t").json()
    assert channels == found["channels"] == http.get("/channels?topic=t").json()["channels"]
    assert names == [one["broadcast_address"] for one in found["producers"]]
    assert [*channels, "t"] == http.get("/topics").json()["topics"]
    nodes = {one["broadcast_address"]: one for one in http.get("/nodes").json()["producers"]}
    assert {*names, "other"} == set(nodes)
    assert (channels, [False] * len(channels)) == (nodes["other"]["topics"], nodes["other"]["tombstones"])
    debug = http.get("/debug").json()
    assert names == [one["broadcast_address"] for one in debug["topic:t:"]]
    assert {f"channel:t:{channel}" for channel in channels} == {key for key in debug if key.startswith("ch")}
