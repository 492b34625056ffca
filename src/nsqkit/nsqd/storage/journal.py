"""The journal of `--durability=fsync`: one file for all topics in front of their logs, so one sync covers them all.

    | name length i32 | topic name | batch as in a segment (segment.py) |        a batch of 0 messages: the topic was deleted

Whatever is published is written to its topic's log as well, without waiting. Once the logs were synced, the files that
were complete before that are removed. At a start the journal fills in what a power cut took from the logs' ends.
"""

from __future__ import annotations

from typing import Final

from librt.strings import read_i32_be
from mypy_extensions import i64

from nsqkit.nsqd.core.batch import Batch
from nsqkit.nsqd.core.store import StoreError
from nsqkit.nsqd.storage.disk import Disk, write_all
from nsqkit.nsqd.storage.segment import BATCH_HEADER, decode, encode_header, whole_length

SUFFIX: Final = ".journal"
_MAX_NAME: Final = 64


class Journal:
    """Files `<number>.journal` in a directory, the last one being written."""

    def __init__(self, disk: Disk, directory: str) -> None:
        self._disk = disk
        self._directory = directory
        self._file = -1
        self._size: i64 = 0
        self._number = 0
        self._current = ""

    def files(self) -> list[str]:
        """The journal's files, oldest first."""
        return [f"{self._directory}/{n}" for n in self._disk.names(self._directory) if n.endswith(SUFFIX)]

    def start(self) -> None:
        """Go on behind the files that are there."""
        self._disk.make_directory(self._directory)
        for path in self.files():
            self._number = max(self._number, int(path.rpartition("/")[2][: -len(SUFFIX)]))

    def write(self, group: list[tuple[str, Batch]]) -> None:
        """Write and sync a group of publishes; to be run in a thread. StoreError: none of them is safe."""
        pieces: list[bytes] = []
        for topic, batch in group:
            name = topic.encode()
            pieces.append(len(name).to_bytes(4, "big") + name + encode_header(batch))
            pieces.append(batch.data)
        try:
            if self._file < 0:
                self._begin()
            write_all(self._disk, self._file, pieces, self._size)
            self._disk.sync(self._file)
        except OSError as error:
            self.rotate()  # after a failed sync the system may have dropped what it was to write
            raise StoreError(f"journal: {error.strerror}") from error
        for piece in pieces:
            self._size += len(piece)

    def _begin(self) -> None:
        self._number += 1
        self._current = f"{self._directory}/{self._number:010d}{SUFFIX}"
        self._file = self._disk.create(self._current)
        self._size = 0
        self._disk.sync_directory(self._directory)

    def rotate(self) -> list[str]:
        """Begin a new file with the next write; returns the files that are complete now."""
        if self._file >= 0:
            self._disk.close(self._file)
            self._file = -1
        return self.files()

    def remove(self, paths: list[str]) -> None:
        """Remove files whose publishes are safe in the logs."""
        for path in paths:
            self._disk.remove(path)

    def replay(self, path: str) -> list[tuple[str, Batch]]:
        """The whole entries of a file, up to its torn end."""
        raw = self._disk.load(path) or b""
        entries: list[tuple[str, Batch]] = []
        at: i64 = 0
        size: i64 = len(raw)
        while at + 4 <= size:
            length: i64 = i64(read_i32_be(raw, at))
            begin: i64 = at + 4 + length
            if length <= 0 or length > _MAX_NAME or begin + BATCH_HEADER > size:
                break
            whole = whole_length(raw, begin)
            if whole < 0 or begin + whole > size:
                break
            batch = decode(raw, begin)
            if batch is None:
                break
            entries.append((raw[at + 4 : begin].decode("ascii", "replace"), batch))
            at = begin + whole
        return entries
