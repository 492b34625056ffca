"""The end of a topic's log after a crash, and the positions it goes on with."""

import errno
import os

import pytest

from nsqkit.nsqd.core.store import ChannelRecord, Extent, TopicRecord
from nsqkit.nsqd.storage.segment import BATCH_HEADER, FILE_HEADER, file_header
from tests.nsqd.storage.home import BATCH_BYTES, change, checkpoint


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
