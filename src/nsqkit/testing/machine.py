"""The machine that a test's nsqd runs on: time that can be moved, no threads, and a disk that can die.

Files are real, but never synced: a test's data need not survive a power cut.
"""

import errno
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future
from typing import Any

from nsqkit.clock import Clock
from nsqkit.nsqd.machine import Machine
from nsqkit.nsqd.storage.disk import Disk


class MortalDisk(Disk):
    """The real files, until `die`: then nothing is written any more, whoever tries."""

    def __init__(self) -> None:
        self._dead = False

    def die(self) -> None:
        """As if the process was killed."""
        self._dead = True
        self.misplaced = lambda: "killed"

    def _live(self) -> None:
        if self._dead:
            raise OSError(errno.ESTALE, "killed")

    def write(self, file: int, pieces: list[bytes], offset: int) -> int:
        """Write, if alive."""
        self._live()
        return super().write(file, pieces, offset)

    def truncate(self, file: int, size: int) -> None:
        """Cut, if alive."""
        self._live()
        super().truncate(file, size)

    def sync(self, file: int) -> None:
        """Nothing: there will be no power cut."""

    def sync_directory(self, path: str) -> None:
        """Nothing."""


class AtOnce(Executor):
    """Runs jobs where they are submitted, so that nothing happens behind the test's back."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run it."""
        done: Future[Any] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - who submitted it looks at it
            done.set_exception(error)
        return done


class TestMachine(Machine):
    """`clock` is the test's."""

    __test__ = False  # pytest takes classes of such a name for tests

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.disk = self.mortal_disk = MortalDisk()
        self.watch_s = 0.0

    def executor(self, name: str) -> Executor:  # noqa: ARG002 - a machine's interface
        """No thread."""
        return AtOnce()

    def together(self, works: Iterable[Callable[[], None]]) -> None:
        """One after the other."""
        for work in works:
            work()
