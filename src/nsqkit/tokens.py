"""Tokens of the HTTP APIs: secret words by which programs are known, and the files that hold them.

A daemon's file says what each token is good for, a line for each; `#` begins a remark:

    read          3f2c1e0b9a8d7c6f5e4d3c2b1a09f8e7
    publish,read  sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0ab8225d7c1a9e2c9b1c1e

A program's file holds the one token that it sends. Nothing in here puts a token, or a word that might be one, into an
error, a log line or a repr.
"""

import os
import re
import stat
from collections.abc import Iterable
from enum import Enum
from hashlib import sha256
from hmac import compare_digest
from typing import Final

from nsqkit.errors import StartError
from nsqkit.log import Log

SHORTEST: Final = 16  # characters of a token: below that it can be guessed
LONGEST: Final = 256
MOST_TOKENS: Final = 100  # each request is compared with all of them
MAX_FILE_SIZE: Final = 65_536  # bytes

_VISIBLE: Final = re.compile(rb"[!-~]+")
_HASHED: Final = b"sha256:"
_DIGEST: Final = re.compile(rb"[0-9a-fA-F]{64}")
_EXPOSED: Final = stat.S_IRWXG | stat.S_IRWXO


class Role(Enum):
    """What a token may be good for. `ANYBODY` is no role of tokens: it marks what needs none."""

    ANYBODY = ""
    READ = "read"
    PUBLISH = "publish"
    ADMIN = "admin"


ROLES: Final = frozenset({Role.READ, Role.PUBLISH, Role.ADMIN})

_WORDS: Final = {role.value.encode(): role for role in ROLES}


class Tokens:
    """What the tokens of a file are good for. Only their hashes are kept."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        """ValueError names the line that is wrong."""
        self.hidden = True  # all of them were hashed in the file
        self._roles: dict[bytes, frozenset[Role]] = {}
        for number, line in enumerate(lines, start=1):
            words = line.split()
            if words and not words[0].startswith(b"#"):
                try:
                    self._add(words)
                except ValueError as error:
                    raise ValueError(f"line {number}: {error}") from None
        if not self._roles:
            raise ValueError("it holds no token, so nobody could do anything")

    def _add(self, words: list[bytes]) -> None:
        digest, roles = self._take(words)
        if digest in self._roles:
            raise ValueError("this token was there before")
        if len(self._roles) == MOST_TOKENS:
            raise ValueError(f"more than {MOST_TOKENS} tokens")
        self._roles[digest] = roles

    def _take(self, words: list[bytes]) -> tuple[bytes, frozenset[Role]]:
        if len(words) != 2:
            raise ValueError("write a role and a token with a space between, and nothing more")
        names = words[0].split(b",")
        if not _WORDS.keys() >= set(names):
            raise ValueError("the first word must be read, publish or admin, or several of them with commas")
        roles = frozenset(_WORDS[name] for name in names)
        if Role.ADMIN in roles:
            roles = ROLES
        token = words[1]
        if token.startswith(_HASHED):
            digest = token.removeprefix(_HASHED)
            if not _DIGEST.fullmatch(digest):
                raise ValueError("sha256: takes 64 hexadecimal digits, as sha256sum prints them")
            return bytes.fromhex(digest.decode()), roles
        self.hidden = False
        _check(token)
        return sha256(token).digest(), roles

    def roles(self, token: bytes) -> frozenset[Role]:
        """What a token is good for: nothing, if it is not known. Takes as long for each."""
        found: frozenset[Role] = frozenset()
        if len(token) > LONGEST:
            return found
        presented = sha256(token).digest()
        for digest, roles in self._roles.items():
            if compare_digest(digest, presented):
                found = roles
        return found


def read_tokens(flag: str, path: str, log: Log) -> Tokens:
    """A daemon's file. StartError; a warning if others may read it, or change it."""
    data, mode = _read(flag, path)
    try:
        tokens = Tokens(data.split(b"\n"))
    except ValueError as error:
        raise StartError(f"{flag} {path}: {error}") from None
    _warn(flag, path, mode & (stat.S_IWGRP | stat.S_IWOTH if tokens.hidden else _EXPOSED), log)
    return tokens


class OwnToken:
    """The token that a program sends, from a file; without a path it sends none. StartError."""

    def __init__(self, flag: str, path: str, log: Log) -> None:
        self._flag = flag
        self._path = path
        self._log = log
        self._token = ""
        if path:
            self._load()

    def reload(self) -> bool:
        """Read the file again; False: there is none. A bad one leaves everything as it was."""
        if not self._path:
            return False
        try:
            self._load()
        except StartError as error:
            self._log.error(f"the token that was loaded before stays in use: {error}")
        return True

    def _load(self) -> None:
        data, mode = _read(self._flag, self._path)
        try:
            self._token = parse_token(data)
        except ValueError as error:
            raise StartError(f"{self._flag} {self._path}: {error}") from None
        _warn(self._flag, self._path, mode & _EXPOSED, self._log)

    def get(self) -> str:
        """The token, or nothing."""
        return self._token


def parse_token(data: bytes) -> str:
    """The token in a file that holds nothing else. ValueError."""
    words = data.split()
    if len(words) != 1:
        raise ValueError("write one token, and nothing more")
    if words[0].startswith(_HASHED):
        raise ValueError("write the token itself: from its hash nobody can tell it")
    _check(words[0])
    return words[0].decode()


def _check(token: bytes) -> None:
    if not _VISIBLE.fullmatch(token) or not SHORTEST <= len(token) <= LONGEST:
        raise ValueError(
            f"a token has {SHORTEST} to {LONGEST} visible ASCII characters: `openssl rand -hex 32` makes one"
        )


def _read(flag: str, path: str) -> tuple[bytes, int]:
    """What is in a file, and its mode. StartError."""
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(MAX_FILE_SIZE + 1)
    except OSError as error:
        raise StartError(f"{flag} {path}: {error.strerror or error}") from None
    if len(data) > MAX_FILE_SIZE:
        raise StartError(f"{flag} {path}: it has more than {MAX_FILE_SIZE} bytes")
    return data, mode


def _warn(flag: str, path: str, exposed: int, log: Log) -> None:
    if exposed:
        can = "change" if exposed & (stat.S_IWGRP | stat.S_IWOTH) else "read"
        log.warning(f"{flag} {path}: others than its owner may {can} it: chmod 600")
