"""A batch: the messages of one publish command, kept as the bytes that came over the wire.

What waits in a queue or lies in the log is a batch, not its messages: publishing 200 messages with MPUB costs
one object. Messages are cut out of it when they are delivered.
"""

from typing import Final, final

from librt.strings import read_i32_be
from mypy_extensions import i64, mypyc_attr

from nsqkit.nsqd.core.guid import id_prefix, id_suffix
from nsqkit.wire.message import NOWHERE, Message

# State of a batch on its way in, which is also the receipt of its publisher.
PENDING: Final = 0  # not yet as safe as the durability mode demands
KEPT: Final = 1  # may be answered OK
FAILED: Final = 2  # `cause` tells why


@mypyc_attr(allow_interpreted_subclasses=True)
class Publisher:
    """Whoever waits for a batch to be kept: a session, or an HTTP request."""

    def settled(self, batch: "Batch") -> None:
        """`batch.state` is final now. Called once for each batch."""
        raise NotImplementedError


@final
@mypyc_attr(acyclic=True)
class Batch:
    """`count` messages with consecutive ids and positions. `data` holds `[4 size][body]` for each of them."""

    __slots__ = (
        "carried",
        "cause",
        "count",
        "data",
        "due",
        "first_id",
        "first_position",
        "holders",
        "prefix",
        "publisher",
        "state",
        "timestamp",
    )

    def __init__(
        self, data: bytes, count: i64, timestamp: i64, due: i64, publisher: Publisher | None
    ) -> None:
        self.data = data
        self.count = count
        self.timestamp = timestamp  # when it was published, ns since the epoch
        self.due = due  # deliver not before this time, 0: at once
        self.first_id: i64 = 0
        self.first_position: i64 = NOWHERE
        self.holders: i64 = 0  # queues that have it in memory
        self.carried = False  # a copy from further back in the log: only who asks for it owes it
        self.prefix = b""
        self.state: i64 = PENDING
        self.cause = ""
        self.publisher = publisher  # dropped when settled: a batch must not be part of a cycle

    def settle(self, state: i64, cause: str) -> None:
        """Make the state final and tell the publisher."""
        self.state = state
        self.cause = cause
        publisher = self.publisher
        self.publisher = None
        if publisher is not None:
            publisher.settled(self)

    def message(self, index: i64, offset: i64) -> Message:
        """A copy of message `index`, which begins at `offset` of the data."""
        data = self.data
        size: i64 = i64(read_i32_be(data, offset))
        if not self.prefix:
            self.prefix = id_prefix(self.first_id)
        position: i64 = self.first_position
        if position != NOWHERE:
            position += index
        return Message(
            self.prefix + id_suffix(self.first_id + index),
            self.timestamp,
            0,
            data[offset + 4 : offset + 4 + size],
            position,
        )

    def offset_of(self, index: i64) -> i64:
        """Where message `index` begins in the data; `count` gives the end."""
        return behind(self.data, 0, index)

    def part(self, start: i64, stop: i64) -> "Batch":
        """Messages [start, stop) as a batch of their own, with the same ids and positions."""
        if start == 0 and stop == self.count:
            return self
        begin = self.offset_of(start)
        end = self.offset_of(stop)
        piece = Batch(self.data[begin:end], stop - start, self.timestamp, self.due, None)
        piece.first_id = self.first_id + start
        piece.state = self.state
        piece.carried = self.carried
        if self.first_position != NOWHERE:
            piece.first_position = self.first_position + start
        return piece

    def copy(self, index: i64) -> "Batch":
        """Message `index` as a carried batch, to be appended to the log again under a new position."""
        begin = self.offset_of(index)
        size: i64 = i64(read_i32_be(self.data, begin))
        copy = Batch(self.data[begin : begin + 4 + size], 1, self.timestamp, self.due, None)
        copy.first_id = self.first_id + index
        copy.carried = True
        copy.state = KEPT
        return copy

    def body_bytes(self) -> i64:
        """The bodies' bytes, without the sizes before them."""
        size: i64 = len(self.data)
        return size - 4 * self.count


@final
@mypyc_attr(acyclic=True)
class Receipt:
    """A reply that is not due yet: the answer to a publish, or one after it."""

    def __init__(self, frame: bytes, batch: Batch | None, command: str, topic: str, count: i64) -> None:
        self.frame = frame
        self.batch = batch
        self.command = command
        self.topic = topic
        self.count = count  # messages published
        self.size: i64 = 0 if batch is None else len(batch.data)


def behind(data: bytes, offset: i64, count: i64) -> i64:
    """Where `count` messages that begin at `offset` end."""
    while count > 0:
        offset += 4 + i64(read_i32_be(data, offset))
        count -= 1
    return offset


def batch_of(message: Message, due: i64) -> Batch:
    """A batch of this one message, to be appended to the log again under a new position."""
    size: i64 = len(message.body)
    batch = Batch(int(size).to_bytes(4, "big") + message.body, 1, message.timestamp, due, None)
    batch.first_id = i64(int(message.id, 16))
    batch.carried = True
    batch.state = KEPT
    return batch
