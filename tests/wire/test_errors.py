"""Error frames, and how they quote names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsqkit.wire import errors
from nsqkit.wire.errors import quoted


@pytest.mark.parametrize(
    "error, payload",
    [
        (errors.Invalid("invalid command X"), b"E_INVALID invalid command X"),
        (errors.BadTopic("x"), b"E_BAD_TOPIC x"),
        (errors.BadChannel("x"), b"E_BAD_CHANNEL x"),
        (errors.BadBody("x"), b"E_BAD_BODY x"),
        (errors.BadMessage("x"), b"E_BAD_MESSAGE x"),
        (errors.IdentifyFailed("x"), b"E_IDENTIFY_FAILED x"),
        (errors.AuthDisabled("x"), b"E_AUTH_DISABLED x"),
        (errors.AuthFirst("x"), b"E_AUTH_FIRST x"),
        (errors.AuthFailed("x"), b"E_AUTH_FAILED x"),
        (errors.Unauthorized("x"), b"E_UNAUTHORIZED x"),
        (errors.SubscribeFailed("x"), b"E_SUB_FAILED x"),
        (errors.PublishFailed("PUB", "disk full"), b"E_PUB_FAILED PUB failed disk full"),
        (errors.PublishFailed("MPUB", "exiting"), b"E_MPUB_FAILED MPUB failed exiting"),
        (errors.PublishFailed("DPUB", "exiting"), b"E_DPUB_FAILED DPUB failed exiting"),
    ],
)
def test_fatal_errors(error, payload):
    """Code and text make the payload; the connection is closed after it."""
    assert payload == error.frame_payload()
    assert error.fatal


@pytest.mark.parametrize(
    "error, payload",
    [
        (errors.FinishFailed("x"), b"E_FIN_FAILED x"),
        (errors.RequeueFailed("x"), b"E_REQ_FAILED x"),
        (errors.TouchFailed("x"), b"E_TOUCH_FAILED x"),
    ],
)
def test_errors_that_do_not_close(error, payload):
    """What went wrong with one message does not end the connection."""
    assert payload == error.frame_payload()
    assert not error.fatal


@given(st.binary())
def test_peer_bytes_come_back_unchanged(raw):
    """Bytes that a peer sent stand in an error as they came, whatever they are."""
    error = errors.Invalid(f"invalid command {raw.decode('utf-8', 'surrogateescape')}")

    assert b"E_INVALID invalid command " + raw == error.frame_payload()


@pytest.mark.parametrize(
    "raw, shown",
    [
        (b"", '""'),
        (b"bad name", '"bad name"'),
        (b'a"b\\c', r'"a\"b\\c"'),
        (b"\a\b\f\n\r\t\v", r'"\a\b\f\n\r\t\v"'),
        (b"\x00\x1f\x7f", r'"\x00\x1f\x7f"'),
        (b"\xff\xc3", r'"\xff\xc3"'),
        (b"\xed\xa0\x80", r'"\xed\xa0\x80"'),  # half a surrogate pair is not UTF-8
        ("zürich €".encode(), '"zürich €"'),
        ("\u00a0\u200b".encode(), r'"\u00a0\u200b"'),
        ("\U0001f600\U000e0001".encode(), '"\U0001f600' + r'\U000e0001"'),
    ],
)
def test_quoting(raw, shown):
    """Names are quoted with the escapes of Go's %q."""
    assert shown == quoted(raw)


@given(st.binary())
def test_quoted_text_can_be_sent(raw):
    """Whatever is quoted is printable, on one line, and can be encoded."""
    text = quoted(raw)

    assert text.isprintable()
    assert text.encode()
