"""The daemon in this process: what it finds in its data path."""

import asyncio
import errno
import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from nsqkit.clock import Clock
from nsqkit.errors import NotKept
from nsqkit.log import Log
from nsqkit.nsqd.core.batch import FAILED, KEPT, Batch
from nsqkit.nsqd.core.settings import SECOND
from nsqkit.nsqd.daemon import Nsqd
from nsqkit.nsqd.machine import Machine
from nsqkit.nsqd.options import NsqdOptions
from nsqkit.nsqd.storage.disk import Disk
from nsqkit.nsqd.storage.files import FileStorage

NOW = 1_700_000_000 * SECOND


class Closed(Disk):
    """One directory of it can't be read, not even by root."""

    def names(self, path: str) -> list[str]:
        """What a directory holds."""
        if path.endswith("/closed"):
            raise PermissionError(13, "Permission denied")
        return super().names(path)


class Full(Disk):
    """One with hardly any room."""

    def free_bytes(self, path: str) -> int:  # noqa: ARG002
        """What there is."""
        return 5

    def total_bytes(self, path: str) -> int:  # noqa: ARG002
        """A large one."""
        return 1 << 40


class Kept(Disk):
    """One where no directory can be removed."""

    def remove_directory(self, path: str) -> None:
        """Not this one either."""
        raise OSError(errno.EBUSY, "Device or resource busy", path)


class Lines(list[str]):
    """What the daemon logs."""

    def __init__(self) -> None:
        super().__init__()
        self._more = asyncio.Event()

    def append(self, line: str) -> None:
        """Keep a line, and wake up who waits for it."""
        super().append(line)
        self._more.set()

    async def said(self, text: str) -> None:
        """Wait for a line that holds a text."""
        while not any(text in line for line in self):
            self._more.clear()
            await self._more.wait()


