"""The journal of fsync mode, and the thread that writes and empties it."""

import errno
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsqkit.nsqd.core.batch import Batch
from nsqkit.nsqd.core.store import Deletion, StoreError
from nsqkit.nsqd.storage.journal import Journal
from nsqkit.nsqd.storage.segment import BATCH_HEADER

ENTRY_BYTES = 8 + 1 + BATCH_HEADER + 4 + 1  # topic and body of one letter


@pytest.fixture
def journal(disk) -> Journal:
    """A journal in use."""
    journal = Journal(disk, f"{disk.root}/journal")
    journal.start()
    return journal


def entry(home, topic: str, position: int, *bodies: bytes) -> tuple[str, Batch]:
    """A publish as the broker hands it to the journal."""
    batch = home.batch(*bodies)
    batch.first_position = position
    return topic, batch


def grave(topic: str) -> tuple[str, Deletion]:
    """What the broker hands to the journal when a topic is deleted."""
    return topic, Deletion()


def entries(journal: Journal) -> list[tuple[str, int, bytes]]:
    """Everything in the journal, in the order of its replay."""
    found = [pair for path in journal.files() for pair in journal.replay(path)]
    return [
        (topic, -1, b"")
        if isinstance(entry, Deletion)
        else (topic, int(entry.first_position), entry.data[4:])
        for topic, entry in found
    ]


class TestFiles:
    """Entries in files with numbers."""

    def test_entries_come_back_in_order(self, home, journal):
        """Of all topics, in the order of their writing, over all files."""
        journal.write([entry(home, "a", 0, b"1"), entry(home, "b", 0, b"2")])
        journal.write([entry(home, "a", 1, b"3")])
        journal.rotate()
        journal.write([entry(home, "b#", 1, b"4")])

        assert [("a", 0, b"1"), ("b", 0, b"2"), ("a", 1, b"3"), ("b#", 1, b"4")] == entries(journal)
        assert ["0000000001.journal", "0000000002.journal"] == sorted(os.listdir(f"{home.disk.root}/journal"))
        assert [0, 0] == [journal.damage(path) for path in journal.files()]

    def test_everything_of_a_batch_is_kept(self, home, journal):
        """What replay gives to the log is what the publish gave."""
        topic, batch = entry(home, "t", 7, b"one", b"")
        batch.due = 99
        journal.write([(topic, batch)])

        ((_, found),) = journal.replay(journal.files()[0])

        assert (batch.data, 2, 7, batch.first_id, batch.timestamp, 99) == (
            found.data, found.count, found.first_position, found.first_id, found.timestamp, found.due,
        )  # fmt: skip

    def test_one_sync_for_a_group(self, home, journal):
        """However many topics it has; a new file is synced with its directory, and the first with the one above."""
        for _ in range(2):
            for _ in range(2):
                journal.write([entry(home, topic, 0, b"x") for topic in "abcdef"])
            journal.rotate()

        calls = [call for call, _ in home.disk.names_called("create", "write", "sync", "sync_directory")]
        new = ["create", "sync_directory"]
        assert [*new, "sync_directory", *["write", "sync"] * 2, *new, *["write", "sync"] * 2] == calls

    def test_a_start_goes_on_behind_the_files(self, home, journal):
        """Numbers are not used again while their files are there; what is no file of the journal is left alone."""
        journal.write([entry(home, "a", 0, b"1")])
        for name in ("strange.journal", "0000000007.journal", "0000000009.journal.damaged"):
            (open(f"{home.disk.root}/journal/{name}", "w")).close()
        another = Journal(home.disk, f"{home.disk.root}/journal")
        another.start()

        another.write([entry(home, "a", 1, b"2")])

        assert "0000000008.journal" == os.path.basename(another.files()[-1])
        assert [("a", 0, b"1"), ("a", 1, b"2")] == entries(another)

    def test_rotating_and_removing(self, home, journal):
        """The files that are complete can be removed while the next one is written."""
        journal.write([entry(home, "a", 0, b"1")])
        complete = journal.rotate()
        journal.write([entry(home, "a", 1, b"2")])

        journal.remove(complete)

        assert [("a", 1, b"2")] == entries(journal)
        assert 2 == len(journal.rotate() + journal.rotate())
        assert 0 == home.disk.opened()

    def test_removals_keep_their_order(self, home, journal):
        """A file is surely gone before the next one goes, which may say that a topic in it was deleted."""
        for number in range(2):
            journal.write([entry(home, "a", number, b"1")])
            journal.rotate()
        home.disk.calls.clear()

        journal.remove(journal.files())

        assert ["remove", "sync_directory"] * 2 == [
            call for call, _ in home.disk.calls if call in ("remove", "sync_directory")
        ]


