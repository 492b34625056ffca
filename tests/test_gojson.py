"""JSON as Go writes it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsqkit.gojson import encode_json


def test_compact():
    """There are no blanks, keys keep their order, and text is UTF-8."""
    assert '{"b":[1,true,null],"a":"ü"}'.encode() == encode_json({"b": [1, True, None], "a": "ü"})


@pytest.mark.parametrize(
    "character, escaped",
    [
        ("<", b"\\u003c"),
        (">", b"\\u003e"),
        ("&", b"\\u0026"),
        ("\u2028", b"\\u2028"),
        ("\u2029", b"\\u2029"),
        ("\n", b"\\n"),
        ('"', b'\\"'),
        ("\\", b"\\\\"),
        ("\0", b"\\u0000"),
    ],
)
def test_escapes(character, escaped):
    """What could end a script or an attribute is escaped, in keys too."""
    assert b'{"%b":"a%bb"}' % (escaped, escaped) == encode_json({character: f"a{character}b"})


@pytest.mark.parametrize("text", ["\u2027", "\u202a", "€", "é"])
def test_neighbours_stay(text):
    """Characters that only begin with the same bytes stay as they are."""
    assert f'"{text}"'.encode() == encode_json(text)


@given(st.recursive(st.none() | st.integers(-(2**63), 2**63 - 1) | st.text(), st.lists))
def test_meaning_stays(value):
    """Whatever is escaped, it reads as what it was."""
    data = encode_json(value)

    assert value == json.loads(data)
    assert not set(b"<>&") & set(data)


def test_what_is_no_json():
    """A value that JSON does not have is refused."""
    with pytest.raises(TypeError):
        encode_json(object())
