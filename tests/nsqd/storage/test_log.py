"""A topic's log: segments, torn ends, positions, write errors and syncs. Reading it is in test_reader.py."""

import errno
import os
import shutil

import pytest

from nsqkit.nsqd.core.store import ChannelRecord, Extent, StoreError, TopicRecord
from nsqkit.nsqd.storage.log import WATCHED, TopicLog
from nsqkit.nsqd.storage.segment import BATCH_HEADER, FILE_HEADER, file_header
from nsqkit.wire.message import NOWHERE

BATCH_BYTES = BATCH_HEADER + 4 + 40  # of what `home.fill` writes


def checkpoint(home, log, needed_from: int | None = None) -> list[str]:
    """Write a checkpoint down, of which only two numbers matter here; returns errors."""
    record = TopicRecord()
    record.end = log.end()
    record.needed_from = log.end() if needed_from is None else needed_from
    log.checkpoint(record)
    errors: list[str] = home.run_jobs()
    return errors


def change(path: str, offset: int, data: bytes) -> None:
    """Write into a file behind the log's back."""
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


def flip(path: str, bit: int) -> None:
    """Flip one bit of a file."""
    with open(path, "r+b") as file:
        file.seek(bit // 8)
        byte = file.read(1)[0]
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))


class TestSegments:
    """The log is cut into files, and gets shorter in front."""

    @pytest.fixture
    def home(self, home):
        """Files of four batches."""
        home.max_bytes_per_file = FILE_HEADER + 4 * BATCH_BYTES
        home.begin()
        return home

    def test_rolling(self, home, contents):
        """A file that is full is followed by the next one, named by its first position."""
        log = home.open()
        written = home.fill(log, 10)

        assert [0, 4, 8] == home.segments()
        assert list(enumerate(written)) == contents(log)
        assert 3 * FILE_HEADER + 10 * BATCH_BYTES == log.size_bytes()

    def test_what_a_deletion_took_is_gone_for_good(self, home):
        """A directory that is there and empty is synced: a power cut brings nothing back beside what comes now."""
        home.disk.make_directory(f"{home.disk.root}/t")
        home.open()
        home.begin()
        home.disk.calls.clear()

        home.open()

        assert [("sync_directory", "t")] == home.disk.names_called("sync_directory")

    def test_a_segment_is_left_behind_a_checkpoint_only(self, home):
        """Without one on the disk, a copy of what is in it would be owed by every channel beside the original."""
        log = home.open()
        home.fill(log, 10)
        assert log.oldest() is None

        home.disk.fail("replace", errno.ENOSPC)
        assert [] != checkpoint(home, log, needed_from=0)
        assert log.oldest() is None

        home.disk.heal()
        assert [] == checkpoint(home, log, needed_from=0)
        assert (0, 4) == (log.oldest().start, log.oldest().stop)
        assert (0, 4) == (home.reopen().oldest().start, home.reopen().oldest().stop)

    def test_a_read_that_ends_with_a_file(self, home, bodies):
        """Reading goes on at the front of the next file, wherever the last read ended in its own."""
        log = home.open()
        written = home.fill(log, 12)

        for position in range(12):
            assert [written[position]] == bodies(log.read(position, 12, 1)[0])

    def test_one_batch_larger_than_a_file(self, home, contents):
        """What does not fit any file gets one of its own."""
        log = home.open()
        home.fill(log, 1)
        home.write(log, b"x" * 5000)
        home.fill(log, 1)

        assert [0, 1, 2] == home.segments()
        assert [5000] == [len(body) for _, body in contents(home.reopen())[1:2]]

    def test_writing_goes_on_in_the_last_file(self, home, contents):
        """A restart begins no file."""
        log = home.open()
        written = home.fill(log, 6)
        log = home.reopen()
        written += home.fill(log, 3)

        assert [0, 4, 8] == home.segments()
        assert list(enumerate(written)) == contents(log)

    def test_what_nobody_needs_is_removed(self, home, contents):
        """A file goes when everything in it is in front of what is needed."""
        log = home.open()
        written = home.fill(log, 10)

        assert [] == checkpoint(home, log, needed_from=7)
        assert [4, 8] == home.segments()
        assert 4 == log.start()
        assert list(enumerate(written))[4:] == contents(log, 4)

        assert [] == checkpoint(home, log, needed_from=9)
        assert [8] == home.segments()
        assert log.oldest() is None
        assert [8, 9] == [position for position, _ in contents(home.reopen())]

    def test_the_first_file_is_gone(self, home):
        """If a checkpoint says that somebody needs it, that is said at the start."""
        log = home.open()
        home.fill(log, 12)
        checkpoint(home, log, needed_from=2)
        os.unlink(home.path(0))

        home.reopen()

        assert 1 == home.storage.shared.damaged_count
        assert [
            "position 4, but messages from 2 on were still to be delivered" in line for line in home.reports
        ] == [True]

    def test_all_is_finished(self, home, contents):
        """The last file goes as well, and leaves an empty one: after a power cut, too, no position comes again."""
        log = home.open()
        home.fill(log, 10)
        home.disk.calls.clear()

        assert [] == checkpoint(home, log)

        calls = home.disk.names_called("create", "sync", "sync_directory", "replace", "remove")
        first = min(at for at, (call, _) in enumerate(calls) if call == "remove")
        assert {"create", "sync", "sync_directory", "replace"} == {call for call, _ in calls[:first]}
        assert ([10], FILE_HEADER) == (home.segments(), log.size_bytes())
        home.disk.cut()
        home.begin()
        log = home.open()
        assert ([], 10) == (home.reports, log.end())
        written = home.fill(log, 6)
        assert list(enumerate(written, 10)) == contents(home.reopen(), 10)

    def test_all_is_finished_and_the_checkpoint_gets_lost(self, home):
        """The name of the empty file alone says which position comes next."""
        log = home.open()
        home.fill(log, 10)
        checkpoint(home, log)
        os.truncate(f"{home.disk.root}/t/checkpoint", 0)

        assert 10 == home.reopen().end()

    def test_not_all_is_finished(self, home):
        """Something is still needed, or was written since: the last file stays."""
        log = home.open()
        home.fill(log, 3)
        checkpoint(home, log, needed_from=2)
        assert [0] == home.segments()

        record = TopicRecord()
        record.end = record.needed_from = log.end()
        home.fill(log, 1)
        log.checkpoint(record)
        assert [] == home.run_jobs()
        assert [0] == home.segments()

    def test_a_little_that_is_finished(self, home):
        """A new file is not worth it, but when space is low."""
        home.max_bytes_per_file = 1 << 30
        home.min_free_bytes = 1000
        home.begin()
        log = home.open()
        home.write(log, b"x" * 100_000)
        checkpoint(home, log)
        assert ([0], False) == (home.segments(), log.worth_leaving())

        home.disk.free = 999
        home.storage.shared.look()

        assert log.worth_leaving()
        checkpoint(home, log)
        assert ([1], False) == (home.segments(), log.worth_leaving())
        checkpoint(home, log)
        assert [1] == home.segments()

    def test_a_log_that_was_not_written_since_the_start(self, home, contents):
        """What a process before this one finished goes, too, and is synced once more before."""
        home.fill(home.open(), 3)
        log = home.reopen()

        assert [] == checkpoint(home, log)

        assert [3] == home.segments()
        assert 1 == home.disk.opened()
        home.fill(log, 1)
        assert [3] == [position for position, _ in contents(home.reopen(), 3)]

    @pytest.mark.parametrize("call", ["create", "write"])
    def test_no_new_file_for_what_is_to_come(self, home, contents, call):
        """Everything stays, and is tried again with the next checkpoint."""
        home.fill(home.open(), 3)
        log = home.reopen()
        home.disk.fail(call, errno.ENOSPC)

        assert [f"{home.disk.root}/t: No space left on device"] == checkpoint(home, log)
        assert [0] == home.segments()
        assert 3 == len(contents(log))

        home.disk.heal()
        assert [] == checkpoint(home, log)
        assert [3] == home.segments()

    def test_the_file_being_read_is_removed(self, home):
        """Its descriptor is given back, and reading goes on in the next one."""
        log = home.open()
        home.fill(log, 10)
        log.read(0, 1, 1)
        assert 2 == home.disk.opened()  # the last file, and the reader's

        checkpoint(home, log, needed_from=4)

        assert 1 == home.disk.opened()
        assert 4 == log.read(0, 10, 1)[0].first_position

    def test_files_are_removed_after_the_checkpoint(self, home):
        """First the log is synced, then the checkpoint is replaced for good, then the files go."""
        log = home.open()
        home.fill(log, 10)
        home.disk.calls.clear()

        checkpoint(home, log, needed_from=7)

        calls = home.disk.names_called("sync", "replace", "remove")
        assert ["sync", "sync", "sync", "replace", "sync", "remove"] == [call for call, _ in calls]
        assert "checkpoint" == calls[4][1]

    def test_a_checkpoint_that_fails(self, home):
        """Nothing is removed then; the next one that succeeds makes up for it."""
        log = home.open()
        home.fill(log, 10)
        home.disk.fail("replace", errno.ENOSPC)

        assert ["No space left" in error for error in checkpoint(home, log, needed_from=4)] == [True]
        assert [0, 4, 8] == home.segments()

        assert [] == checkpoint(home, log, needed_from=4)
        assert [4, 8] == home.segments()

    def test_no_descriptor_for_a_sync(self, home):
        """Without the sync nothing is removed; the next checkpoint does it."""
        log = home.open()
        home.fill(log, 10)
        home.disk.fail("open", errno.EMFILE)

        assert ["sync failed: Too many open files"] == checkpoint(home, log, needed_from=8)
        assert [0, 4, 8] == home.segments()
        assert [] == checkpoint(home, log, needed_from=8)
        assert [8] == home.segments()

    def test_delete(self, home):
        """Nothing is left of a deleted topic, and its name can be used again, from position 0."""
        log = home.open()
        home.fill(log, 10)
        log.read(0, 1, 1)
        checkpoint(home, log, needed_from=0)

        log.delete()

        assert [] == os.listdir(home.disk.root)
        assert 0 == home.disk.opened()
        assert 0 == home.open().end()

    def test_delete_what_can_not_be_removed(self, home):
        """It is said, and raises nothing."""
        log = home.open()
        home.fill(log, 1)
        home.disk.fail("remove", errno.EIO)

        log.delete()

        assert ["still there" in line for line in home.reports] == [True]

    def test_a_checkpoint_of_a_deleted_topic(self, home):
        """One that waits for its thread is not written into the directory of a new topic of that name."""
        log = home.open()
        home.fill(log, 3)
        log.checkpoint(TopicRecord())
        log.delete()
        home.fill(home.open(), 2)

        assert [] == home.run_jobs()

        assert home.reopen().recovered() is None


