"""Write errors and syncs of a topic's log."""

import errno
import os

import pytest

from nsqkit.nsqd.core.store import StoreError
from nsqkit.nsqd.storage.segment import BATCH_HEADER, FILE_HEADER
from nsqkit.wire.message import NOWHERE
from tests.nsqd.storage.home import BATCH_BYTES, checkpoint


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