class TestFigures:
    """What operators are told."""

    def test_size(self, home, journal):
        """All files that are there count, the one being written too."""
        journal.write([entry(home, "a", 0, b"1")])
        complete = journal.rotate()
        journal.write([entry(home, "b", 0, b"22")])
        journal.write([entry(home, "b", 1, b"333")])
        assert sum(os.path.getsize(path) for path in journal.files()) == journal.size_bytes

        journal.remove(complete)

        assert os.path.getsize(journal.files()[0]) == journal.size_bytes

    def test_syncs(self, home, journal):
        """Each group is one sync."""
        home.disk.sync_takes = 0.25
        journal.write([entry(home, "a", 0, b"1"), entry(home, "b", 0, b"2")])
        journal.write([entry(home, "a", 1, b"3")])

        assert (2, 0.5) == (journal.sync_durations.count, journal.sync_durations.seconds)


class TestErrors:
    """The disk fails under the journal."""

    @pytest.mark.parametrize("call", ["create", "sync_directory", "write", "sync"])
    def test_none_of_a_group_is_safe(self, home, journal, call):
        """The error is told, and the next group goes to a new file: who knows what became of the old one."""
        home.disk.fail(call, errno.ENOSPC)
        with pytest.raises(StoreError, match="journal: No space left"):
            journal.write([entry(home, "a", 0, b"1")])

        journal.write([entry(home, "a", 0, b"2")])

        assert ("a", 0, b"2") == entries(journal)[-1]
        assert 1 == home.disk.opened()

    def test_half_a_group_is_cut_off(self, home, journal):
        """It would look like damage at the next start."""
        journal.write([entry(home, "a", 0, b"1")])
        home.disk.most = 10
        home.disk.fail("write", errno.ENOSPC, after=1)
        with pytest.raises(StoreError):
            journal.write([entry(home, "a", 1, b"2")])

        assert ([("a", 0, b"1")], 0) == (entries(journal), journal.damage(journal.files()[0]))
        assert os.path.getsize(journal.files()[0]) == journal.size_bytes

    def test_its_size_counts_what_a_failed_write_left(self, home, journal):
        """Half an entry that can't be cut off takes space as well, until its file is removed."""
        home.disk.most = 10
        home.disk.fail("write", errno.ENOSPC, after=1)
        home.disk.fail("truncate", errno.EIO)
        with pytest.raises(StoreError):
            journal.write([entry(home, "a", 0, b"1")])
        assert 10 == journal.size_bytes

        journal.remove(journal.rotate())

        assert 0 == journal.size_bytes

    def test_a_deletion_is_written_later(self, home, journal):
        """A deletion that could not be written stands in front of everything that is written afterwards."""
        home.disk.fail("write", errno.EIO, times=2)
        for group in ([grave("a"), entry(home, "b", 0, b"1")], [entry(home, "a", 0, b"2")]):
            with pytest.raises(StoreError):
                journal.write(group)

        journal.write([entry(home, "a", 0, b"3")])
        journal.write([entry(home, "a", 1, b"4")])

        assert [("a", -1, b""), ("a", 0, b"3"), ("a", 1, b"4")] == entries(journal)

    def test_a_torn_end(self, home, journal):
        """Wherever the file was cut: whole entries come back."""
        journal.write([entry(home, "a", n, b"x") for n in range(3)])
        path = journal.files()[0]
        for size in reversed(range(3 * ENTRY_BYTES + 1)):
            os.truncate(path, size)
            assert size // ENTRY_BYTES == len(journal.replay(path))
            assert (size % ENTRY_BYTES > 3) == (journal.damage(path) > 0)  # an entry begins with three zeros

    def test_zeros_at_the_end(self, home, journal):
        """Space that was never written is not damage."""
        journal.write([entry(home, "a", 0, b"x")])
        os.truncate(journal.files()[0], 5000)

        assert [("a", 0, b"x")] == entries(journal)
        assert 0 == journal.damage(journal.files()[0])

    @settings(max_examples=100)
    @given(
        sizes=st.lists(st.integers(0, 50), min_size=1, max_size=8),
        spot=st.integers(0, 1 << 20),
        bit=st.integers(0, 7),
    )
    def test_one_wrong_bit(self, new_home, sizes, spot, bit):
        """All entries but the one that was hit come back, with the right topics."""
        home = new_home()
        journal = Journal(home.disk, f"{home.disk.root}/journal")
        journal.start()
        written, ends = [], []
        for number, size in enumerate(sizes):
            journal.write([entry(home, "topic" * (number % 3 + 1), number, b"x" * size)])
            written.append(("topic" * (number % 3 + 1), number, b"x" * size))
            ends.append(os.path.getsize(journal.files()[0]))
        with open(journal.files()[0], "r+b") as file:
            raw = bytearray(file.read())
            at = spot % len(raw)
            raw[at] ^= 1 << bit
            file.seek(0)
            file.write(raw)
        hit = next(number for number, end in enumerate(ends) if at < end)

        assert written[:hit] + written[hit + 1 :] == entries(journal)
        assert journal.damage(journal.files()[0]) > 0
