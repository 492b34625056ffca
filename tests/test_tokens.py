"""Files of tokens: what is in them, and what is said of those that are wrong."""

from contextlib import suppress
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsqkit.errors import StartError
from nsqkit.log import Level, Log
from nsqkit.tokens import (
    LONGEST,
    MAX_FILE_SIZE,
    MOST_TOKENS,
    ROLES,
    OwnToken,
    Role,
    Tokens,
    parse_token,
    read_tokens,
)

ONE = b"one-token-of-many"
TWO = b"another+token/of=many"


@pytest.fixture
def lines() -> list[str]:
    """What is logged."""
    return []


@pytest.fixture
def log(lines) -> Log:
    """A log in a list."""
    return Log("", Level.DEBUG, write=lines.append)


def tokens(text: bytes) -> Tokens:
    """What is in a file."""
    return Tokens(text.split(b"\n"))


def test_a_line_gives_roles_to_a_token():
    """A token has the roles before it and no others; what is not in the file has none."""
    found = tokens(b"# who may\n\nread " + ONE + b"\r\n  publish,read\t" + TWO)

    assert frozenset({Role.READ}) == found.roles(ONE)
    assert frozenset({Role.READ, Role.PUBLISH}) == found.roles(TWO)
    assert frozenset() == found.roles(ONE[:-1])
    assert frozenset() == found.roles(b"")


def test_admin_is_everything():
    """The role admin has the others in it."""
    assert frozenset(ROLES) == tokens(b"admin " + ONE).roles(ONE)


def test_a_hash_stands_for_its_token():
    """A file may hold the SHA-256 of a token instead, in upper or lower case; the hash itself opens nothing."""
    digest = sha256(b"short").hexdigest().upper().encode()
    found = tokens(b"read sha256:" + digest)

    assert frozenset({Role.READ}) == found.roles(b"short")
    assert frozenset() == found.roles(b"sha256:" + digest)
    assert found.hidden
    assert not tokens(b"read " + ONE).hidden


