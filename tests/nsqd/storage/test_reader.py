"""Reading a log: in blocks, around damage, and from a disk that can't be read."""

import errno
import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsqkit.nsqd.core.store import StoreError
from nsqkit.nsqd.storage.segment import BATCH_HEADER, FILE_HEADER, INDEX_STEP
from tests.nsqd.storage.home import BATCH_BYTES, change, checkpoint, flip


class TestReading:
    """What was written is read back."""

    def test_a_new_log_is_empty(self, home):
        """There is nothing in it, and no file before the first write."""
        log = home.open()

        assert (0, 0, 0, None, None) == (
            log.start(),
            log.end(),
            log.size_bytes(),
            log.oldest(),
            log.recovered(),
        )
        assert [] == log.read(0, 10, 100)
        assert [] == home.segments()

    def test_batches_of_a_turn(self, home, bodies):
        """Several batches go out in one write, with consecutive positions, and come back as they were."""
        log = home.open()
        first, second = home.batch(b"one", b"", due=77), home.batch(b"three", carried=True)
        log.append(first)
        log.append(second)
        assert 0 == log.end()
        log.write()

        found = log.read(0, log.end(), 1000)

        assert (0, 2, 3) == (first.first_position, second.first_position, log.end())
        assert [[b"one", b""], [b"three"]] == [bodies(batch) for batch in found]
        for written, read in zip([first, second], found, strict=True):
            assert (written.first_position, written.first_id, written.timestamp, written.due, written.carried) == (
                read.first_position, read.first_id, read.timestamp, read.due, read.carried,
            )  # fmt: skip
        assert 2 == len(home.disk.names_called("write"))  # the header of the file, and the batches

    def test_writing_nothing(self, home):
        """A turn without publishes touches no file."""
        log = home.open()
        log.write()

        assert [] == home.segments()

    @pytest.mark.parametrize("limit", [1, 200, 1 << 20])
    def test_all_of_it_in_blocks(self, home, contents, limit):
        """However much is asked for at a time, every message comes once, in order."""
        log = home.open()
        written = home.fill(log, 50)

        assert list(enumerate(written)) == contents(log, 0, limit)
        assert list(enumerate(written)) == contents(home.reopen(), 0, limit)

    def test_a_block_is_about_as_long_as_asked_for(self, home):
        """At least one batch, and no more behind the limit."""
        log = home.open()
        home.fill(log, 10)

        assert 1 == len(log.read(0, 10, 1))
        assert 3 == len(log.read(0, 10, 2 * BATCH_BYTES + 1))
        assert 2 == len(log.read(3, 5, 1 << 20))

    def test_start_in_the_middle_of_a_batch(self, home, bodies):
        """Batches come whole, also when only one message of them is asked for."""
        log = home.open()
        home.write(log, b"0", b"1", b"2")
        home.write(log, b"3", b"4")

        assert [[b"0", b"1", b"2"]] == [bodies(batch) for batch in log.read(2, 3, 1000)]
        assert [[b"0", b"1", b"2"], [b"3", b"4"]] == [bodies(batch) for batch in log.read(1, 4, 1000)]
        assert [[b"3", b"4"]] == [bodies(batch) for batch in log.read(4, 5, 1000)]

    def test_two_readers(self, home):
        """A channel that reads on where it stopped and one that jumps about don't mislead each other."""
        log = home.open()
        home.max_bytes_per_file = 500
        log = home.reopen()
        home.fill(log, 60)
        chance = random.Random(3)
        steady = 0
        while steady < 60:
            batch = log.read(steady, 60, 1)[0]
            assert steady == batch.first_position
            steady += 1
            for _ in range(3):
                position = chance.randrange(60)
                assert position == log.read(position, position + 1, 1)[0].first_position

    def test_the_index_saves_reading(self, home):
        """A message far behind in the log is found without reading everything in front of it."""
        log = home.open()
        home.fill(log, 40, size=20_000)
        log.read(0, 1, 1)
        home.disk.calls.clear()

        assert 35 == log.read(35, 36, 1)[0].first_position

        assert len(home.disk.names_called("read")) <= INDEX_STEP // 20_000

    def test_batches_larger_than_a_block(self, home, contents):
        """A batch may be larger than what is read at a time."""
        log = home.open()
        large = [bytes([n]) * 200_000 for n in range(5)]
        for body in large:
            home.write(log, body)

        assert list(enumerate(large)) == contents(log, 0, 1)


