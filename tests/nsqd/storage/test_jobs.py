"""Syncs and checkpoints as jobs of a thread."""

import errno
import os
from collections.abc import Callable

import pytest

from nsqkit.nsqd.core.store import TopicRecord
from nsqkit.nsqd.storage.checkpoint import Synced
from nsqkit.nsqd.storage.disk import Disk
from nsqkit.nsqd.storage.jobs import CheckpointJob, SyncJob
from nsqkit.nsqd.storage.segment import Segment
from tests.nsqd.storage.home import Home, owed_from


@pytest.fixture
def log(home):
    """A log with three messages that are not synced."""
    log = home.open()
    home.fill(log, 3)
    home.disk.calls.clear()
    return log


class Interrupted(Disk):
    """Real files; something else happens during a sync, by its number."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.acts: dict[int, Callable[[], None]] = {}
        self._count = 0

    def sync(self, file: int) -> None:  # noqa: ARG002
        """Only what happens meanwhile."""
        self._happen()

    def sync_directory(self, path: str) -> None:
        """Likewise; FileNotFoundError if the directory is gone."""
        os.listdir(path)
        self._happen()

    def _happen(self) -> None:
        act = self.acts.pop(self._count, None)
        self._count += 1
        if act is not None:
            act()


class TestSyncJob:
    """One sync of one log."""

    @pytest.mark.usefixtures("log")
    def test_first_sync(self, home):
        """A new file is synced, then its directory, then the directory of that."""
        (job,) = home.storage.sync_jobs()

        job.run()
        job.finish()

        assert "" == job.error
        names = [f"{0:020d}.log", "t", home.disk.root.rpartition("/")[2]]
        assert names == [name for _, name in home.disk.names_called("sync", "sync_directory")]

    def test_later_syncs(self, home, log):
        """Directories are synced only when there is something new in them."""
        home.sync()
        home.fill(log, 1)
        home.disk.calls.clear()

        home.sync()

        assert ["sync"] == [call for call, _ in home.disk.names_called("sync", "sync_directory")]

    @pytest.mark.usefixtures("log")
    def test_how_long_it_took(self, home):
        """Each file that was synced counts, once the job is finished."""
        other = home.open("other")
        home.fill(other, 1)
        home.disk.sync_takes = 0.25

        home.sync()

        durations = home.storage.shared.sync_durations
        assert (2, 0.5) == (durations.count, durations.seconds)

    @pytest.mark.parametrize("call", ["sync", "sync_directory"])
    def test_an_error_is_told(self, home, log, call):
        """The log stays unsynced, and the next job does all of it."""
        home.disk.fail(call, errno.EIO)

        assert ["sync failed: Input/output error"] == home.sync()
        home.disk.calls.clear()
        assert [] == home.sync()

        assert ["sync", "sync_directory", "sync_directory"] == [
            call for call, _ in home.disk.names_called("sync", "sync_directory")
        ]
        assert log.sync_job() is None

    def test_writing_goes_on_meanwhile(self, home, log, contents):
        """A job covers what was written when it was made; the rest is the next one's."""
        (job,) = home.storage.sync_jobs()
        job.run()
        written = home.fill(log, 2)
        job.finish()

        assert log.sync_job() is not None
        assert [(3, written[0]), (4, written[1])] == contents(log, 3)

    def test_one_behind_a_failure_proves_nothing(self, home, log):
        """The system has nothing left to write then, and says so: only a job that knows of the failure may succeed."""
        (failing,) = home.storage.sync_jobs()
        behind = log.sync_job()
        home.disk.fail("sync", errno.EIO)

        failing.run()
        behind.run()
        behind.finish()
        failing.finish()

        assert "sync failed: another one failed just before" == behind.error
        home.disk.calls.clear()
        assert [] == home.sync()
        assert 1 == len(home.disk.names_called("write"))
        assert log.sync_job() is None

    def test_one_beside_another_covers_all(self, home, log):
        """Complete segments and new names are not left to a job that is not done yet."""
        log.close()
        home.max_bytes_per_file = 1
        home.begin()
        log = home.open()
        home.fill(log, 3)  # behind the fixture's three, which are in one segment
        first, second = log.sync_job(), log.sync_job()
        home.disk.calls.clear()

        second.run()
        second.finish()

        assert 4 == len(home.disk.names_called("sync"))
        assert 2 == len(home.disk.names_called("sync_directory"))
        assert log.sync_job() is None
        first.run()
        first.finish()
        log.close()
        assert 0 == home.disk.opened()

    def test_one_that_ends_late_leaves_later_segments_alone(self, home):
        """It knows only what was there when it was made."""
        home.max_bytes_per_file = 1
        home.begin()
        log = home.open()
        home.fill(log, 2)
        late, early = log.sync_job(), log.sync_job()
        late.run()
        early.run()
        early.finish()
        home.fill(log, 2)
        waiting = dict(log.sync_state.complete)

        late.finish()

        assert 2 == len(waiting)
        assert waiting == log.sync_state.complete

    def test_one_descriptor_after_the_other(self, home):
        """However many segments there are to be synced, one file is open at a time."""
        home.max_bytes_per_file = 1
        home.begin()
        log = home.open()
        home.fill(log, 30)
        job = log.sync_job()
        before = home.disk.opened()
        most = 0
        sync = home.disk.sync

        def note(file: int) -> None:
            nonlocal most
            most = max(most, home.disk.opened())
            sync(file)

        home.disk.sync = note

        job.run()

        assert (1, 2, 1) == (before, most, home.disk.opened())
        assert 30 == len(home.disk.names_called("sync"))

    @pytest.mark.parametrize("call", ["open", "sync", "write"])
    def test_an_error_gives_back_the_descriptor(self, home, call):
        """What was opened is closed, and the next job does it all."""
        home.max_bytes_per_file = 1
        home.begin()
        log = home.open()
        home.fill(log, 3)
        home.disk.fail("sync", errno.EIO)
        home.sync()  # so that the next writes again
        home.disk.fail(call, errno.EMFILE, after=1)

        assert ["sync failed: Too many open files"] == home.sync()
        assert 1 == home.disk.opened()
        assert [] == home.sync()
        assert log.sync_job() is None

    def test_a_segment_is_removed_meanwhile(self, home):
        """Nobody needs it any more; the others are synced."""
        home.max_bytes_per_file = 1
        home.begin()
        log = home.open()
        home.fill(log, 3)
        job = log.sync_job()
        home.disk.remove(home.path(1))

        job.run()
        job.finish()

        assert "" == job.error
        assert [0, 2] == [int(name[:-4]) for _, name in home.disk.names_called("sync")]

    def test_the_name_is_used_again_meanwhile(self, home, log):
        """A job of a deleted topic leaves the files of a new one alone."""
        (job,) = home.storage.sync_jobs()
        log.delete()
        home.fill(home.open(), 1)
        home.disk.calls.clear()

        job.run()
        job.finish()

        assert [] == home.disk.names_called("read", "write", "sync")
        assert 1 == len(home.storage.sync_jobs())

    @pytest.mark.parametrize("error", [0, errno.EIO])
    def test_the_log_is_closed_meanwhile(self, home, log, error):
        """It was synced then, so there is nothing left to do."""
        (job,) = home.storage.sync_jobs()
        log.close()
        home.disk.fail("sync", error)

        job.run()
        job.finish()

        assert 0 == home.disk.opened()
        assert [] == home.storage.sync_jobs()

    def test_the_topic_is_deleted_meanwhile(self, home, log):
        """That is no error."""
        (job,) = home.storage.sync_jobs()
        log.delete()

        job.run()
        job.finish()

        assert "" == job.error
        assert 0 == home.disk.opened()

    def test_once_more_from_the_start(self, home, log, contents):
        """After a failed sync what can still be read is written again, up to where the job reaches."""
        home.disk.fail("sync", errno.EIO)
        home.sync()
        home.disk.calls.clear()
        size = os.path.getsize(home.path())
        job = SyncJob(
            home.disk, f"{home.disk.root}/t", Segment(home.path(), 0, size), log, Synced(0, size - 10, 2)
        )

        job.run()
        job.finish()

        assert ["open", "read", "read", "write", "sync"] == [call for call, _ in home.disk.calls][:5]
        assert 3 == len(contents(log))

    def test_once_more_in_short_writes(self, home, log):
        """All of it is written again, also when a write takes only a part."""
        home.disk.fail("sync", errno.EIO)
        home.sync()
        home.disk.calls.clear()
        home.disk.most = os.path.getsize(home.path()) // 3

        assert [] == home.sync()

        assert len(home.disk.names_called("write")) >= 3
        assert log.sync_job() is None

    @pytest.mark.usefixtures("log")
    def test_the_first_sync_of_a_process(self, home, contents):
        """What a killed process left unsynced is written again first: a sync that failed there may have lost it."""
        log = home.reopen()
        home.disk.calls.clear()

        home.sync()

        name = f"{0:020d}.log"
        assert [("write", name), ("sync", name)] == home.disk.names_called("write", "sync")[:2]
        assert 3 == len(contents(log))

    def test_what_is_safe_is_not_written_again(self, home, log):
        """Writing again begins after what was synced before."""
        home.sync()
        safe = os.path.getsize(home.path())
        home.fill(log, 1)
        home.disk.fail("sync", errno.EIO)
        home.sync()
        begins = []
        write = home.disk.write

        def note(file, pieces, offset):
            begins.append(offset)
            return write(file, pieces, offset)

        home.disk.write = note

        assert [] == home.sync()

        assert [safe] == begins


