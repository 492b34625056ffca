"""Slow disk work, described in the event loop and run in a thread: `run` there, then `finish` back in the loop."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nsqkit.nsqd.storage.checkpoint import Synced
    from nsqkit.nsqd.storage.disk import Disk
    from nsqkit.nsqd.storage.log import TopicLog


class SyncJob:
    """Sync the files of one log. It owns the descriptors, so the log may be closed or deleted meanwhile."""

    def __init__(self, disk: Disk, files: list[int], directory: str, log: TopicLog, reached: Synced) -> None:
        self._disk = disk
        self._files = files
        self._directory = directory
        self._log = log
        self._reached = reached
        self.error = ""

    def run(self) -> None:
        """Sync; on an error `error` tells why."""
        try:
            for file in self._files:
                self._disk.sync(file)
            if self._directory:
                self._disk.sync_directory(self._directory)
        except OSError as error:
            self.error = f"sync failed: {error.strerror}"
        finally:
            for file in self._files:
                self._disk.close(file)

    def finish(self) -> None:
        """Let the log know how far it is safe."""
        if not self.error:
            self._log.set_synced(self._reached)


class CheckpointJob:
    """Replace a checkpoint, and remove the segments that it does without."""

    def __init__(self, disk: Disk, path: str, content: bytes, doomed: list[str], sync: SyncJob | None) -> None:
        self._disk = disk
        self._path = path
        self._content = content
        self._doomed = doomed
        self._sync = sync
        self._lock = Lock()
        self._cancelled = False
        self.error = ""

    def cancel(self) -> None:
        """The topic is deleted. When this returns, the job has run or never will: it must not write into the
        directory of a topic of the same name."""
        with self._lock:
            self._cancelled = True

    def run(self) -> None:
        """Do it; on an error nothing is removed, and `error` tells why."""
        with self._lock:
            if not self._cancelled:
                self._run()

    def _run(self) -> None:
        try:
            if self._sync is not None:
                self._sync.run()
                if self._sync.error:
                    self.error = self._sync.error
                    return
            self._disk.replace(self._path, self._content)
            for path in self._doomed:
                self._disk.remove(path)
        except FileNotFoundError:
            return  # the topic was deleted meanwhile
        except OSError as error:
            self.error = f"{self._path}: {error.strerror}"

    def finish(self) -> None:
        """Let the log know how far it is safe."""
        if self._sync is not None:
            self._sync.finish()