class TestDamage:
    """Bits that went bad further back."""

    def test_a_damaged_batch_is_skipped(self, home, contents):
        """The others come; it is put aside, counted, and reported once."""
        log = home.open()
        written = home.fill(log, 5)
        flip(home.path(), 8 * (FILE_HEADER + 2 * BATCH_BYTES + 80))
        log = home.reopen()

        for _ in range(3):
            assert [(n, written[n]) for n in (0, 1, 3, 4)] == contents(log)

        offset = FILE_HEADER + 2 * BATCH_BYTES
        assert [
            f"skipped {BATCH_BYTES} damaged bytes at offset {offset}" in line for line in home.reports
        ] == [True]
        assert 1 == home.storage.shared.damaged_count
        assert BATCH_BYTES == os.path.getsize(f"{home.path()}.damaged-{offset}")
        assert [3] == [batch.first_position for batch in log.read(2, 4, 1)]
        assert [] == log.read(2, 3, 1)

    def test_wrong_lengths_hide_nothing(self, home, contents):
        """A batch that nobody asked for may have the wrong length: what it seems to cover is found all the same."""
        log = home.open()
        written = home.fill(log, 8)
        change(home.path(), FILE_HEADER + BATCH_BYTES + 4, (4 + 40 + 2 * BATCH_BYTES).to_bytes(4, "big"))
        log.close()
        log = home.reopen()

        assert [(n, written[n]) for n in range(2, 8)] == contents(log, 2)
        assert [(0, written[0])] == contents(log)[:1]

    @pytest.mark.parametrize("at", range(FILE_HEADER))
    def test_a_damaged_header_costs_nothing(self, home, contents, at):
        """The position is in the name, too: the header is made anew."""
        log = home.open()
        written = home.fill(log, 3)
        log.close()
        change(home.path(), at, b"\xa5")
        unused = 12 <= at < 16

        assert list(enumerate(written)) == contents(home.reopen())
        assert unused or ["made anew" in line for line in home.reports] == [True]
        assert [] == (home.reopen() and home.reports)

    def test_a_file_that_is_no_segment(self, home, contents):
        """What has the name of a segment and no batch in it is set aside, with a line."""
        log = home.open()
        written = home.fill(log, 2)
        with open(f"{home.disk.root}/t/00000000000000000007.log", "wb") as file:
            file.write(b"?" * 1000)

        assert list(enumerate(written)) == contents(home.reopen())
        assert 1 == home.storage.shared.damaged_count
        assert os.path.exists(f"{home.disk.root}/t/00000000000000000007.log.damaged")

    def test_files_of_others(self, home, contents):
        """What has no name of ours is neither read, renamed nor removed, not even with the topic."""
        log = home.open()
        written = home.fill(log, 2)
        names = ["access.log", "7.log", "9" * 20 + ".log", "notes", "00000000000000000007.log.old"]
        for name in names:
            with open(f"{home.disk.root}/t/{name}", "wb"):
                pass  # an empty one is what a process leaves that dies while it makes a segment

        log = home.reopen()
        assert list(enumerate(written)) == contents(log)
        assert 0 == home.storage.shared.damaged_count
        log.delete()

        assert sorted(names) == sorted(os.listdir(f"{home.disk.root}/t"))
        assert ["still there" in line for line in home.reports] == [True]

    def test_a_disk_that_can_not_be_written(self, home, contents):
        """Damage that can't be put aside is passed over all the same, and stays where it is."""
        log = home.open()
        written = home.fill(log, 3)
        flip(home.path(), 8 * (FILE_HEADER + BATCH_BYTES + 80))
        log.close()
        home.disk.fail("replace", errno.EROFS)
        log = (home.begin(), home.open())[1]

        assert [(0, written[0]), (2, written[2])] == contents(log)
        assert ["can't be put aside: Read-only" in line for line in home.reports] == [True]

    def test_the_end_of_a_file_in_the_middle(self, home, contents):
        """A complete file that lost its end is damaged there, and the next one is read."""
        home.max_bytes_per_file = FILE_HEADER + 4 * BATCH_BYTES
        home.begin()
        log = home.open()
        written = home.fill(log, 6)
        for missing in (10, BATCH_BYTES - 10):
            os.truncate(home.path(), FILE_HEADER + 4 * BATCH_BYTES - missing)
            log = home.reopen()
            assert [(n, written[n]) for n in (0, 1, 2, 4, 5)] == contents(log)
            assert ["damaged bytes" in line for line in home.reports] == [True]

    def test_a_whole_file_that_is_gone(self, home, contents):
        """What the others hold is read."""
        home.max_bytes_per_file = FILE_HEADER + 2 * BATCH_BYTES
        home.begin()
        written = home.fill(home.open(), 6)
        os.unlink(home.path(2))

        log = home.reopen()

        assert [(n, written[n]) for n in (0, 1, 4, 5)] == contents(log)
        assert [] == log.read(2, 4, 100)

    @settings(max_examples=150)
    @given(
        sizes=st.lists(st.integers(0, 150), min_size=1, max_size=12),
        flips=st.lists(st.tuples(st.integers(0, 1 << 30), st.integers(1, 60)), min_size=1, max_size=4),
        clean=st.booleans(),
        limit=st.sampled_from([1, 300, 1 << 20]),
    )
    def test_anywhere(self, new_home, contents, sizes, flips, clean, limit):
        """A start never fails; what was not hit comes back; what was hit is put aside, counted and reported once."""
        home = new_home(max_bytes_per_file=600)
        log = home.open()
        written, places = [], []
        for number, size in enumerate(sizes):
            body = bytes([number]) * size
            home.write(log, body)
            written.append(body)
            segment = home.segments()[-1]
            end = os.path.getsize(home.path(segment))
            places.append((segment, end - BATCH_HEADER - 4 - size, end))
        if clean:
            home.sync()
            checkpoint(home, log, needed_from=0)
        home.disk.kill()
        hit = set()
        for spot, length in flips:
            segment = home.segments()[spot % len(home.segments())]
            size = os.path.getsize(home.path(segment))
            begin = spot % size
            stop = min(begin + length, size)
            with open(home.path(segment), "rb") as file:
                damaged = bytes(byte ^ 0x5A for byte in file.read()[begin:stop])
            change(home.path(segment), begin, damaged)
            hit |= {
                n for n, (s, low, high) in enumerate(places) if s == segment and low < stop and begin < high
            }
        home.disk.calls.clear()

        log = home.reopen()
        first = contents(log, 0, limit)
        reported = list(home.reports)
        again = contents(log, 0, limit)

        found = dict(first)
        assert all(found.get(n) == body for n, body in enumerate(written) if n not in hit)
        assert all(written[n] == body for n, body in first if n < len(written))
        assert first == again
        assert reported == home.reports
        assert len(reported) == home.storage.shared.damaged_count + home.storage.shared.torn_count
        written.append(b"goes on")
        whole = [n for n in range(len(sizes)) if n not in hit]
        assert home.write(log, b"goes on").first_position > max(whole, default=-1)
        assert contents(home.reopen(), 0, limit)[-1][1] == b"goes on"


