"""Files that somebody changes under topics to which nothing happens."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from nsqkit.log import Log
from nsqkit.nsqd import watch
from nsqkit.nsqd.daemon import Nsqd
from nsqkit.nsqd.machine import Machine
from nsqkit.nsqd.options import NsqdOptions
from tests.nsqd.test_daemon import Lines

HARM: dict[str, Callable[[Path], None]] = {
    "cut": lambda file: os.truncate(file, 30),
    "emptied": lambda file: os.truncate(file, 0),
    "removed": os.unlink,
    "renamed": lambda file: os.rename(file, file.with_suffix(".bak")),
}


def live(path: Path, lines: Lines, act: Callable[[Nsqd], Awaitable[None]]) -> None:
    """Start a daemon that looks at its files all the time, do something with it, and stop it."""

    async def run() -> None:
        machine = Machine()
        machine.watch_s = 0.001
        options = NsqdOptions(data_path=str(path), tcp_address="127.0.0.1:0", http_address="")
        async with Nsqd(options, Log("", write=lines.append), machine) as nsqd:
            await act(nsqd)

    asyncio.run(run())


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("topics", [1, 5])
def test_a_file_of_an_idle_topic_is_harmed(tmp_path, monkeypatch, harm, topics):
    """It is said once, as an ERROR, counted, and in the health, although nobody publishes or consumes."""
    monkeypatch.setattr(watch, "PORTION", 2)
    lines = Lines()

    async def act(nsqd: Nsqd) -> None:
        for number in range(topics):
            await nsqd.publish(f"orders{number}", b"one", b"two")
        directory = tmp_path / f"orders{topics - 1}"
        HARM[harm](next(directory.glob("*.log")))
        await lines.said("somebody ")
        (reason,) = nsqd.health.reasons.values()
        assert str(directory) in reason
        assert 1 == nsqd.storage.shared.damaged_count
        again = "looked again"
        nsqd.log.error(again)
        await lines.said(again)
        assert 1 == sum("somebody " in line for line in lines)

        await nsqd.publish(f"orders{topics - 1}", b"three")  # goes to another file

    live(tmp_path, lines, act)
    assert 1 == sum("ERROR" in line and "somebody " in line for line in lines)


def test_the_data_path_is_moved_away(tmp_path):
    """That is what is said, and not that each of the files is gone; once it is back, all is well."""
    lines = Lines()
    path, away = tmp_path / "data", tmp_path / "away"
    path.mkdir()

    async def act(nsqd: Nsqd) -> None:
        await nsqd.publish("orders", b"one")
        path.rename(away)
        await lines.said("can't be reached")
        away.rename(path)
        await lines.said("the data path is back")
        assert 0 == nsqd.storage.shared.damaged_count
        await nsqd.publish("orders", b"two")

    live(path, lines, act)


def test_nobody_is_owed_anything_of_it(tmp_path):
    """Then a checkpoint follows by itself, after which all is well."""
    lines = Lines()

    async def act(nsqd: Nsqd) -> None:
        await nsqd.publish("orders", b"one")
        topic = nsqd.broker.topics["orders"]
        topic.empty()
        nsqd.turn()
        nsqd.broker.dirty.clear()
        topic.dirty = False
        (tmp_path / "orders" / f"{0:020d}.log").unlink()
        await lines.said("somebody ")
        assert nsqd.health.reasons
        assert topic.dirty

    live(tmp_path, lines, act)
    assert [f"{1:020d}.log", "checkpoint"] == sorted(os.listdir(tmp_path / "orders"))
