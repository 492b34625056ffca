"""The journal of `--durability=fsync`: one file for all topics, synced before any of their logs, once for all of them.

    | name length i32 | crc32c of the name | topic name | batch as in a segment (segment.py) |

A batch of 0 messages stands for a `Deletion`.
Whatever is published is written to its topic's log as well, without waiting. Once the logs were synced, the files
that were complete before that are removed. At a start the journal fills in what a power cut took from the logs.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import Final

from google_crc32c import value
from librt.strings import read_i32_be
from mypy_extensions import i64

from nsqkit.nsqd.core.batch import Batch
from nsqkit.nsqd.core.store import Deletion, JournalEntry, StoreError
from nsqkit.nsqd.storage.disk import Disk, write_all
from nsqkit.nsqd.storage.durations import Durations
from nsqkit.nsqd.storage.segment import BATCH_HEADER, BATCH_MAGIC, decode, encode_header, whole_length

SUFFIX: Final = ".journal"
_FILE: Final = re.compile(r"[0-9]{10}\.journal")
_FRONT: Final = 8  # name length and checksum
_MAX_NAME: Final = 64


class Journal:
    """Files `<number>.journal` in a directory, the last one being written."""

    def __init__(self, disk: Disk, directory: str) -> None:
        self._disk = disk
        self._directory = directory
        self._file = -1
        self._size: i64 = 0
        self._sizes: dict[str, int] = {}  # of the files that were begun, by path
        self.size_bytes = 0  # of all of them; as the durations, changed in a thread and read anywhere
        self.sync_durations = Durations()
        self._number = 0
        self._placed = False  # the directory itself survives a power cut
        self._buried: list[JournalEntry] = []  # deletions that could not be written

    def files(self) -> list[str]:
        """The journal's files, oldest first."""
        names = [name for name in self._disk.names(self._directory) if _FILE.fullmatch(name)]
        return [f"{self._directory}/{name}" for name in names]

    def start(self) -> None:
        """Go on after the files that are there."""
        self._disk.make_directory(self._directory)
        for path in self.files():
            self._number = max(self._number, int(path.rpartition("/")[2][: -len(SUFFIX)]))

    def write(self, group: list[JournalEntry]) -> None:
        """Write and sync a group of publishes; to be run in a thread. StoreError: none of them is safe."""
        pieces: list[bytes] = []
        group = self._buried + group
        for topic, entry in group:
            batch = Batch(b"", 0, 0, 0, None) if isinstance(entry, Deletion) else entry
            pieces.append(_encode_front(topic) + encode_header(batch))
            pieces.append(batch.data)
        try:
            if self._file < 0:
                self._begin()
            write_all(self._disk, self._file, pieces, self._size)
            began = self._disk.clock()
            self._disk.sync(self._file)
            self.sync_durations.add(self._disk.clock() - began)
        except OSError as error:
            if self._file >= 0:
                with suppress(OSError):
                    self._disk.truncate(self._file, int(self._size))  # half a group would look like damage
            self.rotate()  # after a failed sync the system may have dropped what it was to write
            self._buried = [(topic, entry) for topic, entry in group if isinstance(entry, Deletion)]
            raise StoreError(f"journal: {error.strerror}") from error
        self._buried = []
        for piece in pieces:
            self._size += len(piece)
        self._note_size(self._path(), int(self._size))

    def _begin(self) -> None:
        self._number += 1
        self._file = self._disk.create(self._path())
        self._size = 0
        self._disk.sync_directory(self._directory)
        if not self._placed:
            self._disk.sync_directory(os.path.dirname(self._directory))
            self._placed = True

    def rotate(self) -> list[str]:
        """Begin a new file with the next write; returns the files that are complete now."""
        if self._file >= 0:
            self._note_size(
                self._path(), self._disk.size(self._file)
            )  # a write that failed may have left something
            self._disk.close(self._file)
            self._file = -1
        return self.files()

    def _path(self) -> str:
        return f"{self._directory}/{self._number:010d}{SUFFIX}"

    def _note_size(self, path: str, size: int) -> None:
        self.size_bytes += size - self._sizes.pop(path, 0)
        if size > 0:
            self._sizes[path] = size

    def remove(self, paths: list[str]) -> None:
        """Remove files whose publishes are safe in the logs, oldest first.

        A power cut must not bring back one of them without those after it: they may say that a topic was deleted.
        """
        for path in paths:
            self._disk.remove(path)
            self._disk.sync_directory(self._directory)
            self._note_size(path, 0)

    def replay(self, path: str) -> list[JournalEntry]:
        """The whole entries of a file, in order. What is damaged is passed over, and so is a torn end."""
        return self._read(path)[0]

    def damage(self, path: str) -> int:
        """How many bytes of a file are no part of an entry: a torn end, or damage."""
        return self._read(path)[1]

    def _read(self, path: str) -> tuple[list[JournalEntry], int]:
        raw = self._disk.load(path) or b""
        entries: list[JournalEntry] = []
        damaged = 0
        at: i64 = 0
        while True:
            begin = _next_entry(raw, at)
            if begin < 0:
                return entries, damaged + len(raw[at:].strip(b"\x00"))
            damaged += int(begin - at)
            name_length = i64(read_i32_be(raw, begin))
            front = begin + _FRONT + name_length
            batch = decode(raw, front)
            assert batch is not None
            topic = raw[begin + _FRONT : front].decode("ascii")
            entries.append((topic, batch if batch.count > 0 else Deletion()))
            at = front + whole_length(raw, front)


def _encode_front(topic: str) -> bytes:
    """What stands before the batch."""
    name = topic.encode()
    checksum: int = value(name)
    return len(name).to_bytes(4, "big") + checksum.to_bytes(4, "big") + name


def _next_entry(raw: bytes, at: i64) -> i64:
    """Where, from `at` on, a whole entry begins; -1 if there is none."""
    if _is_entry(raw, at):
        return at
    mark: i64 = raw.find(BATCH_MAGIC, int(at))
    while mark >= 0:
        for name_length in range(1, _MAX_NAME + 1):
            begin = mark - _FRONT - name_length
            if begin > at and _is_entry(raw, begin):
                return begin
        mark = raw.find(BATCH_MAGIC, int(mark) + 1)
    return -1


def _is_entry(raw: bytes, at: i64) -> bool:
    size: i64 = len(raw)
    if at + _FRONT > size:
        return False
    name_length = i64(read_i32_be(raw, at))
    front = at + _FRONT + name_length
    if name_length <= 0 or name_length > _MAX_NAME or front + BATCH_HEADER > size:
        return False
    checksum: int = value(raw[at + _FRONT : front])
    if checksum.to_bytes(4, "big") != raw[at + 4 : at + _FRONT]:
        return False
    length = whole_length(raw, front)
    return 0 < length <= size - front and decode(raw, front) is not None
