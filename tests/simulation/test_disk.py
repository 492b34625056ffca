"""What the simulated disk keeps, and what it may lose."""

import errno
from random import Random

import pytest

from tests.simulation.disk import ROOT, Died, SimulatedDisk

PATH = f"{ROOT}/file"


@pytest.fixture
def disk():
    """A disk that writes 16 bytes at a time."""
    return SimulatedDisk(16)


def written(disk: SimulatedDisk, data: bytes, *, synced: bool) -> int:
    """A new file with content, and its name for sure."""
    file = disk.create(PATH)
    disk.sync_directory(ROOT)
    disk.write(file, [data], 0)
    if synced:
        disk.sync(file)
    return file


def test_what_is_synced_survives(disk):
    """Content and name are there after every power cut."""
    written(disk, b"x" * 100, synced=True)

    for seed in range(50):
        disk.cut(Random(seed))

        assert b"x" * 100 == disk.load(PATH)


def test_what_is_not_synced_may_be_torn():
    """Some sectors may be there and others not, and the size may be any in between."""
    left = set()
    for seed in range(200):
        disk = SimulatedDisk(16)
        written(disk, b"x" * 64, synced=False)
        disk.cut(Random(seed))
        left.add(disk.load(PATH))

    assert {b"", b"x" * 64, b"x" * 16 + bytes(16) + b"x" * 32} <= left


def test_names_that_are_not_synced_may_be_lost_or_not():
    """A rename is there as a whole, or not at all."""
    left = set()
    for seed in range(100):
        disk = SimulatedDisk(16)
        written(disk, b"old", synced=True)
        disk.replace(PATH, b"new!")
        disk.cut(Random(seed))
        left.add(disk.load(PATH))

    assert {b"old", b"new!"} <= left
    assert None not in left


def test_a_synced_replacement_survives(disk):
    """Whoever asked for a sync gets the new content."""
    written(disk, b"old", synced=True)
    disk.replace(PATH, b"new!", sync=True)

    disk.cut(Random(1))

    assert b"new!" == disk.load(PATH)


def test_a_sync_that_fails_proves_nothing_for_the_next():
    """The system marks what it could not write as clean; a sync after that succeeds, and the data is gone."""
    left = set()
    for seed in range(50):
        disk = SimulatedDisk(16)
        file = written(disk, b"x" * 64, synced=False)
        disk.chance = Random(seed)
        disk.fail("sync", errno.EIO, 0, 1)
        with pytest.raises(OSError, match="Input/output"):
            disk.sync(file)
        disk.sync(file)
        assert b"x" * 64 == disk.read(file, 64, 0)
        disk.cut(Random(seed))
        left.add(disk.load(PATH))

    assert len(left) > 5


def test_descriptors_are_given_again(disk):
    """The lowest free one, as on a real disk: whoever goes on with one that it closed has somebody else's file."""
    first = written(disk, b"one", synced=True)
    second = disk.create(f"{ROOT}/second")
    disk.close(first)

    assert first == disk.create(f"{ROOT}/third")
    assert second + 1 == disk.open(PATH)
    with pytest.raises(KeyError):
        disk.close(second + 2)


def test_a_kill_loses_nothing_that_was_written(disk):
    """The cache is the system's, not the process's."""
    written(disk, b"x" * 64, synced=False)

    disk.kill()

    assert b"x" * 64 == disk.load(PATH)
    assert [] == disk.opened()


def test_a_process_dies_between_two_changes(disk):
    """After as many as were ordered; of a write there may be a part."""
    file = written(disk, b"", synced=True)
    disk.die(1)
    disk.write(file, [b"one"], 0)

    with pytest.raises(Died):
        disk.write(file, [b"two"], 3)

    assert (disk.load(PATH) or b"") in [b"one" + b"two"[:n] for n in range(4)]


def test_a_full_disk_takes_what_fits(disk):
    """Then nothing; it was full for who writes more."""
    file = written(disk, b"", synced=True)
    disk.free = 5

    assert 5 == disk.write(file, [b"0123456789"], 0)
    with pytest.raises(OSError, match="No space"):
        disk.write(file, [b"56789"], 5)


def test_truncating_may_be_undone(disk):
    """As long as it is not synced."""
    left = set()
    for seed in range(50):
        disk = SimulatedDisk(16)
        file = written(disk, b"x" * 64, synced=True)
        disk.truncate(file, 10)
        assert b"x" * 10 == disk.load(PATH)
        disk.cut(Random(seed))
        left.add(len(disk.load(PATH) or b""))

    assert {10, 64} <= left
