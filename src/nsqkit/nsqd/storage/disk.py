"""The operating system's files as storage uses them: the one place that a simulation replaces."""

import errno
import os
from collections.abc import Callable
from threading import Lock
from time import monotonic, sleep
from types import TracebackType
from typing import Final

from mypy_extensions import i64, mypyc_attr

IOV_MAX: Final = 1000  # pieces in one writev; Linux takes 1024
_PAUSE: Final = 0.00005  # seconds; without really waiting, the thread that waits would not get its turn


def pause() -> None:
    """Let the other threads go on, in the midst of long work that needs no disk. Compiled code never does by itself."""
    sleep(_PAUSE)


class Permit:
    """Whether a thread may still use names in a directory: another topic may have the directory's name by now.

    `with permit:` is for one call that makes, changes or opens a name, never for a sync: who withdraws it waits for it.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._withdrawn = False

    def withdraw(self) -> None:
        """When this returns, nothing more is done under it."""
        with self._lock:
            self._withdrawn = True

    def __enter__(self) -> None:
        """FileNotFoundError if it was withdrawn."""
        self._lock.acquire()
        if self._withdrawn:
            self._lock.release()
            raise FileNotFoundError(errno.ENOENT, "deleted meanwhile")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Done."""
        self._lock.release()


@mypyc_attr(allow_interpreted_subclasses=True)
class Disk:
    """Plain calls. Everything raises OSError.

    `misplaced` tells why names may not be used, "" while they may: another directory may have the data path's name,
    and belong to another nsqd. What is open stays what it is.
    """

    misplaced: Callable[[], str] | None = None

    def require_place(self) -> None:
        """Raise what `misplaced` says."""
        if self.misplaced is not None:
            reason = self.misplaced()
            if reason:
                raise OSError(errno.ESTALE, reason)

    def clock(self) -> float:
        """Seconds, for how long calls take: steady, from no moment in particular."""
        return monotonic()

    def create(self, path: str) -> int:
        """Open a new file for reading and writing. FileExistsError if it is there."""
        self.require_place()
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def open(self, path: str) -> int:
        """Open an existing file for reading and writing."""
        self.require_place()
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def close(self, file: int) -> None:
        """Close a file."""
        os.close(file)

    def size(self, file: int) -> int:
        """Bytes in an open file."""
        return os.lseek(file, 0, os.SEEK_END)  # a third of what fstat costs, and the offset is nobody's

    def size_of(self, path: str) -> int:
        """Bytes in a file; -1 if there is none of this name."""
        try:
            return os.stat(path).st_size
        except (FileNotFoundError, NotADirectoryError):
            return -1

    def links(self, file: int) -> int:
        """Names that an open file has: 0 if it was removed."""
        return os.fstat(file).st_nlink

    def read(self, file: int, length: int, offset: int) -> bytes:
        """Up to `length` bytes from `offset`."""
        return os.pread(file, length, offset)

    def write(self, file: int, pieces: list[bytes], offset: int) -> int:
        """Write the pieces one after the other at `offset`; returns how many bytes, maybe fewer."""
        return os.pwritev(file, pieces, offset)

    def truncate(self, file: int, size: int) -> None:
        """Cut an open file."""
        os.ftruncate(file, size)

    def sync(self, file: int) -> None:
        """Return when the file's data will survive a power cut."""
        if hasattr(os, "fdatasync"):
            os.fdatasync(file)
        else:
            os.fsync(file)

    def sync_directory(self, path: str) -> None:
        """Return when the directory's entries will survive a power cut."""
        file = os.open(path, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)

    def replace(self, path: str, content: bytes, *, sync: bool = False, permit: Permit | None = None) -> None:
        """Give a small file new content, atomically. With `sync` it will survive a power cut."""
        self.require_place()
        permit = permit or Permit()
        temporary = path + ".tmp"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with permit:
            try:
                file = os.open(temporary, flags, 0o600)
            except FileExistsError:
                # What a crash left may be what the next power cut leaves, whatever is written over it.
                os.unlink(temporary)
                file = os.open(temporary, flags, 0o600)
        try:
            try:
                written = 0
                while written < len(content):
                    written += os.write(file, content[written:])
                if sync:
                    self.sync(file)
            finally:
                os.close(file)
            with permit:
                os.replace(temporary, path)
        except OSError:
            os.unlink(temporary)  # it may have filled the disk
            raise
        if sync:
            self.sync_directory(os.path.dirname(path))

    def load(self, path: str) -> bytes | None:
        """The whole of a small file, None if there is none."""
        try:
            with open(path, "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def names(self, path: str) -> list[str]:
        """What a directory holds, sorted; nothing if it is none."""
        try:
            return sorted(os.listdir(path))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def make_directory(self, path: str) -> bool:
        """Make a directory unless it is there; was it made?"""
        self.require_place()
        if os.path.isdir(path):
            return False
        os.mkdir(path, 0o700)  # never what it is in: a data path that is gone must not come back empty
        return True

    def remove(self, path: str) -> None:
        """Remove a file, if it is there."""
        self.require_place()
        try:
            os.unlink(path)
        except FileNotFoundError:
            return

    def rename(self, path: str, target: str) -> None:
        """Give a file another name."""
        self.require_place()
        os.rename(path, target)

    def remove_directory(self, path: str) -> None:
        """Remove an empty directory."""
        self.require_place()
        os.rmdir(path)

    def total_bytes(self, path: str) -> int:
        """The size of the file system of `path`."""
        about = os.statvfs(path)
        return about.f_blocks * about.f_frsize

    def free_bytes(self, path: str) -> int:
        """What may still be written to the file system of `path`."""
        about = os.statvfs(path)
        return about.f_bavail * about.f_frsize


def write_all(disk: Disk, file: int, pieces: list[bytes], offset: i64) -> None:
    """Write every byte of the pieces at `offset`, however the system splits it."""
    at: i64 = offset
    for begin in range(0, len(pieces), IOV_MAX):
        rest = pieces[begin : begin + IOV_MAX]
        left: i64 = 0
        for piece in rest:
            left += len(piece)
        while left > 0:
            count: i64 = disk.write(file, rest, int(at))
            if count <= 0:
                raise OSError(0, "nothing was written")
            at += count
            left -= count
            if left > 0:
                rest = [b"".join(rest)[count:]]
