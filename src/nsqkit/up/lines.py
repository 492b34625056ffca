"""What many processes say, as labelled lines of limited length. Pure: bytes in, text out.

Nothing here grows without a limit: a line longer than LINE_LIMIT is cut and says how much is missing, and an Outbox
that nobody empties counts what it drops. Dropping, rather than waiting, is a choice: nsqd writes its log from the
event loop that serves its clients, so a terminal that was halted with Ctrl-S must not hold its pipe full.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Final

LINE_LIMIT: Final = 8192  # bytes
OUTBOX_LIMIT: Final = 2000  # lines

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
        text = _harmless(self._line.decode("utf-8", "replace").rstrip("\r"))
        if self._missing:
            text += f" ... and {self._missing} bytes more"
        self._line.clear()
        self._missing = 0
        return text


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


class Outbox:
    """Lines on their way to a terminal: put by one thread, taken by another. A full one drops, and counts."""

    def __init__(self, note: Callable[[int], str], limit: int = OUTBOX_LIMIT) -> None:
        """`note` makes the line that tells how many were dropped."""
        self._note = note
        self._limit = limit
        self._lines: deque[str] = deque()
        self._dropped = 0
        self._closed = False
        self._changed = threading.Condition()

    def put(self, line: str) -> None:
        """Add a line if there is room. Never waits."""
        with self._changed:
            if len(self._lines) < self._limit:
                self._lines.append(line)
                self._changed.notify()
            else:
                self._dropped += 1

    def take(self) -> str:
        """Everything that is there, once there is something; "" after `close` when nothing is left."""
        with self._changed:
            self._changed.wait_for(lambda: self._lines or self._closed)
            text = "".join(self._lines)
            self._lines.clear()
            if self._dropped:
                text += self._note(self._dropped)
                self._dropped = 0
            return text

    def close(self) -> None:
        """Nothing more will come."""
        with self._changed:
            self._closed = True
            self._changed.notify()


def _harmless(text: str) -> str:
    """Without control characters: what a child prints must not drive the terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\t" else repr(c)[1:-1] for c in text)