class TestTornEnd:
    """The process died, or the power failed, in the middle of a write."""

    def test_every_length(self, new_home, contents):
        """Wherever the last batch was cut: what is in front of it is there, and writing goes on."""
        for size in range(BATCH_BYTES):
            home = new_home()
            log = home.open()
            written = home.fill(log, 3)
            log.close()
            os.truncate(home.path(), FILE_HEADER + 2 * BATCH_BYTES + size)

            log = home.reopen()

            assert 2 == log.end()
            assert list(enumerate(written[:2])) == contents(log)
            assert (size > 0) == home.storage.shared.torn_count
            assert [f"cut off {size} bytes" in line for line in home.reports] == [True] * (size > 0)
            written[2:] = home.fill(log, 2)
            assert list(enumerate(written)) == contents(home.reopen())
            assert [] == home.reports

    def test_behind_a_checkpoint(self, home, contents):
        """The end is checked from where the checkpoint says it was synced."""
        log = home.open()
        written = home.fill(log, 5)
        home.sync()
        checkpoint(home, log)
        written += home.fill(log, 2)
        os.truncate(home.path(), os.path.getsize(home.path()) - 1)
        home.disk.calls.clear()

        log = home.reopen()

        assert list(enumerate(written[:6])) == contents(log)
        assert ["cut off 95 bytes" in line for line in home.reports] == [True]

    def test_in_front_of_what_was_synced(self, home, contents):
        """A file shorter than the checkpoint says is checked from its beginning."""
        log = home.open()
        written = home.fill(log, 5)
        home.sync()
        checkpoint(home, log)
        os.truncate(home.path(), FILE_HEADER + 3 * BATCH_BYTES + 10)

        log = home.reopen()

        assert list(enumerate(written[:3])) == contents(log)
        assert 5 == home.write(log, b"positions never repeat").first_position
        assert [0, 5] == home.segments()

    def test_what_is_cut_off_is_kept(self, home):
        """The bytes stay in a file beside the log, in case a person can use them."""
        log = home.open()
        home.fill(log, 2)
        home.disk.kill()
        with open(home.path(), "rb") as file:
            torn = file.read()[-50:-20]
        os.truncate(home.path(), FILE_HEADER + 2 * BATCH_BYTES - 20)

        home.reopen()

        with open(f"{home.path()}.torn-{FILE_HEADER + BATCH_BYTES}", "rb") as file:
            assert file.read().endswith(torn)

    @pytest.mark.parametrize("size", [1, BATCH_HEADER - 1, BATCH_HEADER, 5000, 3_000_000])
    def test_zeros_at_the_end(self, home, contents, size):
        """Space that was allocated and never written is cut off, and not kept."""
        log = home.open()
        written = home.fill(log, 3)
        change(home.path(), os.path.getsize(home.path()) + size - 1, b"\0")

        log = home.reopen()

        assert list(enumerate(written)) == contents(log)
        assert 1 == home.storage.shared.torn_count
        assert [] == [name for name in os.listdir(f"{home.disk.root}/t") if "torn" in name]
        assert FILE_HEADER + 3 * BATCH_BYTES == os.path.getsize(home.path())

    @pytest.mark.parametrize("call", ["truncate", "replace"])
    def test_an_end_that_can_not_be_cut_off(self, home, contents, call):
        """A start does not fail for it: writing goes on in another file, and the rest is passed over."""
        log = home.open()
        written = home.fill(log, 3)
        os.truncate(home.path(), os.path.getsize(home.path()) - 20)
        home.disk.kill()
        home.disk.fail(call, errno.EIO)

        home.begin()
        log = home.open()
        written[2:] = home.fill(log, 2)

        assert ["can't be cut off" in line for line in home.reports] == [True]
        assert [0, 2] == home.segments()
        assert list(enumerate(written)) == contents(log)
        assert list(enumerate(written)) == contents(home.reopen())

    @pytest.mark.parametrize("size", range(FILE_HEADER + 1))
    def test_a_file_that_was_being_made(self, home, contents, size):
        """A file with nothing but a part of its header, or all of it, is no damage."""
        log = home.open()
        written = home.fill(log, 3)
        with open(home.path(3), "wb") as file:
            file.write(file_header(3)[:size])

        log = home.reopen()
        assert (3, 0, 0) == (log.end(), home.storage.shared.damaged_count, home.storage.shared.torn_count)
        written += home.fill(log, 1)

        assert list(enumerate(written)) == contents(home.reopen())

    def test_an_empty_file_of_the_right_size(self, home, contents):
        """A header of zeros is what a power cut leaves."""
        log = home.open()
        home.disk.kill()
        with open(home.path(), "wb") as file:
            file.write(bytes(FILE_HEADER))

        log = home.reopen()

        assert 0 == log.end()
        assert [(0, b"one")] == (home.write(log, b"one") and contents(log))


