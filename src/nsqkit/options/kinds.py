"""Kinds of option values: how each is written on the command line, in a config file, in Python and in JSON.

A kind raises ValueError with the reason; the caller adds the name of the flag or key.
"""

import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from nsqkit.address import is_unix, split_listen_address
from nsqkit.options.duration import MILLISECOND, Duration

T = TypeVar("T")
E = TypeVar("E", bound=Enum)

Json: TypeAlias = "bool | int | float | str | list[Json] | None"

INT64 = range(-(2**63), 2**63)

_TRUE_WORDS = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE_WORDS = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_INTEGER = re.compile(r"[+-]?[0-9][0-9A-Za-z_]*")


class Kind(Generic[T]):
    """One kind of value. `name` is what --help and the docs call it."""

    name = "string"
    repeats = False  # whether each use of the flag appends

    def parse(self, text: str) -> T:
        """Read one value of a flag."""
        raise NotImplementedError

    def load(self, value: object) -> T:
        """Take a value that came out of TOML."""
        return self.parse(value) if isinstance(value, str) else self.accept(value)

    def accept(self, value: object) -> T:
        """Take a value given in Python."""
        raise NotImplementedError

    def report(self, value: T) -> Json:
        """The value as `GET /config` gives it."""
        raise NotImplementedError

    def show(self, value: T) -> str:
        """The value as one would write it after the flag; "" for an empty one."""
        return str(value)


class _Bool(Kind[bool]):
    name = "bool"

    def parse(self, text: str) -> bool:
        if text in _TRUE_WORDS:
            return True
        if text in _FALSE_WORDS:
            return False
        raise ValueError("say true or false")

    def load(self, value: object) -> bool:
        """Integers too: 0 is false (NSQ has it the wrong way round)."""
        if isinstance(value, int):
            return value != 0
        return super().load(value)

    def accept(self, value: object) -> bool:
        if isinstance(value, bool):
            return value
        raise ValueError("say true or false")

    def report(self, value: bool) -> Json:
        return value

    def show(self, value: bool) -> str:
        return str(value).lower()


