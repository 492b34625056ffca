"""The endpoints of nsqd 0.1 and 0.2."""

import pytest

NOW = 1_700_000_000 * 10**9
TODAY = [(b"accept", b"application/vnd.nsq; version=1.0")]


def envelope(got) -> tuple[int, str]:
    """Check that a response is an envelope without data; its HTTP status and its text."""
    assert "application/json; charset=utf-8" == got.headers["content-type"]
    document = got.json()
    assert ["status_code", "status_txt", "data"] == list(document)
    assert (got.status, None) == (document["status_code"], document["data"])
    return got.status, document["status_txt"]


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_put(http, method, waiting):
    """/put takes any method, and says OK without an envelope."""
    got = http(method, "/put?topic=t", b"x")

    assert (200, b"OK") == (got.status, got.body)
    assert [b"x"] == waiting("t")


def test_mput(http, waiting):
    """/mput publishes lines."""
    assert b"OK" == http.post("/mput?topic=t", b"a\n\nb\n").body
    assert [b"a", b"b"] == waiting("t")


@pytest.mark.parametrize("path", ["/put", "/mput"])
@pytest.mark.parametrize(
    "query, text",
    [("", "MISSING_ARG_TOPIC"), ("topic=a$", "INVALID_ARG_TOPIC"), ("topic=%zz", "INVALID_REQUEST")],
)
def test_put_errors(http, path, query, text):
    """Every error has status 500 and its text in the envelope."""
    assert (500, text) == envelope(http.post(f"{path}?{query}", b"x"))


def test_put_of_nothing(http):
    """An empty message can't be kept any more, and the error says so."""
    assert (500, "MSG_EMPTY") == envelope(http.post("/put?topic=t"))


def test_put_too_much(http):
    """The limits of today hold."""
    assert (500, "MSG_TOO_BIG") == envelope(http.post("/put?topic=t", b"x" * 101))
    assert (500, "BODY_TOO_BIG") == envelope(http.post("/mput?topic=t", b"x\n" * 151))


@pytest.mark.parametrize("path", ["/put", "/mput"])
def test_put_fails(http, nsqd, path):
    """A message that isn't kept is NOK."""
    nsqd.broker.exiting = True

    assert (500, "NOK") == envelope(http.post(f"{path}?topic=t", b"x"))


def test_life_of_topic_and_channel(http, nsqd):
    """Each endpoint does what its name says, and answers with an envelope."""
    assert (200, "OK") == envelope(http.get("/create_topic?topic=t"))
    topic = nsqd.broker.topics["t"]
    assert (200, "OK") == envelope(http.get("/pause_topic?topic=t"))
    assert topic.paused
    assert (200, "OK") == envelope(http.get("/create_channel?topic=t&channel=c"))
    channel = topic.channels["c"]
    http.post("/put?topic=t", b"x")
    assert (200, "OK") == envelope(http.get("/empty_topic?topic=t"))
    assert 0 == topic.depth()
    assert (200, "OK") == envelope(http.get("/unpause_topic?topic=t"))
    assert (200, "OK") == envelope(http.get("/pause_channel?topic=t&channel=c"))
    assert channel.paused
    assert (200, "OK") == envelope(http.get("/unpause_channel?topic=t&channel=c"))
    http.post("/put?topic=t", b"x")
    assert b"OK" == http.get("/empty_channel?topic=t&channel=c").body
    assert 0 == channel.queue.depth()
    assert (200, "OK") == envelope(http.get("/delete_channel?topic=t&channel=c"))
    assert (200, "OK") == envelope(http.get("/delete_topic?topic=t"))
    assert {} == nsqd.broker.topics


def test_empty_makes_what_it_empties(http, nsqd):
    """/empty makes topic and channel if they are not there."""
    assert b"OK" == http.get("/empty?topic=t&channel=c").body
    assert ["c"] == list(nsqd.broker.topics["t"].channels)


