"""Opening a log: what is in its directory is looked through, and repaired.

The end is checked: a torn last batch is cut off and reported. A damaged batch further back is found when it is read
(reader.py): it is skipped, counted, and its bytes are put aside in a file of their own. Nothing is dropped without a
line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from librt.strings import read_i64_be
from mypy_extensions import i64

from nsqkit.nsqd.storage import checkpoint as checkpoints
from nsqkit.nsqd.storage.disk import write_all
from nsqkit.nsqd.storage.reader import CHECK_BLOCK, MAX_POSITION, LogReader
from nsqkit.nsqd.storage.segment import (
    BATCH_HEADER,
    CHECKPOINT,
    FILE_HEADER,
    SUFFIX,
    Segment,
    file_header,
    header_before,
    header_position,
    is_renewed,
    is_segment,
    whole_length,
)

if TYPE_CHECKING:
    from nsqkit.nsqd.core.batch import Batch
    from nsqkit.nsqd.core.store import TopicRecord
    from nsqkit.nsqd.storage.shared import Shared


class Opening:
    """Fills the log's list of segments; the rest of what it finds are its attributes. OSError."""

    def __init__(self, shared: Shared, directory: str, segments: list[Segment], reader: LogReader) -> None:
        self.record: TopicRecord | None = None  # of the checkpoint, if there is one to trust
        self.synced = checkpoints.Synced(-1, 0, 0)  # so far the log is known to be on the disk
        self.next: i64 = 0  # the position that comes next
        self.must_roll = False  # what follows does not follow the last segment's end
        self._shared = shared
        self._disk = shared.disk
        self._directory = directory
        self._segments = segments
        self._reader = reader
        self._open()

    def _open(self) -> None:
        disk = self._disk
        if not disk.make_directory(self._directory) and not disk.names(self._directory):
            # What a deletion took must not come back beside what comes now.
            disk.sync_directory(self._directory)
        raw = disk.load(f"{self._directory}/{CHECKPOINT}")
        if raw is not None:
            found = checkpoints.decode(raw)
            if found is None:
                self._shared.report(
                    f"{self._directory}: the checkpoint is damaged; every channel gets its log again"
                )
            else:
                self.record, self.synced = found
                self.next = self.record.end
        names = [name for name in disk.names(self._directory) if is_segment(name)]
        for name in names:
            self._open_segment(name, last=name == names[-1])
        for index in range(1, len(self._segments)):
            self._segments[index - 1].stop = self._segments[index].first_position
        if self._segments:
            self._check_end(self._segments[-1])
        self._reader.opening = False
        for index in range(1, len(self._segments)):
            self._check_gap(self._segments[index - 1], self._segments[index])
        record = self.record
        if record is not None and self._segments and record.needed_from < self._segments[0].first_position:
            self._shared.damage(
                f"{self._directory}: the files begin at position {self._segments[0].first_position}, but messages from"
                f" {record.needed_from} on were still to be delivered: a file was removed"
            )
        synced = self.synced.position
        if synced > self._written():
            self._shared.damage(
                f"{self._directory}: the log ends at position {self._written()}, but was on the disk up to {synced}:"
                " a file was removed or cut short"
            )
        self._reader.close()

    def _check_gap(self, segment: Segment, following: Segment) -> None:
        """Say it if there was a file between these two. What nobody needs may go in any order."""
        if following.before <= segment.first_position:
            return
        if self.record is not None and following.first_position <= self.record.needed_from:
            return
        if f"{following.before:020d}{SUFFIX}.damaged" in self._disk.names(self._directory):
            return  # of which was told when it was set aside
        segment.stop = self._end_of(segment)
        if segment.stop < following.first_position:
            self._shared.damage(
                f"{self._directory}: the positions {segment.stop} to {following.first_position - 1} are missing,"
                f" between {segment.path} and {following.path}: a file was removed"
            )

    def _written(self) -> i64:
        return self._segments[-1].stop if self._segments else 0

    def _open_segment(self, name: str, *, last: bool) -> None:
        """Take in a file. The position is in its name too, so a damaged header costs nothing if batches follow."""
        path = f"{self._directory}/{name}"
        position: i64 = int(name.removesuffix(SUFFIX))
        file = self._disk.open(path)
        try:
            segment = Segment(path, position, self._disk.size(file))
            header = self._disk.read(file, FILE_HEADER, 0)
            if is_renewed(header) and header_position(header) >= position:
                self._renew(segment, file, header_position(header))
                return
            whole = header_position(header) == position
            if whole:
                segment.before = header_before(header)
            if whole or self._reader.next_whole(segment, file, FILE_HEADER) >= 0:
                self._segments.append(segment)
            if not whole:
                self._mend(segment, file, name, last)
        finally:
            self._disk.close(file)

    def _renew(self, segment: Segment, file: int, first_position: i64) -> None:
        """Take in a segment before which everything was given up, and bring that to its end (jobs.py, `GiveUp`)."""
        segment.first_position = segment.stop = first_position
        record = self.record
        if record is not None:
            record.needed_from = max(record.needed_from, first_position)
        given_up = [earlier.path for earlier in self._segments]
        self._segments.clear()
        self._segments.append(segment)
        try:
            for path in given_up:
                self._disk.remove(path)
            if self._has_only_earlier(segment, file):
                segment.size = FILE_HEADER
                self._disk.truncate(file, FILE_HEADER)
                self._disk.sync(file)
        except OSError as error:
            self._shared.report(
                f"{segment.path}: what was finished before it can't be removed: {error.strerror}"
            )

    def _has_only_earlier(self, segment: Segment, file: int) -> bool:
        """Is what follows the header older than what the segment begins with now?"""
        if segment.size <= FILE_HEADER:
            return False
        front = self._disk.read(file, BATCH_HEADER, FILE_HEADER)
        if len(front) == BATCH_HEADER and whole_length(front, 0) > 0:
            return read_i64_be(front, 20) < segment.first_position
        return self._reader.next_whole(segment, file, FILE_HEADER) < 0

    def _mend(self, segment: Segment, file: int, name: str, last: bool) -> None:
        """Do something about a file without a header of ours."""
        path = segment.path
        try:
            if self._segments and self._segments[-1] is segment:
                self._shared.damage(f"{path}: the header was damaged, and is made anew")
                write_all(self._disk, file, [file_header(segment.first_position)], 0)
            elif segment.size <= FILE_HEADER:
                self._disk.remove(path)  # it was being made when the process died
                if not last or self.next > segment.first_position:
                    self._shared.damage(f"{path}: all that was in it is gone")
            else:
                self._shared.damage(
                    f"{path}: no segment of a log, or all of it is damaged; set aside as {name}.damaged"
                )
                self._disk.rename(path, path + ".damaged")
        except OSError as error:
            self._shared.report(f"{path}: can't be changed: {error.strerror}")

    def _end_of(self, segment: Segment) -> i64:
        """Behind the last position of a complete segment, all of which is read for it."""
        offset: i64 = FILE_HEADER
        position = segment.first_position
        while offset < segment.size:
            found: list[Batch] = []
            offset = self._reader.scan(segment, offset, 0, MAX_POSITION, CHECK_BLOCK, found)
            if found:
                position = found[-1].first_position + found[-1].count
        return position

    def _check_end(self, segment: Segment) -> None:
        """Find the last whole batch, and cut off what is behind it."""
        offset: i64 = FILE_HEADER
        position = segment.first_position
        synced = self.synced
        if synced.segment == segment.first_position and FILE_HEADER <= synced.offset <= segment.size:
            offset = synced.offset
            position = synced.position
        size = segment.size
        while offset < segment.size:
            found: list[Batch] = []
            offset = self._reader.scan(segment, offset, 0, MAX_POSITION, CHECK_BLOCK, found)
            if found:
                position = max(position, found[-1].first_position + found[-1].count)
        if segment.size < size:
            self._cut_off(segment, size)
        segment.stop = position
        if self.next > position:
            self.must_roll = True  # a power cut took what the checkpoint knows of: positions never repeat
        else:
            self.next = position

    def _cut_off(self, segment: Segment, size: i64) -> None:
        """Cut off what is behind the last whole batch. A copy stays, if there is anything in it."""
        self._shared.torn_count += 1
        file = self._disk.open(segment.path)
        try:
            torn = self._disk.read(file, int(size - segment.size), int(segment.size))
            aside = ""
            if torn.strip(b"\x00"):
                aside = f", kept in {segment.path}.torn-{segment.size}"
                self._disk.replace(f"{segment.path}.torn-{segment.size}", torn)
            self._disk.truncate(file, int(segment.size))
            line = (
                f"cut off {size - segment.size} bytes of an incomplete batch at offset {segment.size}{aside}"
            )
        except OSError as error:
            self.must_roll = True
            line = f"incomplete batch at offset {segment.size}, which can't be cut off: {error.strerror}"
        finally:
            self._disk.close(file)
        self._shared.report(f"{segment.path}: {line}")
