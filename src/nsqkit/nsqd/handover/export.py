"""`nsqkit export`: write what a stopped nsqd still owes as files of NSQ 1.3, into a directory of its own.

The data path is locked and read as at a start, through a disk that refuses every change. A queue's messages come in
order of delivery, with ids, timestamps and attempts; deferred ones come last, for NSQ's files have no place for the
time they are due at. Memory: a block of the log, and an entry for each deferred message.
"""

import argparse
import errno
import os
import sys
import time
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Final

from nsqkit.errors import StartError
from nsqkit.nsqd import metadata
from nsqkit.nsqd.core.batch import Batch
from nsqkit.nsqd.core.broker import Broker
from nsqkit.nsqd.core.queue import ReadyQueue, load
from nsqkit.nsqd.core.settings import Settings
from nsqkit.nsqd.core.store import StoreError, TopicStore
from nsqkit.nsqd.core.topic import Topic
from nsqkit.nsqd.datapath import DataPathLock, topic_directory
from nsqkit.nsqd.handover.diskqueue import Queue, StoredMessage, find_queues, write_queue
from nsqkit.nsqd.recovery import recover, restore
from nsqkit.nsqd.storage.disk import Disk, Permit
from nsqkit.nsqd.storage.files import FileStorage
from nsqkit.program import Parser
from nsqkit.wire.message import Message

MAX_BYTES_PER_FILE: Final = 104_857_600  # NSQ's own
MAX_ATTEMPTS: Final = 65535  # what NSQ's records can say

_DESCRIPTION: Final = """\
Write what a stopped nsqd still owes as files of NSQ 1.3: nsqd.dat and its disk queues. The data path is
only read. The new directory can be the --data-path of the original nsqd, or of this one.

Ids, timestamps and attempts are kept. Deferred messages lose the time they are due at, which NSQ's files
cannot say; they are written after the others, and counted.
"""

_EPILOG: Final = """\
example:
  nsqkit export --data-path=/var/lib/nsqd --to=/var/lib/nsqd-1.3

Exit code: 0, 1 when something could not be read or written, 2 for wrong usage.
"""


class ExportError(Exception):
    """There can't be an export; the text says why."""


def main(argv: Sequence[str]) -> int:
    """Run `nsqkit export` with these arguments: a line per queue to stdout, everything else to stderr."""
    arguments = build_parser().parse_args(argv)
    try:
        with DataPathLock(arguments.data_path):
            return _export(arguments.data_path or os.getcwd(), arguments.to, arguments.max_bytes_per_file)
    except (ExportError, StartError, StoreError, metadata.MetadataError) as error:
        _say(str(error))
    except OSError as error:
        _say(f"{error.filename or arguments.to}: {error.strerror}")
    return 1


