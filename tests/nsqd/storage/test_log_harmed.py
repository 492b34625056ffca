"""A topic's log of which somebody else removed or cut files."""

import errno
import os
import shutil

import pytest

from nsqkit.nsqd.core.store import StoreError, TopicRecord
from nsqkit.nsqd.storage.log import WATCHED
from nsqkit.nsqd.storage.segment import FILE_HEADER
from tests.nsqd.storage.home import BATCH_BYTES, checkpoint, owed_from


def harm(path: str, size: int) -> None:
    """Cut a file, or remove it (-1)."""
    if size < 0:
        os.unlink(path)
    else:
        os.truncate(path, size)


class TestSomebodyElse:
    """Files that are removed or cut short while the log is open: it is said, counted, and goes on."""

    @pytest.fixture
    def log(self, home):
        """A log with two batches on the disk."""
        log = home.open()
        home.fill(log, 2)
        home.sync()
        return log

    @pytest.mark.parametrize(
        "size", [0, 10, FILE_HEADER, FILE_HEADER + BATCH_BYTES, FILE_HEADER + BATCH_BYTES + 5]
    )
    def test_the_active_segment_is_cut(self, home, contents, log, size):
        """The next write begins another file; what is whole in the old one is still there."""
        os.truncate(home.path(), size)

        home.write(log, b"new")

        kept = 1 if size >= FILE_HEADER + BATCH_BYTES else 0
        assert [*range(kept), 2] == [position for position, _ in contents(log)]
        assert 1 <= home.storage.shared.damaged_count
        assert f"cut it from {FILE_HEADER + 2 * BATCH_BYTES} to {size} bytes" in home.reports[0]
        assert (2, b"new") == contents(home.reopen())[-1]

    def test_the_active_segment_is_removed(self, home, contents, log):
        """The next write begins another file, so what is published from then on is there after a restart."""
        os.unlink(home.path())

        home.write(log, b"new")

        assert 1 == home.storage.shared.damaged_count
        assert "somebody removed it" in home.reports[0]
        assert [(2, b"new")] == contents(log)
        assert [(2, b"new")] == contents(home.reopen())

    def test_an_empty_segment_is_removed_or_cut(self, home, contents):
        """One that has nothing in it is made again."""
        for number, harm in enumerate([os.unlink, lambda path: os.truncate(path, 0)]):
            topic = f"t{number}"
            log = home.open(topic)
            home.disk.fail("write", errno.EIO, after=1)
            with pytest.raises(StoreError):
                home.write(log, b"one")
            harm(home.path(topic=topic))

            home.write(log, b"two")

            assert [(0, b"two")] == contents(log)
            assert [(0, b"two")] == contents(home.reopen(topic))

    def test_the_directory_is_removed(self, home, contents, log):
        """It is made again with the next write."""
        shutil.rmtree(os.path.dirname(home.path()))

        home.write(log, b"new")

        assert "somebody removed it" in home.reports[0]
        assert [(2, b"new")] == contents(home.reopen())

    def test_a_complete_segment_is_removed(self, home, contents):
        """Reading goes on behind it."""
        home.max_bytes_per_file = FILE_HEADER + 2 * BATCH_BYTES
        home.begin()
        log = home.open()
        home.fill(log, 6)
        os.unlink(home.path(2))

        assert [0, 1, 4, 5] == [position for position, _ in contents(log)]
        assert [0, 1, 4, 5] == [position for position, _ in contents(log)]
        assert 1 == home.storage.shared.damaged_count
        assert [f"{home.path(2)}: somebody removed it; what only this file held is lost"] == home.reports

    def test_a_complete_segment_is_cut(self, home, contents):
        """What is missing is said when it is read."""
        home.max_bytes_per_file = FILE_HEADER + 2 * BATCH_BYTES
        home.begin()
        log = home.open()
        home.fill(log, 6)
        os.truncate(home.path(2), FILE_HEADER + BATCH_BYTES)

        assert [0, 1, 2, 4, 5] == [position for position, _ in contents(log)]
        assert 1 == home.storage.shared.damaged_count
        assert "somebody cut it short" in home.reports[0]

    @pytest.mark.parametrize("size", [0, FILE_HEADER, FILE_HEADER + BATCH_BYTES])
    def test_between_two_writes(self, home, contents, log, size):
        """What is written next does not hide that the end is gone, although no sync was in between."""
        written = home.fill(log, 1)
        os.truncate(home.path(), size)

        written = home.fill(log, 3)

        assert 1 == home.storage.shared.damaged_count
        assert "somebody cut it from" in home.reports[0]
        assert written == [body for position, body in contents(log) if position > 2]

    @pytest.mark.parametrize("size", [-1, 0, FILE_HEADER + BATCH_BYTES])
    def test_a_sync_looks(self, home, contents, log, size):
        """Also if nothing is written any more; what comes next goes to a file of its own, and is there."""
        home.fill(log, 1)
        harm(home.path(), size)

        assert [] == home.sync()

        (line,) = home.reports
        assert line.startswith(f"{home.path()}: somebody ")
        assert [line] == list(home.storage.shared.health.reasons.values())
        assert 1 == home.storage.shared.damaged_count
        written = home.fill(log, 1)
        assert [] == home.sync()
        assert [(3, written[0])] == contents(log)[-1:]
        assert [(3, written[0])] == contents(home.reopen())[-1:]

    @pytest.mark.parametrize("size", [-1, 0, FILE_HEADER + BATCH_BYTES])
    @pytest.mark.parametrize("first", [0, 2, 4])
    def test_a_checkpoint_looks(self, home, size, first):
        """At the last file, and at some of the others."""
        home.max_bytes_per_file = FILE_HEADER + 2 * BATCH_BYTES
        home.begin()
        log = home.open()
        home.fill(log, 6)
        home.sync()
        harm(home.path(first), size)

        log.checkpoint(owed_from(0, log))
        assert [] == home.run_jobs()

        assert [f"{home.path(first)}: somebody "] == [
            line[: len(line.partition("somebody ")[0]) + 9] for line in home.reports
        ]
        assert home.reports == list(home.storage.shared.health.reasons.values())

    def test_every_file_has_its_turn(self, home):
        """However many there are, a checkpoint looks at a few of them, and the next at others."""
        home.max_bytes_per_file = 1
        home.begin()
        log = home.open()
        home.fill(log, 3 * WATCHED)
        harm(home.path(WATCHED + 2), 0)
        for _ in range(3):
            log.checkpoint(owed_from(0, log))
            home.disk.calls.clear()
            home.run_jobs()
            assert len(home.disk.names_called("open")) <= WATCHED + 1

        assert 1 == home.storage.shared.damaged_count

    def test_health(self, home, log):
        """It is bad as long as somebody is owed what may be lost, and well again when nobody is."""
        home.fill(log, 1)
        harm(home.path(), 0)
        home.sync()
        health = home.storage.shared.health

        log.checkpoint(owed_from(2, log))
        assert health.reasons
        log.checkpoint(owed_from(3, log))

        assert {} == health.reasons
        assert [] == home.run_jobs()
        assert [3] == home.segments()

    def test_health_of_a_log_that_is_deleted(self, home, log):
        """Nothing is wrong with it any more."""
        harm(home.path(), 0)
        home.fill(log, 1)
        assert home.storage.shared.health.reasons

        log.delete()

        assert {} == home.storage.shared.health.reasons

    @pytest.mark.parametrize("size", [-1, 0, FILE_HEADER + BATCH_BYTES])
    def test_between_two_processes(self, home, log, size):
        """What a checkpoint knows to have been on the disk, and is not there at a start, is said."""
        home.fill(log, 1)
        home.sync()
        checkpoint(home, log)
        home.disk.kill()
        if size < 0:
            os.unlink(home.path())
        else:
            os.truncate(home.path(), size)

        log = home.reopen()

        assert 1 <= home.storage.shared.damaged_count
        assert any("a file was removed or cut short" in line for line in home.reports)
        assert 3 == home.write(log, b"new").first_position


