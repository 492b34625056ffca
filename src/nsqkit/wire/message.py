"""A message on its way to a consumer, and its frame.

The payload of a message frame (spec/tcp-protocol.md, section 1), big-endian:

    0       8           10               26
    +-------+-----------+----------------+--------
    | time  | attempts  | id, 16 x hex   | body
    +-------+-----------+----------------+--------
    int64 ns  uint16      ASCII

Messages exist as objects only between delivery and FIN. What waits in a queue is a `Batch` (core/batch.py).
"""

from typing import Final, final

from librt.strings import BytesWriter, write_i32_be, write_i64_be
from mypy_extensions import i32, i64, mypyc_attr

from nsqkit.wire.frames import MESSAGE

HEADER_SIZE: Final = 26  # time, attempts and id, before the body
NOWHERE: Final = -1  # position of a message that is not in the topic's log


@final
@mypyc_attr(acyclic=True, free_list_len=1)
class Message:
    """One message of one channel. Times are ns since the epoch."""

    __slots__ = ("attempts", "body", "deadline", "delivered_at", "id", "loaded", "position", "timestamp")

    def __init__(self, id: bytes, timestamp: i64, attempts: i64, body: bytes, position: i64) -> None:
        self.id = id  # 16 hex digits, as clients see it
        self.timestamp = timestamp  # when it was published
        self.attempts = attempts  # deliveries so far
        self.body = body
        self.loaded = True  # False: deferred, and the body is only in the log
        self.position = position  # in the topic's log, or NOWHERE
        self.delivered_at: i64 = 0  # last delivery
        self.deadline: i64 = 0  # in flight: when it goes back to the queue; deferred: when it is due


def write_message(out: BytesWriter, message: Message) -> None:
    """Append the message's frame to `out`. Attempts wrap after 65535, as the field is 16 bits wide."""
    body = message.body
    size: i64 = len(body)
    write_i32_be(out, i32(size + 30))
    write_i32_be(out, MESSAGE)
    write_i64_be(out, message.timestamp)
    attempts: i64 = message.attempts
    out.append(int((attempts >> 8) & 0xFF))
    out.append(int(attempts & 0xFF))
    out.write(message.id)
    out.write(body)
