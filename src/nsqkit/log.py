"""Log lines in NSQ's format, `[nsqd] 2026/01/02 15:04:05.000000 INFO: text`, or as JSON; one per call, on stderr.

Rules: a daemon neither waits nor stops because nobody reads its log: what can't be written is dropped and counted
(`lines.py`). A line is cut, and what is not printable in it is escaped, so a peer cannot forge a line or drive a
terminal. What a line is about (topic, channel, client ...) may be given as fields too, for readers that are programs.
A complaint (WARNING, ERROR) that is repeated is said once in REPEAT_S, and then how often it was repeated.
Nothing here touches the `logging` module.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import Enum, IntEnum
from typing import Final

from nsqkit.json_line import Field, json_line
from nsqkit.lines import LineWriter, cut, harmless

STDERR = 2


class Level(IntEnum):
    """How severe a line is. The numbers are those of `GET /config/log_level`."""

    DEBUG = 1
    INFO = 2
    WARNING = 3
    ERROR = 4
    FATAL = 5


class Format(Enum):
    """How lines look."""

    TEXT = "text"  # as NSQ writes them
    JSON = "json"  # one object a line


LINE: Final = 4096  # characters of a line
REPEAT_S: Final = 10
OF_A_KIND: Final = 10  # complaints of one kind, with different texts, that are said in REPEAT_S
KINDS: Final = 100  # kinds of complaints that are told apart; the others share one

_WORDS: Final = {  # those of --log-level
    Level.DEBUG: "debug",
    Level.INFO: "info",
    Level.WARNING: "warn",
    Level.ERROR: "error",
    Level.FATAL: "fatal",
}
_OTHERS: Final = "other complaints"
_NS: Final = 1_000_000_000


class _Kind:
    """What became of one kind of complaint since it was first said."""

    def __init__(self, since: int) -> None:
        self.since = since  # ns, wall clock
        self.said = 0
        self.unsaid = 0


class Log:
    """Formats and writes lines of at least a certain level. `level` may be changed at any time."""

    __slots__ = ("_kinds", "_lock", "_now", "_prefix", "_write", "_writer", "format", "level")

    def __init__(
        self,
        prefix: str = "",
        level: Level = Level.INFO,
        write: Callable[[str], object] | None = None,
        now: Callable[[], int] = time.time_ns,
        format: Format = Format.TEXT,
    ) -> None:
        """`write` takes one line with its newline, and is stderr if there is none; `now` is the wall clock in ns."""
        self.level = level
        self.format = format
        self._prefix = prefix
        self._writer = LineWriter(STDERR, self._about_dropped, idle=self.say_repeated)
        self._write = write or self._writer.put
        self._now = now
        self._kinds: dict[tuple[Level, str], _Kind] = {}
        self._lock = threading.Lock()  # threads that sync files complain, too

    @property
    def dropped_count(self) -> int:
        """Lines that nobody took in time, since the start."""
        return self._writer.dropped_count

    def enabled(self, level: Level) -> bool:
        """Whether a line of this level would be written: ask before building an expensive text."""
        return level >= self.level

    def debug(self, text: str, **fields: Field) -> None:
        """Say what only somebody hunting a fault wants to read."""
        self.line(Level.DEBUG, text, **fields)

    def info(self, text: str, **fields: Field) -> None:
        """Say that something normal happened."""
        self.line(Level.INFO, text, **fields)

    def warning(self, text: str, kind: str = "", **fields: Field) -> None:
        """Say that something is odd, though nothing failed. `kind`: see `error`."""
        self._complain(Level.WARNING, text, kind, fields)

    def error(self, text: str, kind: str = "", **fields: Field) -> None:
        """Say that something failed and the daemon goes on.

        Complaints of the same `kind` are limited together, whatever their texts; without one the text is the kind.
        """
        self._complain(Level.ERROR, text, kind, fields)

    def fatal(self, text: str) -> None:
        """Say why the daemon stops, and wait a moment until that is out. Stopping is up to the caller."""
        self.say_repeated()
        self.line(Level.FATAL, text)
        self._writer.flush()

    def flush(self) -> None:
        """Wait until everything is written, but not long."""
        self.say_repeated()
        self._writer.flush()

    def line(self, level: Level, text: str, **fields: Field) -> None:
        """Write one line. Never raises on account of the sink, never waits for it."""
        if level < self.level:
            return
        if self._kinds:
            self._say_ended(self._now())
        self._put(level, text, fields)

    def say_repeated(self) -> None:
        """Say how often complaints were repeated that have been quiet since."""
        self._say_ended(None)

    def _complain(self, level: Level, text: str, kind: str, fields: Mapping[str, Field]) -> None:
        if level < self.level:
            return
        now = self._now()
        self._say_ended(now)
        with self._lock:
            key = (level, cut(kind or text, LINE))
            known = self._kinds.get(key)
            if known is None:
                if len(self._kinds) >= KINDS:
                    kind = _OTHERS
                    key = (level, kind)
                known = self._kinds.setdefault(key, _Kind(now))
            if known.said == (OF_A_KIND if kind else 1):
                known.unsaid += 1
                return
            known.said += 1
        self._put(level, text, fields)

    def _say_ended(self, now: int | None) -> None:
        """Forget kinds of complaints whose time is over, or all, and tell how many were not said."""
        with self._lock:
            ended = [
                (key, kind)
                for key, kind in self._kinds.items()
                if now is None or not 0 <= now - kind.since < REPEAT_S * _NS
            ]
            for key, _ in ended:
                del self._kinds[key]
        for (level, name), kind in ended:
            if kind.unsaid:
                text = f"{cut(name)} (repeated {kind.unsaid} times)"
                self._put(level, text, {"repeated": kind.unsaid})

    def _put(self, level: Level, text: str, fields: Mapping[str, Field]) -> None:
        with suppress(OSError, ValueError):
            self._write(self._format(level, text, fields))

    def _format(self, level: Level, text: str, fields: Mapping[str, Field]) -> str:
        if self.format is Format.JSON:
            return json_line(self._now(), _WORDS[level], self._prefix.strip(" []:"), text, fields)
        seconds, nanoseconds = divmod(self._now(), _NS)
        stamp = time.strftime("%Y/%m/%d %H:%M:%S", time.localtime(seconds))
        text = harmless(cut(text, LINE))
        return f"{self._prefix}{stamp}.{nanoseconds // 1000:06d} {level.name}: {text}\n"

    def _about_dropped(self, count: int) -> str:
        text = f"{count} lines were dropped: nobody took them from stderr in time"
        return self._format(Level.WARNING, text, {"dropped": count})


def keep_standard_descriptors_open() -> None:
    """Open /dev/null in the place of a closed stdin, stdout or stderr.

    Otherwise the next file or socket gets that number, and log lines end up in a file of messages.
    """
    for descriptor in (0, 1, STDERR):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one
            os.set_inheritable(descriptor, True)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(STDERR, "w", closefd=False)
