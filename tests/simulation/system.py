"""What the daemon asks of its machine, answered by the simulation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from random import Random
from typing import Any, cast

from nsqkit.clock import Clock
from nsqkit.listen import Listener
from nsqkit.nsqd.machine import Machine
from tests.simulation import loop
from tests.simulation.calendar import Calendar
from tests.simulation.disk import SimulatedDisk


class SimulatedMachine(Machine):
    """Time passes as the loop says, nobody connects, and nobody else uses the data path."""

    def __init__(self, disk: SimulatedDisk, clock: loop.Loop, calendar: Calendar, chance: Random) -> None:
        self.clock = Clock(lambda: clock.now + calendar.ahead, lambda: clock.now)
        self.disk = disk
        self.random = chance
        self.cpu_time = lambda: 0.0
        self.watch_s = 0.0

    def descriptors(self) -> int:
        """So few that logs close their files while others are used."""
        return 0

    def executor(self, name: str) -> Executor:
        """One whose jobs take the time that the loop says."""
        executor: object = loop.Executor(name)
        return cast("Executor", executor)

    def together(self, works: Iterable[Callable[[], None]]) -> None:
        """One after the other."""
        for work in works:
            work()

    def listen(self, address: str) -> Listener:
        """Nobody connects."""
        return Listener(cast("Any", NoSocket()), address, 1)

    def lock(self, _: str) -> NoLock:
        """Nobody else is there."""
        return NoLock()


class NoSocket:
    """Nobody listens."""

    def setblocking(self, _: bool) -> None:
        """Nothing to do."""

    def fileno(self) -> int:
        """None."""
        return -1

    def close(self) -> None:
        """Nothing to do."""


class NoLock:
    """Nothing is locked."""

    def misplaced(self) -> str:
        """Nobody moves the data path."""
        return ""

    def release(self) -> None:
        """Nothing to do."""
