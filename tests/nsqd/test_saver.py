"""nsqd.dat is saved in a thread, all that changed at a time."""

import asyncio
import errno
from collections.abc import Awaitable, Callable
from pathlib import Path
from threading import Event

import pytest

from nsqkit.log import Log
from nsqkit.nsqd.core.broker import Broker
from nsqkit.nsqd.core.settings import Settings
from nsqkit.nsqd.machine import Machine
from nsqkit.nsqd.metadata import ChannelState, TopicState, load
from nsqkit.nsqd.saver import METADATA, Saver
from nsqkit.nsqd.storage.disk import Disk, Permit

NOW = 1


class SlowDisk(Disk):
    """Counts saves, and begins none before it may."""

    def __init__(self) -> None:
        self.saves = 0
        self.failures: list[int] = []
        self.gate = Event()
        self.gate.set()

    def replace(self, path: str, content: bytes, *, sync: bool = False, permit: Permit | None = None) -> None:
        """A save."""
        assert sync
        assert self.gate.wait(5)
        self.saves += 1
        if self.failures:
            raise OSError(self.failures.pop(), "No space left on device")
        super().replace(path, content, sync=sync, permit=permit)


class House:
    """A broker and what saves its metadata."""

    def __init__(self, data_path: str) -> None:
        machine = Machine()
        self.path = data_path
        self.disk = machine.disk = SlowDisk()
        machine.cpu_time = lambda: 0.0
        self.lines: list[str] = []
        self.broker = Broker(Settings(), None)
        self.turned = asyncio.Event()
        self.saver = Saver(self.broker, data_path, Log("", write=self.lines.append), self.turn, machine)

    def turn(self) -> None:
        """As the daemon's."""
        if self.broker.changes.pending():
            self.saver.after_turn()
        self.turned.set()

    async def rest(self) -> None:
        """Until everything is saved."""
        while self.broker.changes.pending():
            self.turned.clear()
            await asyncio.wait_for(self.turned.wait(), 5)

    def known(self) -> dict[str, list[str]]:
        """What a start would find."""
        return {t.name: [c.name for c in t.channels] for t in load(Disk(), self.path).topics}


Scenario = Callable[[House], Awaitable[None]]


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Scenario], None]:
    """Run a scenario in a loop."""

    def run(scenario: Scenario) -> None:
        async def main() -> None:
            house = House(str(tmp_path))
            await scenario(house)
            await house.saver.stop()

        asyncio.run(main())

    return run


def test_what_changes_meanwhile_is_one_save(run: Callable[[Scenario], None]) -> None:
    """While one save is under way, all others become the next one."""

    async def scenario(house: House) -> None:
        house.disk.gate.clear()
        for number in range(50):
            house.broker.topic(f"t{number}").channel("c", NOW)
            house.turn()
        house.disk.gate.set()
        await house.rest()

        assert 2 == house.disk.saves
        assert {f"t{number}": ["c"] for number in range(50)} == house.known()

    run(scenario)


def test_everything_that_changes_is_followed(run: Callable[[Scenario], None]) -> None:
    """Pauses, deletions, and what comes again under an old name."""

    async def scenario(house: House) -> None:
        broker = house.broker
        old = broker.topic("t")
        for name in ("a", "b"):
            old.channel(name, NOW)
        broker.topic("e#ephemeral").channel("c", NOW)
        broker.topic("u").channel("x#ephemeral", NOW)
        house.turn()
        await house.rest()
        broker.delete_topic("t")
        broker.topic("t").channel("b", NOW).pause(paused=True)
        broker.topic("u").pause(True, NOW)
        broker.topic("gone").channel("c", NOW)
        broker.delete_topic("gone")
        house.turn()
        await house.rest()

        t = TopicState("t", channels=[ChannelState("b", paused=True)])
        found = sorted(load(Disk(), house.path).topics, key=lambda topic: topic.name)
        assert [t, TopicState("u", paused=True)] == found

    run(scenario)


def test_a_failed_save_is_tried_again(
    run: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has to publish for that. Health tells of it until a save succeeds."""
    monkeypatch.setattr("nsqkit.nsqd.saver.RETRY_S", 0.001)

    async def scenario(house: House) -> None:
        house.disk.failures = [errno.ENOSPC, errno.ENOSPC]
        house.broker.topic("t")
        house.turn()
        house.turned.clear()
        await asyncio.wait_for(house.turned.wait(), 5)
        assert house.broker.health.reasons[METADATA].endswith("nsqd.dat - No space left on device")
        await house.rest()

        assert {"t": []} == house.known()
        assert {} == house.broker.health.reasons
        assert 3 == house.disk.saves
        assert 2 == len(house.lines)  # that it fails, that it works again

    run(scenario)


def test_nothing_is_saved_before_the_journal_knows_of_deletions(run: Callable[[Scenario], None]) -> None:
    """A power cut would give a new topic of the name what the old one had."""

    async def scenario(house: House) -> None:
        house.broker.topic("t")
        house.broker.deletions = 1
        house.turn()
        assert house.saver._saving is None

        house.broker.deletions = 0
        house.turn()
        await house.rest()
        assert {"t": []} == house.known()

    run(scenario)


def test_stop_saves_what_is_left(run: Callable[[Scenario], None]) -> None:
    """Also what changed while the last save was under way."""

    async def scenario(house: House) -> None:
        house.disk.gate.clear()
        house.broker.topic("t")
        house.turn()
        house.broker.topic("u")
        asyncio.get_running_loop().call_soon(house.disk.gate.set)
        await house.saver.stop()

        assert {"t": [], "u": []} == house.known()

    run(scenario)
