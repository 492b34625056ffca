"""The body of IDENTIFY."""

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsqkit.nsqlookupd.session import MAX_BODY, Refused, decode_identity
from nsqkit.wire.registration import MAGIC, encode_identify
from tests.nsqlookupd.conversation import DECODE, IDENTITY, INTRODUCTION, KNOWN, MISSING, Conversation


@pytest.fixture
def nsqd(registrations):
    """A connection on which nothing was said."""
    return Conversation(registrations)


@pytest.mark.parametrize(
    "size, text",
    [
        (-1, "E_BAD_BODY IDENTIFY invalid body size -1"),
        (-(2**31), "E_BAD_BODY IDENTIFY invalid body size -2147483648"),
        (MAX_BODY + 1, f"E_BAD_BODY IDENTIFY body too big {MAX_BODY + 1} > {MAX_BODY}"),
        (2**31 - 1, f"E_BAD_BODY IDENTIFY body too big 2147483647 > {MAX_BODY}"),
        (0, DECODE.decode()),
    ],
)
def test_body_sizes(nsqd, chunks, size, text):
    """A size that makes no sense is refused before any of the body has come."""
    assert [text.encode()] == nsqd.say(*chunks(MAGIC + b"IDENTIFY\n" + struct.pack(">i", size)))
    assert {"client::": []} == nsqd.snapshot()


def test_largest_body(nsqd):
    """A body of the limit's length is read."""
    body = json.dumps(IDENTITY).encode().ljust(MAX_BODY)

    assert [INTRODUCTION] == nsqd.say(MAGIC + encode_identify(body))


def test_refused_body(nsqd, chunks):
    """Who did not identify himself is not known, whatever follows."""
    refused = MAGIC + encode_identify(b"{}")

    assert [MISSING] == nsqd.say(*chunks(refused, tail=b"REGISTER t c\n"))
    assert nsqd.session.closed
    assert {"client::": []} == nsqd.snapshot()


def identity(**fields: object) -> bytes:
    """A body with some fields other than usual."""
    return json.dumps({**IDENTITY, **fields}).encode()


@pytest.mark.parametrize(
    "body",
    [
        identity(),
        json.dumps({key.upper(): value for key, value in IDENTITY.items()}).encode(),
        identity(unknown={"a": [1.5, None]}, TOPOLOGY_ZONE=None, remote_address=None),
        b" \t\r\n" + identity() + b" \n",
        b'{"tcp_port":7,"Tcp_Port":1,' + identity()[1:].replace(b'"tcp_port": 1, ', b""),
    ],
)
def test_good_identities(body):
    """Keys match in any case, unknown ones and null are ignored, the last of several counts."""
    assert KNOWN == decode_identity(body)


@pytest.mark.parametrize("name", ["broadcast_address", "tcp_port", "http_port", "version"])
@pytest.mark.parametrize("empty", [True, False])
def test_missing_fields(name, empty):
    """Four fields are needed, and must not be empty or zero."""
    fields = {**IDENTITY, name: type(IDENTITY[name])()} if empty else {**IDENTITY, name: None}

    refuses(json.dumps(fields).encode(), MISSING)


@pytest.mark.parametrize("body", [b"null", b"{}", b' {"a":1}'])
def test_nothing_said(body):
    """An object without fields, and null, miss fields."""
    refuses(body, MISSING)


@pytest.mark.parametrize("name", ["hostname", "topology_zone", "topology_region"])
def test_optional_fields(name):
    """The host name and the topology may be left out."""
    fields = {key: value for key, value in IDENTITY.items() if key != name}

    assert {**KNOWN, name: ""} == decode_identity(json.dumps(fields).encode())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[1]",
        b'"text"',
        b"1",
        b"true",
        identity() + b"{}",
        identity() + b"x",
        b"\xef\xbb\xbf" + identity(),
        identity(tcp_port="1"),
        identity(tcp_port=1.0),
        identity(tcp_port=True),
        identity(tcp_port=[1]),
        identity(tcp_port=2**63),
        identity(http_port=-(2**63) - 1),
        identity(hostname=1),
        identity(HostName={}),
        identity(version=["v"]),
        identity(broadcast_address=False),
        identity(topology_zone=0),
        identity(remote_address=0),
        identity().replace(b"1", b"NaN"),
        identity().replace(b"1", b"1e3"),
        identity().replace(b"1", b"1" * 5000),
        identity().replace(b"1", b"01"),
        identity(unknown=float("inf")),
        identity().replace(b'"h"', b'"\n"'),
        identity().replace(b'"h"', b'"\\ud83d'),
        b'{"a":' * 20_000,
    ],
)
def test_bad_json(body):
    """What Go's decoder refuses is refused: bad JSON, wrong types, fractions, numbers beyond 64 bits."""
    refuses(body, DECODE)


@pytest.mark.parametrize("port", [-1, -(2**63), 2**63 - 1, 70_000])
def test_odd_ports(port):
    """A port is any whole number of 64 bits but zero, as in NSQ."""
    assert port == decode_identity(identity(tcp_port=port))["tcp_port"]


@pytest.mark.parametrize(
    "raw, text",
    [
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b'"a\\ud83db"', "a\ufffdb"),
        (b'"\\ude00\\ud83d"', "\ufffd\ufffd"),
        (b'"a\xffb"', "a\ufffdb"),
        (b'"\\u0000"', "\0"),
        ('"\u00fc"'.encode(), "\u00fc"),
    ],
)
def test_odd_texts(raw, text):
    """Halves of characters and bytes that are not UTF-8 become U+FFFD."""
    body = identity().replace(b'"h"', raw)

    assert text == decode_identity(body)["hostname"]


def test_text_for_browsers(nsqd):
    """What an nsqd says of itself cannot leave its place in a page that shows it."""
    nsqd.say(MAGIC + encode_identify(identity(hostname="</script>&\u2028")))

    assert b'"hostname":"\\u003c/script\\u003e\\u0026\\u2028"' in nsqd.session.peer.document


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
KEYS = [*IDENTITY, "Version", "other"]


@given(st.dictionaries(st.sampled_from(KEYS), JSON) | JSON)
def test_any_json(document):
    """Any JSON either is an identity with every field in its type, or is refused."""
    got: dict[str, str | int] | str
    try:
        got = decode_identity(json.dumps(document).encode())
    except Refused as error:
        got = str(error)

    if isinstance(got, str):
        assert got.encode() in {DECODE, MISSING}
    else:
        assert {key: type(value) for key, value in KNOWN.items()} == {k: type(v) for k, v in got.items()}


def refuses(body: bytes, text: bytes) -> None:
    """Check an error."""
    with pytest.raises(Refused) as caught:
        decode_identity(body)
    assert text == str(caught.value).encode()
