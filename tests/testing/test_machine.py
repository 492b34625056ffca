import asyncio
import os

import pytest

from nsqkit.errors import StartError
from nsqkit.testing import Nsq, nsq
from nsqkit.testing.machine import AtOnce, MortalDisk


def test_a_dead_disk_takes_nothing(tmp_path):
    """After its death nothing can be written, cut, made, renamed or removed; what is there can be read."""
    disk = MortalDisk()
    path = f"{tmp_path}/one"
    file = disk.create(path)
    assert 3 == disk.write(file, [b"o", b"ne"], 0)
    disk.truncate(file, 2)
    disk.sync(file)

    disk.die()

    for attempt in (
        lambda: disk.write(file, [b"two"], 0),
        lambda: disk.truncate(file, 0),
        lambda: disk.create(f"{tmp_path}/two"),
        lambda: disk.open(path),
        lambda: disk.replace(path, b"two"),
        lambda: disk.make_directory(f"{tmp_path}/two"),
        lambda: disk.rename(path, f"{tmp_path}/two"),
        lambda: disk.remove(path),
        lambda: disk.remove_directory(str(tmp_path)),
    ):
        with pytest.raises(OSError, match="killed"):
            attempt()
    assert (b"on", ["one"]) == (disk.read(file, 10, 0), disk.names(str(tmp_path)))
    disk.close(file)


def test_jobs_are_done_where_they_are_submitted():
    """A job is over when `submit` returns; an error is the future's."""
    done: list[int] = []

    AtOnce().submit(done.append, 1)
    failed = AtOnce().submit(os.listdir, "/no such directory")

    assert [1] == done
    with pytest.raises(FileNotFoundError):
        failed.result(0)


def test_a_start_without_discovery(monkeypatch):
    """If nsqd does not reach its nsqlookupd in time the start fails, and says so."""
    monkeypatch.setattr(nsq, "START_S", -1.0)

    async def scene():
        with pytest.raises(StartError, match="nsqd has not reached its nsqlookupd within -1 s"):
            await Nsq().start()

    asyncio.run(scene())
