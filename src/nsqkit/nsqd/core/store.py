"""What the broker needs of a disk: the interface that `nsqd/storage` implements and the simulation replaces.

Positions count a topic's messages in its log and never repeat. A channel's debt to its consumers is written
down as a `ChannelRecord`: extents of positions, and single messages that were tried before or wait for a time.
"""

from typing import final

from mypy_extensions import i64, mypyc_attr

from nsqkit.nsqd.core.batch import Batch
from nsqkit.wire.message import NOWHERE, Message


class StoreError(Exception):
    """The disk refused. The text is a cause for error frames and `/ping`; nothing was kept."""


class NoRoom(StoreError):
    """There are as many topics, or channels, as there may be."""


class Deletion:
    """A topic's end in the journal: what stands before it belongs to no topic of this name any more."""


JournalEntry = tuple[str, Batch | Deletion]  # after the topic's name


@final
@mypyc_attr(acyclic=True)
class Extent:
    """Positions [start, stop) of a log. Never changed where others may have it: a queue puts another in its place."""

    __slots__ = ("since", "start", "stop")

    def __init__(self, start: i64, stop: i64, since: i64 = 0) -> None:
        self.start = start
        self.stop = stop
        self.since = (
            since  # when the first was published, ns since the epoch, as far as a queue knows; 0: it does not
        )


@final
@mypyc_attr(acyclic=True)
class Leftover:
    """One message in a checkpoint that is more than its log entry: tried before, or due at its own time."""

    __slots__ = ("attempts", "due", "position")

    def __init__(self, position: i64, attempts: i64, due: i64) -> None:
        self.position = position
        self.attempts = attempts
        self.due = due  # 0: at once


class ChannelRecord:
    """What one channel (or a topic, for messages no channel has yet) still has to deliver."""

    def __init__(self, name: str) -> None:
        self.name = name  # "" is the topic itself
        self.ready: list[Extent] = []  # in order of delivery, untried
        self.deferred: list[Extent] = []  # untried, due as their batches say
        self.leftovers: list[Leftover] = []
        self.lowest: i64 = 1 << 62  # position of what was written down

    def note_single(self, message: Message, due: i64) -> None:
        """Write down one message, if the log has it."""
        position = message.position
        if position != NOWHERE:
            self.leftovers.append(Leftover(position, message.attempts, due))
            self.lowest = min(self.lowest, position)

    def note_ready(self, start: i64, stop: i64) -> None:
        """Write down messages that are untried."""
        _extend(self.ready, start, stop)
        self.lowest = min(self.lowest, start)

    def note_deferred(self, start: i64, stop: i64) -> None:
        """Write down messages that are untried and wait for their time."""
        _extend(self.deferred, start, stop)
        self.lowest = min(self.lowest, start)


def _extend(extents: list[Extent], start: i64, stop: i64) -> None:
    if extents:
        last = extents[-1]
        if last.stop == start:
            last.stop = stop
            return
    extents.append(Extent(start, stop))


class TopicRecord:
    """A topic's checkpoint. Everything at or after `end` that is not carried is owed by every channel."""

    def __init__(self) -> None:
        self.end: i64 = 0
        self.last_id: i64 = 0
        self.needed_from: i64 = 0  # nothing before this position is owed by anybody
        self.unsaved = False  # the metadata that a start would find is older
        self.channels: list[ChannelRecord] = []


@mypyc_attr(allow_interpreted_subclasses=True)
class TopicStore:
    """The log of one topic."""

    def opened(self) -> bool:
        """May it be used? One that `Storage.open` gave while nsqd runs is opened in a thread, when it is wanted."""
        return True

    def append(self, batch: Batch) -> None:
        """Give the batch its positions and note it for the next `write`."""
        raise NotImplementedError

    def write(self) -> None:
        """Hand everything appended to the operating system. StoreError: none of it is in the log."""
        raise NotImplementedError

    def read(self, start: i64, stop: i64, limit_bytes: i64) -> list[Batch]:
        """Whole batches with messages of [start, stop), in order, at least one and about `limit_bytes` of them.

        Fewer than asked for means: ask again from the end of the last. An empty list means that the log has
        nothing of the range any more. A gap before a batch was damaged, and has been reported. StoreError: the
        disk can't be read now; what the range holds is not lost, and the caller has to ask again later.
        """
        raise NotImplementedError

    def end(self) -> i64:
        """The position that the next message will get."""
        raise NotImplementedError

    def recovered(self) -> TopicRecord | None:
        """The checkpoint found when the log was opened, None if there was none to trust."""
        raise NotImplementedError

    def start(self) -> i64:
        """The first position that the log may still have."""
        raise NotImplementedError

    def checkpoint(self, record: TopicRecord) -> None:
        """Replace the checkpoint, then drop the segments that it no longer needs. May be done in the background.

        The record is used up. What was published since it was made is not concerned.
        """
        raise NotImplementedError

    def oldest(self) -> Extent | None:
        """The oldest segment, if leaving it makes sense: it is complete, or large and idle, and a checkpoint is there.

        As long as there is none, a copy of what is in it would be owed by every channel beside the original.
        """
        raise NotImplementedError

    def leave(self, position: i64) -> None:
        """Begin another segment if this position is in the last one: the copy of what is there. StoreError."""
        raise NotImplementedError

    def size_bytes(self) -> i64:
        """Bytes that the log takes."""
        raise NotImplementedError

    def segment_count(self) -> int:
        """Files with messages."""
        raise NotImplementedError

    def worth_leaving(self) -> bool:
        """Is the log so large that a checkpoint should soon see whether anybody needs it?"""
        raise NotImplementedError

    def close(self) -> None:
        """Sync and close the files."""
        raise NotImplementedError

    def delete(self) -> None:
        """Close and remove the files."""
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class Storage:
    """All topic logs of a broker."""

    def open(self, topic: str) -> TopicStore:
        """The topic's log, made if there is none. StoreError if that is impossible.

        While nsqd runs it may be one that is not `opened` yet, and then nothing fails here.
        """
        raise NotImplementedError
