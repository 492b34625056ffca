"""/pub and /mpub."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nsqkit.nsqd.core.store import StoreError
from nsqkit.nsqd.web import publishing

NOW = 1_700_000_000 * 10**9
TOO_LONG = "x" * 65


def batch(*bodies: bytes) -> bytes:
    """A body of /mpub?binary=true."""
    return b"".join([len(bodies).to_bytes(4, "big"), *(len(b).to_bytes(4, "big") + b for b in bodies)])


def test_pub(http, waiting):
    """The body is one message, whatever is in it."""
    got = http.post("/pub?topic=t", b"a\nb\x00")

    assert (200, b"OK") == (got.status, got.body)
    assert "text/plain; charset=utf-8" == got.headers["content-type"]
    assert "nsq; version=1.0" == got.headers["x-nsq-content-type"]
    assert [b"a\nb\x00"] == waiting("t")


@pytest.mark.parametrize(
    "query, body, status, text",
    [
        ("topic=t", b"x" * 101, 413, "MSG_TOO_BIG"),
        ("topic=t", b"", 400, "MSG_EMPTY"),
        ("topic=%zz", b"", 400, "MSG_EMPTY"),
        ("topic=%zz", b"x", 400, "INVALID_REQUEST"),
        ("topic=t&a=%4", b"x", 400, "INVALID_REQUEST"),
        ("topic=t;defer=1", b"x", 400, "INVALID_REQUEST"),
        ("", b"x", 400, "MISSING_ARG_TOPIC"),
        ("Topic=t", b"x", 400, "MISSING_ARG_TOPIC"),
        ("topic=", b"x", 400, "INVALID_TOPIC"),
        ("topic", b"x", 400, "INVALID_TOPIC"),
        ("topic=a+b", b"x", 400, "INVALID_TOPIC"),
        ("topic=%ff", b"x", 400, "INVALID_TOPIC"),
        (f"topic={TOO_LONG}", b"x", 400, "INVALID_TOPIC"),
        ("topic=t&defer=", b"x", 400, "INVALID_DEFER"),
        ("topic=t&defer=abc", b"x", 400, "INVALID_DEFER"),
        ("topic=t&defer=1.5", b"x", 400, "INVALID_DEFER"),
        ("topic=t&defer=1_0", b"x", 400, "INVALID_DEFER"),
        ("topic=t&defer=-1", b"x", 400, "INVALID_DEFER"),
        ("topic=t&defer=3600001", b"x", 400, "INVALID_DEFER"),
        ("topic=t&defer=99999999999999999999", b"x", 400, "INVALID_DEFER"),
    ],
)
def test_pub_refuses(http, nsqd, query, body, status, text):
    """What is wrong is found in NSQ's order, and leaves no topic behind."""
    http.is_error(http.post(f"/pub?{query}", body), status, text)
    assert {} == nsqd.broker.topics


@pytest.mark.parametrize(
    "query", ["topic=a", "&topic=a&", "topic=%61", "topic=a&topic=b", "x=1&topic=a&defer=0"]
)
def test_query_forms(http, query, waiting):
    """Names may be escaped, empty pairs are skipped, and the first value counts."""
    assert 200 == http.post(f"/pub?{query}", b"x").status
    assert [b"x"] == waiting("a")


@pytest.mark.parametrize("defer", ["1500", "%2B1500", "01500"])
def test_pub_deferred(http, nsqd, defer):
    """A deferred message is held back for so many milliseconds."""
    channel = nsqd.broker.topic("t").channel("c", NOW)

    assert 200 == http.post(f"/pub?topic=t&defer={defer}", b"x").status

    assert [NOW + 1_500_000_000] == [due for due, _, _ in channel.deferred]


def test_pub_in_chunks(http, waiting):
    """A body without a length is as good."""
    assert 200 == http.post("/pub?topic=t", chunks=[b"a" * 50, b"", b"b" * 50]).status
    assert [b"a" * 50 + b"b" * 50] == waiting("t")


def test_oversize_chunks_are_not_gathered(http):
    """A body in chunks is refused as soon as it is too long; the connection ends after what is dropped."""
    got = http.post("/pub?topic=t", chunks=[b"x" * 60] * 5)

    http.is_error(got, 413, "MSG_TOO_BIG")
    assert "close" == got.headers["connection"]
    assert 0 == http.unread


def test_oversize_length_is_refused_unread(http):
    """A length over the limit is enough, and the connection can't go on."""
    got = http.post("/pub?topic=t", b"x" * 101)

    http.is_error(got, 413, "MSG_TOO_BIG")
    assert "close" == got.headers["connection"]


def test_small_errors_keep_the_connection(http):
    """When the body was read, the connection goes on."""
    assert "connection" not in http.post("/pub?topic=", b"x").headers


def test_body_breaks_off(http, nsqd):
    """Nothing is published if the client goes away within the body."""
    http.is_error(http.post("/pub?topic=t", chunks=[b"half"], breaks_off=True), 500, "INTERNAL_ERROR")
    assert {} == nsqd.broker.topics


@pytest.mark.parametrize("path", ["/pub", "/mpub"])
def test_failed_publish(http, nsqd, path):
    """While nsqd stops a publish is 503 EXITING, as with NSQ, and the log has a line."""
    nsqd.broker.exiting = True

    http.is_error(http.post(f"{path}?topic=t", b"x"), 503, "EXITING")

    assert any(
        "ERROR: TOPIC(t): failed to publish over HTTP - PUB failed exiting" in line for line in nsqd.lines
    )