def harm(path: str, size: int) -> None:
    """Cut a file, or remove it (-1)."""
    if size < 0:
        os.unlink(path)
    else:
        os.truncate(path, size)


def owed_from(position: int, log: TopicLog) -> TopicRecord:
    """A checkpoint of which nothing in front of `position` is needed."""
    record = TopicRecord()
    record.end = log.end()
    record.needed_from = position
    return record


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


class TestPositions:
    """Positions never repeat, whatever a checkpoint and the files say."""

    def test_the_checkpoint_is_ahead_of_the_log(self, home, contents):
        """After a power cut writing goes on behind what the checkpoint knows, in a file of its own."""
        log = home.open()
        home.fill(log, 2)
        home.sync()
        home.fill(log, 5)
        checkpoint(home, log)
        with open(f"{home.disk.root}/t/checkpoint", "rb") as file:
            kept = file.read()
        home.disk.cut()
        with open(f"{home.disk.root}/t/checkpoint", "wb") as file:
            file.write(kept)

        log = home.reopen()

        assert (7, 2) == (log.end(), log.written())
        assert 7 == home.write(log, b"new").first_position
        assert [0, 7] == home.segments()
        assert [0, 1, 7] == [position for position, _ in contents(log)]
        assert [0, 1, 7] == [position for position, _ in contents(home.reopen())]
        assert [] == home.reports

    def test_only_the_checkpoint_is_left(self, home):
        """A log without any file goes on behind its checkpoint."""
        log = home.open()
        home.fill(log, 5)
        checkpoint(home, log)
        os.unlink(home.path())

        log = home.reopen()

        assert (5, 5) == (log.start(), log.end())
        assert 5 == home.write(log, b"new").first_position

    def test_an_old_checkpoint(self, home, contents):
        """It does not hide what was written later."""
        log = home.open()
        written = home.fill(log, 2)
        checkpoint(home, log)
        written += home.fill(log, 3)

        log = home.reopen()

        assert (2, 5) == (log.recovered().end, log.end())
        assert list(enumerate(written)) == contents(log)

    @pytest.mark.parametrize("content", [b"", b"NSQKCKP\n", bytes(200), None])
    def test_a_damaged_checkpoint(self, home, contents, content):
        """It is reported, unless it is missing, and everything is there."""
        log = home.open()
        written = home.fill(log, 3)
        checkpoint(home, log)
        if content is None:
            os.unlink(f"{home.disk.root}/t/checkpoint")
        else:
            with open(f"{home.disk.root}/t/checkpoint", "wb") as file:
                file.write(content)

        log = home.reopen()

        assert log.recovered() is None
        assert list(enumerate(written)) == contents(log)
        assert ["checkpoint is damaged" in line for line in home.reports] == [True] * (content is not None)

    def test_the_checkpoint_comes_back(self, home):
        """What was written down is what the next process is told."""
        log = home.open()
        home.fill(log, 3)
        record = TopicRecord()
        record.end, record.last_id, record.needed_from = 3, 99, 1
        owed = ChannelRecord("c")
        owed.ready = [Extent(1, 3)]
        record.channels.append(owed)
        log.checkpoint(record)
        home.run_jobs()

        found = home.reopen().recovered()

        assert (3, 99, 1) == (found.end, found.last_id, found.needed_from)
        assert [("c", 1, 3)] == [(c.name, e.start, e.stop) for c in found.channels for e in c.ready]