class _Int(Kind[int]):
    name = "int"

    def parse(self, text: str) -> int:
        try:
            number = int(text, 0) if _INTEGER.fullmatch(text) else None
        except ValueError:
            number = None
        if number is None:
            raise ValueError("not a whole number")
        return self.accept(number)

    def accept(self, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError("not a whole number")
        if value not in INT64:
            raise ValueError("value out of range")
        return int(value)

    def report(self, value: int) -> Json:
        return value


class _Float(Kind[float]):
    name = "float"

    def parse(self, text: str) -> float:
        try:
            return self.accept(float(text))
        except ValueError:
            raise ValueError("not a number") from None

    def accept(self, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError("not a number")
        return float(value)

    def report(self, value: float) -> Json:
        return value

    def show(self, value: float) -> str:
        return f"{value:g}"


class _Duration(Kind[Duration]):
    name = "duration"

    def parse(self, text: str) -> Duration:
        return Duration.parse(text)

    def load(self, value: object) -> Duration:
        """An integer in a config file is milliseconds, as in NSQ."""
        if isinstance(value, int) and not isinstance(value, bool):
            return Duration.of(Duration(value * MILLISECOND))
        if isinstance(value, str):
            return Duration.parse(value)
        raise ValueError("not a duration: give text like 1m30s, or milliseconds")

    def accept(self, value: object) -> Duration:
        return Duration.of(value)

    def report(self, value: Duration) -> Json:
        return int(value)


class _String(Kind[str]):
    def parse(self, text: str) -> str:
        return text

    def accept(self, value: object) -> str:
        if isinstance(value, str):
            return value
        raise ValueError("not a string")

    def report(self, value: str) -> Json:
        return value


class PathKind(_String):
    """Text, or whatever stands for a path."""

    def accept(self, value: object) -> str:
        """Take text, or a path."""
        return super().accept(os.fspath(value) if isinstance(value, os.PathLike) else value)


class ListenAddress(Kind[str]):
    """Where to listen: host:port, and maybe the path of a unix socket, or nothing at all."""

    name = "address"

    def __init__(self, *, unix: bool, empty: bool = False) -> None:
        self._unix = unix
        self._empty = empty

    def parse(self, text: str) -> str:
        """Check it."""
        return self.accept(text)

    def accept(self, value: object) -> str:
        """Check it. ValueError tells everything that would be right."""
        if not isinstance(value, str):
            raise ValueError("not a string")
        if (self._unix and is_unix(value)) or (self._empty and not value):
            return value
        try:
            split_listen_address(value)
        except ValueError as reason:
            more = ", or the path of a unix socket with a / in it" if self._unix else ""
            raise ValueError(f"{reason}{more}") from None
        return value

    def report(self, value: str) -> Json:
        """Report it as it is."""
        return value


class _Strings(Kind[tuple[str, ...]]):
    name = "list"
    repeats = True

    def parse(self, text: str) -> tuple[str, ...]:
        return (text,)

    def load(self, value: object) -> tuple[str, ...]:
        """An array, or one string with commas."""
        return self.accept(_split(value) if isinstance(value, str) else value)

    def accept(self, value: object) -> tuple[str, ...]:
        return tuple(STRING.accept(item) for item in _items(value))

    def report(self, value: tuple[str, ...]) -> Json:
        return list(value)

    def show(self, value: tuple[str, ...]) -> str:
        return ",".join(value)


class _Floats(Kind[tuple[float, ...]]):
    name = "float list"
    repeats = True

    def parse(self, text: str) -> tuple[float, ...]:
        try:
            return tuple(float(word) for word in _split(text))
        except ValueError:
            raise ValueError("not a list of numbers") from None

    def accept(self, value: object) -> tuple[float, ...]:
        """Whole numbers, fractions and numbers written as text, in any mixture."""
        numbers: list[float] = []
        for item in _items(value):
            if isinstance(item, str):
                numbers.extend(self.parse(item))
            elif isinstance(item, int | float) and not isinstance(item, bool):
                numbers.append(_float(item))
            else:
                raise ValueError("not a list of numbers")
        return tuple(numbers)

    def report(self, value: tuple[float, ...]) -> Json:
        return list(value)

    def show(self, value: tuple[float, ...]) -> str:
        return ",".join(f"{number:g}" for number in value)


class Words(Kind[E]):
    """One of a few words, in any case; each stands for a member of an enum."""

    name = "word"

    def __init__(self, words: Mapping[str, E], *, empty: E | None = None) -> None:
        """`words` by what one writes; `empty` is what an empty string in a config file means."""
        self.words = words
        self._empty = empty
        self._names = {member: word for word, member in reversed(list(words.items()))}

    def parse(self, text: str) -> E:
        """Look the word up, in any case."""
        member = self.words.get(text.lower())
        if member is None:
            raise ValueError(f"say one of {', '.join(self.words)}")
        return member

    def load(self, value: object) -> E:
        """TOML's true and false stand for these words."""
        if value == "" and self._empty is not None:
            return self._empty
        return self.parse(BOOL.show(value) if isinstance(value, bool) else str(value))

    def accept(self, value: object) -> E:
        """Take a member of the enum, or a word for one."""
        if not isinstance(value, Enum):
            return self.load(value)
        for member in self.words.values():
            if member is value:
                return member
        raise ValueError(f"say one of {', '.join(self.words)}")

    def report(self, value: E) -> Json:
        """Report the member's value: NSQ's number, or a word of ours."""
        reported: Json = value.value
        return reported

    def show(self, value: E) -> str:
        """Show the first word that stands for the member."""
        return self._names[value]


if TYPE_CHECKING:

    class PathOption:
        """The type of an option that holds a path as text and takes any PathLike when it is set."""

        def __get__(self, owner: object, kind: type | None = None) -> str: ...

        def __set__(self, owner: object, value: str | os.PathLike[str]) -> None: ...

else:
    PathOption = str

BOOL = _Bool()
INT = _Int()
FLOAT = _Float()
DURATION = _Duration()
STRING = _String()
PATH = PathKind()
STRINGS = _Strings()
FLOATS = _Floats()


def kind_of(default: object) -> Kind[Any]:
    """The kind of value that a default shows. Enums and lists of numbers must say theirs."""
    match default:
        case bool():
            return BOOL
        case Duration():
            return DURATION
        case int():
            return INT
        case float():
            return FLOAT
        case str():
            return STRING
        case tuple():
            return STRINGS
    raise TypeError(f"say kind= for an option whose default is {default!r}")


def parse_json_list(text: str) -> list[object]:
    """Read a JSON array of anything; `null` is an empty one."""
    try:
        value: object = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if value is None:
        return []
    if isinstance(value, list):
        return value
    raise ValueError("not a JSON array")


def _split(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _float(number: float) -> float:
    try:
        return float(number)
    except OverflowError:  # a whole number in a config file has as many digits as one likes
        raise ValueError("value out of range") from None


def _items(value: object) -> Iterable[object]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ValueError("not a list")
    return value
