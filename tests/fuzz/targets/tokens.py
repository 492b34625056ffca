"""Files of HTTP tokens, a daemon's and a program's, and the header that carries one. Input: a file, or the header."""

from hashlib import sha256

from nsqkit.tokens import LONGEST, MOST_TOKENS, ROLES, SHORTEST, Role, Tokens, parse_token
from nsqkit.web.access import _token
from tests.fuzz.source import same


def check(data: bytes) -> None:
    """What is taken is what stands there, and is good for its roles only; errors have no word that may be a token."""
    _check_file(data)
    _check_own(data)
    _check_header(data)


def _check_file(data: bytes) -> None:
    try:
        tokens = Tokens(data.split(b"\n"))
    except ValueError as error:
        _check_error(str(error), data)
        return
    lines = [line.split() for line in data.split(b"\n")]
    expected = {
        token: set(names.decode().split(","))
        for names, token in (words for words in lines if words and not words[0].startswith(b"#"))
    }
    assert 0 < len(expected) <= MOST_TOKENS
    assert tokens.hidden == all(token.startswith(b"sha256:") for token in expected)
    for token, names in expected.items():
        roles = set(ROLES) if "admin" in names else {Role(name) for name in names}
        if token.startswith(b"sha256:"):
            same(True, len(token) == 71)
            hashed = sha256(token).digest() == bytes.fromhex(token[7:].decode())
            assert bool(tokens.roles(token)) == hashed
        else:
            assert roles == tokens.roles(token)
            assert tokens.roles(token + b"x") == frozenset() or token + b"x" in expected
    assert not tokens.roles(b"")
    assert not tokens.roles(data[: LONGEST + 1].ljust(LONGEST + 1))


def _check_own(data: bytes) -> None:
    try:
        token = parse_token(data)
    except ValueError as error:
        _check_error(str(error), data)
        return
    assert [token.encode()] == data.split()
    assert SHORTEST <= len(token) <= LONGEST
    assert token.isascii()
    assert token.isprintable()


def _check_error(text: str, data: bytes) -> None:
    """No word of the file that is as long as a token stands in it."""
    assert text.isprintable()
    for word in data.split():
        assert len(word) < SHORTEST or word.decode("latin-1") not in text


def _check_header(data: bytes) -> None:
    token = _token([(b"authorization", data)])
    words = data.split(None, 1)
    if token is None:
        assert len(words) < 2 or words[0].lower() != b"bearer" or not data.strip().startswith(words[0] + b" ")
    else:
        assert words[0].lower() == b"bearer"
        assert token == token.strip()
        assert data.strip().endswith(token)
