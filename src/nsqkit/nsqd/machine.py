"""The machine that one nsqd runs on: its clock, disk, threads, listening sockets and the lock of the data path.

`Nsqd` takes all of them from the object that it is given, and nothing beside them from the system but the event loop.
So a simulation, or a test that has its own time, gives it another machine.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from random import Random
from time import thread_time
from typing import Final, Protocol

from nsqkit.accept import BACKLOG
from nsqkit.clock import Clock
from nsqkit.door import descriptors
from nsqkit.listen import Listener, listen
from nsqkit.nsqd.datapath import DataPathLock, require_writable
from nsqkit.nsqd.storage.disk import Disk

AT_ONCE: Final = 16  # syncs of different files, which a disk makes faster than one after the other


class Lock(Protocol):
    """The right to use a data path."""

    def release(self) -> None:
        """Let others use it. Does nothing the second time."""

    def misplaced(self) -> str:
        """Why the path leads somewhere else now, "" if it does not."""


class Machine:
    """The real one."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.disk = Disk()
        self.random = Random()  # noqa: S311 - sampling, not secrets
        self.watch_s = 2.0  # between two looks at files that others may have changed; 0: nobody else is there
        self.cpu_time: Callable[[], float] = thread_time  # seconds of CPU that this thread has used

    def descriptors(self) -> int:
        """How many files and sockets may be open."""
        return descriptors()

    def executor(self, name: str) -> Executor:
        """A thread for jobs that are done one after the other."""
        return ThreadPoolExecutor(1, name)

    def together(self, works: Iterable[Callable[[], None]]) -> None:
        """Do all of this, which waits for the disk, some at a time; return when everything is done."""
        with ThreadPoolExecutor(AT_ONCE, "nsqd-stop") as pool:
            for done in [pool.submit(work) for work in works]:
                done.result()

    def listen(self, address: str) -> Listener:
        """A socket that takes connections. StartError."""
        return listen(address, BACKLOG)

    def lock(self, data_path: str) -> Lock:
        """Nobody else may use this directory from here on. StartError, also if it can't be written."""
        lock = DataPathLock(data_path)
        try:
            require_writable(data_path)
        except BaseException:
            lock.release()
            raise
        return lock
