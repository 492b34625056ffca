"""Log lines in NSQ's format: `[nsqd] 2026/01/02 15:04:05.000000 INFO: text`, one per call, on stderr.

Rules: a line goes out in one unbuffered write; a sink that is closed, full or broken is ignored, for a daemon must
not stop because nobody reads its log; control characters are escaped, so a peer cannot forge a line or drive a
terminal. Nothing here touches the `logging` module.
"""

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from enum import IntEnum

STDERR = 2

_ESCAPES: dict[int, str] = {
    code: repr(chr(code))[1:-1]
    for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)
    if code != ord("\t")
}


class Level(IntEnum):
    """How severe a line is. The numbers are those of `GET /config/log_level`."""

    DEBUG = 1
    INFO = 2
    WARNING = 3
    ERROR = 4
    FATAL = 5


def write_stderr(line: str) -> None:
    """Write to file descriptor 2 without buffering, so that nothing is left to fail at exit."""
    os.write(STDERR, line.encode("utf-8", "backslashreplace"))


class Log:
    """Formats and writes lines of at least a certain level. `level` may be changed at any time."""

    __slots__ = ("_now", "_prefix", "_write", "level")

    def __init__(
        self,
        prefix: str = "",
        level: Level = Level.INFO,
        write: Callable[[str], object] = write_stderr,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        """`write` takes one line with its newline; `now` is the wall clock in ns."""
        self.level = level
        self._prefix = prefix
        self._write = write
        self._now = now

    def enabled(self, level: Level) -> bool:
        """Whether a line of this level would be written: ask before building an expensive text."""
        return level >= self.level

    def debug(self, text: str) -> None:
        """Say what only somebody hunting a fault wants to read."""
        self.line(Level.DEBUG, text)

    def info(self, text: str) -> None:
        """Say that something normal happened."""
        self.line(Level.INFO, text)

    def warning(self, text: str) -> None:
        """Say that something is odd, though nothing failed."""
        self.line(Level.WARNING, text)

    def error(self, text: str) -> None:
        """Say that something failed and the daemon goes on."""
        self.line(Level.ERROR, text)

    def fatal(self, text: str) -> None:
        """Say why the daemon stops. Stopping is up to the caller."""
        self.line(Level.FATAL, text)

    def line(self, level: Level, text: str) -> None:
        """Write one line. Never raises on account of the sink."""
        if level < self.level:
            return
        seconds, nanoseconds = divmod(self._now(), 1_000_000_000)
        stamp = time.strftime("%Y/%m/%d %H:%M:%S", time.localtime(seconds))
        text = text.translate(_ESCAPES)
        with suppress(OSError, ValueError):
            self._write(f"{self._prefix}{stamp}.{nanoseconds // 1000:06d} {level.name}: {text}\n")


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
