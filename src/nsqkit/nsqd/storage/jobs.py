"""Slow disk work, described in the event loop and run in a thread: `run` there, then `finish` back in the loop."""

from __future__ import annotations

import os
from threading import Lock
from typing import TYPE_CHECKING, Final

from mypy_extensions import i64

from nsqkit.nsqd.storage.checkpoint import Synced
from nsqkit.nsqd.storage.disk import write_all
from nsqkit.nsqd.storage.segment import FILE_HEADER, header_position

if TYPE_CHECKING:
    from nsqkit.nsqd.storage.disk import Disk
    from nsqkit.nsqd.storage.log import TopicLog

_BLOCK: Final = 1 << 20  # bytes written again at a time


class SyncState:
    """How much of one log is known to be on the disk.

    Several jobs may be under way. Each covers all that is not known to be synced when it is made, so that none relies
    on another; and one that comes behind a failure that it did not know of when it was made fails as well: the system
    may have dropped what was to be written, and a sync that succeeds then proves nothing.
    """

    def __init__(self) -> None:
        self.lock = Lock()  # one sync of a log at a time
        self.failures: i64 = 0  # changed in threads, under the lock
        self.known_failures: i64 = 0  # of those, what finished jobs have told of
        self.mended_failures: i64 = 0  # of those, behind which all was written again
        self.reached = Synced(-1, 0, 0)
        self.sealed: dict[
            int, int
        ] = {}  # files of complete segments, by first position: file numbers come again
        self.segments_made: i64 = 0
        self.names_synced: i64 = 0  # of so many of these

    def fail(self) -> None:
        """A sync failed in a process before this one, or may have."""
        self.failures += 1
        self.known_failures += 1

    def succeed(self, job: SyncJob, disk: Disk) -> None:
        """All that the job covers is on the disk."""
        self.reached = job.reached
        self.mended_failures = max(self.mended_failures, job.known_failures)
        self.names_synced = max(self.names_synced, job.segments_made)
        for position in job.sealed:
            if position in self.sealed:
                disk.close(self.sealed.pop(position))


class SyncJob:
    """Sync the files of one log, the last of which is being written, and `directory` if it has new names.

    It owns the descriptors, so the log may be closed or deleted meanwhile.
    """

    def __init__(self, disk: Disk, files: list[int], directory: str, log: TopicLog, reached: Synced) -> None:
        self._disk = disk
        self._files = files
        self._directory = directory
        self._log = log
        state = log.sync_state
        self.reached = reached
        self.safe = state.reached  # whatever fails
        self.sealed = list(state.sealed)
        self.segments_made = state.segments_made
        self.known_failures = state.known_failures
        self.again = state.known_failures != state.mended_failures  # write all that is not safe once more
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
            if self.again:
                self._write_again()
            for file in self._files:
                self._disk.sync(file)
            if self._directory:
                self._disk.sync_directory(self._directory)
                self._disk.sync_directory(os.path.dirname(self._directory))
        except FileNotFoundError:
            return  # the topic was deleted meanwhile
        except OSError as error:
            self.error = f"sync failed: {error.strerror}"

    def _write_again(self) -> None:
        """Mark everything as not written yet: it can still be read, but a system that failed won't try by itself."""
        for file in self._files:
            size = int(self.reached.offset) if file == self._files[-1] else self._disk.size(file)
            for offset in range(self._safe_bytes(file), size, _BLOCK):
                piece = self._disk.read(file, min(_BLOCK, size - offset), offset)
                if piece:
                    write_all(self._disk, file, [piece], offset)

    def _safe_bytes(self, file: int) -> int:
        if header_position(self._disk.read(file, FILE_HEADER, 0)) != self.safe.segment:
            return 0
        return int(self.safe.offset)

    def finish(self) -> None:
        """Let the log know how far it is safe, or that this is still to be done."""
        for file in self._files:
            self._disk.close(file)
        if self.error:
            self._log.sync_failed()
        else:
            self._log.sync_state.succeed(self, self._disk)


class CheckpointJob:
    """Replace a checkpoint, and remove the segments that it does without. With `safe`, it must survive a power cut."""

    def __init__(
        self, disk: Disk, path: str, content: bytes, log: TopicLog, doomed: list[str], sync: SyncJob | None
    ) -> None:
        self._disk = disk
        self._path = path
        self._content = content
        self._log = log
        self._doomed = doomed
        self._sync = sync
        self.safe = bool(doomed)
        self._lock = Lock()
        self._cancelled = False
        self.error = ""

    def cancel(self) -> None:
        """The topic is deleted. When this returns, the job has run or never will.

        It must not write into the directory of a new topic of the same name.
        """
        with self._lock:
            self._cancelled = True

    def run(self) -> None:
        """Do it; on an error nothing is removed, and `error` tells why."""
        if self._sync is not None:
            self._sync.run()
        with self._lock:
            if not self._cancelled:
                self._run()

    def _run(self) -> None:
        if self._sync is not None and self._sync.error:
            self.error = self._sync.error
            return
        try:
            self._disk.replace(self._path, self._content, sync=self.safe)
            for path in self._doomed:
                self._disk.remove(path)
        except FileNotFoundError:
            return  # the topic was deleted meanwhile
        except OSError as error:
            self.error = f"{self._path}: {error.strerror}"

    def finish(self) -> None:
        """Let the log know how far it is safe, and what is still to be done."""
        if self._sync is not None:
            self._sync.finish()
        if self.error:
            self._log.checkpoint_failed(self._doomed)
        else:
            self._log.checkpoint_written()
