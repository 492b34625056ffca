"""What the daemon asks of the system beside its storage, answered by the simulation: files, locks, threads, clocks.

`replaced` puts it all in the place of the real thing, in modules that are never compiled, while its block lasts.
"""

from __future__ import annotations

import gc
import posixpath
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Final, Self

from nsqkit.nsqd import daemon, housekeeping, metadata, moving
from tests.simulation.disk import SimulatedDisk
from tests.simulation.loop import Executor

_MISSING: Final = object()


class Path:
    """Stands for `os.path`."""

    join = staticmethod(posixpath.join)
    dirname = staticmethod(posixpath.dirname)

    def __init__(self, disk: SimulatedDisk) -> None:
        self._disk = disk

    def isdir(self, path: str) -> bool:
        """Is it one?"""
        return self._disk.is_directory(path)


class System:
    """Stands for `os` and for `tempfile`, as far as they are used."""

    O_RDONLY = 0
    curdir = "."

    def __init__(self, disk: SimulatedDisk) -> None:
        self._disk = disk
        self._temporary = 0
        self.path = Path(disk)

    def listdir(self, path: str) -> list[str]:
        """The names in a directory."""
        return self._disk.names(path)

    def mkstemp(self, *, prefix: str, suffix: str, dir: str) -> tuple[int, str]:
        """A new file."""
        self._temporary += 1
        path = f"{dir}/{prefix}{self._temporary}{suffix}"
        while posixpath.basename(path) in self._disk.names(dir):
            self._temporary += 1
            path = f"{dir}/{prefix}{self._temporary}{suffix}"
        return self._disk.create(path), path

    def open(self, path: str, _: int) -> int:
        """Only directories are opened like this."""
        return self._disk.descriptor_of_directory(path)

    def close(self, file: int) -> None:
        """Close it."""
        self._disk.close(file)

    def fsync(self, file: int) -> None:
        """Sync it."""
        self._disk.sync(file)

    def replace(self, path: str, target: str) -> None:
        """Rename it."""
        self._disk.rename(path, target)

    def unlink(self, path: str) -> None:
        """Remove it."""
        self._disk.remove(path)

    def file(self, path: str | int, mode: str) -> OpenFile:
        """Stands for the built-in `open`."""
        if isinstance(path, int):
            return OpenFile(self._disk, path)
        assert mode == "rb"
        return OpenFile(self._disk, self._disk.open(path))


class OpenFile:
    """What `open` returns."""

    def __init__(self, disk: SimulatedDisk, file: int) -> None:
        self._disk = disk
        self._file = file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._disk.close(self._file)

    def read(self) -> bytes:
        """All of it."""
        return self._disk.read(self._file, self._disk.size(self._file), 0)

    def write(self, data: bytes) -> None:
        """From the beginning."""
        written = 0
        while written < len(data):
            written += self._disk.write(self._file, [data[written:]], written)

    def flush(self) -> None:
        """There is no buffer."""


class Lock:
    """Nobody else uses the data path."""

    def __init__(self, _: str) -> None:
        pass

    def release(self) -> None:
        """Nothing to do."""


@contextmanager
def replaced(disk: SimulatedDisk, counts: Counter[str]) -> Iterator[None]:
    """Everything that runs inside the block sees this disk; what is carried forward is counted."""
    system = System(disk)
    really_carry: Any = vars(housekeeping)["carry_forward"]

    def carry_forward(*arguments: Any) -> bool:
        done = bool(really_carry(*arguments))
        counts["carried forward"] += done
        return done

    others: list[tuple[ModuleType, str, Any]] = [
        (daemon, "os", system),
        (daemon, "Disk", lambda: disk),
        (daemon, "DataPathLock", Lock),
        (metadata, "os", system),
        (metadata, "tempfile", system),
        (metadata, "open", system.file),
        (moving, "find_queues", lambda _: []),  # nothing of an NSQ is there
        (housekeeping, "ThreadPoolExecutor", Executor),
        (housekeeping, "thread_time", lambda: 0.0),
        (housekeeping, "carry_forward", carry_forward),
    ]
    callbacks = list(gc.callbacks)
    before = [(module, name, getattr(module, name, _MISSING)) for module, name, _ in others]
    for module, name, other in others:
        setattr(module, name, other)
    try:
        yield
    finally:
        gc.callbacks[:] = callbacks  # a killed daemon leaves its own
        for module, name, old in before:
            if old is _MISSING:
                delattr(module, name)
            else:
                setattr(module, name, old)
