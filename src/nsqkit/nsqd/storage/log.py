"""The log of one topic: appended to once per turn, read in blocks, cut off in front when nobody needs it.

Opening checks the end: a torn last batch is cut off and reported. A damaged batch further back is found when it is
read: it is skipped, counted, and its bytes are put aside in a file of their own. Nothing is dropped without a line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from librt.strings import read_i32_be, read_i64_be
from mypy_extensions import i64

from nsqkit.nsqd.core.batch import Batch
from nsqkit.nsqd.core.store import Extent, StoreError, TopicRecord, TopicStore
from nsqkit.nsqd.storage import checkpoint as checkpoints
from nsqkit.nsqd.storage.disk import write_all
from nsqkit.nsqd.storage.jobs import CheckpointJob, SyncJob
from nsqkit.nsqd.storage.segment import (
    BATCH_HEADER,
    BATCH_MAGIC,
    FILE_HEADER,
    Segment,
    decode,
    encode_header,
    file_header,
    header_position,
    whole_length,
)
from nsqkit.wire.message import NOWHERE

if TYPE_CHECKING:
    from nsqkit.nsqd.storage.files import FileStorage

SUFFIX: Final = ".log"
CHECKPOINT: Final = "checkpoint"

_BLOCK: Final = 65536  # least number of bytes to read at a time
_CHECK_BLOCK: Final = 1 << 20  # bytes to check at a time when a log is opened
_FOREVER: Final = (1 << 62) - 1


class TopicLog(TopicStore):
    """Segments in a directory, the last one open for appending."""

    def __init__(self, home: FileStorage, directory: str) -> None:
        self._home = home
        self._disk = home.disk
        self._directory = directory
        self._segments: list[Segment] = []
        self._file = -1  # the last segment, when it is open
        self._reader = -1  # another segment, when one is open for reading
        self._reader_path = ""
        self._next: i64 = 0
        self._must_roll = False  # the next write begins a new segment
        self._pending: list[Batch] = []
        self._sealed: list[int] = []  # files of complete segments that were not synced yet
        self._directory_dirty = False  # a segment was made, and the directory not synced
        self._synced = checkpoints.Synced(-1, 0, 0)
        self._record: TopicRecord | None = None
        self._checkpoint_job: CheckpointJob | None = None  # the last one
        self._hint_position: i64 = NOWHERE  # where the last read ended, and in the file
        self._hint_offset: i64 = 0
        self._damage_seen: set[tuple[int, int]] = set()
        self._open()

    # -- opening

    def _open(self) -> None:
        disk = self._disk
        disk.make_directory(self._directory)
        raw = disk.load(f"{self._directory}/{CHECKPOINT}")
        if raw is not None:
            found = checkpoints.decode(raw)
            if found is None:
                self._home.report(f"{self._directory}: the checkpoint is damaged; every channel gets its log again")
            else:
                self._record, self._synced = found
                self._next = self._record.end
        for name in disk.names(self._directory):
            if name.endswith(SUFFIX):
                self._open_segment(name)
        for index in range(1, len(self._segments)):
            self._segments[index - 1].stop = self._segments[index].first_position
        if self._segments:
            self._check_end(self._segments[-1])

    def _open_segment(self, name: str) -> None:
        path = f"{self._directory}/{name}"
        file = self._disk.open(path)
        try:
            position = header_position(self._disk.read(file, FILE_HEADER, 0))
            size = self._disk.size(file)
        finally:
            self._disk.close(file)
        if position >= 0 and name == f"{position:020d}{SUFFIX}":
            self._segments.append(Segment(path, position, size))
        elif size <= FILE_HEADER:
            self._disk.remove(path)  # a segment that was being made when the process died
        else:
            self._disk.rename(path, path + ".damaged")
            self._home.report(f"{path}: not a segment of a log (its header is damaged); set aside as {name}.damaged")
            self._home.damaged_count += 1

    def _check_end(self, segment: Segment) -> None:
        """Find the last whole batch, and cut off what is behind it."""
        offset: i64 = FILE_HEADER
        position = segment.first_position
        synced = self._synced
        if synced.segment == segment.first_position and FILE_HEADER <= synced.offset <= segment.size:
            offset = synced.offset
            position = synced.position
        size = segment.size
        while offset < segment.size:
            found: list[Batch] = []
            offset = self._scan(segment, offset, 0, _FOREVER, _CHECK_BLOCK, found)
            if found:
                position = found[-1].first_position + found[-1].count
        if segment.size < size:
            torn = size - segment.size
            self._home.report(f"{segment.path}: cut off {torn} bytes of an incomplete batch at offset {segment.size}")
            self._home.torn_count += 1
            with_file = self._disk.open(segment.path)
            try:
                self._disk.truncate(with_file, int(segment.size))
            finally:
                self._disk.close(with_file)
        segment.stop = position
        if self._next > position:
            self._must_roll = True  # a power cut took what the checkpoint knows of: positions never repeat
        else:
            self._next = position

    # -- appending

    def append(self, batch: Batch) -> None:
        """Give the batch its positions and note it for the next `write`."""
        position = self._next
        if self._pending:
            last = self._pending[-1]
            position = last.first_position + last.count
        batch.first_position = position
        self._pending.append(batch)

    def write(self) -> None:
        """Write everything appended. StoreError: none of it is in the log."""
        batches = self._pending
        if not batches:
            return
        self._pending = []
        pieces: list[bytes] = []
        total: i64 = 0
        for batch in batches:
            pieces.append(encode_header(batch))
            pieces.append(batch.data)
            total += BATCH_HEADER + len(batch.data)
        try:
            self._home.guard(total)
            segment = self._writable(total)
            self._write_at(segment, pieces, total)
        except OSError as error:
            for batch in batches:
                batch.first_position = NOWHERE
            raise StoreError(f"{self._directory}: {error.strerror}") from error
        except StoreError:
            for batch in batches:
                batch.first_position = NOWHERE
            raise
        offset = segment.size
        for batch in batches:
            segment.remember(batch.first_position, offset)
            offset += BATCH_HEADER + len(batch.data)
        segment.size = offset
        last = batches[-1]
        self._next = last.first_position + last.count
        segment.stop = self._next
        self._home.wrote(self, len(batches))

    def _writable(self, total: i64) -> Segment:
        """The segment that the next `total` bytes go to, open."""
        if self._segments and not self._must_roll:
            segment = self._segments[-1]
            if segment.size == FILE_HEADER or segment.size + total <= self._home.max_bytes_per_file:
                if self._file < 0:
                    self._file = self._disk.open(segment.path)
                return segment
        return self._roll()

    def _roll(self) -> Segment:
        path = f"{self._directory}/{self._next:020d}{SUFFIX}"
        file = self._disk.create(path)
        try:
            write_all(self._disk, file, [file_header(self._next)], 0)
        except OSError:
            self._disk.close(file)
            self._disk.remove(path)
            raise
        if self._file >= 0:
            self._sealed.append(self._file)
        self._file = file
        self._directory_dirty = True
        self._must_roll = False
        segment = Segment(path, self._next, FILE_HEADER)
        self._segments.append(segment)
        return segment

    def _write_at(self, segment: Segment, pieces: list[bytes], total: i64) -> None:
        try:
            write_all(self._disk, self._file, pieces, segment.size)
        except OSError:
            try:
                self._disk.truncate(self._file, int(segment.size))
            except OSError:
                self._must_roll = True  # the half-written end stays behind, and is skipped as damage
            raise

    # -- reading

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
            if self._hint_position == start and segment.first_position <= start < segment.stop:
                offset = self._hint_offset
            try:
                offset = self._scan(segment, offset, start, stop, limit_bytes, found)
            except OSError as error:
                self._home.report(f"{segment.path}: can't be read: {error.strerror}")
                break
            if found:
                self._hint_position = found[-1].first_position + found[-1].count
                self._hint_offset = offset
            index += 1
        return found

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

    def _scan(self, segment: Segment, offset: i64, start: i64, stop: i64, limit: i64, found: list[Batch]) -> i64:
        """Collect batches with messages of [start, stop) from `offset` on; returns the offset behind the last."""
        file = self._file_of(segment)
        want: i64 = limit if _BLOCK < limit < _CHECK_BLOCK else (_BLOCK if limit <= _BLOCK else _CHECK_BLOCK)
        block = b""
        begin = offset  # of the block, in the file
        taken: i64 = 0
        while offset + BATCH_HEADER <= segment.size and taken < limit:
            if offset + BATCH_HEADER > begin + len(block):
                block = self._disk.read(file, int(min(want, segment.size - offset)), int(offset))
                begin = offset
                if len(block) < BATCH_HEADER:
                    break
            length = whole_length(block, offset - begin)
            if length < 0 or offset + length > segment.size:
                offset = self._skip_damage(segment, file, offset)
                continue
            if offset + length > begin + len(block):
                block = self._disk.read(file, int(max(length, min(want, segment.size - offset))), int(offset))
                begin = offset
            at = offset - begin
            position = read_i64_be(block, at + 20)
            behind = position + i64(read_i32_be(block, at + 12))
            if position >= stop:
                break
            if behind > start:
                batch = decode(block, at)
                if batch is None:
                    offset = self._skip_damage(segment, file, offset)
                    continue
                found.append(batch)
                taken += length
            segment.remember(position, offset)
            offset += length
            if behind >= stop:
                break
        if offset + BATCH_HEADER > segment.size > offset:
            segment.size = offset  # too short for a header: a torn end
        return offset

    def _file_of(self, segment: Segment) -> int:
        if self._file >= 0 and segment is self._segments[-1]:
            return self._file
        if self._reader_path != segment.path:
            self._close_reader()
            self._reader = self._disk.open(segment.path)
            self._reader_path = segment.path
        return self._reader

    def _close_reader(self) -> None:
        if self._reader >= 0:
            self._disk.close(self._reader)
        self._reader = -1
        self._reader_path = ""

    def _skip_damage(self, segment: Segment, file: int, offset: i64) -> i64:
        """The next whole batch behind damage at `offset`; the segment ends at `offset` if there is none."""
        behind = self._next_whole(segment, file, offset + 1)
        if behind < 0:
            if segment is self._segments[-1] and self._file < 0:
                segment.size = offset  # being opened: a torn end, to be cut off
                return offset
            behind = segment.size
        seen = (int(segment.first_position), int(offset))
        if seen not in self._damage_seen:
            self._damage_seen.add(seen)
            self._home.damaged_count += 1
            aside = f"{segment.path}.damaged-{offset}"
            self._disk.replace(aside, self._disk.read(file, int(behind - offset), int(offset)))
            self._home.report(f"{segment.path}: skipped {behind - offset} damaged bytes at offset {offset}, kept in {aside}")
        return behind

    def _next_whole(self, segment: Segment, file: int, offset: i64) -> i64:
        while offset + BATCH_HEADER <= segment.size:
            block = self._disk.read(file, _CHECK_BLOCK, int(offset))
            at: i64 = block.find(BATCH_MAGIC)
            if at < 0:
                offset += max(len(block) - 3, 1)
                continue
            offset += at
            raw = self._disk.read(file, BATCH_HEADER, int(offset))
            if len(raw) == BATCH_HEADER:
                length = whole_length(raw, 0)
                if 0 < length <= segment.size - offset:
                    batch = decode(self._disk.read(file, int(length), int(offset)), 0)
                    if batch is not None and batch.first_position >= segment.first_position:
                        return offset
            offset += 1
        return -1

    # -- what is known

    def end(self) -> i64:
        """The position that the next message will get."""
        return self._next

    def start(self) -> i64:
        """The first position that the log may still have."""
        return self._segments[0].first_position if self._segments else self._next

    def skip_to(self, position: i64) -> None:
        """Go on at `position`, when what is between is gone for good."""
        if position > self._next:
            self._next = position
            self._must_roll = True

    def recovered(self) -> TopicRecord | None:
        """The checkpoint found when the log was opened."""
        return self._record

    def oldest(self) -> Extent | None:
        """The oldest complete segment, None if there is only the one being written."""
        if len(self._segments) < 2:
            return None
        return Extent(self._segments[0].first_position, self._segments[0].stop)

    def size_bytes(self) -> i64:
        """Bytes that the log takes."""
        total: i64 = 0
        for segment in self._segments:
            total += segment.size
        return total

    # -- checkpoints and syncs

    def checkpoint(self, record: TopicRecord) -> None:
        """Note a job that replaces the checkpoint and then removes the segments that it no longer needs."""
        doomed: list[str] = []
        while len(self._segments) > 1 and self._segments[0].stop <= record.needed_from:
            gone = self._segments.pop(0)
            if gone.path == self._reader_path:
                self._close_reader()
            doomed.append(gone.path)
        sync = self.sync_job() if doomed else None  # copies carried forward must be safe before their originals go
        content = checkpoints.encode(record, self._synced)
        job = CheckpointJob(self._disk, f"{self._directory}/{CHECKPOINT}", content, doomed, sync)
        self._checkpoint_job = job
        self._home.jobs.append(job)

    def sync_job(self) -> SyncJob | None:
        """What a thread has to sync so that everything written so far survives a power cut; None if nothing."""
        if not self._segments:
            return None
        segment = self._segments[-1]
        reached = checkpoints.Synced(segment.first_position, segment.size, segment.stop)
        synced = self._synced
        same = synced.segment == reached.segment and synced.offset == reached.offset
        if self._file < 0 or (same and not self._sealed):
            return None
        files = self._sealed
        self._sealed = []
        files.append(self._disk.duplicate(self._file))
        directory = self._directory if self._directory_dirty else ""
        self._directory_dirty = False
        return SyncJob(self._disk, files, directory, self, reached)

    def set_synced(self, reached: checkpoints.Synced) -> None:
        """A sync job is done."""
        self._synced = reached

    def close(self) -> None:
        """Sync and close the files."""
        job = self.sync_job()
        if job is not None:
            job.run()
            job.finish()
        self._close_files()

    def _close_files(self) -> None:
        self._close_reader()
        for file in self._sealed:
            self._disk.close(file)
        self._sealed = []
        if self._file >= 0:
            self._disk.close(self._file)
        self._file = -1

    def delete(self) -> None:
        """Close and remove the files."""
        if self._checkpoint_job is not None:
            self._checkpoint_job.cancel()
        self._close_files()
        self._segments = []
        self._home.forget(self)
        for name in self._disk.names(self._directory):
            self._disk.remove(f"{self._directory}/{name}")
        self._disk.remove_directory(self._directory)
