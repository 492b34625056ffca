"""The journal: what the harness did and saw, one fact to a line, appended as it happens and judged at the end.

    ["delivered",1834021992,"orders/shared#7",[["0d8f3c1b2a400001",1,"orders-1",42]]]

Times are ns of the harness's monotonic clock, which no fault touches. A message is known by its publisher and its
serial; both are in its body (`body_of`), after a checksum.
"""

import time
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

FOREIGN = ""  # the publisher of a body that none of ours wrote, or that is damaged

# What a publisher was told.
OK = "ok"
REFUSED = "refused"
UNKNOWN = "unknown"  # the connection broke first

# How a life of nsqd ends.
KILL = "kill"
STOP = "stop"  # clean, by a signal

# What a consumer says.
FIN = "FIN"
REQ = "REQ"
TOUCH = "TOUCH"


class Fact(msgspec.Struct, array_like=True, tag=str.lower):
    """Something that happened. `at` is when, in ns."""

    at: int


class Started(Fact):
    """nsqd serves. `life` counts from 1."""

    life: int


class Ended(Fact):
    """nsqd is about to be ended: `how` is KILL or STOP."""

    life: int
    how: str


class Jumped(Fact):
    """The machine's calendar was set forth (or back, if negative)."""

    by_ns: int


class Disturbed(Fact):
    """From `since` until `at` nothing could be expected on time: `what` was done, or the harness got no CPU."""

    since: int
    what: str


class Checkpointed(Fact):
    """A topic's checkpoint was replaced; at `since` it had not been yet."""

    since: int
    topic: str


class Published(Fact):
    """A publish command was sent: `count` messages from `serial` on. `command` counts per publisher."""

    publisher: str
    topic: str
    command: int
    serial: int
    count: int
    delay_ms: int


class Answered(Fact):
    """The answer to it: OK, REFUSED or UNKNOWN."""

    publisher: str
    command: int
    answer: str


class Joined(Fact):
    """A consumer's connection subscribed."""

    consumer: str
    topic: str
    channel: str
    life: int
    timeout_ms: int


class Delivery(msgspec.Struct, array_like=True):
    """One message of a chunk."""

    id: str
    attempts: int
    publisher: str
    serial: int


class Delivered(Fact):
    """Messages came."""

    consumer: str
    messages: list[Delivery]


class Said(Fact):
    """A consumer sent FIN, REQ or TOUCH for each of these ids. `token` counts per consumer."""

    consumer: str
    verb: str
    ids: list[str]
    delay_ms: int
    token: int


class Failed(Fact):
    """nsqd refused the last of these commands for this id."""

    consumer: str
    verb: str
    id: str


class Heard(Fact):
    """nsqd has executed everything the consumer said up to this token."""

    consumer: str
    token: int


class Left(Fact):
    """The consumer's connection is gone, whoever closed it."""

    consumer: str


AnyFact = (
    Started
    | Ended
    | Jumped
    | Disturbed
    | Checkpointed
    | Published
    | Answered
    | Joined
    | Delivered
    | Said
    | Failed
    | Heard
    | Left
)

_decoder: msgspec.json.Decoder[AnyFact] = msgspec.json.Decoder(AnyFact)


class Journal:
    """Appends facts to a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._encode = msgspec.json.Encoder().encode
        self._file = path.open("ab")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def note(self, fact: AnyFact) -> None:
        """Write one down."""
        self._file.write(self._encode(fact) + b"\n")

    def close(self) -> None:
        """Nothing more will be noted."""
        self._file.close()


def read(path: Path) -> Iterator[AnyFact]:
    """The facts of a journal, in order."""
    with path.open("rb") as file:
        for line in file:
            yield _decoder.decode(line)


def write(path: Path, facts: Iterable[AnyFact]) -> None:
    """A journal with these facts."""
    with Journal(path) as journal:
        for fact in facts:
            journal.note(fact)


def now() -> int:
    """The time of a fact."""
    return time.monotonic_ns()


def body_of(publisher: str, serial: int, size: int) -> bytes:
    """A body that says who wrote it, filled up to `size` bytes with what belongs only to it."""
    head = b"%s %d " % (publisher.encode(), serial)
    filler = b"%d." % serial
    text = head + (filler * (size // len(filler) + 1))[: max(0, size - len(head) - 8)]
    return text + b"%08x" % zlib.crc32(text)


def origin_of(body: bytes) -> tuple[str, int]:
    """Publisher and serial, or (FOREIGN, 0)."""
    text, checksum = body[:-8], body[-8:]
    if checksum != b"%08x" % zlib.crc32(text):
        return FOREIGN, 0
    publisher, serial, _ = text.split(b" ", 2)
    return publisher.decode(), int(serial)
