"""IDENTIFY: what a client asks for and what it gets."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsqkit.wire.errors import BadBody, ClientError
from nsqkit.wire.identify import MS, Identity, Limits, negotiate


def agreed(limits: Limits | None = None, **asked: object) -> Identity:
    """What is agreed on when these fields are sent."""
    return negotiate(json.dumps(asked).encode(), limits or Limits())


def refusal(body: bytes, limits: Limits | None = None) -> bytes:
    """The error frame's payload that a body is answered with."""
    with pytest.raises(ClientError) as caught:
        negotiate(body, limits or Limits())
    return caught.value.frame_payload()


@pytest.mark.parametrize("body", [b"{}", b"null", b' {"client_id": null, "unknown": [1, {"a": 1.5}]} '])
def test_defaults(body):
    """What is absent or null has the server's default; unknown keys mean nothing."""
    identity = negotiate(body, Limits())

    assert ("", "", "") == (identity.client_id, identity.hostname, identity.user_agent)
    assert 30_000 * MS == identity.heartbeat_interval
    assert (16384, 250 * MS) == (identity.output_buffer_size, identity.output_buffer_timeout)
    assert (0, 60_000 * MS) == (identity.sample_rate, identity.msg_timeout)
    assert b"OK" == identity.reply(Limits())


def test_strings():
    """The client's names are taken over."""
    identity = agreed(
        client_id="a", hostname="b", user_agent="c/1", topology_region="d", topology_zone="e", CLIENT_ID="z"
    )

    names = (identity.client_id, identity.hostname, identity.user_agent)
    assert ("z", "b", "c/1") == names
    assert ("d", "e") == (identity.topology_region, identity.topology_zone)


def test_keys_match_regardless_of_case():
    """As in Go, the case of keys does not matter, and the last one wins."""
    assert 2000 * MS == negotiate(b'{"MSG_timeout":1000,"Msg_Timeout":2000}', Limits()).msg_timeout


def test_negotiated_reply():
    """The reply is one compact JSON object with its keys in NSQ's order; times are in ms."""
    limits = Limits()
    limits.topology_region = "süd"

    reply = agreed(limits, feature_negotiation=True, msg_timeout=5000, sample_rate=7).reply(limits)

    assert (
        '{"max_rdy_count":2500,"version":"1.3.0","max_msg_timeout":900000,"msg_timeout":5000,"tls_v1":false,'
        '"deflate":false,"deflate_level":6,"max_deflate_level":6,"snappy":false,"sample_rate":7,'
        '"auth_required":false,"output_buffer_size":16384,"output_buffer_timeout":250,'
        '"topology_region":"süd","topology_zone":""}'
    ).encode() == reply


@pytest.mark.parametrize(
    "field, asked, attribute, got",
    [
        ("heartbeat_interval", -1, "heartbeat_interval", 0),
        ("heartbeat_interval", 0, "heartbeat_interval", 30_000 * MS),
        ("heartbeat_interval", 1000, "heartbeat_interval", 1000 * MS),
        ("heartbeat_interval", 60_000, "heartbeat_interval", 60_000 * MS),
        ("output_buffer_size", 0, "output_buffer_size", 16384),
        ("output_buffer_size", 64, "output_buffer_size", 64),
        ("output_buffer_size", 65536, "output_buffer_size", 65536),
        ("output_buffer_timeout", -1, "output_buffer_timeout", 0),
        ("output_buffer_timeout", 0, "output_buffer_timeout", 250 * MS),
        ("output_buffer_timeout", 25, "output_buffer_timeout", 25 * MS),
        ("output_buffer_timeout", 30_000, "output_buffer_timeout", 30_000 * MS),
        ("sample_rate", 99, "sample_rate", 99),
        ("msg_timeout", 0, "msg_timeout", 60_000 * MS),
        ("msg_timeout", 1000, "msg_timeout", 1000 * MS),
        ("msg_timeout", 900_000, "msg_timeout", 900_000 * MS),
    ],
)
def test_accepted(field, asked, attribute, got):
    """Every value from the least to the greatest is accepted, 0 means the default."""
    assert got == getattr(agreed(**{field: asked}), attribute)


@pytest.mark.parametrize(
    "field, value, what",
    [
        ("heartbeat_interval", -2, "heartbeat interval"),
        ("heartbeat_interval", 999, "heartbeat interval"),
        ("heartbeat_interval", 60_001, "heartbeat interval"),
        ("output_buffer_timeout", -2, "output buffer timeout"),
        ("output_buffer_timeout", 24, "output buffer timeout"),
        ("output_buffer_timeout", 30_001, "output buffer timeout"),
        ("output_buffer_size", -2, "output buffer size"),
        ("output_buffer_size", 63, "output buffer size"),
        ("output_buffer_size", 65537, "output buffer size"),
        ("sample_rate", -1, "sample rate"),
        ("sample_rate", 100, "sample rate"),
        ("msg_timeout", -1, "msg timeout"),
        ("msg_timeout", 999, "msg timeout"),
        ("msg_timeout", 900_001, "msg timeout"),
        ("msg_timeout", 2**63 - 1, "msg timeout"),
    ],
)
def test_out_of_range(field, value, what):
    """A value out of range is named in the error."""
    body = json.dumps({field: value}).encode()

    assert f"E_BAD_BODY IDENTIFY {what} ({value}) is invalid".encode() == refusal(body)


