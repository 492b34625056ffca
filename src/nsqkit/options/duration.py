"""Lengths of time as NSQ writes them: `1m30s`, `250ms`. Held as whole nanoseconds."""

import math
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Self

MICROSECOND = 1_000
MILLISECOND = 1_000_000
SECOND = 1_000_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE

LONGEST = 2**63 - 1
"""Nanoseconds must fit 64 bits, as in NSQ: about 292 years."""

_UNITS = {
    "ns": 1,
    "us": MICROSECOND,
    "\N{MICRO SIGN}s": MICROSECOND,
    "\N{GREEK SMALL LETTER MU}s": MICROSECOND,
    "ms": MILLISECOND,
    "s": SECOND,
    "m": MINUTE,
    "h": HOUR,
}
_PART = r"(?:([0-9]+)(?:\.([0-9]*))?|\.([0-9]+))(ns|us|\xb5s|\u03bcs|ms|s|m|h)"
_FIND_PART = re.compile(_PART)
_WHOLE = re.compile(rf"([+-]?)((?:{_PART})+)")
_BARE_NUMBER = re.compile(r"[+-]?[0-9]*\.?[0-9]+")


class Duration(int):
    """A length of time in nanoseconds, which reads and writes itself the way Go does."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `1h15m`, `1.5s`, `-300ms` or `0`. Raises ValueError that says what is wrong."""
        if text in {"0", "+0", "-0"}:
            return cls(0)
        whole = _WHOLE.fullmatch(text)
        if whole is None:
            if _BARE_NUMBER.fullmatch(text):
                raise ValueError(f"a duration needs a unit, as in {text}s or {text}ms")
            raise ValueError("not a duration, which looks like 300ms, 1.5s or 1h15m")
        total = 0
        for integer, fraction, only_fraction, unit in _FIND_PART.findall(whole[2]):
            digits = fraction or only_fraction
            total += int(integer or 0) * _UNITS[unit] + int(digits or 0) * _UNITS[unit] // 10 ** len(digits)
        if total > LONGEST:
            raise ValueError("value out of range")
        return cls(-total if whole[1] == "-" else total)

    @classmethod
    def of(cls, value: object) -> Self:
        """Take what a caller in Python may write: a Duration, text, a number of seconds, or a timedelta.

        Raises ValueError for other types, for text that is not a duration and for numbers that are not finite.
        """
        if isinstance(value, Duration):
            if abs(value) > LONGEST:
                raise ValueError("value out of range")
            return cls(value)
        if isinstance(value, str):
            return cls.parse(value)
        if isinstance(value, timedelta):
            value = value / timedelta(microseconds=1) / 1e6
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError("not a duration: give text like 1m30s, or seconds")
        nanoseconds = round(value * SECOND)
        if abs(nanoseconds) > LONGEST:
            raise ValueError("value out of range")
        return cls(nanoseconds)

    @property
    def seconds(self) -> float:
        """The same in seconds."""
        return self / SECOND

    @property
    def milliseconds(self) -> int:
        """The same in whole milliseconds, rounded down."""
        return self // MILLISECOND

    def __str__(self) -> str:
        """Go's form: `1m30s`, `1h0m0s`, `250ms`, `0s`."""
        sign = "-" if self < 0 else ""
        rest = abs(int(self))
        if rest < SECOND:
            for unit, size in (("ms", MILLISECOND), ("\N{MICRO SIGN}s", MICROSECOND), ("ns", 1)):
                if rest >= size:
                    return f"{sign}{_decimal(rest, size)}{unit}"
            return "0s"
        minutes, rest = divmod(rest, MINUTE)
        hours, minutes = divmod(minutes, 60)
        text = f"{_decimal(rest, SECOND)}s"
        if hours or minutes:
            text = f"{minutes}m{text}"
        if hours:
            text = f"{hours}h{text}"
        return sign + text

    def __repr__(self) -> str:
        """`Duration('1m30s')`."""
        return f"Duration({str(self)!r})"


if TYPE_CHECKING:

    class DurationOption:
        """The type of an option that holds a Duration and takes text or seconds as well when it is set."""

        def __get__(self, owner: object, kind: type | None = None) -> Duration: ...

        def __set__(self, owner: object, value: Duration | str | float | timedelta) -> None: ...

else:
    DurationOption = Duration


def _decimal(value: int, unit: int) -> str:
    """Value in units, exact, without trailing zeros."""
    whole, rest = divmod(value, unit)
    if not rest:
        return str(whole)
    fraction = str(rest).rjust(len(str(unit)) - 1, "0").rstrip("0")
    return f"{whole}.{fraction}"
