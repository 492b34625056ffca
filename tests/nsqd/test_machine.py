"""The machine under the daemon: what it is given is what it uses."""

import ast
import importlib.util
from pathlib import Path
from threading import Barrier, BrokenBarrierError

import pytest

from nsqkit.errors import StartError
from nsqkit.nsqd.machine import Machine

PACKAGE = Path(str(importlib.util.find_spec("nsqkit.nsqd").origin)).parent  # type: ignore[union-attr]


def test_data_path_is_locked(tmp_path: Path) -> None:
    """Two machines can't have the same data path, until the first lets go."""
    lock = Machine().lock(str(tmp_path))

    with pytest.raises(StartError, match="cannot flock"):
        Machine().lock(str(tmp_path))
    lock.release()

    Machine().lock(str(tmp_path)).release()


def test_jobs_are_done_in_order() -> None:
    """An executor is one thread: no job begins before the one that was given to it before has ended."""
    done: list[int] = []
    executor = Machine().executor("nsqd-test")

    for number in range(100):
        executor.submit(done.append, number)
    executor.shutdown()

    assert list(range(100)) == done


def test_together() -> None:
    """Two works that wait for each other come to their end, and what one raises is raised."""
    meeting = Barrier(2, timeout=5)
    Machine().together([lambda: void(meeting.wait()), lambda: void(meeting.wait())])

    with pytest.raises(BrokenBarrierError):
        Machine().together([lambda: void(Barrier(2).wait(0))])


def void(_: object) -> None:
    """Nothing is returned."""


@pytest.mark.parametrize("name", ["daemon", "housekeeping", "metadata"])
def test_the_daemon_asks_nobody_else(name: str) -> None:
    """No file is opened, no thread made and no clock read past the machine."""
    tree = ast.parse((PACKAGE / f"{name}.py").read_text())
    past = {"open", "Clock", "Disk", "ThreadPoolExecutor", "DataPathLock", "listen", "thread_time", "time_ns"}

    called = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}

    assert set() == called & past
