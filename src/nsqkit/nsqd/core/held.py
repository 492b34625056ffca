"""How many bytes of messages wait in memory, in all queues of a broker together, and how many may.

A batch counts once, however many channels hold it, until the last of them has used it up. Requeued and deferred
messages count by their bodies, unless those are only in the log. What is in flight is bounded by
RDY instead (docs/guarantees.md).
"""

from typing import Final

from mypy_extensions import i64

from nsqkit.nsqd.core.batch import Batch
from nsqkit.wire.message import Message

UNBOUNDED: Final = 1 << 62


class Held:
    """The count, and its limit."""

    def __init__(self, limit: i64) -> None:
        self.limit = limit
        self.bytes: i64 = 0

    def full(self) -> bool:
        """Should what comes now stay in the log only?"""
        return self.bytes >= self.limit

    def overfull(self) -> bool:
        """Must what the log does not have be dropped? It may use as much again as everything else."""
        return self.bytes >> 1 >= self.limit  # twice the limit may not fit

    def add(self, batch: Batch) -> None:
        """One more queue has the batch."""
        if batch.holders == 0:
            self.bytes += len(batch.data)
        batch.holders += 1

    def remove(self, batch: Batch) -> None:
        """One queue less has it."""
        batch.holders -= 1
        if batch.holders == 0:
            self.bytes -= len(batch.data)

    def add_message(self, message: Message) -> None:
        """A message waits by itself."""
        self.bytes += len(message.body)

    def remove_message(self, message: Message) -> None:
        """It does not wait any more."""
        self.bytes -= len(message.body)