class TestCheckpointJob:
    """One checkpoint of one log."""

    def make(self, home, log, *, doomed=(), sync=None) -> CheckpointJob:
        """A job that writes a checkpoint."""
        path = f"{home.disk.root}/t/checkpoint"
        return CheckpointJob(home.disk, path, TopicRecord(), log, list(doomed), sync)

    def test_order(self, home, log):
        """Sync, checkpoint, and only then the files that it does without."""
        (sync,) = home.storage.sync_jobs()
        job = self.make(home, log, doomed=[home.path()], sync=sync)
        job.run()
        job.finish()

        calls = [call for call, _ in home.disk.names_called("sync", "replace", "remove")]
        assert ("", ["sync", "replace", "sync", "remove"]) == (job.error, calls)

    def test_when_it_was(self, home, log):
        """The log and the data path know when a checkpoint was put in its place; one that fails does not count."""
        shared = home.storage.shared
        assert (-1.0, -1.0, 0) == (log.checkpointed_at, shared.checkpointed_at, shared.checkpoint_count)
        home.disk.seconds = 7.5
        log.checkpoint(TopicRecord())
        home.run_jobs()
        home.disk.seconds = 9.0
        home.disk.fail("replace", errno.EIO)
        log.checkpoint(TopicRecord())
        home.run_jobs()

        assert (7.5, 7.5, 1) == (log.checkpointed_at, shared.checkpointed_at, shared.checkpoint_count)

    def test_without_a_file_to_remove(self, home, log):
        """It need not survive a power cut."""
        job = self.make(home, log)
        job.run()
        job.finish()

        assert ["replace"] == [call for call, _ in home.disk.calls]

    @pytest.mark.parametrize("call", ["sync", "replace", "remove"])
    def test_an_error_is_told(self, home, log, call):
        """Nothing in front of the error's step is undone, nothing behind it is done."""
        (sync,) = home.storage.sync_jobs()
        job = self.make(home, log, doomed=[home.path()], sync=sync)
        home.disk.fail(call, errno.EIO)

        job.run()
        job.finish()

        assert "Input/output error" in job.error
        assert [0] == home.segments()

    def test_cancelled(self, home, log):
        """A job of a deleted topic does nothing, and gives its descriptors back."""
        (sync,) = home.storage.sync_jobs()
        job = self.make(home, log, doomed=[home.path()], sync=sync)
        log.delete()
        job.cancel()
        home.open()  # another topic of the same name

        job.run()
        job.finish()

        assert [] == os.listdir(f"{home.disk.root}/t")
        assert 0 == home.disk.opened()

    @pytest.mark.parametrize("again", [False, True])
    @pytest.mark.parametrize("number", range(6))
    def test_a_deletion_while_it_syncs(self, tmp_path, contents, number, again):
        """It does not wait for the disk, and a new topic of that name gets nothing of the old one's checkpoint."""
        disk = Interrupted(str(tmp_path))
        home = Home(disk)  # type: ignore[arg-type] # it has what is used of it
        log = home.open()
        home.write(log, bytes(2_000_000))
        written: list[bytes] = []

        def delete() -> None:
            log.delete()
            if again:
                written.extend(home.fill(home.open(), 2))

        log.checkpoint(owed_from(log.end(), log))
        disk.acts[number] = delete

        assert [] == home.run_jobs()

        assert {} == disk.acts
        if again:
            assert ["00000000000000000000.log"] == os.listdir(tmp_path / "t")
            assert list(enumerate(written)) == contents(home.open())
        else:
            assert [] == os.listdir(tmp_path)

    def test_the_directory_is_gone(self, home, log):
        """That is no error."""
        job = self.make(home, log)
        log.delete()

        job.run()
        job.finish()

        assert "" == job.error

    def test_the_log_makes_them_in_order(self, home, log):
        """The last checkpoint is the one that stays."""
        for end in (1, 2, 3):
            record = TopicRecord()
            record.end = end
            log.checkpoint(record)

        assert [] == home.run_jobs()

        assert 3 == home.reopen().recovered().end