class TestReadErrors:
    """The disk can't be read now: that is no damage."""

    @pytest.mark.parametrize("call, error", [("read", errno.EIO), ("open", errno.EMFILE)])
    def test_nothing_is_taken_for_lost(self, home, contents, call, error):
        """It is an error of that read, said once, and the next read tries again."""
        written = home.fill(home.open(), 3)
        log = home.reopen()
        home.disk.fail(call, error, times=2)

        for _ in range(2):
            with pytest.raises(StoreError, match=os.strerror(error)):
                log.read(0, 3, 100)

        assert ["can't be read" in line for line in home.reports] == [True]
        assert list(enumerate(written)) == contents(log)
        assert 0 == home.storage.shared.damaged_count
        home.disk.fail("read", errno.EIO)
        with pytest.raises(StoreError):
            log.read(0, 3, 100)
        assert 2 == len(home.reports)

    def test_what_was_read_before_comes(self, home, bodies):
        """An error behind some batches is met by the next read."""
        log = home.open()
        large = [bytes([n]) * 60_000 for n in range(4)]
        for body in large:
            home.write(log, body)
        home.disk.fail("read", errno.EIO, after=1)

        assert [large[0]] == [body for batch in log.read(0, 4, 65536) for body in bodies(batch)]
        assert [large[1]] == [body for batch in log.read(1, 4, 1) for body in bodies(batch)]

    def test_a_log_that_can_not_be_opened(self, home):
        """Opening it is an error with a cause, and leaves no descriptor behind."""
        home.fill(home.open(), 3)
        for call in ("open", "load", "read"):
            home.disk.kill()
            home.begin()
            home.disk.fail(call, errno.EIO)
            with pytest.raises(StoreError, match="the log of t can't be opened: Input/output error"):
                home.open()
        home.disk.heal()

        assert 3 == home.open().end()
