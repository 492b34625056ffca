"""Slow disk work, described in the event loop and run in a thread: `run` there, then `finish` back in the loop."""

from __future__ import annotations

import os
from threading import Lock
from typing import TYPE_CHECKING, Final

from mypy_extensions import i64

from nsqkit.nsqd.storage.checkpoint import Synced, encode
from nsqkit.nsqd.storage.disk import Permit, pause, write_all
from nsqkit.nsqd.storage.segment import (
    FILE_HEADER,
    SUFFIX,
    Segment,
    file_header,
    header_position,
    renewed_header,
)

if TYPE_CHECKING:
    from nsqkit.nsqd.core.store import TopicRecord
    from nsqkit.nsqd.storage.disk import Disk
    from nsqkit.nsqd.storage.log import TopicLog

_BLOCK: Final = 1 << 20  # bytes written again at a time


class SyncState:
    """How much of one log is known to be on the disk.

    Several jobs may be under way. Each covers all that is not known to be synced when it is made, so that none relies
    on another; and one that runs after a failure that it did not know of when it was made fails as well: the system
    may have dropped what was to be written, and a sync that succeeds then proves nothing.
    """

    def __init__(self) -> None:
        self.lock = Lock()  # one sync of a log at a time
        self.failures: i64 = 0  # changed in threads, under the lock
        self.known_failures: i64 = 0  # of those, what finished jobs have told of
        self.mended_failures: i64 = 0  # of those, after which all was written again
        self.reached = Synced(-1, 0, 0)
        self.complete: dict[int, Segment] = {}  # complete segments to be synced, by first position
        self.segments_made: i64 = 0
        self.names_synced: i64 = 0  # of so many of these

    def covers(self, position: i64, size: i64) -> bool:
        """Is a log on the disk whose last segment begins at `position` and has `size` bytes?"""
        return not self.complete and self.reached.segment == position and self.reached.offset == size

    def begin_segment(self, complete: Segment | None) -> None:
        """A segment was made; the one before it, if any, is complete."""
        if complete is not None:
            self.complete[int(complete.first_position)] = complete
        self.segments_made += 1

    def doubt(self, complete: list[Segment]) -> None:
        """Another process wrote what may not be synced: these segments and the last one.

        A sync of that process may have failed, and so the next would prove nothing.
        """
        for segment in complete:
            if segment.first_position >= self.reached.segment:
                self.complete[int(segment.first_position)] = segment
        self.segments_made += 1
        self.failures += 1
        self.known_failures += 1

    def fail(self) -> None:
        """A job failed: what it had to do is to be done again."""
        self.known_failures += 1

    def succeed(self, job: SyncJob) -> None:
        """All that the job covers is on the disk."""
        self.reached = job.reached
        self.mended_failures = max(self.mended_failures, job.known_failures)
        self.names_synced = max(self.names_synced, job.segments_made)
        for position in job.complete:
            self.complete.pop(position, None)


