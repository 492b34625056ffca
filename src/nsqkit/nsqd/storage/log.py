"""The log of one topic: appended to once per turn, read in blocks, cut off in front when nobody needs it.

What is found at the start is looked through and repaired in opening.py.
"""

from __future__ import annotations

import errno
from contextlib import suppress
from typing import Final

from mypy_extensions import i64

from nsqkit.nsqd.core.batch import Batch
from nsqkit.nsqd.core.store import Extent, StoreError, TopicRecord, TopicStore
from nsqkit.nsqd.storage import checkpoint as checkpoints
from nsqkit.nsqd.storage.disk import write_all
from nsqkit.nsqd.storage.jobs import CheckpointJob, GiveUp, LookJob, OpenJob, SyncJob, SyncState
from nsqkit.nsqd.storage.opening import Opening
from nsqkit.nsqd.storage.reader import LogReader
from nsqkit.nsqd.storage.segment import (
    BATCH_HEADER,
    CHECKPOINT,
    FILE_HEADER,
    SUFFIX,
    Segment,
    encode_header,
    file_header,
)
from nsqkit.nsqd.storage.shared import LOSS, Shared
from nsqkit.wire.message import NOWHERE

WATCHED: Final = 16  # complete segments looked at with each checkpoint
_WORTH: Final = 1 << 20  # see `_worth`
_WORTH_ON_A_FULL_DISK: Final = 4096  # a new segment takes a block as well