class TestWriteErrors:
    """The disk refuses: the publish fails, and the log is as it was."""

    def test_segment_could_be_neither_begun_nor_removed(self, home, contents):
        """What is left of it is set aside by the next publish."""
        log = home.open()
        home.disk.fail("write", errno.ENOSPC)
        home.disk.fail("remove", errno.EIO)
        log.append(home.batch(b"a"))
        with pytest.raises(StoreError):
            log.write()
        home.disk.heal()

        written = home.fill(log, 2)

        assert list(enumerate(written)) == contents(log)
        assert any(name.endswith(".log.damaged") for name in os.listdir(os.path.dirname(home.path())))

    @pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
    @pytest.mark.parametrize("part", [0, 1, 30, BATCH_HEADER, BATCH_BYTES, BATCH_BYTES + 7])
    def test_a_part_was_written(self, home, contents, error, part):
        """Nothing of it is ever read; the positions are free again; a retry succeeds."""
        log = home.open()
        written = home.fill(log, 2)
        one, two = home.batch(b"a" * 40), home.batch(b"b" * 40)
        log.append(one)
        log.append(two)
        home.disk.most = part or 1 << 20
        home.disk.fail("write", error, after=1 if part else 0)

        with pytest.raises(StoreError, match=os.strerror(error)):
            log.write()

        assert (NOWHERE, NOWHERE, 2) == (one.first_position, two.first_position, log.end())
        assert FILE_HEADER + 2 * BATCH_BYTES == os.path.getsize(home.path())
        assert list(enumerate(written)) == contents(log)
        home.disk.heal()
        log.append(two)
        log.write()
        assert [*enumerate(written), (2, b"b" * 40)] == contents(log)
        assert [*enumerate(written), (2, b"b" * 40)] == contents(home.reopen())
        assert [] == home.reports

    @pytest.mark.parametrize("part", [1, 30, BATCH_BYTES - 1, BATCH_BYTES, BATCH_BYTES + 7])
    @pytest.mark.parametrize("before", [0, 2])
    def test_and_can_not_be_cut_off(self, home, contents, part, before):
        """What was half written stays in the file, and is never read, not even its whole batches."""
        log = home.open()
        written = home.fill(log, before)
        if not before:
            home.disk.fail("write", errno.EIO, after=1)  # the header of the file is written
            with pytest.raises(StoreError):
                home.write(log, b"x")
        log.append(home.batch(b"a" * 40))
        log.append(home.batch(b"b" * 40, b"c"))
        home.disk.most = part
        home.disk.fail("write", errno.ENOSPC, after=1)
        home.disk.fail("truncate", errno.EIO)
        with pytest.raises(StoreError):
            log.write()
        assert list(enumerate(written)) == contents(log)

        home.disk.heal()
        written += home.fill(log, 3)

        assert list(enumerate(written)) == contents(log)
        assert [0, before] == home.segments() or before == 0
        log = home.reopen()
        assert list(enumerate(written)) == contents(log)
        assert list(enumerate(written))[-2:] == contents(log, before + 1)

    @pytest.mark.parametrize("call", ["create", "write"])
    def test_no_new_file(self, home, contents, call):
        """A file that can't be made, or not begun, leaves nothing behind."""
        log = home.open()
        for error in (errno.EMFILE, errno.ENOSPC):
            home.disk.fail(call, error)
            with pytest.raises(StoreError, match=os.strerror(error)):
                home.write(log, b"one")
            assert [] == home.segments()

        home.write(log, b"two")

        assert [(0, b"two")] == contents(log)

    def test_no_descriptor_for_the_last_file(self, home, contents):
        """A log that was opened again can't be written until a file can be opened."""
        home.fill(home.open(), 1)
        log = home.reopen()
        home.disk.fail("open", errno.EMFILE)

        with pytest.raises(StoreError, match="Too many open files"):
            home.write(log, b"one")

        assert 1 == home.write(log, b"one").first_position
        assert 2 == len(contents(log))

    def test_the_process_dies_in_the_middle(self, home, contents, killed):
        """Half a write is the torn end of the next start."""
        log = home.open()
        written = home.fill(log, 3)
        home.disk.die(0)
        with pytest.raises(killed):
            home.write(log, b"never")

        assert list(enumerate(written)) == contents(home.reopen())
        assert 1 == home.storage.shared.torn_count


