"""Documents of peers, and what Go's decoder makes of them."""

import json

import pytest

from nsqkit.wire.document import MAX_STRING, BadDocument, decode_document

KINDS: dict[str, type] = {"text": str, "flag": bool, "size": int}


@pytest.mark.parametrize(
    "body, fields",
    [
        (b"null", {}),
        (b"{}", {}),
        (b'{"text":"a","flag":true,"size":-1}', {"text": "a", "flag": True, "size": -1}),
        (b'{"TEXT":"a","Size":1}', {"text": "a", "size": 1}),
        ('{"\u017fize":2}'.encode(), {"size": 2}),
        (b'{"text":"a","text":"b","text":null}', {"text": "b"}),
        (b'{"other":[1],"text":"a"}', {"text": "a"}),
        (b'{"text":"\xff"}', {"text": "\ufffd"}),
        (rb'{"text":"\ud800x\ud83d\ude00"}', {"text": "\ufffdx\U0001f600"}),
        (b'{"size":9223372036854775807}', {"size": 2**63 - 1}),
    ],
)
def test_known_fields_are_read(body, fields):
    """Names match regardless of case, the last value counts, and the rest is ignored."""
    assert fields == decode_document(body, KINDS)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'"text"',
        b"1",
        b"NaN",
        b'{"size":NaN}',
        b'{"size":1.0}',
        b'{"size":true}',
        b'{"size":9223372036854775808}',
        b'{"flag":1}',
        b'{"text":1,"text":"a"}',
        b"[" * 100_000,
    ],
)
def test_what_go_refuses_is_refused(body):
    """A wrong type is an error, also where another value follows; so is what is no object."""
    with pytest.raises(BadDocument, match="^$"):
        decode_document(body, KINDS)


def test_strings_are_limited():
    """A string has at most 256 characters, however many bytes these take; the error names it."""
    longest = "\u00e9" * MAX_STRING
    assert {"text": longest} == decode_document(json.dumps({"text": longest}).encode(), KINDS)

    with pytest.raises(BadDocument, match="^text too long 257 > 256$"):
        decode_document(json.dumps({"Text": longest + "x"}).encode(), KINDS)