def test_order_of_checks():
    """Of several wrong values the first in NSQ's order is named."""
    wrong = {
        "msg_timeout": 1,
        "sample_rate": 100,
        "output_buffer_size": 1,
        "output_buffer_timeout": 1,
        "heartbeat_interval": 1,
    }
    order = [
        "heartbeat interval",
        "output buffer timeout",
        "output buffer size",
        "sample rate",
        "msg timeout",
    ]

    named = []
    while wrong:
        named.append(
            refusal(json.dumps(wrong).encode()).decode().removeprefix("E_BAD_BODY IDENTIFY ").split(" (")[0]
        )
        wrong.popitem()

    assert order == named


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"1",
        b'"x"',
        b"{} {}",
        b"nonsense",
        b'{"msg_timeout":NaN}',
        b'{"client_id":1}',
        b'{"client_id":{}}',
        b'{"feature_negotiation":1}',
        b'{"feature_negotiation":"true"}',
        b'{"msg_timeout":"1000"}',
        b'{"msg_timeout":1000.5}',
        b'{"msg_timeout":1000.0}',
        b'{"msg_timeout":1e3}',
        b'{"msg_timeout":true}',
        b'{"msg_timeout":9223372036854775808}',
        b'{"msg_timeout":' + b"9" * 10_000 + b"}",
        b"[" * 200_000,
    ],
)
def test_not_what_identify_takes(body):
    """What is no JSON object, or has a value of the wrong type, can't be decoded."""
    assert b"E_BAD_BODY IDENTIFY failed to decode JSON body" == refusal(body)


def test_unbuffered():
    """A buffer size of -1 is reported as 1 and stops the flush tick, whatever timeout was asked for."""
    identity = agreed(output_buffer_size=-1, output_buffer_timeout=1000)

    assert (1, 0) == (identity.output_buffer_size, identity.output_buffer_timeout)


@pytest.mark.parametrize(
    "asked, offered, got",
    [
        ({}, {}, (False, False, False)),
        ({"tls_v1": True, "snappy": True}, {}, (False, True, False)),
        ({"tls_v1": True}, {"tls": True}, (True, False, False)),
        ({"deflate": True}, {}, (False, False, True)),
        ({"snappy": True}, {"snappy": False}, (False, False, False)),
        ({"snappy": True, "deflate": True}, {"snappy": False}, (False, False, True)),
        ({"snappy": True, "deflate": True}, {"deflate": False}, (False, True, False)),
    ],
)
def test_features(asked, offered, got):
    """A feature is had when the client asks for it and the server offers it."""
    limits = Limits()
    for name, value in offered.items():
        setattr(limits, name, value)

    identity = agreed(limits, feature_negotiation=True, **asked)

    assert got == (identity.tls, identity.snappy, identity.deflate)


def test_both_codecs():
    """Snappy and deflate can't be had together."""
    body = b'{"feature_negotiation":true,"snappy":true,"deflate":true}'

    assert b"E_IDENTIFY_FAILED cannot enable both deflate and snappy compression" == refusal(body)


def test_without_negotiation_there_are_no_features():
    """Codecs are ignored without negotiation, even both at once; the other fields apply."""
    identity = agreed(snappy=True, deflate=True, deflate_level=9, msg_timeout=2000)

    assert (False, False, 2000 * MS) == (identity.snappy, identity.deflate, identity.msg_timeout)


@pytest.mark.parametrize(
    "asked, most, got", [(0, 6, 6), (-3, 6, 6), (4, 6, 4), (9, 6, 6), (9, 9, 9), (0, 3, 3)]
)
def test_deflate_level(asked, most, got):
    """The level is 6 unless asked for otherwise, and never above the server's."""
    limits = Limits()
    limits.max_deflate_level = most

    assert got == agreed(limits, feature_negotiation=True, deflate=True, deflate_level=asked).deflate_level


@pytest.mark.parametrize("most,got", [(9, 6), (3, 3)])
def test_deflate_level_without_deflate(most, got):
    """Whoever gets no deflate is told the default level, whatever he asked for."""
    limits = Limits()
    limits.max_deflate_level = most

    assert got == agreed(limits, feature_negotiation=True, deflate=False, deflate_level=1).deflate_level


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["client_id", "msg_timeout", "Snappy"]) | st.text(), inner, max_size=4
            )
        ),
        max_leaves=8,
    )
)
def test_any_document(document):
    """Whatever JSON comes, it is agreed on or refused, and the reply is JSON or OK."""
    with suppress(BadBody):
        reply = negotiate(json.dumps(document).encode(), Limits()).reply(Limits())
        assert reply == b"OK" or json.loads(reply)


@pytest.mark.parametrize(
    "field", ["client_id", "hostname", "user_agent", "topology_region", "topology_zone", "Client_ID"]
)
def test_long_strings(field):
    """A string has at most 256 characters, however many bytes these take."""
    negotiate(json.dumps({field: "\u00e9" * 256}).encode(), Limits())

    with pytest.raises(BadBody, match=f"^IDENTIFY {field.lower()} too long 257 > 256$"):
        negotiate(json.dumps({field: "x" * 257}).encode(), Limits())


@given(st.binary())
def test_any_bytes(body):
    """The same holds for bytes that are no JSON at all."""
    with suppress(BadBody):
        negotiate(body, Limits())
