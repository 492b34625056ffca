"""Names of topics and channels."""

import pytest

from nsqkit.names import is_ephemeral, valid_name, valid_name_bytes

VALID = ["a", "orders", "A.b_c-9", ".", "..", "a" * 64, "x#ephemeral", "a" * 54 + "#ephemeral"]
INVALID = [
    "",
    "a" * 65,
    "a" * 55 + "#ephemeral",
    "#ephemeral",
    "a#ephemera",
    "a#ephemeral#ephemeral",
    "a#ephemeralx",
    "a b",
    "a\n",
    "a#ephemeral\n",
    "a/b",
    "a:b",
    "%a",
    "\u00e9",
    "\u0661",  # a digit, but not an ASCII one
    "a\0",
]


@pytest.mark.parametrize("name", VALID)
def test_valid_names(name: str) -> None:
    """1 to 64 of the allowed characters are a name, as str and as bytes; the suffix counts toward the length."""
    assert valid_name(name)
    assert valid_name_bytes(name.encode())


@pytest.mark.parametrize("name", INVALID)
def test_invalid_names(name: str) -> None:
    """Anything else is no name, not even with only a line feed too many."""
    assert not valid_name(name)
    assert not valid_name_bytes(name.encode())


def test_invalid_utf8() -> None:
    """Bytes that are no text are no name."""
    assert not valid_name_bytes(b"\xff\xfe")


def test_ephemeral() -> None:
    """The suffix, and only the suffix, makes a name ephemeral."""
    assert is_ephemeral("x#ephemeral")
    assert not is_ephemeral("ephemeral")
    assert not is_ephemeral("x.ephemeral")
