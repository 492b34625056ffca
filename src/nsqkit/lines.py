"""Lines for people to read: harmless, cut, and written without ever waiting for the reader.

A daemon's event loop must not stop because a terminal was halted with Ctrl-S or a log collector is stuck, so a thread
does the writing. (Writing only when poll() allows it would not do: a terminal or a pipe that others write to, too, may
take less than it said, and O_NONBLOCK belongs to everybody who shares the descriptor, a shell for instance.)
"""

import atexit
import os
import select
import threading
from collections.abc import Callable
from typing import Final

CLIENT_TEXT: Final = 200  # characters of what a client said that are shown
LIMIT: Final = 262_144  # bytes that wait for the reader
FLUSH_S: Final = 1.0  # how long last words may take
IDLE_S: Final = 10.0  # after which a thread with nothing to write ends; the next line starts another


def harmless(text: str) -> str:
    """Without control, bidi and invisible characters: no forged lines, no driven terminal, nothing hidden."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\t" else repr(c)[1:-1] for c in text)


def cut(text: str, limit: int = CLIENT_TEXT) -> str:
    """The beginning of a text, and how much is missing."""
    missing = len(text) - limit
    return text if missing <= 0 else f"{text[:limit]}... and {missing} characters more"


class LineWriter:
    """Writes lines to a descriptor in the order they were put. What finds no room is dropped, counted and told."""

    def __init__(
        self,
        descriptor: int,
        note: Callable[[int], str],
        limit: int = LIMIT,
        idle: Callable[[], None] = lambda: None,
        idle_s: float = IDLE_S,
    ) -> None:
        """`note` makes the line about dropped ones; `idle` is called once there was nothing to write for a while."""
        self._descriptor = descriptor
        self._note = note
        self._limit = limit
        self._idle = idle
        self._idle_s = idle_s
        self._changed = threading.Condition()
        self._waiting: list[bytes] = []
        self._size = 0  # bytes in it
        self.dropped_count = 0  # lines, since the start
        self._dropped = 0  # of them, those that were not told yet
        self._full = False  # a line was dropped: later ones are, too, until the count stands in their place
        self._writing = False
        self._thread: threading.Thread | None = None

    def put(self, line: str) -> None:
        """Take a line with its end. Never waits, never fails."""
        data = line.encode("utf-8", "backslashreplace")
        with self._changed:
            self._full = self._full or self._size + len(data) > self._limit
            if self._full:
                self._drop(1)
            else:
                self._waiting.append(data)
                self._size += len(data)
            if self._thread is None:
                self._start()
            self._changed.notify_all()

    def _drop(self, count: int) -> None:
        self._dropped += count
        self.dropped_count += count

    def flush(self, timeout_s: float = FLUSH_S) -> bool:
        """Wait until everything is written, or for so long; whether it is."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._thread is None or not (self._writing or self._waiting), timeout_s
            )

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="log", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the system has no thread left: the next line tries again
            return
        self._thread = thread
        atexit.register(self.flush)

    def _run(self) -> None:
        while True:
            data = self._take()
            if data:
                lost = self._write(data)
                with self._changed:
                    self._writing = False
                    self._drop(lost)
                    self._changed.notify_all()
                continue
            self._idle()
            with self._changed:
                if not self._waiting:
                    self._thread = None
                    atexit.unregister(self.flush)
                    return

    def _take(self) -> bytes:
        """Everything there is to write; nothing if there was nothing for a while."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._waiting or self._full, self._idle_s):
                return b""
            if self._dropped:
                self._waiting.append(self._note(self._dropped).encode("utf-8", "backslashreplace"))
                self._dropped = 0
            data = b"".join(self._waiting)
            self._waiting.clear()
            self._size = 0
            self._full = False
            self._writing = True
            return data

    def _write(self, data: bytes) -> int:
        """Write it all, however long that takes; how many lines a closed, full or broken sink refused."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        while data:
            try:
                poll.poll()  # the descriptor may be non-blocking, by the will of whoever shares it
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:
                continue
            except OSError:
                return data.count(b"\n")
        return 0