class TopicLog(TopicStore):
    """Segments in a directory, the last one open for appending.

    With `later` nothing is looked at yet: an `OpenJob` makes the directory and an empty segment, and then `open` or
    `begin` is called.
    """

    def __init__(self, shared: Shared, directory: str, *, later: bool = False) -> None:
        self._shared = shared
        self._disk = shared.disk
        self._directory = directory
        self._segments: list[Segment] = []
        self._reader = LogReader(shared, self._segments)
        self._file = -1  # the last segment, when it is open
        self._next: i64 = 0
        self._must_roll = False  # the next write begins a new segment, or first cuts off a half-written end
        self._pending: list[Batch] = []
        self.closed = False  # for good; read in threads
        self._opened = False
        self._open_job: OpenJob | None = None
        self._doomed: list[str] = []  # segments that nobody needs, and that could not be removed
        self._giving_up = False  # a thread empties the last file, which must not be written
        self._watch: i64 = 0  # where `_watched` goes on
        self._copied = False  # there are carried batches that no checkpoint on the disk names
        self.sync_state = SyncState()
        self._record: TopicRecord | None = None
        self._checkpoint_job: CheckpointJob | None = None  # the last one
        self._end_before: i64 = -1  # the log's end at that time
        self._has_checkpoint = False  # on the disk
        self.checkpointed_at = -1.0  # when it was put there, by the clock of the disk; -1: before the start
        if not later:
            self.open()

    # -- opening

    def opened(self) -> bool:
        """May it be used?"""
        return self._opened

    def open_job(self) -> OpenJob:
        """What a thread has to do before it may be used."""
        self._open_job = OpenJob(self._disk, self._directory, self)
        return self._open_job

    def begin(self, path: str) -> None:
        """The directory is new, and holds an empty segment."""
        self._take_segment(path)
        self._opened = True

    def open(self) -> None:
        """Take in what is there. OSError."""
        opening = Opening(self._shared, self._directory, self._segments, self._reader)
        self._next = opening.next
        self._must_roll = opening.must_roll
        self.sync_state.reached = opening.synced
        self._record = opening.record
        self._has_checkpoint = opening.record is not None
        self._opened = True
        if self._segments:
            self._note_unsynced()

    def _note_unsynced(self) -> None:
        """What a process wrote that was killed may still be only in the system's memory."""
        last = self._segments[-1]
        if self.sync_state.covers(last.first_position, last.size):
            return
        self.sync_state.doubt(self._segments[:-1])
        self._shared.wrote(self, 1)

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
        copies = True
        for batch in batches:
            pieces.append(encode_header(batch))
            pieces.append(batch.data)
            total += BATCH_HEADER + len(batch.data)
            copies = copies and batch.carried
        try:
            self._shared.guard(total, copies)
            segment = self._writable(total)
            self._write_at(segment, pieces)
        except OSError as error:
            self._shared.note_failure(error)
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
            self._copied = self._copied or batch.carried
        segment.size = offset
        last = batches[-1]
        self._next = last.first_position + last.count
        segment.stop = self._next
        self._shared.wrote(self, len(batches))

    def _writable(self, total: i64) -> Segment:
        """The segment that the next `total` bytes go to, open."""
        if self._giving_up:
            raise OSError(errno.ENOSPC, "the disk is full, and what is finished is just being given up")
        self._shared.use(self)
        if not self._segments:
            return self._roll()
        segment = self._segments[-1]
        empty = segment.first_position == self._next  # another one would have the same name
        if self._is_changed(segment):
            self._must_roll = True
            if empty:
                self._forget_last()
            return self._roll()
        if not empty and (self._must_roll or segment.size + total > self._shared.max_bytes_per_file):
            return self._roll()
        if self._must_roll:
            self._disk.truncate(self._file, int(segment.size))
            self._must_roll = False
        return segment

    def _is_changed(self, segment: Segment) -> bool:
        """Open the last segment's file if need be. True: somebody removed it or cut it short, which is said.

        The size is looked at before each write: what is written behind an end that was cut off would hide that.
        """
        if self._file < 0:
            try:
                self._use(self._disk.open(segment.path))
            except FileNotFoundError:
                self._reader.note_gone(segment)
                return True
        elif self._must_roll:
            return False
        if self not in self._shared.unsynced and self._disk.links(self._file) == 0:
            self._reader.note_gone(segment)
            return True
        size: i64 = self._disk.size(self._file)
        if size < segment.size:
            self._shared.lose(segment, size, f"somebody cut it from {segment.size} to {size} bytes")
            return True
        return False

    def _look_at_last(self) -> None:
        """See whether the last segment's file is whole; one with nothing in it is looked at before it is written."""
        if self._segments and self._segments[-1].size > FILE_HEADER and not self._must_roll:
            with suppress(OSError):  # whoever writes will see what is wrong
                self._shared.use(self)
                self._must_roll = self._is_changed(self._segments[-1])

    def note_short(self, segment: Segment, size: i64) -> None:
        """A thread saw that only `size` bytes of a file are left, or that it is gone (-1)."""
        if segment not in self._segments:
            return  # nobody needed it any more
        if size < 0:
            self._reader.note_gone(segment)
        else:
            self._shared.lose(segment, size, f"somebody cut it from {segment.size} to {size} bytes")
        if segment.harmed and segment is self._segments[-1]:
            self._must_roll = True

    def _forget_last(self) -> None:
        """The last segment had nothing in it, and its name is wanted again."""
        self._use(-1)
        self._reader.forget(self._segments.pop())

    def _roll(self) -> Segment:
        path = f"{self._directory}/{self._next:020d}{SUFFIX}"
        try:
            file = self._disk.create(path)
        except FileExistsError:  # it was begun before, or is damaged, and the disk would not let go of it
            self._disk.rename(path, path + ".damaged")
            file = self._disk.create(path)
        except FileNotFoundError:  # somebody removed the directory
            self._disk.make_directory(self._directory)
            file = self._disk.create(path)
        before = self._next - self._segments[-1].first_position if self._segments else 0
        try:
            write_all(self._disk, file, [file_header(self._next, before)], 0)
        except OSError:
            self._disk.close(file)
            self._disk.remove(path)
            raise
        self._use(file)
        return self._take_segment(path)

    def _take_segment(self, path: str) -> Segment:
        """What comes next goes to this new file."""
        self.sync_state.begin_segment(self._segments[-1] if self._segments else None)
        self._must_roll = False
        segment = Segment(path, self._next, FILE_HEADER)
        self._segments.append(segment)
        return segment

    def _use(self, file: int) -> None:
        """Let this be the last segment's file, instead of the one that is open, if any; -1: none is."""
        if self._file >= 0:
            self._disk.close(self._file)
        self._file = self._reader.active = file

    def _write_at(self, segment: Segment, pieces: list[bytes]) -> None:
        try:
            write_all(self._disk, self._file, pieces, segment.size)
        except OSError:
            try:
                self._disk.truncate(self._file, int(segment.size))
            except OSError:
                self._must_roll = True  # the half-written end stays behind
            raise

    # -- what is known

    def read(self, start: i64, stop: i64, limit_bytes: i64) -> list[Batch]:
        """Whole batches with messages of [start, stop); see the interface."""
        self._shared.use(self)
        return self._reader.read(start, stop, limit_bytes)

    def end(self) -> i64:
        """The position that the next message will get."""
        return self._next

    def start(self) -> i64:
        """The first position that the log may still have."""
        return self._segments[0].first_position if self._segments else self._next

    def written(self) -> i64:
        """Behind the last position that the files hold; less than `end` if a power cut took what a checkpoint names."""
        return self._segments[-1].stop if self._segments else 0

    def go_to(self, position: i64) -> None:
        """Let the next message get `position`, which the files do not reach: the journal brings back what they lost."""
        if position != self._next:
            self._next = position
            self._must_roll = True

    def recovered(self) -> TopicRecord | None:
        """The checkpoint found when the log was opened."""
        return self._record

    def oldest(self) -> Extent | None:
        """The segment to be left next, if any; see the interface."""
        segments = self._segments
        if not segments or not self._has_checkpoint or self._giving_up:
            return None
        oldest = segments[0]
        if len(segments) == 1 and (self._next != self._end_before or oldest.size < self._worth()):
            return None  # one that is written will be complete by itself
        return Extent(oldest.first_position, oldest.stop)

    def leave(self, position: i64) -> None:
        """Begin another segment if this position is in the last one; see the interface."""
        last = self._segments[-1]
        if last.first_position <= position < last.stop:
            try:
                self._shared.use(self)
                self._roll()
            except OSError as error:
                self._shared.note_failure(error)
                raise StoreError(f"{self._directory}: {error.strerror}") from error

    def segment_count(self) -> int:
        """Files with messages."""
        return len(self._segments)

    def size_bytes(self) -> i64:
        """Bytes that the log takes."""
        total: i64 = 0
        for segment in self._segments:
            total += segment.size
        return total

    # -- checkpoints and syncs

    def checkpoint(self, record: TopicRecord) -> None:
        """Note a job that replaces the checkpoint and then removes the segments that it no longer needs.

        Copies, and the checkpoint that names them, must be safe before their originals go.
        """
        self._look_at_last()
        give_up = self._give_up(record)
        error = "" if give_up is not None else self._leave_segment(record)
        copied = self._copied
        safe = copied or len(self._doomed) > 0
        safe = safe or (len(self._segments) > 1 and self._segments[0].stop <= record.needed_from)
        sync = self.sync_job() if safe else None
        doomed: list[str] = []
        if safe:
            doomed, self._doomed = self._doomed, doomed
            self._copied = False
            while len(self._segments) > 1 and self._segments[0].stop <= record.needed_from:
                gone = self._segments.pop(0)
                self._reader.forget(gone)
                doomed.append(gone.path)
        if not any([segment.harmed for segment in self._segments]):
            self._shared.health.clear(LOSS + self._directory)
        job = CheckpointJob(self._disk, f"{self._directory}/{CHECKPOINT}", record, self, doomed, sync)
        job.safe = safe
        job.give_up = give_up
        job.copied = copied
        job.look = LookJob(self._disk, self, self._watched())
        job.error = error
        self._checkpoint_job = job
        self._end_before = self._next
        self._shared.jobs.append(job)

    def _leave_segment(self, record: TopicRecord) -> str:
        """Begin a new segment if nobody needs anything of the last one, and that is worth it; returns an error.

        There is always a segment: its name keeps positions from coming again, whatever happens to the checkpoint.
        """
        if not self._segments or record.needed_from < self._next:
            return ""
        last = self._segments[-1]
        if last.size < self._worth() and not last.harmed:
            return ""
        try:
            self._shared.use(self)
            self._roll()
        except OSError as error:
            self._shared.note_failure(error)
            return f"{self._directory}: {error.strerror}"
        return ""

    def _give_up(self, record: TopicRecord) -> GiveUp | None:
        """If the disk is full, and something can be had from what nobody needs: what has to go before the checkpoint.

        As long as no checkpoint names copies, their originals are needed.
        """
        whole = record.needed_from >= self._next
        if not self._segments or not (self._shared.full or self._giving_up) or (self._copied and not whole):
            return None
        segments = self._segments
        doomed, self._doomed = self._doomed, []
        while len(segments) > 1 and segments[0].stop <= record.needed_from:
            gone = segments.pop(0)
            self._reader.forget(gone)
            doomed.append(gone.path)
        last = segments[-1]
        if whole and not self._giving_up and last.size >= self._worth():
            last.given_up = self._giving_up = True
            segments[-1] = Segment(last.path, self._next, FILE_HEADER)
            self._reader.forget(last)
        if not doomed and not self._giving_up:
            return None
        self._copied = False
        return GiveUp(self._disk, self, segments[0], doomed, empties=self._giving_up)

    def gave_up(self, job: GiveUp) -> None:
        """A job has done that, or failed."""
        if job.error:
            self._doomed.extend(job.doomed)
            self.sync_failed()
        else:
            self._giving_up = False
            if not self.closed:
                self._shared.wrote(self, 1)

    def _watched(self) -> list[Segment]:
        """Complete segments whose files are looked at with this checkpoint: some, and others with the next."""
        count = len(self._segments) - 1
        if count <= 0:
            return []
        begin = self._watch % count
        self._watch = begin + WATCHED
        return self._segments[begin : min(begin + WATCHED, count)]

    def look_job(self) -> LookJob:
        """A job that looks at the last file, and at some of the others."""
        return LookJob(self._disk, self, [*self._watched(), *self._segments[-1:]])

    def worth_leaving(self) -> bool:
        """Is the log so large that a checkpoint should soon see whether anybody needs it?"""
        return self.size_bytes() >= self._worth()

    def _worth(self) -> i64:
        """Bytes of finished messages for which a new segment is begun, so that they can be removed."""
        worth: i64 = _WORTH_ON_A_FULL_DISK if self._shared.tight() else _WORTH
        return min(worth, max(self._shared.max_bytes_per_file // 4, FILE_HEADER + 1))

    def checkpoint_written(self) -> None:
        """A checkpoint is in its place."""
        self._has_checkpoint = True
        self.checkpointed_at = self._shared.checkpointed_at = self._disk.clock()
        self._shared.checkpoint_count += 1

    def checkpoint_failed(self, job: CheckpointJob) -> None:
        """A checkpoint could not be written, so segments were not removed: the next one has to do all that."""
        if job.failure is not None:
            self._shared.note_failure(job.failure)
        self._doomed.extend(job.doomed)
        self._copied = self._copied or job.copied

    def sync_job(self) -> SyncJob | None:
        """What a thread has to sync so that everything written so far survives a power cut; None if nothing."""
        if not self._segments or self.closed or self._giving_up:
            return None
        last = self._segments[-1]
        if self.sync_state.covers(last.first_position, last.size):
            return None
        reached = checkpoints.Synced(last.first_position, last.size, last.stop)
        return SyncJob(self._disk, self._directory, last, self, reached)

    def note_sync(self, seconds: float) -> None:
        """A job synced a file."""
        self._shared.sync_durations.add(seconds)

    def sync_failed(self) -> None:
        """A sync job failed: what it had to do is to be done again."""
        self.sync_state.fail()
        self._shared.sync_failures += 1
        if not self.closed:
            self._shared.wrote(self, 1)

    def rest(self) -> None:
        """Close the files until they are used again: others need the descriptors more."""
        self._reader.close()
        self._use(-1)

    def close(self) -> None:
        """Sync and close the files. StoreError if the sync failed."""
        error = ""
        job = self.sync_job()
        if job is not None:
            job.run()
            job.finish()
            error = job.error
        self._close_files()
        if error:
            raise StoreError(error)

    def _close_files(self) -> None:
        self.closed = True
        self.rest()
        self._shared.forget(self)

    def delete(self) -> None:
        """Close and remove the files that a log makes. Others, and then the directory, stay."""
        if self._open_job is not None:
            self._open_job.cancel()
        if self._checkpoint_job is not None:
            self._checkpoint_job.cancel()
        self._close_files()
        self._segments.clear()
        self._shared.health.clear(LOSS + self._directory)
        self._shared.put_away(self._directory)