def test_pub_is_not_logged(http, nsqd):
    """There is no log line for each publish, under no name."""
    for path in ("/pub", "/mpub", "/put", "/mput"):
        http.post(f"{path}?topic=t", b"x")

    assert [] == nsqd.lines


# -- many at once


def test_mpub_lines(http, waiting):
    """Each line is a message: CR stays, empty lines don't count, the last needs no LF."""
    got = http.post("/mpub?topic=t", b"one\n\ntwo\r\n\n\nthree")

    assert (200, b"OK") == (got.status, got.body)
    assert [b"one", b"two\r", b"three"] == waiting("t")


@pytest.mark.parametrize("portion", [1, 2, 3, 5, 100])
def test_mpub_lines_in_portions(http, monkeypatch, portion, waiting):
    """Long bodies are cut bit by bit, and the lines are the same wherever a bit ends."""
    monkeypatch.setattr(publishing, "PORTION", portion)
    http.post("/mpub?topic=t", b"a\n\nbb\r\n\n\nccc\nd\n")
    http.post("/mpub?topic=t", b"e\nf")

    assert [b"a", b"bb\r", b"ccc", b"d", b"e", b"f"] == waiting("t")
    http.is_error(http.post("/mpub?topic=u", b"a\n" * 50 + b"x" * 101), 413, "MSG_TOO_BIG")


@pytest.mark.parametrize("flag", ["true", "1", "yes", "", "TRUE"])
def test_mpub_binary(http, nsqd, flag, waiting):
    """Everything but `false` and `0` means binary; odd words are reported."""
    body = batch(b"a\nb", b"\x00") + b"more"

    assert 200 == http.post(f"/mpub?topic=t&binary={flag}", body).status

    assert [b"a\nb", b"\x00"] == waiting("t")
    assert (flag in {"true", "1"}) == (not any("deprecated" in line for line in nsqd.lines))


@pytest.mark.parametrize("flag", ["false", "0"])
def test_mpub_binary_off(http, flag, waiting):
    """`false` and `0` mean text."""
    http.post(f"/mpub?topic=t&binary={flag}", b"a\nb")

    assert [b"a", b"b"] == waiting("t")


@pytest.mark.parametrize("body", [b"", b"\n\n"])
def test_mpub_of_nothing(http, nsqd, body):
    """Nothing to publish is fine; the topic is made."""
    assert b"OK" == http.post("/mpub?topic=t", body).body
    assert 0 == nsqd.broker.topics["t"].message_count


@pytest.mark.parametrize(
    "query, body, status, text",
    [
        ("topic=t", b"x\n" * 151, 413, "BODY_TOO_BIG"),
        ("topic=t", b"x\n" + b"y" * 101, 413, "MSG_TOO_BIG"),
        ("", b"x", 400, "MISSING_ARG_TOPIC"),
        ("topic=a*", b"x", 400, "INVALID_TOPIC"),
        ("topic=%zz", b"x", 400, "INVALID_REQUEST"),
        ("topic=t&defer=x", b"x", 400, "INVALID_DEFER"),
        ("topic=t&binary=1", b"", 413, "BAD_BODY"),
        ("topic=t&binary=1", b"\x00\x00", 413, "BAD_BODY"),
        ("topic=t&binary=1", b"\x00\x00\x00\x00", 413, "BAD_BODY"),
        ("topic=t&binary=1", b"\xff\xff\xff\xff", 413, "BAD_BODY"),
        ("topic=t&binary=1", b"\x00\x00\x01\x00", 413, "BAD_BODY"),
        ("topic=t&binary=1", batch(b""), 413, "BAD_MESSAGE"),
        ("topic=t&binary=1", batch(b"x" * 101), 413, "BAD_MESSAGE"),
        ("topic=t&binary=1", batch(b"abc")[:-1], 413, "BAD_MESSAGE"),
        ("topic=t&binary=1", batch(b"abc", b"d")[:12], 413, "BAD_MESSAGE"),
    ],
)
def test_mpub_refuses(http, nsqd, query, body, status, text):
    """A batch with a fault is refused as a whole and leaves no topic behind."""
    http.is_error(http.post(f"/mpub?{query}", body), status, text)
    assert {} == nsqd.broker.topics


def test_mpub_in_chunks_is_limited(http):
    """A batch in chunks has the same limit."""
    http.is_error(http.post("/mpub?topic=t", chunks=[b"x\n" * 50] * 4), 413, "BODY_TOO_BIG")


def test_mpub_deferred(http, nsqd):
    """A batch can be deferred too."""
    channel = nsqd.broker.topic("t").channel("c", NOW)

    http.post("/mpub?topic=t&defer=20", b"a\nb")

    assert [NOW + 20_000_000] * 2 == [due for due, _, _ in channel.deferred]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=8), st.integers(0, 60))
def test_binary_is_cut_anywhere(http, waiting, bodies, length):
    """A batch cut short is refused, a whole one gives back its messages."""
    whole = batch(*bodies)
    cut = whole[:length]

    got = http.post("/mpub?topic=cut&binary=1", cut)

    if len(cut) == len(whole):
        assert bodies == waiting("cut")[-len(bodies) :]
    else:
        assert (413, "BAD_BODY" if length < 4 else "BAD_MESSAGE") == (got.status, got.json()["message"])


def test_a_full_disk_is_no_exit(http, nsqd):
    """The answer to a publish that could not be written names what is wrong."""

    async def publish_framed(*_: object) -> None:
        raise StoreError("less than 100 bytes are free on the disk of the data path")

    nsqd.publish_framed = publish_framed

    http.is_error(
        http.post("/pub?topic=t", b"x"),
        503,
        "PUB failed less than 100 bytes are free on the disk of the data path",
    )
