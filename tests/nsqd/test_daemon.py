"""The daemon in this process: what it finds in its data path."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from nsqkit.log import Log
from nsqkit.nsqd.daemon import Nsqd
from nsqkit.nsqd.machine import Machine
from nsqkit.nsqd.options import NsqdOptions
from nsqkit.nsqd.storage.disk import Disk


class Closed(Disk):
    """One directory of it can't be read, not even by root."""

    def names(self, path: str) -> list[str]:
        """What a directory holds."""
        if path.endswith("/closed"):
            raise PermissionError(13, "Permission denied")
        return super().names(path)


@pytest.fixture
def lines() -> list[str]:
    """What the daemon logs."""
    return []


@pytest.fixture
def run(tmp_path: Path, lines: list[str]) -> Callable[..., None]:
    """Starts a daemon on `tmp_path`, does something with it, and stops it."""

    def run(act: Callable[[Nsqd], Awaitable[None]], disk: Disk | None = None) -> None:
        async def live() -> None:
            machine = Machine()
            machine.disk = disk or machine.disk
            options = NsqdOptions(data_path=str(tmp_path), tcp_address="127.0.0.1:0", http_address="")
            async with Nsqd(options, Log("", write=lines.append), machine) as nsqd:
                await act(nsqd)

        asyncio.run(live())

    return run


async def nothing(_: Nsqd) -> None:
    """Just start and stop."""


def test_directories_of_others(tmp_path, run, lines):
    """A directory with logs of others is no topic, and nothing in it changes; one that is closed is passed over."""
    for name in ("web", "lost+found", "closed"):
        (tmp_path / name).mkdir()
    (tmp_path / "web" / "access.log").write_bytes(b"GET /\n")
    (tmp_path / "web" / "error.log").touch()
    topics: list[str] = []

    async def look(nsqd: Nsqd) -> None:
        topics.extend(nsqd.broker.topics)

    run(look, Closed())

    assert [] == topics
    assert ["access.log", "error.log"] == sorted(os.listdir(tmp_path / "web"))
    assert b"GET /\n" == (tmp_path / "web" / "access.log").read_bytes()
    assert 1 == sum("closed: passed over, it can't be read: Permission denied" in line for line in lines)


def test_a_log_that_nsqd_dat_does_not_name_is_back(tmp_path, run, lines):
    """A directory with a segment is a topic, also when nsqd.dat was lost."""

    async def publish(nsqd: Nsqd) -> None:
        await nsqd.publish("orders", b"\0\0\0\3one", 1, 0)

    run(publish)
    (tmp_path / "nsqd.dat").unlink()
    depths: list[int] = []

    async def look(nsqd: Nsqd) -> None:
        depths.append(int(nsqd.broker.topics["orders"].depth()))

    run(look)

    assert [1] == depths
    assert any("TOPIC(orders): its log is there" in line for line in lines)
