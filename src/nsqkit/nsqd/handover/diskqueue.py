"""NSQ 1.3's disk queues, read to take over a data path, written to hand one back.

The format is section 9 of spec/nsqd-semantics.md:

    <name>.diskqueue.000000.dat        records, one file after the other; <name> is `topic` or `topic:channel`
    <name>.diskqueue.meta.dat          depth LF  read file,read position LF  write file,write position LF
    <name>.diskqueue.000000.dat.bad    a file in which nsqd met damage

    0        4           12         14       30
    +--------+-----------+----------+--------+------
    | length | timestamp | attempts | id     | body          a record, big-endian
    +--------+-----------+----------+--------+------
      int32    int64 ns    uint16     16 hex

`length` counts what follows it. There is no checksum and no mark between records: one wrong length, and a reader
that trusts it is lost for the rest of the file. So a record is believed if two more records, or fewer and
then the end of the file, follow it. If not, something after it is damaged, or its own length is: then it is
believed only if traces of a record are where it ends and no record begins inside it. Otherwise the reader goes on
at the next place that looks like a record, that is, has a possible length and an id of hex digits. What it passed
over is counted and told.

What can't be noticed: a changed timestamp, attempts, id or body, and a wrong length that happens to end where a
later record does (but then the meta file's depth is not reached, which is told).
"""

import os
import re
import struct
from collections.abc import Iterable
from types import TracebackType
from typing import BinaryIO, Final, NamedTuple, Self

from nsqkit.names import valid_name

MAX_BODY_BYTES: Final = 64 << 20  # larger lengths are damage; NSQ's max-msg-size is 1 MiB unless raised

_RECORD: Final = struct.Struct(">iqH16s")  # all but the body
_RECORD_BYTES: Final = 30
_LENGTH_BYTES: Final = 4
_MIN_LENGTH: Final = 26  # of a record with an empty body
_ID_AT: Final = 14
_ID_BYTES: Final = 16
_TIME_END: Final = 12
_ZEROS: Final = bytes(
    12
)  # more than a record's beginning has: its length, attempts and time are not all nearly zero
_NEAR_NS: Final = 1 << 59  # 18 years: two messages of one queue, unlike 8 characters of text read as a time
_READ_BYTES: Final = 1 << 20
_SCAN_BYTES: Final = 1 << 16  # looked through at once
_ID: Final = re.compile(rb"[0-9a-f]{16}")
_HEADER: Final = re.compile(rb"(?=[\x00-\x7f].{13}[0-9a-f]{16})", re.DOTALL)
_FILE_NAME: Final = re.compile(r"(.+)\.diskqueue\.(?:(?P<number>[0-9]{6,})|meta)\.dat(?P<rest>\..*)?")
_META: Final = re.compile(rb"([0-9]{1,19})\n([0-9]{1,18}),([0-9]{1,18})\n([0-9]{1,18}),([0-9]{1,18})\n")


class Queue(NamedTuple):
    """What a disk queue belongs to: a channel, or the topic itself if `channel` is None."""

    topic: str
    channel: str | None

    @property
    def name(self) -> str:
        """How its files are called."""
        return self.topic if self.channel is None else f"{self.topic}:{self.channel}"


class StoredMessage(NamedTuple):
    """One record. The id is 16 hex digits, unless damage or another program wrote it."""

    timestamp: int  # ns since the epoch; signed 64 bits
    attempts: int  # deliveries so far, 0 to 65535
    id: bytes  # 16 bytes
    body: bytes


class QueueContents(NamedTuple):
    """A whole queue, and what was wrong with it, a line each."""

    messages: list[StoredMessage]
    problems: list[str]


class Meta(NamedTuple):
    """The meta file: where the next read and the next write happen, and how many messages lie between."""

    depth: int
    read_file: int
    read_position: int
    write_file: int
    write_position: int

    def encode(self) -> bytes:
        """The file's content."""
        positions = f"{self.read_file},{self.read_position}\n{self.write_file},{self.write_position}\n"
        return f"{self.depth}\n{positions}".encode("ascii")


def find_queues(data_path: str) -> list[Queue]:
    """The queues that have files in a data path, a topic's own before its channels'. Raises OSError."""
    return queues_among(os.listdir(data_path or os.curdir))