class TestSyncs:
    """What a power cut may not take."""

    def test_a_synced_log_survives(self, home, contents):
        """Everything that was written before a sync is there after a power cut, and nothing behind it."""
        home.max_bytes_per_file = 500
        home.begin()
        log = home.open()
        written = home.fill(log, 9)
        assert [] == home.sync()
        home.fill(log, 9)

        home.disk.cut()
        home.begin()

        assert list(enumerate(written)) == contents(home.open())

    def test_nothing_to_sync(self, home):
        """A log that is synced has no job, nor has an empty one."""
        log = home.open()
        assert log.sync_job() is None
        home.fill(log, 1)
        home.sync()
        assert log.sync_job() is None

    def test_what_a_killed_process_wrote(self, home, contents):
        """It may be only in the system's memory: the next process syncs it, all files of it."""
        home.max_bytes_per_file = 500
        home.begin()
        log = home.open()
        written = home.fill(log, 3)
        home.sync()
        checkpoint(home, log, needed_from=0)
        written += home.fill(log, 9)
        home.reopen()

        assert home.storage.shared.unsynced_batches > 0
        assert [] == home.sync()
        home.disk.cut()
        home.begin()

        assert list(enumerate(written)) == contents(home.open())

    def test_a_clean_end_needs_no_sync(self, home):
        """Nor does the next start check what it knows to be whole."""
        log = home.open()
        home.fill(log, 5)
        home.sync()
        checkpoint(home, log)
        log.close()
        home.disk.calls.clear()

        home.begin()
        log = home.open()

        assert log.sync_job() is None
        assert 0 == home.storage.shared.unsynced_batches
        assert [("read", os.path.basename(home.path()))] == home.disk.names_called("read")  # the header
        assert 0 == home.disk.opened()

    def test_a_failed_sync_is_done_again(self, home, contents):
        """A system that failed to write may believe it has: everything is handed to it once more."""
        home.max_bytes_per_file = 500
        home.begin()
        log = home.open()
        written = home.fill(log, 9)
        home.disk.fail("sync", errno.EIO, after=1)

        assert ["sync failed: Input/output error"] == home.sync()
        assert 1 == home.storage.shared.sync_failures
        written += home.fill(log, 1)
        home.disk.calls.clear()
        assert [] == home.sync()

        assert set(os.listdir(f"{home.disk.root}/t")) == {name for _, name in home.disk.names_called("write")}
        home.disk.cut()
        home.begin()
        assert list(enumerate(written)) == contents(home.open())

    def test_close_syncs(self, home, contents):
        """A log that was closed survives; a close that can't sync says so, and closes all the same."""
        log = home.open()
        written = home.fill(log, 3)
        log.close()
        home.disk.cut()
        log = (home.begin(), home.open())[1]
        assert list(enumerate(written)) == contents(log)

        home.fill(log, 1)
        home.disk.fail("sync", errno.EIO)
        with pytest.raises(StoreError, match="sync failed"):
            log.close()
        assert 0 == home.disk.opened()
        assert [] == home.sync()

    def test_copies_are_safe_before_a_checkpoint_names_them(self, home):
        """A checkpoint behind carried batches is synced, after the log; others are not."""
        log = home.open()
        home.write(log, b"plain")
        home.disk.calls.clear()
        checkpoint(home, log)
        assert ["replace"] == [call for call, _ in home.disk.names_called("sync", "replace")]

        home.write(log, b"copy", carried=True)
        home.disk.calls.clear()
        checkpoint(home, log)
        assert ["sync", "replace", "sync"] == [call for call, _ in home.disk.names_called("sync", "replace")]