@pytest.mark.parametrize(
    "text, wrong",
    [
        (b"", "it holds no token, so nobody could do anything"),
        (b"# read " + ONE, "it holds no token, so nobody could do anything"),
        (b"\n" + ONE, "line 2: write a role and a token with a space between, and nothing more"),
        (b"read " + ONE + b" # mine", "line 1: write a role and a token with a space between, and nothing more"),
        (b"reader " + ONE, "line 1: the first word must be read, publish or admin, or several of them"),
        (b"read, " + ONE, "line 1: the first word must be read, publish or admin, or several of them"),
        (ONE + b" read", "line 1: the first word must be read, publish or admin, or several of them"),
        (b"read too-short", "line 1: a token has 16 to 256 visible ASCII characters: `openssl rand -hex 32`"),
        (b"read " + b"x" * (LONGEST + 1), "line 1: a token has 16 to 256 visible ASCII characters"),
        (b"read with-an-\xc3\xa9-in-it-somewhere", "line 1: a token has 16 to 256 visible ASCII characters"),
        (b"read sha256:abc", "line 1: sha256: takes 64 hexadecimal digits"),
        (b"read " + ONE + b"\nadmin " + ONE, "line 2: this token was there before"),
        (b"\n".join([b"read token-number-%08d" % n for n in range(MOST_TOKENS + 1)]), "line 101: more than 100"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(text, wrong):
    """A bad line is refused with its number and what would be right, and without what might be a secret."""
    with pytest.raises(ValueError, match=".") as caught:
        tokens(text)

    assert str(caught.value).startswith(wrong)
    assert ONE.decode() not in str(caught.value)


@given(st.binary(max_size=200))
def test_any_file_is_taken_or_refused(text):
    """Whatever is in a file, it is taken, or refused by a ValueError."""
    with suppress(ValueError):
        assert ROLES >= tokens(text).roles(b"x")


def test_what_is_too_long_is_not_even_hashed():
    """A presented token that is longer than any may be has no role."""
    text = b"x" * (LONGEST + 1)

    assert frozenset() == tokens(b"read sha256:" + sha256(text).hexdigest().encode()).roles(text)


@pytest.mark.parametrize(
    "mode, text, said",
    [
        (0o600, b"read " + ONE, ""),
        (0o400, b"read " + ONE, ""),
        (0o640, b"read " + ONE, "read"),
        (0o644, b"read " + ONE, "read"),
        (0o602, b"read " + ONE, "change"),
        (0o644, b"read sha256:" + b"0" * 64, ""),
        (0o664, b"read sha256:" + b"0" * 64, "change"),
    ],
)
def test_permissions_that_are_too_open(tmp_path, log, lines, mode, text, said):
    """A file that others may change, or read unless it holds hashes, is taken with a warning."""
    path = tmp_path / "tokens"
    path.write_bytes(text)
    path.chmod(mode)

    read_tokens("--flag", str(path), log)

    expected = [f"WARNING: --flag {path}: others than its owner may {said} it: chmod 600\n"] if said else []
    assert expected == [line[line.index("WARNING") :] for line in lines]


def test_a_file_that_can_not_be_read(tmp_path, log):
    """The error names flag, path and cause."""
    with pytest.raises(StartError, match=f"^--flag {tmp_path}/none: No such file or directory$"):
        read_tokens("--flag", f"{tmp_path}/none", log)


def test_a_bad_file(tmp_path, log):
    """The error names flag, path and line."""
    path = tmp_path / "tokens"
    path.write_bytes(b"\nread x")

    with pytest.raises(StartError, match=f"^--flag {path}: line 2: a token has "):
        read_tokens("--flag", str(path), log)


def test_a_file_that_is_too_long(tmp_path, log):
    """A file of more than 64 KiB is refused before it is looked at."""
    path = tmp_path / "tokens"
    path.write_bytes(b"#" * (MAX_FILE_SIZE + 1))

    with pytest.raises(StartError, match="it has more than 65536 bytes$"):
        read_tokens("--flag", str(path), log)


# -- a program's own token


def own_file(tmp_path, text: bytes):
    """A file that only its owner may read."""
    path = tmp_path / "token"
    path.write_bytes(text)
    path.chmod(0o600)
    return path


def test_own_token(tmp_path, log, lines):
    """A program sends what its file holds, without the space around it."""
    path = own_file(tmp_path, b"\n " + ONE + b"\r\n")

    assert ONE.decode() == OwnToken("--flag", str(path), log).get()
    assert [] == lines


def test_no_own_token(log):
    """Without a file nothing is sent, and there is nothing to reload."""
    token = OwnToken("--flag", "", log)

    assert "" == token.get()
    assert not token.reload()


def test_own_token_in_the_open(tmp_path, log, lines):
    """A program's token that others may read is taken with a warning."""
    path = own_file(tmp_path, ONE)
    path.chmod(0o644)

    assert OwnToken("--flag", str(path), log).get()

    assert lines[0].endswith("may read it: chmod 600\n")


def test_own_token_is_reloaded(tmp_path, log, lines):
    """A reload takes the new token; a bad file is an error in the log, and leaves the old one."""
    path = own_file(tmp_path, ONE)
    token = OwnToken("--flag", str(path), log)

    path.write_bytes(TWO)
    assert token.reload()
    assert TWO.decode() == token.get()
    path.write_bytes(b"two words")
    assert token.reload()

    assert TWO.decode() == token.get()
    assert f"the token that was loaded before stays in use: --flag {path}: write one token" in lines[0]


@pytest.mark.parametrize(
    "text", [b"", b"read " + ONE, b"sha256:" + b"0" * 64, b"short", b"with-a-\0-in-it-somewhere"]
)
def test_what_is_no_token(text):
    """A program's file holds one token and nothing else; a hash would be of no use."""
    with pytest.raises(ValueError, match="."):
        parse_token(text)


def test_nothing_shows_a_token(tmp_path, log):
    """No repr has it."""
    path = own_file(tmp_path, ONE)

    assert ONE.decode() not in repr(OwnToken("--flag", str(path), log))
    assert ONE.decode() not in repr(tokens(b"read " + ONE))
