"""Reading a topic's log: blocks of it, in order, around what is damaged.

Every batch that is passed is checked, wanted or not, for the next one is where its length says. A damaged place is
skipped up to the next whole batch; its bytes are put aside in a file of their own. It is counted and reported once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mypy_extensions import i64

from nsqkit.nsqd.core.batch import Batch
from nsqkit.nsqd.core.store import StoreError
from nsqkit.nsqd.storage.segment import BATCH_HEADER, BATCH_MAGIC, Segment, decode, whole_length
from nsqkit.wire.message import NOWHERE

if TYPE_CHECKING:
    from nsqkit.nsqd.storage.shared import Shared

CHECK_BLOCK: Final = 1 << 20  # bytes to check at a time when a log is opened

MAX_POSITION: Final = (1 << 62) - 1  # more messages than there will ever be
_BLOCK: Final = 65536  # least number of bytes to read at a time


class LogReader:
    """Reads the segments of a log, of which it keeps one file open. The list belongs to the log."""

    def __init__(self, shared: Shared, segments: list[Segment]) -> None:
        self.opening = True  # what is wrong at the end of the log is torn, and will be cut off
        self.active = -1  # the file of the last segment, while the log has it open
        self._shared = shared
        self._disk = shared.disk
        self._segments = segments
        self._file = -1
        self._path = ""
        self._hint_position: i64 = NOWHERE  # where the last read ended, in which segment, and in the file
        self._hint_segment: i64 = NOWHERE
        self._hint_offset: i64 = 0
        self._unreadable = False  # the last read failed
        self._damage_seen: set[tuple[int, int]] = set()

    def read(self, start: i64, stop: i64, limit_bytes: i64) -> list[Batch]:
        """Whole batches with messages of [start, stop); see the interface."""
        found: list[Batch] = []
        segments = self._segments
        index = self._segment_at(start)
        while index < len(segments) and not found:
            segment = segments[index]
            if segment.first_position >= stop:
                break
            offset = segment.offset_before(start)
            if self._hint_position <= start and self._hint_segment == segment.first_position:
                offset = max(offset, self._hint_offset)
            # Behind its `stop` a segment can only have what was never confirmed, and its positions were given again.
            until = stop if index + 1 == len(segments) else min(stop, segment.stop)
            try:
                offset = self.scan(segment, offset, start, until, limit_bytes, found)
            except FileNotFoundError:
                self.note_gone(segment)
            except OSError as error:
                if not found:
                    raise self._read_error(segment, error) from error
                break  # the next read begins where this one failed
            if found:
                self._hint_position = found[-1].first_position + found[-1].count
                self._hint_segment = segment.first_position
                self._hint_offset = offset
            index += 1
        self._unreadable = False
        return found

    def _read_error(self, segment: Segment, error: OSError) -> StoreError:
        text = f"{segment.path}: can't be read: {error.strerror}"
        if not self._unreadable:
            self._unreadable = True  # said once; who wants to read will try again and again
            self._shared.report(text)
        return StoreError(text)

    def note_gone(self, segment: Segment) -> None:
        """Somebody removed the file: there is nothing to be tried again."""
        self._shared.lose(segment, 0, "somebody removed it; what only this file held is lost")

    def _note_short(self, segment: Segment, size: i64) -> None:
        if self.opening:
            segment.size = size
        else:
            self._shared.lose(segment, size, f"somebody cut it short at {size} bytes")

    def _segment_at(self, position: i64) -> int:
        low = 0
        high = len(self._segments)
        while low < high:
            middle = (low + high) // 2
            if self._segments[middle].first_position <= position:
                low = middle + 1
            else:
                high = middle
        return max(low - 1, 0)

    def scan(
        self, segment: Segment, offset: i64, start: i64, stop: i64, limit: i64, found: list[Batch]
    ) -> i64:
        """Collect batches with messages of [start, stop) from `offset` on; returns the offset behind the last."""
        file = self._file_of(segment)
        want: i64 = limit if _BLOCK < limit < CHECK_BLOCK else (_BLOCK if limit <= _BLOCK else CHECK_BLOCK)
        block = b""
        begin = offset  # of the block, in the file
        taken: i64 = 0
        while offset + BATCH_HEADER <= segment.size and taken < limit:
            if offset + BATCH_HEADER > begin + len(block):
                block = self._disk.read(file, int(min(want, segment.size - offset)), int(offset))
                begin = offset
                if len(block) < BATCH_HEADER:
                    self._note_short(segment, offset + len(block))
                    break
            length = whole_length(block, offset - begin)
            batch: Batch | None = None
            if 0 < length <= segment.size - offset:
                if offset + length > begin + len(block):
                    block = self._disk.read(
                        file, int(max(length, min(want, segment.size - offset))), int(offset)
                    )
                    begin = offset
                if len(block) - (offset - begin) >= length:
                    batch = decode(
                        block, offset - begin
                    )  # also one that is not wanted: its length must be right
            if batch is None or not _belongs(segment, batch):
                offset = self._skip_damage(segment, file, offset)
                continue
            position = batch.first_position
            if position >= stop:
                break
            segment.remember(position, offset)
            offset += length
            if position + batch.count > start:
                found.append(batch)
                taken += length
            if position + batch.count >= stop:
                break
        if offset < segment.size < offset + BATCH_HEADER:
            offset = self._skip_damage(segment, file, offset)  # too short for a batch
        return offset

    def _file_of(self, segment: Segment) -> int:
        if self.active >= 0 and segment is self._segments[-1]:
            return self.active
        if self._path != segment.path:
            self.close()
            self._file = self._disk.open(segment.path)
            self._path = segment.path
        return self._file

    def forget(self, segment: Segment) -> None:
        """The segment's file goes away."""
        if segment.path == self._path:
            self.close()

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            self._disk.close(self._file)
        self._file = -1
        self._path = ""

    def _skip_damage(self, segment: Segment, file: int, offset: i64) -> i64:
        """The next whole batch after damage at `offset`; the segment ends at `offset` if there is none."""
        behind = self.next_whole(segment, file, offset + 1)
        if behind < 0:
            if self.opening:
                segment.size = offset  # a torn end, to be cut off
                return offset
            behind = segment.size
        seen = (int(segment.first_position), int(offset))
        if seen not in self._damage_seen:
            damaged = self._disk.read(file, int(behind - offset), int(offset))
            self._damage_seen.add(seen)
            aside = f"{segment.path}.damaged-{offset}"
            kept = f"kept in {aside}"
            try:
                self._disk.replace(aside, damaged)
            except OSError as error:
                kept = f"which can't be put aside: {error.strerror}"
            self._shared.damage(
                f"{segment.path}: skipped {behind - offset} damaged bytes at offset {offset}, {kept}"
            )
        return behind

    def next_whole(self, segment: Segment, file: int, offset: i64) -> i64:
        """Where, from `offset` on, the next whole batch begins; -1 if nowhere."""
        while offset + BATCH_HEADER <= segment.size:
            block = self._disk.read(file, CHECK_BLOCK, int(offset))
            mark: i64 = block.find(BATCH_MAGIC)
            while mark >= 0:
                if self._is_whole(segment, file, offset + mark, block, mark):
                    return offset + mark
                mark = block.find(BATCH_MAGIC, int(mark) + 1)
            offset += max(len(block) - 3, 1)  # a body may be full of marks: no block is read twice
        return -1

    def _is_whole(self, segment: Segment, file: int, offset: i64, block: bytes, at: i64) -> bool:
        """Whether a whole batch begins at `offset` of the file, which is `at` in the block."""
        if at + BATCH_HEADER > len(block):
            block = self._disk.read(file, BATCH_HEADER, int(offset))
            at = 0
            if len(block) < BATCH_HEADER:
                return False
        length = whole_length(block, at)
        if length <= 0 or length > segment.size - offset:
            return False
        if at + length > len(block):
            block = self._disk.read(file, int(length), int(offset))
            at = 0
            if len(block) < length:
                return False
        return _belongs(segment, decode(block, at))


def _belongs(segment: Segment, batch: Batch | None) -> bool:
    """Whether a batch can have been written to this segment; its checksum alone does not say so."""
    return batch is not None and segment.first_position <= batch.first_position < MAX_POSITION
