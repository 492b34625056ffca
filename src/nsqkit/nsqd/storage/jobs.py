"""Slow disk work, described in the event loop and run in a thread: `run` there, then `finish` back in the loop."""

from __future__ import annotations

import os
from threading import Lock
from typing import TYPE_CHECKING, Final

from nsqkit.nsqd.storage.disk import write_all
from nsqkit.nsqd.storage.segment import FILE_HEADER, header_position

if TYPE_CHECKING:
    from nsqkit.nsqd.storage.checkpoint import Synced
    from nsqkit.nsqd.storage.disk import Disk
    from nsqkit.nsqd.storage.log import TopicLog

_BLOCK: Final = 1 << 20  # bytes written again at a time


class SyncJob:
    """Sync the files of one log, the last of which is being written.

    It owns the descriptors, so the log may be closed or deleted meanwhile.
    """

    def __init__(self, disk: Disk, files: list[int], directory: str, log: TopicLog, reached: Synced) -> None:
        self._disk = disk
        self._files = files
        self._directory = directory
        self._log = log
        self._reached = reached
        self.again = False  # a sync failed, and the system may have dropped what it was to write
        self.synced: Synced | None = None  # what is safe all the same
        self.error = ""

    def run(self) -> None:
        """Sync; on an error `error` tells why."""
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
            size = int(self._reached.offset) if file == self._files[-1] else self._disk.size(file)
            for offset in range(self._safe_bytes(file), size, _BLOCK):
                piece = self._disk.read(file, min(_BLOCK, size - offset), offset)
                if piece:
                    write_all(self._disk, file, [piece], offset)

    def _safe_bytes(self, file: int) -> int:
        synced = self.synced
        if synced is None or header_position(self._disk.read(file, FILE_HEADER, 0)) != synced.segment:
            return 0
        return int(synced.offset)

    def finish(self) -> None:
        """Let the log know how far it is safe, or that this is still to be done."""
        self._disk.close(self._files.pop())
        if self.error:
            self._log.sync_failed(self._files, self._directory)
            return
        for file in self._files:
            self._disk.close(file)
        self._log.set_synced(self._reached)


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