def queues_among(entries: Iterable[str]) -> list[Queue]:
    """The queues to which files of these names belong, a topic's own before its channels'."""
    names: set[str] = set()
    for entry in entries:
        match = _FILE_NAME.fullmatch(entry)
        if match is not None:
            names.add(match[1])
    found: list[Queue] = []
    for name in names:
        topic, colon, channel = name.partition(":")
        if valid_name(topic) and (not colon or valid_name(channel)):
            found.append(Queue(topic, channel if colon else None))
    return sorted(found, key=_sort_key)


def queue_files(data_path: str, name: str) -> list[str]:
    """All files of a queue, by name: data, meta, `.bad`, and interrupted writes. Raises OSError."""
    files: list[str] = []
    prefix = f"{name}.diskqueue."
    for entry in os.listdir(data_path or os.curdir):
        if entry.startswith(prefix):  # cheap, for directories with the files of thousands of queues
            match = _FILE_NAME.fullmatch(entry)
            if match is not None and match[1] == name:
                files.append(entry)
    return sorted(files)


def read_queue(data_path: str, name: str, max_body_bytes: int = MAX_BODY_BYTES) -> QueueContents:
    """Everything `QueueReader` finds, in memory. For queues known to be small. Raises OSError."""
    messages: list[StoredMessage] = []
    with QueueReader(data_path, name, max_body_bytes) as reader:
        message = reader.next()
        while message is not None:
            messages.append(message)
            message = reader.next()
    return QueueContents(messages, reader.problems)