@pytest.mark.parametrize(
    "target, text",
    [
        ("/create_topic", "MISSING_ARG_TOPIC"),
        ("/create_topic?topic=a$", "INVALID_TOPIC"),
        ("/delete_topic?topic=none", "INVALID_TOPIC"),
        ("/empty_topic?topic=none", "INVALID_TOPIC"),
        ("/pause_topic?topic=none", "INVALID_TOPIC"),
        ("/unpause_topic", "MISSING_ARG_TOPIC"),
        ("/create_channel?topic=none&channel=c", "INVALID_TOPIC"),
        ("/empty_channel?topic=t", "MISSING_ARG_CHANNEL"),
        ("/empty_channel?topic=t&channel=a$", "INVALID_ARG_CHANNEL"),
        ("/empty?topic=a$&channel=c", "INVALID_ARG_TOPIC"),
        ("/delete_channel?topic=t&channel=none", "INVALID_CHANNEL"),
        ("/pause_channel?topic=none&channel=c", "INVALID_TOPIC"),
        ("/dump_inflight?topic=t&channel=none", "INVALID_CHANNEL"),
    ],
)
def test_errors(http, nsqd, target, text):
    """INVALID_ARG_TOPIC is a bad name, INVALID_TOPIC one that is not there."""
    nsqd.broker.topic("t")

    assert (500, text) == envelope(http.get(target))


def test_todays_style(http):
    """Who asks for exactly version 1.0 gets today's answers."""
    http.is_error(http.get("/delete_topic?topic=none", headers=TODAY), 404, "INVALID_TOPIC")
    got = http.get("/create_topic?topic=t", headers=TODAY)
    assert (200, b"", "nsq; version=1.0") == (got.status, got.body, got.headers["x-nsq-content-type"])
    assert (200, "OK") == envelope(http.get("/create_topic?topic=t", headers=[(b"accept", b"*/*")]))


def test_dump(http, nsqd):
    """The dump lists what is deferred."""
    nsqd.broker.topic("t").channel("c", NOW)
    http.post("/pub?topic=t&defer=1500", b"x")

    lines = http.get("/dump_inflight?topic=t&channel=c").body.decode().splitlines()

    assert ["inFlightMessages: 0", "deferredMessages: 1"] == lines[:2]
    assert lines[2].endswith(" attempts 0 until 1700000001.500")


def test_dump_of_what_came_in_bulk(http, nsqd):
    """What came deferred in bulk is listed, each message at its time, before it is taken apart and afterwards."""
    channel = nsqd.broker.topic("t").channel("c", NOW)
    http.post("/pub?topic=t&defer=2000", b"later")
    http.post("/mput?topic=t&defer=1000", b"\n".join([b"x"] * 100))
    http.post("/mput?topic=t&defer=3000", b"\n".join([b"x"] * 100))
    assert 201 == channel.deferred_count()
    assert channel.early

    lines = http.get("/dump_inflight?topic=t&channel=c").body.decode().splitlines()
    nsqd.broker.work(NOW)
    nsqd.broker.work(NOW)

    assert ["inFlightMessages: 0", "deferredMessages: 201"] == lines[:2]
    ends = [line.rpartition(" ")[2] for line in lines[2:]]
    assert ["1700000001.000"] * 100 + ["1700000002.000"] + ["1700000003.000"] * 100 == ends
    assert 201 == len({line.split()[0] for line in lines[2:]})
    assert not channel.early
    assert lines == http.get("/dump_inflight?topic=t&channel=c").body.decode().splitlines()


def test_memory_profile(http, tmp_path):
    """The profile is written to a file in the data path."""
    assert b"OK" == http.get("/mem_profile").body
    assert (tmp_path / "nsqd.mprof").read_text(encoding="utf-8").startswith("objects that")


def test_memory_profile_that_can_not_be_written(http, nsqd):
    """A file that can't be written is an error, and the log tells why."""
    nsqd.data_path = "/nowhere/at/all"

    assert (500, "INTERNAL_ERROR") == envelope(http.get("/mem_profile"))
    assert any("failed to write /nowhere/at/all/nsqd.mprof" in line for line in nsqd.lines)