def build_parser() -> argparse.ArgumentParser:
    """Every option, declared once."""
    parser = Parser(
        prog="nsqkit export",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--data-path", required=True, metavar="DIR", help="data path of a stopped nsqd")
    parser.add_argument(
        "--to", required=True, metavar="DIR", help="directory to write to: empty, or not there yet"
    )
    parser.add_argument(
        "--max-bytes-per-file",
        type=_positive,
        default=MAX_BYTES_PER_FILE,
        metavar="N",
        help="bytes in a file of a queue before the next one begins (default %(default)s)",
    )
    return parser


class ReadOnlyDisk(Disk):
    """The system's files, none of which can be changed. What a start tidies up stays as it is."""

    def open(self, path: str) -> int:
        """Open an existing file for reading."""
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def create(self, path: str) -> int:
        """Refuse."""
        raise _refusal(path)

    def write(self, file: int, pieces: list[bytes], offset: int) -> int:
        """Refuse, but for what is there already: a log that is closed writes again what it can't know to be synced."""
        data = b"".join(pieces)
        if self.read(file, len(data), offset) != data:
            raise _refusal()
        return len(data)

    def truncate(self, file: int, size: int) -> None:  # noqa: ARG002 - nothing is looked at
        """Refuse."""
        raise _refusal()

    def replace(
        self,
        path: str,
        content: bytes,  # noqa: ARG002 - nothing is looked at
        *,
        sync: bool = False,  # noqa: ARG002
        permit: Permit | None = None,  # noqa: ARG002
    ) -> None:
        """Refuse."""
        raise _refusal(path)

    def rename(self, path: str, target: str) -> None:  # noqa: ARG002
        """Refuse."""
        raise _refusal(path)

    def make_directory(self, path: str) -> bool:  # noqa: ARG002
        """Do without: nothing is in it."""
        return True

    def remove(self, path: str) -> None:
        """Leave it: nothing is needed of it."""

    def sync(self, file: int) -> None:
        """Nothing was written."""

    def sync_directory(self, path: str) -> None:
        """Nothing was written."""


def _refusal(path: str = "") -> OSError:
    text = "a repair would change it, and an export changes nothing; start nsqd once on it, or on a copy, and stop it"
    return OSError(errno.EROFS, text, path or "a topic's log")


def _export(data_path: str, target: str, max_bytes_per_file: int) -> int:
    _check_target(data_path, target)
    if find_queues(data_path):
        raise ExportError(
            f"{data_path} has queues of NSQ that were not taken over; start nsqd once, and stop it"
        )
    disk = ReadOnlyDisk()
    storage = FileStorage(
        disk,
        data_path,
        lambda topic: topic_directory(data_path, topic),
        _say,
        MAX_BYTES_PER_FILE,
        0,
    )
    topics = _topics(data_path, disk, storage)
    try:
        os.makedirs(target, mode=0o700, exist_ok=True)
    except OSError as error:
        raise ExportError(f"can't write to {target}: {error.strerror}") from error
    try:
        return _write(storage, topics, target, max_bytes_per_file)
    except BaseException:
        _say(f"{target} is not complete, and no data path without its {metadata.FILE_NAME}")
        raise


def _write(
    storage: FileStorage, topics: list[metadata.TopicState], target: str, max_bytes_per_file: int
) -> int:
    total = lost = 0
    for state in topics:
        broker = Broker(Settings(), storage)
        restore(broker, state, time.time_ns())
        topic = broker.topics[state.name]
        for queue, ready, deferred in _queues(topic):
            owed = Owed(topic.store, ready, deferred, time.time_ns())
            count = write_queue(target, queue.name, owed.messages(), max_bytes_per_file)
            print(f"{queue.name}: {count} messages{owed.remarks()}")
            total += count
            lost += owed.lost()
        if topic.store is not None:
            topic.store.close()
    metadata.save(Disk(), target, metadata.Metadata(topics))  # last: it makes a data path of the rest
    print(f"{total} messages in all")
    return 1 if lost else 0


def _check_target(data_path: str, target: str) -> None:
    source = os.path.realpath(data_path)
    if os.path.commonpath([source, os.path.realpath(target)]) == source:
        raise ExportError(f"{target} is inside the data path; an export changes nothing there")
    if os.path.isdir(target) and os.listdir(target):
        raise ExportError(f"{target} is not empty")


def _topics(data_path: str, disk: Disk, storage: FileStorage) -> list[metadata.TopicState]:
    """The topics that nsqd would have after a start, sorted."""
    try:
        topics = recover(data_path, disk, storage, _say).topics
    except StoreError as error:
        if (
            storage.journal.files()
        ):  # it may have what the logs lack after a power cut: that would change them
            raise ExportError(
                "there is a journal, which the logs may need; start nsqd once on it, or on a copy, and stop it"
            ) from error
        raise
    if not topics and metadata.FILE_NAME not in disk.names(data_path):
        raise ExportError(f"{data_path} is no data path of nsqd: it has no {metadata.FILE_NAME} and no logs")
    return sorted(topics, key=attrgetter("name"))


def _queues(topic: Topic) -> Iterator[tuple[Queue, ReadyQueue, list[tuple[int, int, Message]]]]:
    """Each queue, what is ready in it, and what is deferred."""
    yield Queue(topic.name, None), topic.waiting, []
    for name in sorted(topic.channels):
        channel = topic.channels[name]
        yield Queue(topic.name, name), channel.queue, channel.deferred


class Owed:
    """What one queue owes, one message at a time."""

    def __init__(
        self, store: TopicStore | None, ready: ReadyQueue, deferred: list[tuple[int, int, Message]], now: int
    ) -> None:
        self._store = store
        self._ready = ready
        self._deferred = [(due, serial, message) for due, serial, message in deferred]
        self._now = now
        self._unreadable = 0

    def messages(self) -> Iterator[StoredMessage]:
        """In order of delivery, those that are not due yet by time."""
        ready = self._ready
        while ready.depth() > 0:
            message = ready.take()
            if message is not None:
                yield _stored(message)
            else:
                for batch in ready.refill(self._now):
                    self._defer(batch)
        for _, _, message in sorted(self._deferred, key=_by_time):
            if message.loaded or (self._store is not None and load(message, self._store)):
                yield _stored(message)
            else:
                self._unreadable += 1

    def _defer(self, batch: Batch) -> None:
        """Note what is not due, without its bodies."""
        for index in range(batch.count):
            message = Message(b"", 0, 0, b"", batch.first_position + index)
            message.loaded = False
            self._deferred.append((batch.due, len(self._deferred), message))

    def lost(self) -> int:
        """Messages that the log could not give back."""
        return self._unreadable + self._ready.lost_count

    def remarks(self) -> str:
        """What became of some of them."""
        text = (
            f", {len(self._deferred)} of them deferred and now without their time" if self._deferred else ""
        )
        return text + (f"; {self.lost()} MORE ARE LOST to damage" if self.lost() else "")


def _by_time(entry: tuple[int, int, Message]) -> tuple[int, int]:
    return entry[0], entry[1]


def _stored(message: Message) -> StoredMessage:
    return StoredMessage(message.timestamp, min(message.attempts, MAX_ATTEMPTS), message.id, message.body)


def _positive(text: str) -> int:
    number = int(text)
    if number <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def _say(line: str) -> None:
    print(f"nsqkit export: {line}", file=sys.stderr)