@pytest.fixture
def lines() -> Lines:
    """What the daemon logs."""
    return Lines()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The data path."""
    return tmp_path / "data"


@pytest.fixture
def run(path: Path, lines: Lines) -> Callable[..., None]:
    """Starts a daemon on `path`, does something with it, and stops it."""

    def run(
        act: Callable[[Nsqd], Awaitable[None]], disk: Disk | None = None, clock: Clock | None = None
    ) -> None:
        path.mkdir(exist_ok=True)

        async def live() -> None:
            machine = Machine()
            machine.disk = disk or machine.disk
            machine.clock = clock or machine.clock
            options = NsqdOptions(data_path=str(path), tcp_address="127.0.0.1:0", http_address="")
            async with Nsqd(options, Log("", write=lines.append), machine) as nsqd:
                await act(nsqd)

        asyncio.run(live())

    return run


async def nothing(_: Nsqd) -> None:
    """Just start and stop."""


def test_directories_of_others(path, run, lines):
    """A directory with logs of others is no topic, and nothing in it changes; one that is closed is passed over."""
    path.mkdir()
    for name in ("web", "lost+found", "closed"):
        (path / name).mkdir()
    (path / "web" / "access.log").write_bytes(b"GET /\n")
    (path / "web" / "error.log").touch()
    topics: list[str] = []

    async def look(nsqd: Nsqd) -> None:
        topics.extend(nsqd.broker.topics)

    run(look, Closed())

    assert [] == topics
    assert ["access.log", "error.log"] == sorted(os.listdir(path / "web"))
    assert b"GET /\n" == (path / "web" / "access.log").read_bytes()
    assert 1 == sum("closed: passed over, it can't be read: Permission denied" in line for line in lines)


def test_a_log_that_nsqd_dat_does_not_name_is_back(path, run, lines):
    """A directory with a segment is a topic, also when nsqd.dat was lost."""

    async def publish(nsqd: Nsqd) -> None:
        await nsqd.publish("orders", b"one")

    run(publish)
    (path / "nsqd.dat").unlink()
    depths: list[int] = []

    async def look(nsqd: Nsqd) -> None:
        depths.append(int(nsqd.broker.topics["orders"].depth()))

    run(look)

    assert [1] == depths
    assert any("TOPIC(orders): nsqd.dat does not name it" in line for line in lines)


def test_a_file_missing_in_the_middle_of_a_log(path, run, lines):
    """It is an ERROR of the start, with the topic and the positions, and damage that is counted."""
    path.mkdir()
    storage = FileStorage(Disk(), str(path), lambda topic: f"{path}/{topic}", lines.append, 1, 0)
    log = storage.open("orders")
    for _ in range(3):
        log.append(Batch(b"\0\0\0\1x", 1, 1, 0, None))
        log.write()
    log.close()
    (path / "orders" / f"{1:020d}.log").unlink()
    damaged: list[int] = []

    async def look(nsqd: Nsqd) -> None:
        damaged.append(int(nsqd.storage.shared.damaged_count))

    run(look)

    assert [1] == damaged
    assert 1 == sum(
        "ERROR: " in line and "/orders: the positions 1 to 1 are missing" in line for line in lines
    )


@pytest.mark.parametrize("replaced", [False, True])
def test_a_data_path_that_is_moved_away(path, run, lines, replaced):
    """Publishes to old and new topics are refused with the cause, nothing is made under its name; back, all is well."""
    away = path.with_name("away")
    told: list[str] = []

    async def move(nsqd: Nsqd) -> None:
        await nsqd.publish("orders", b"one")
        path.rename(away)
        if replaced:
            shutil.copytree(away, path)
        was = sorted(os.walk(path))
        nsqd.look()
        told.append(nsqd.health.text())
        with pytest.raises(NotKept, match="the data path"):
            await nsqd.publish("orders", b"one")
        with pytest.raises(NotKept, match="the data path"):
            await nsqd.publish("new", b"one")
        nsqd.broker.topics["orders"].channel("ch", nsqd.now())
        nsqd.turn()
        await lines.said("failed to write metadata")
        assert was == sorted(os.walk(path))
        shutil.rmtree(path, ignore_errors=True)
        away.rename(path)
        await lines.said("STORAGE: the data path is back")  # nobody publishes: it looks by itself
        await lines.said("STORAGE: nsqd.dat can be written again")
        await nsqd.publish("orders", b"one")
        assert {} == nsqd.health.reasons

    run(move)

    reason = "is another directory now" if replaced else "can't be reached: no such file or directory"
    assert [f"the data path {path} {reason}"] == told
    assert 1 == sum(f"ERROR: STORAGE: the data path {path} {reason}" in line for line in lines)
    assert any("STORAGE: the data path is back" in line for line in lines)
    depths: list[int] = []

    async def look(nsqd: Nsqd) -> None:
        depths.append(int(nsqd.broker.topics["orders"].channels["ch"].queue.depth()))

    run(look)
    assert [2] == depths


def test_a_data_path_that_is_removed(path, run):
    """It does not come back empty, not even when nsqd stops."""

    async def remove(nsqd: Nsqd) -> None:
        await nsqd.publish("orders", b"one")
        shutil.rmtree(path)
        nsqd.look()
        with pytest.raises(NotKept, match="can't be reached"):
            await nsqd.publish("orders", b"one")

    run(remove)

    assert not path.exists()


def test_the_reserve_is_said_and_looked_at_from_the_start(run, lines):
    """A line tells it, and whoever starts on a disk that is full up to it is unhealthy before anybody publishes."""
    reasons: list[str] = []

    async def look(nsqd: Nsqd) -> None:
        reasons.extend(nsqd.health.reasons)

    run(look, Full())

    assert ["free space"] == reasons
    assert any("STORAGE: 5 bytes are free; below 67108864 publishes are refused" in line for line in lines)


def test_what_a_deletion_left_is_removed_at_the_next_start(run, path, lines):
    """Other files stay."""
    (path / "%deleted-3").mkdir(parents=True)
    (path / "%deleted-3" / f"{0:020d}.log").write_bytes(b"anything")
    (path / "%deleted-by-me").mkdir()

    async def nothing(nsqd: Nsqd) -> None:
        pass

    run(nothing)

    assert not (path / "%deleted-3").exists()
    assert (path / "%deleted-by-me").exists()
    assert not any("ERROR" in line for line in lines)


def test_a_topic_deleted_before_its_log_is_made(run, path):
    """Nothing is made for it."""

    async def delete(nsqd: Nsqd) -> None:
        broker = nsqd.broker
        batches = [broker.topic(name).publish(b"\0\0\0\1x", 1, 0, None, nsqd.now()) for name in ("a", "b")]
        broker.work(nsqd.now())
        broker.delete_topic("b")
        await nsqd.publish("a", b"one")
        assert [KEPT, FAILED] == [batch.state for batch in batches]

    run(delete)

    assert ["a", "journal", "nsqd.dat"] == sorted(os.listdir(path))


def test_a_deleted_topic_that_can_not_be_removed(run, path, lines):
    """An ERROR names what is left of it, and the name of the topic is free."""

    async def delete(nsqd: Nsqd) -> None:
        await nsqd.publish("orders", b"one")
        nsqd.broker.delete_topic("orders")
        await nsqd.publish("orders", b"two")

    run(delete, Kept())

    assert [
        f"{path}/%deleted-1: what is left of a deleted topic can't be removed" in line
        for line in lines
        if "ERROR" in line
    ] == [True]
    assert (path / "orders").exists()


def test_the_calendar_is_set_while_it_runs(run, lines):
    """What is published afterwards is stamped by it, and a line says so."""
    stamps: list[int] = []
    calendar, steady = [NOW], [5 * SECOND]
    clock = Clock(lambda: calendar[0], lambda: steady[0])

    async def publish(nsqd: Nsqd) -> None:
        calendar[0] += 3600 * SECOND
        steady[0] += SECOND  # so often it looks at the calendar
        assert NOW + SECOND == nsqd.now()
        await nsqd.publish("orders", b"one")
        (batch,) = nsqd.broker.topics["orders"].waiting.in_memory()
        stamps.append(int(batch.timestamp))

    run(publish, clock=clock)

    assert [NOW + 3600 * SECOND] == stamps
    assert 1 == sum("the calendar was set: it is +3599.0 s from" in line for line in lines)
