"""What many processes say, as labelled lines of limited length. Pure: bytes in, text out.

A line longer than LINE_LIMIT is cut and says how much is missing.
"""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import cycle
from typing import Final

from nsqkit.json_line import json_line
from nsqkit.lines import harmless

LINE_LIMIT: Final = 8192  # bytes

_COLOURS: Final = (
    36,
    32,
    33,
    35,
    34,
    96,
    92,
    93,
    95,
    94,
)  # as terminals number them; no red, that means danger
_BOLD: Final = 1


class Splitter:
    """Cuts one process's output into lines."""

    def __init__(self, limit: int = LINE_LIMIT) -> None:
        self._limit = limit
        self._line = bytearray()
        self._missing = 0

    def feed(self, chunk: bytes) -> list[str]:
        """Take a chunk; the lines that are whole now."""
        *pieces, rest = chunk.split(b"\n")
        lines = []
        for piece in pieces:
            self._append(piece)
            lines.append(self._take())
        self._append(rest)
        return lines

    def end(self) -> list[str]:
        """What was left without a line's end."""
        return [self._take()] if self._line else []

    def _append(self, piece: bytes) -> None:
        room = self._limit - len(self._line)
        self._line += piece[:room]
        self._missing += max(len(piece) - room, 0)

    def _take(self) -> str:
        text = harmless(self._line.decode("utf-8", "replace").rstrip("\r"))
        if self._missing:
            text += f" ... and {self._missing} bytes more"
        self._line.clear()
        self._missing = 0
        return text


class Objects:
    """Passes on what is an object already, as our programs write them, and makes one of every other line."""

    def __init__(self, now: Callable[[], int] = time.time_ns) -> None:
        """`now` is the wall clock in ns."""
        self._now = now

    def put(self, name: str, line: str) -> str:
        """The line as it is shown, with its end. What is no object comes from Python or the system: an error."""
        if plain(line) is not line:
            return f"{line}\n"
        return json_line(self._now(), "error", name, line, {})


def plain(line: str) -> str:
    """The text in a line: its `msg`, if it is an object."""
    if line.startswith('{"ts":'):
        with suppress(ValueError, RecursionError):
            text = json.loads(line).get("msg")
            if isinstance(text, str):
                return text
    return line


class Labels:
    """Puts a name before each line, padded, and in a colour of its own if there is colour."""

    def __init__(self, names: Sequence[str], *, colour: bool) -> None:
        """The first name is that of whoever speaks for all: bold, not coloured."""
        width = max(len(name) for name in names)
        styles = zip(
            names, [_BOLD, *(code for code, _ in zip(cycle(_COLOURS), names[1:], strict=False))], strict=True
        )
        self._labels = {
            name: f"\x1b[{style}m{name:<{width}} |\x1b[0m " if colour else f"{name:<{width}} | "
            for name, style in styles
        }

    def put(self, name: str, line: str) -> str:
        """The line as it is shown, with its end."""
        return f"{self._labels[name]}{line}\n"