class TestMissingFiles:
    """A file that was removed from the middle, while nsqd was not running, is said at the start."""

    @pytest.fixture
    def written(self, home):
        """A log of four files, which no checkpoint knows."""
        home.max_bytes_per_file = FILE_HEADER + 2 * BATCH_BYTES
        home.begin()
        written = home.fill(home.open(), 8)
        assert [0, 2, 4, 6] == home.segments()
        return written

    @pytest.mark.parametrize(("gone", "positions"), [([2], "2 to 3"), ([4], "4 to 5"), ([2, 4], "2 to 5")])
    def test_in_the_middle(self, home, contents, written, gone, positions):
        """The line names topic and positions; it is damage; the rest is there."""
        for position in gone:
            os.unlink(home.path(position))

        log = home.reopen()

        assert 1 == home.storage.shared.damaged_count
        (line,) = home.reports
        assert line.startswith(f"{home.disk.root}/t: the positions {positions} are missing")
        lost = {position + n for position in gone for n in (0, 1)}
        assert [(n, body) for n, body in enumerate(written) if n not in lost] == contents(log)
        assert 8 == log.end()

    @pytest.mark.usefixtures("written")
    def test_what_nobody_needs(self, home):
        """Files that everybody has had may go in any order: a power cut may bring one back, and not the next."""
        log = home.reopen()
        record = TopicRecord()
        record.end = 8
        record.needed_from = 6
        log.checkpoint(record)
        (job,) = home.storage.take_jobs()
        home.disk.fail("remove", errno.EIO, times=1)
        job.run()
        os.unlink(home.path(2))

        home.reopen()

        assert [0, 4, 6] == home.segments()
        assert [] == home.reports

    @pytest.mark.usefixtures("written")
    def test_damage_of_which_was_told(self, home):
        """A file that a start set aside is not missed by the next one."""
        with open(home.path(2), "wb") as file:
            file.write(b"?" * 300)
        home.reopen()
        assert ["set aside" in line for line in home.reports] == [True]

        home.reopen()

        assert [] == home.reports

    def test_positions_that_a_power_cut_took(self, home):
        """There is a gap in front of what was written after it, but no file is missing."""
        log = home.open()
        home.fill(log, 2)
        record = TopicRecord()
        record.end = record.needed_from = 5
        log.checkpoint(record)
        assert [] == home.run_jobs()
        log = home.reopen()
        home.fill(log, 1)
        assert [0, 5] == home.segments()
        os.unlink(f"{home.disk.root}/t/checkpoint")

        home.reopen()

        assert [] == home.reports