class QueueReader:
    """Reads what a queue still holds, oldest first, a record at a time. Changes no file.

    Reading begins at the read position of the meta file and ends with the last data file; what an unclean stop
    left after the write position comes along. Where NSQ would lose data, this goes on: without a usable meta
    file it reads all files, and in a damaged file it looks for the next record. Damage never raises; it makes
    lines in `problems`, one for each file, complete when `next` has returned None. OSError means that a file
    can't be read, and says nothing about its content. Memory: one record, and `_READ_BYTES`.
    """

    def __init__(self, data_path: str, name: str, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        self.problems: list[str] = []
        self._data_path = data_path
        self._name = name
        self._max_length = max_body_bytes + _MIN_LENGTH
        self._count = 0  # messages returned
        self._meta = self._read_meta()
        self._numbers = self._list_data_files()  # still to be read, in reverse
        self._file: BinaryIO | None = None  # the one that is being read; and about it:
        self._file_name = ""
        self._size = 0
        self._boundary = -1  # NSQ ended a record here: the write position
        self._at = 0  # next record
        self._skipped = 0  # damaged bytes
        self._skipped_places = 0
        self._skipped_first = 0
        self._skipped_end = -1

    def next(self) -> StoredMessage | None:
        """The next message, or None at the end. Raises OSError."""
        while self._file is not None or self._open_next():
            while self._at < self._size:
                message = self._record(self._at)
                if message is not None:
                    self._at += _RECORD_BYTES + len(message.body)
                    self._count += 1
                    return message
                following = self._find_likely(self._at + 1)
                self._skip(self._at, following)
                self._at = following
            self._close_file()
        return None

    def close(self) -> None:
        """Give the open file back."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self._numbers = []
        self._meta = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read_meta(self) -> Meta | None:
        """The positions, or None if all files are to be read."""
        file_name = meta_file_name(self._name)
        try:
            with open(os.path.join(self._data_path, file_name), "rb") as file:
                content = file.read(_SCAN_BYTES)
        except FileNotFoundError:
            self.problems.append(f"{file_name}: missing, everything in the data files is read")
            return None
        match = _META.fullmatch(content)
        if match is not None:
            meta = Meta(int(match[1]), int(match[2]), int(match[3]), int(match[4]), int(match[5]))
            if (meta.read_file, meta.read_position) <= (meta.write_file, meta.write_position):
                return meta
        self.problems.append(f"{file_name}: makes no sense, everything in the data files is read")
        return None

    def _list_data_files(self) -> list[int]:
        numbers: list[int] = []
        for entry in queue_files(self._data_path, self._name):
            match = _FILE_NAME.fullmatch(entry)
            if match is None or match["number"] is None:
                continue
            number = int(match["number"])
            if match["rest"] == ".bad":
                self.problems.append(f"{entry}: put aside by nsqd because of damage, not read")
            elif match["rest"] is None and entry == data_file_name(self._name, number):
                numbers.append(number)
        meta = self._meta
        if meta is not None:
            numbers = [number for number in numbers if number >= meta.read_file]
        return sorted(numbers, reverse=True)

    def _open_next(self) -> bool:
        """Begin the next data file. False if there is none."""
        meta = self._meta
        if not self._numbers:
            if meta is not None and self._count < meta.depth:
                self.problems.append(
                    f"{meta_file_name(self._name)}: tells of {meta.depth} messages, {self._count} were found"
                )
            self._meta = None  # told once
            return False
        number = self._numbers.pop()
        self._file_name = data_file_name(self._name, number)
        self._file = open(os.path.join(self._data_path, self._file_name), "rb", buffering=_READ_BYTES)  # noqa: SIM115
        self._size = os.fstat(self._file.fileno()).st_size
        self._at = 0
        self._boundary = -1
        self._skipped = 0
        self._skipped_places = 0
        self._skipped_end = -1
        if meta is not None:
            if number == meta.read_file:
                self._at = meta.read_position
            if number == meta.write_file:
                self._boundary = meta.write_position
        return True

    def _close_file(self) -> None:
        """End with a data file, and tell about its damage."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._skipped:
            self.problems.append(
                f"{self._file_name}: skipped {self._skipped} damaged bytes in {self._skipped_places} places,"
                f" the first at {self._skipped_first}"
            )

    def _skip(self, start: int, end: int) -> None:
        if not self._skipped_places:
            self._skipped_first = start
        if start != self._skipped_end:
            self._skipped_places += 1
        self._skipped += end - start
        self._skipped_end = end

    def _record(self, at: int) -> StoredMessage | None:
        """The record at a position of the file, or None if there is none to believe in."""
        header = self._read(at, _RECORD_BYTES)
        end = self._claimed_end(at, header)
        if end < 0:
            return None
        fields: tuple[int, int, int, bytes] = _RECORD.unpack(header)
        _, timestamp, attempts, message_id = fields
        if not self._ends_at(end) and not self._certain(end):
            if _ID.fullmatch(message_id) is None or not self._traces(end, timestamp):
                return None
            if self._find_certain(at + _RECORD_BYTES, end):
                return None
        body = self._read(at + _RECORD_BYTES, end - at - _RECORD_BYTES)
        return StoredMessage(timestamp, attempts, message_id, body)

    def _claimed_end(self, at: int, header: bytes) -> int:
        """Where a record ends by its own length, or -1 if it can't be so long."""
        if len(header) < _RECORD_BYTES:
            return -1
        length = int.from_bytes(header[:_LENGTH_BYTES], "big")
        end = at + _LENGTH_BYTES + length
        return end if _MIN_LENGTH <= length <= self._max_length and end <= self._size else -1

    def _end_of_likely(self, at: int) -> int:
        """Where the record ends that a position looks like the beginning of, or -1 if it does not."""
        header = self._read(at, _RECORD_BYTES)
        return self._claimed_end(at, header) if _ID.fullmatch(header, _ID_AT) is not None else -1

    def _certain(self, at: int) -> bool:
        """Whether a record begins here, by its own look and by what follows it."""
        end = self._end_of_likely(at)
        return end >= 0 and (self._ends_at(end) or self._end_of_likely(end) >= 0)

    def _ends_at(self, at: int) -> bool:
        """Whether nothing more, or nothing that the meta file knows, comes from here on."""
        return at in (self._size, self._boundary)

    def _traces(self, at: int, timestamp: int) -> bool:
        """Whether a record was written here once, after one of this timestamp, and was damaged."""
        header = self._read(at, _RECORD_BYTES)
        if self._zeroed(at):
            return True  # space that was allocated and never written, or a place that the disk gave back as zeros
        if len(header) < _RECORD_BYTES:
            low = int.from_bytes(header[:_LENGTH_BYTES].ljust(_LENGTH_BYTES, b"\x00"), "big")
            high = int.from_bytes(header[:_LENGTH_BYTES].ljust(_LENGTH_BYTES, b"\xff"), "big")
            return high >= _MIN_LENGTH and low <= self._max_length  # a write that was cut short
        if _ID.fullmatch(header, _ID_AT) is not None:
            if not any(header[:_LENGTH_BYTES]) or not any(header[_LENGTH_BYTES:_TIME_END]):
                return True  # a few zeros over its beginning
            fields: tuple[int, int, int, bytes] = _RECORD.unpack(header)
            return abs(fields[1] - timestamp) < _NEAR_NS  # only the length is wrong
        end = self._claimed_end(at, header)
        return end >= 0 and (self._ends_at(end) or self._end_of_likely(end) >= 0)  # only the id is wrong

    def _zeroed(self, at: int) -> bool:
        """Whether a run of zeros lies over what should be a record's beginning: it may begin before or end after."""
        begin = max(at - len(_ZEROS) + 1, 0)
        return _ZEROS in self._read(begin, at - begin + _RECORD_BYTES + len(_ZEROS) - 1)

    def _find_certain(self, at: int, end: int) -> bool:
        """Whether a record begins inside what claims to be a body, or across its end.

        A body is searched as far as one block; beyond that, a wrong length meets no traces anyway.
        """
        block = self._read(at, min(end - at, _SCAN_BYTES) + 2 * _RECORD_BYTES - 1)
        for match in _HEADER.finditer(block):
            start = at + match.start()
            if start != end and self._certain(start):
                return True
        return False

    def _find_likely(self, at: int) -> int:
        """Where, from a position on, the next record may begin; the end of the file if nowhere."""
        while at + _RECORD_BYTES <= self._size:
            block = self._read(at, _SCAN_BYTES)
            for match in _HEADER.finditer(block):
                start = match.start()
                if self._claimed_end(at + start, block[start : start + _RECORD_BYTES]) >= 0:
                    return at + start
            at += max(len(block) - _RECORD_BYTES, 0) + 1
        return self._size

    def _read(self, at: int, size: int) -> bytes:
        """Bytes of the open file, fewer at its end."""
        assert self._file is not None
        self._file.seek(at)
        return self._file.read(size)


def write_queue(data_path: str, name: str, messages: Iterable[StoredMessage], max_bytes_per_file: int) -> int:
    """Make a queue that NSQ reads as its own, and return how many messages it has.

    Everything is on the disk when this returns; the meta file comes last. Raises FileExistsError if the queue
    has files already, ValueError for a message that is none, and OSError; what was written until then is removed.
    """
    if queue_files(data_path, name):
        raise FileExistsError(f"disk queue {name} already exists in {data_path or os.curdir}")
    writer = _QueueWriter(data_path, name, max_bytes_per_file)
    try:
        for message in messages:
            writer.put(message)
        writer.finish()
    except BaseException:
        writer.abandon()
        raise
    return writer.depth


class _QueueWriter:
    """The writing half. A file is full when the next record does not fit; an empty one takes any record."""

    def __init__(self, data_path: str, name: str, max_bytes_per_file: int) -> None:
        self.depth = 0
        self._data_path = data_path
        self._name = name
        self._max_bytes = max_bytes_per_file
        self._number = 0
        self._position = 0
        self._file: BinaryIO | None = None
        self._created: list[str] = []

    def put(self, message: StoredMessage) -> None:
        if len(message.id) != _ID_BYTES:
            raise ValueError(f"message id of {len(message.id)} bytes, not {_ID_BYTES}: {message.id!r}")
        size = _RECORD_BYTES + len(message.body)
        if self._position > 0 and self._position + size > self._max_bytes:
            self._end_file()
            self._number += 1
            self._position = 0
        if self._file is None:
            self._file = self._create(data_file_name(self._name, self._number))
        try:
            header = _RECORD.pack(size - _LENGTH_BYTES, message.timestamp, message.attempts, message.id)
        except struct.error as error:
            raise ValueError(f"timestamp or attempts out of range: {error}") from error
        self._file.write(header)
        self._file.write(message.body)
        self._position += size
        self.depth += 1

    def finish(self) -> None:
        self._end_file()
        meta = os.path.join(self._data_path, meta_file_name(self._name))
        self._file = self._create(f"{meta_file_name(self._name)}.{os.getpid()}.tmp")
        self._file.write(Meta(self.depth, 0, 0, self._number, self._position).encode())
        self._end_file()
        os.rename(self._created[-1], meta)
        self._created[-1] = meta
        directory = os.open(self._data_path or os.curdir, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def abandon(self) -> None:
        if self._file is not None:
            self._file.close()
        for path in self._created:
            os.unlink(path)

    def _create(self, file_name: str) -> BinaryIO:
        path = os.path.join(self._data_path, file_name)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._created.append(path)
        return open(descriptor, "wb", buffering=_READ_BYTES)

    def _end_file(self) -> None:
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None


def data_file_name(name: str, number: int) -> str:
    """The name of one of a queue's data files."""
    return f"{name}.diskqueue.{number:06d}.dat"


def meta_file_name(name: str) -> str:
    """The name of a queue's meta file."""
    return f"{name}.diskqueue.meta.dat"


def _sort_key(queue: Queue) -> tuple[str, str]:
    return queue.topic, queue.channel or ""