class SyncJob:
    """Sync the files of one log, of which the last is being written, and its directory if that has new names.

    One after the other is opened for it: the log's own descriptors come and go meanwhile. What a system failed to
    write it tells to whoever syncs the file first, also through a descriptor that was opened later.
    """

    def __init__(self, disk: Disk, directory: str, last: Segment, log: TopicLog, reached: Synced) -> None:
        self._disk = disk
        self._directory = directory
        self._last = last
        self._log = log
        state = log.sync_state
        self.reached = reached
        self.safe = state.reached  # whatever fails
        self.complete = dict(state.complete)
        self.segments_made = state.segments_made
        self.known_failures = state.known_failures
        self._again = state.known_failures != state.mended_failures  # write all that is not safe once more
        self._short: list[tuple[Segment, int]] = []  # files that are not whole any more, and their sizes
        self._took: list[float] = []  # seconds for each file
        self._new_names = state.names_synced != state.segments_made
        self.error = ""

    def run(self) -> None:
        """Sync; on an error `error` tells why."""
        state = self._log.sync_state
        with state.lock:
            if state.failures != self.known_failures:
                self.error = "sync failed: another one failed just before"
            else:
                self._run()
            if self.error:
                state.failures += 1

    def _run(self) -> None:
        try:
            for segment in self.complete.values():
                self._sync(segment, segment.size)
            self._sync(self._last, self.reached.offset)
            if self._new_names:
                self._disk.sync_directory(self._directory)
                self._disk.sync_directory(os.path.dirname(self._directory))
        except FileNotFoundError:
            return  # the topic was deleted meanwhile
        except OSError as error:
            self.error = f"sync failed: {error.strerror}"

    def _sync(self, segment: Segment, size: i64) -> None:
        try:
            file = self._disk.open(segment.path)
        except FileNotFoundError:
            self._short.append((segment, -1))  # or nobody needs it any more
            return
        try:
            if self._log.closed or segment.given_up:
                return  # a file of this name may be one of a new topic by now, or begin elsewhere
            left = self._disk.size(file)
            if left < size:
                self._short.append((segment, left))
            if self._again:
                self._write_again(file, min(left, int(size)))
            began = self._disk.clock()
            self._disk.sync(file)
            self._took.append(self._disk.clock() - began)
        finally:
            self._disk.close(file)

    def _write_again(self, file: int, size: int) -> None:
        """Mark everything as not written yet: it can still be read, but a system that failed won't try by itself."""
        for offset in range(self._safe_bytes(file), size, _BLOCK):
            piece = self._disk.read(file, min(_BLOCK, size - offset), offset)
            if piece:
                write_all(self._disk, file, [piece], offset)

    def _safe_bytes(self, file: int) -> int:
        if header_position(self._disk.read(file, FILE_HEADER, 0)) != self.safe.segment:
            return 0
        return int(self.safe.offset)

    def finish(self) -> None:
        """Let the log know how far it is safe, or that this is still to be done; and which files are not whole."""
        for segment, size in self._short:
            self._log.note_short(segment, size)
        for seconds in self._took:
            self._log.note_sync(seconds)
        if self.error:
            self._log.sync_failed()
        else:
            self._log.sync_state.succeed(self)


class OpenJob:
    """Make the directory of a new topic's log, and its first segment: either may wait for a busy disk."""

    def __init__(self, disk: Disk, directory: str, log: TopicLog) -> None:
        self._disk = disk
        self._directory = directory
        self._log = log
        self._path = f"{directory}/{0:020d}{SUFFIX}"
        self._permit = Permit()
        self._began = False  # the segment is there
        self.error = ""

    def cancel(self) -> None:
        """The topic is deleted: make nothing more in a directory of this name."""
        self._permit.withdraw()

    def run(self) -> None:
        """Do it; on an error `error` tells why. If something is there, that is to be opened."""
        try:
            with self._permit:
                made = self._disk.make_directory(self._directory)
            if not made:
                if self._disk.names(self._directory):
                    return
                # What a deletion took must not come back beside what comes now.
                self._disk.sync_directory(self._directory)
            with self._permit:
                file = self._disk.create(self._path)
            try:
                write_all(self._disk, file, [file_header(0)], 0)
            finally:
                self._disk.close(file)
            self._began = True
        except OSError as error:
            self.error = f"{self._directory}: can't be made: {error.strerror}"

    def finish(self) -> None:
        """Let the log begin."""
        if self.error or self._log.closed:
            return
        try:
            if self._began:
                self._log.begin(self._path)
            else:
                self._log.open()
        except OSError as error:
            self.error = f"{self._directory}: can't be opened: {error.strerror}"


class LookJob:
    """See whether files of a log are as large as they should be, whether anything happens to the log or not."""

    def __init__(self, disk: Disk, log: TopicLog, segments: list[Segment]) -> None:
        self._disk = disk
        self._log = log
        self._expected = [(segment, segment.size) for segment in segments]
        self._short: list[tuple[Segment, int]] = []

    def run(self) -> None:
        """Look."""
        try:
            for segment, size in self._expected:
                left = self._disk.size_of(segment.path)
                if left < size:
                    self._short.append((segment, left))
            if self._short:
                self._disk.require_place()
        except OSError:
            self._short = []  # whoever reads will see what is wrong, or the data path is not there as a whole

    def finish(self) -> bool:
        """Let the log know. Was there anything to tell?"""
        for segment, size in self._short:
            self._log.note_short(segment, size)
        return bool(self._short)


