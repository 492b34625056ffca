"""Writes lines to a file descriptor from a thread of its own, so that a slow terminal holds nobody up.

A descriptor that is closed or broken is ignored: the programs go on although nobody reads their log.
"""

import os
import select
import threading
from contextlib import suppress
from typing import Final

from nsqkit.up.lines import Outbox

FLUSH_TIMEOUT_S: Final = 2.0  # for the last words, at the end


class Terminal:
    """Empties an outbox until that is closed."""

    def __init__(self, descriptor: int, outbox: Outbox) -> None:
        self._descriptor = descriptor
        self._outbox = outbox
        self._thread = threading.Thread(target=self._run, name="up-terminal", daemon=True)
        self._thread.start()

    def close(self, timeout_s: float = FLUSH_TIMEOUT_S) -> None:
        """Write what is left, unless that takes longer than the timeout."""
        self._outbox.close()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while text := self._outbox.take():
            data = text.encode("utf-8", "backslashreplace")
            with suppress(OSError, ValueError):
                while data:
                    # It may have been set to non-blocking by whoever shares it.
                    select.select([], [self._descriptor], [])
                    data = data[os.write(self._descriptor, data) :]
