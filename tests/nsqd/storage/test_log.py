"""A topic's log is cut into segments. More in test_log_*.py; reading it is in test_reader.py."""

import errno
import os
import shutil

import pytest

from nsqkit.nsqd.core.store import TopicRecord
from nsqkit.nsqd.storage.segment import FILE_HEADER
from nsqkit.nsqd.storage.shared import clear_away
from tests.nsqd.storage.home import BATCH_BYTES, checkpoint


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
        assert (3, 3 * FILE_HEADER + 10 * BATCH_BYTES) == (log.segment_count(), log.size_bytes())

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
        assert (8, 10) == (log.oldest().start, log.oldest().stop)  # it is as large as a file may be, nearly
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
        home.min_free_bytes = 1 << 20
        home.begin()
        log = home.open()
        home.write(log, b"x" * 100_000)
        checkpoint(home, log)
        assert ([0], False) == (home.segments(), log.worth_leaving())

        home.disk.free = (1 << 20) - 1
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
        home.storage.shared.look()
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

    def test_a_thread_removes_what_was_deleted(self, home):
        """Until it does, the files have another place, and a new topic of that name begins at position 0."""
        graves: list[str] = []
        home.storage.shared.buried = graves.append
        log = home.open()
        home.fill(log, 10)

        log.delete()
        log = home.open()
        home.fill(log, 1)

        assert [f"{home.disk.root}/%deleted-1"] == graves == home.storage.find_graves()
        assert 1 == log.end()
        clear_away(home.disk, graves[0])
        assert ["t"] == os.listdir(home.disk.root)
        assert [0] == home.segments()

    def test_deleted_topics_do_not_meet(self, home):
        """What an earlier process left has a name that is not used again."""
        os.mkdir(f"{home.disk.root}/%deleted-7")
        home.storage.find_graves()
        home.storage.shared.buried = lambda _: None
        log = home.open()

        log.delete()

        assert ["%deleted-7", "%deleted-8"] == sorted(os.listdir(home.disk.root))

    def test_others_put_something_there(self, home):
        """It stays where it is."""
        log = home.open()
        home.fill(log, 1)
        with open(f"{home.disk.root}/t/notes", "w", encoding="utf-8"):
            pass

        log.delete()

        assert ["notes"] == os.listdir(f"{home.disk.root}/t")
        assert ["still there" in line for line in home.reports] == [True]

    def test_somebody_deleted_it_before(self, home):
        """There is nothing to be said."""
        log = home.open()
        shutil.rmtree(f"{home.disk.root}/t")

        log.delete()

        assert [] == home.reports

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