class GiveUp:
    """On a disk so full that no checkpoint can be written: let what nobody needs go at once, and in place.

    The header of the segment that stays says, for good, that nothing before it is owed; only then do other segments go,
    and what this one has, if nobody needs that either. However far it came, who opens the log brings it to its end, and
    the checkpoint that is on the disk does no harm: what it says to be owed before that header was finished since.
    """

    def __init__(self, disk: Disk, log: TopicLog, kept: Segment, doomed: list[str], *, empties: bool) -> None:
        self._disk = disk
        self._log = log
        self._kept = kept
        self._header = renewed_header(kept.first_position)
        self._empties = empties  # nothing of the file is needed, and nothing is written to it meanwhile
        self.doomed = doomed
        self.error = ""

    def run(self, permit: Permit) -> None:
        """Do it; on an error it is to be done again, and `error` tells why."""
        state = self._log.sync_state
        with state.lock:  # a sync may write again what it reads
            try:
                self._run(permit)
            except FileNotFoundError:
                return  # the topic was deleted meanwhile, or somebody removed the file, which the next write sees
            except OSError as error:
                state.failures += 1
                self.error = f"{self._kept.path}: {error.strerror}"

    def _run(self, permit: Permit) -> None:
        with permit:
            file = self._disk.open(self._kept.path)
        try:
            write_all(self._disk, file, [self._header], 0)
            self._disk.sync(file)
            for path in self.doomed:
                with permit:
                    self._disk.remove(path)
            if self._empties:
                self._disk.truncate(file, FILE_HEADER)
                self._disk.sync(file)
        finally:
            self._disk.close(file)

    def finish(self) -> None:
        """Let the log know."""
        self._log.gave_up(self)


class CheckpointJob:
    """Replace a checkpoint, and remove the segments that it does without. With `safe`, it must survive a power cut."""

    def __init__(
        self,
        disk: Disk,
        path: str,
        record: TopicRecord,
        log: TopicLog,
        doomed: list[str],
        sync: SyncJob | None,
    ) -> None:
        self._disk = disk
        self._path = path
        self._record = record
        self._reached = log.sync_state.reached
        self._log = log
        self.doomed = doomed
        self._sync = sync
        self.give_up: GiveUp | None = None  # what has to go first, to make room for the checkpoint
        self.copied = False  # until it is written there are copies that no checkpoint names
        self.safe = bool(doomed)
        self.look: LookJob | None = None  # at some files, on this occasion
        self._permit = Permit()
        self.failure: OSError | None = None
        self.error = ""

    def cancel(self) -> None:
        """The topic is deleted: the job must not write into the directory of a new topic of the same name."""
        self._permit.withdraw()

    def run(self) -> None:
        """Do it; on an error nothing is removed, and `error` tells why."""
        if self.give_up is not None:
            self.give_up.run(self._permit)
            self.error = self.give_up.error
        if self._sync is not None:
            self._sync.run()
            self.error = self._sync.error
        if not self.error:
            self._run(encode(self._record, self._reached, pause))
        if self.look is not None:
            self.look.run()

    def _run(self, content: bytes) -> None:
        try:
            self._disk.replace(self._path, content, sync=self.safe, permit=self._permit)
            for path in self.doomed:
                with self._permit:
                    self._disk.remove(path)
        except FileNotFoundError:
            return  # the topic was deleted meanwhile
        except OSError as error:
            self.failure = error
            self.error = f"{self._path}: {error.strerror}"

    def finish(self) -> None:
        """Let the log know how far it is safe, what is still to be done, and which files are not whole."""
        if self.look is not None:
            self.look.finish()
        if self.give_up is not None:
            self.give_up.finish()
        if self._sync is not None:
            self._sync.finish()
        if self.error:
            self._log.checkpoint_failed(self)
        else:
            self._log.checkpoint_written()
