"""NSQ's disk queue files, read and written.

Fixtures that show the format are spelled out as bytes, so that reader and writer can't be wrong together.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsqkit.nsqd.handover.diskqueue import (
    Queue,
    QueueReader,
    StoredMessage,
    find_queues,
    queue_files,
    read_queue,
    write_queue,
)
from tests.nsqd.handover.diskqueues import (
    DATA,
    MANY_TIMES,
    MESSAGE,
    META,
    RECORD,
    any_message,
    contents,
    make,
    message,
    read,
    record,
    write,
)


class TestFindQueues:
    """Queues are recognised by the names of their files."""

    def test_topics_and_channels(self, tmp_path: Path) -> None:
        """A queue is found by any of its files, once, and a topic comes before its channels."""
        for name in [
            "t:c.diskqueue.meta.dat",
            "t.diskqueue.000000.dat",
            "t.diskqueue.000001.dat",
            "t.b:c.diskqueue.1000000.dat",
            "bad.diskqueue.000004.dat.bad",
        ]:
            (tmp_path / name).touch()

        expected = [Queue("bad", None), Queue("t", None), Queue("t", "c"), Queue("t.b", "c")]
        assert expected == find_queues(str(tmp_path))
        assert ["bad", "t", "t:c", "t.b:c"] == [queue.name for queue in expected]

    def test_other_files(self, tmp_path: Path) -> None:
        """Files that NSQ can't have made belong to no queue."""
        for name in [
            "nsqd.dat",
            "t.diskqueue.00.dat",
            "a b.diskqueue.000000.dat",
            "t:.diskqueue.000000.dat",
            ":c.diskqueue.000000.dat",
            "t:c:d.diskqueue.000000.dat",
            "t.diskqueue.000000.dat~",
        ]:
            (tmp_path / name).touch()

        assert [] == find_queues(str(tmp_path))

    def test_topic_called_like_a_queue_file(self, tmp_path: Path) -> None:
        """A topic's name may itself contain what marks the files of a queue."""
        topic = "t.diskqueue.000000.dat"
        write_queue(str(tmp_path), topic, [MESSAGE], 1000)

        assert [Queue(topic, None)] == find_queues(str(tmp_path))
        assert [MESSAGE] == read_queue(str(tmp_path), topic).messages

    def test_all_files_of_a_queue(self, tmp_path: Path) -> None:
        """What a queue consists of includes bad files and interrupted writes, and nothing of other queues."""
        mine = [
            f"t.diskqueue.{rest}" for rest in ("000000.dat", "000001.dat.bad", "meta.dat", "meta.dat.7.tmp")
        ]
        for name in [*mine, "t:c.diskqueue.meta.dat", "nsqd.dat"]:
            (tmp_path / name).touch()

        assert mine == queue_files(str(tmp_path), "t")


class TestFormat:
    """The bytes of NSQ."""

    def test_record(self, tmp_path: Path) -> None:
        """A record as NSQ wrote it is read field by field."""
        make(tmp_path, meta="1\n0,0\n0,35\n", d0=RECORD)

        assert ([MESSAGE], []) == read(tmp_path)

    def test_written_record(self, tmp_path: Path) -> None:
        """Messages are written as NSQ writes them; meta tells how many and where they end; others can't read them."""
        assert 2 == write(tmp_path, [MESSAGE, MESSAGE])

        assert {DATA: RECORD * 2, META: b"2\n0,0\n0,70\n"} == contents(tmp_path)
        assert {0o600} == {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}

    def test_empty_queue(self, tmp_path: Path) -> None:
        """An empty queue is a meta file alone, and is read without complaint."""
        assert 0 == write(tmp_path, [])

        assert {META: b"0\n0,0\n0,0\n"} == contents(tmp_path)
        assert ([], []) == read(tmp_path)

    def test_rolling(self, tmp_path: Path) -> None:
        """A record that would pass the limit goes to the next file; one that just reaches it does not."""
        write(tmp_path, [MESSAGE] * 5, max_bytes_per_file=70)

        assert {
            "t.diskqueue.000000.dat": RECORD * 2,
            "t.diskqueue.000001.dat": RECORD * 2,
            "t.diskqueue.000002.dat": RECORD,
            META: b"5\n0,0\n2,35\n",
        } == contents(tmp_path)

    def test_record_above_the_limit(self, tmp_path: Path) -> None:
        """A record larger than a file may be has a file of its own."""
        write(tmp_path, [MESSAGE] * 2, max_bytes_per_file=10)

        assert {DATA: RECORD, "t.diskqueue.000001.dat": RECORD, META: b"2\n0,0\n1,35\n"} == contents(tmp_path)


class TestWriting:
    """Writing is all or nothing."""

    def test_existing_queue_is_left_alone(self, tmp_path: Path) -> None:
        """A queue that has files is not written over."""
        make(tmp_path, d7=RECORD)

        with pytest.raises(FileExistsError):
            write(tmp_path, [MESSAGE])

        assert {"t.diskqueue.000007.dat": RECORD} == contents(tmp_path)

    @pytest.mark.parametrize(
        "wrong",
        [MESSAGE._replace(id=b"short"), MESSAGE._replace(attempts=65536), MESSAGE._replace(timestamp=2**63)],
    )
    def test_impossible_message(self, tmp_path: Path, wrong: StoredMessage) -> None:
        """A message that does not fit the format is a ValueError, and no file is left."""
        with pytest.raises(ValueError, match=r"message id of 5 bytes|out of range"):
            write(tmp_path, [MESSAGE, wrong], max_bytes_per_file=10)

        assert {} == contents(tmp_path)

    def test_failing_source(self, tmp_path: Path) -> None:
        """When the source of the messages fails, no file is left."""

        def source() -> Iterator[StoredMessage]:
            yield MESSAGE
            raise KeyError

        with pytest.raises(KeyError):
            write(tmp_path, source())

        assert {} == contents(tmp_path)

    @MANY_TIMES
    @given(st.lists(any_message, max_size=20), st.integers(1, 500))
    def test_round_trip(
        self, tmp_path_factory: pytest.TempPathFactory, messages: list[StoredMessage], max_bytes: int
    ) -> None:
        """What was written is read, in order, whatever the bodies and wherever the files end."""
        data_path = tmp_path_factory.mktemp("queue")

        assert len(messages) == write(data_path, messages, max_bytes)

        assert (messages, []) == read(data_path)


class TestPositions:
    """The meta file says where reading begins; what lies after the write position is read as well."""

    def test_reading_begins_at_the_read_position(self, tmp_path: Path) -> None:
        """What was read before the stop is not read again, also if its file is still there."""
        make(
            tmp_path, meta="2\n1,35\n2,35\n", d0=RECORD, d1=RECORD + record(message(1)), d2=record(message(2))
        )

        assert ([message(1), message(2)], []) == read(tmp_path)

    def test_extra_bytes_after_the_write_position(self, tmp_path: Path) -> None:
        """After an unclean stop, records and files that the meta file does not know are read."""
        make(tmp_path, meta="1\n0,0\n0,35\n", d0=RECORD + record(message(1)), d1=record(message(2)))

        assert ([MESSAGE, message(1), message(2)], []) == read(tmp_path)

    def test_read_file_already_removed(self, tmp_path: Path) -> None:
        """When the file at the read position is gone, the next one is read from its beginning."""
        make(tmp_path, meta="1\n0,35\n1,35\n", d1=RECORD)

        assert ([MESSAGE], []) == read(tmp_path)

    def test_missing_messages(self, tmp_path: Path) -> None:
        """Fewer messages than the meta file tells of are a problem, told once."""
        make(tmp_path, meta="3\n0,0\n2,35\n", d0=RECORD, d2=RECORD)

        with QueueReader(str(tmp_path), "t") as reader:
            assert [MESSAGE, MESSAGE, None, None] == [reader.next() for _ in range(4)]

        assert [f"{META}: tells of 3 messages, 2 were found"] == reader.problems

    def test_read_position_after_the_end(self, tmp_path: Path) -> None:
        """A read position after the end of its file leads to the next file."""
        make(tmp_path, meta="1\n0,99\n1,35\n", d0=RECORD, d1=record(message(1)))

        assert ([message(1)], []) == read(tmp_path)

    def test_no_meta_file(self, tmp_path: Path) -> None:
        """Without a meta file everything is read, from the lowest number on, where NSQ would overwrite it."""
        make(tmp_path, d3=RECORD, d10=record(message(1)), d1000000=record(message(2)))

        assert (
            [MESSAGE, message(1), message(2)],
            [f"{META}: missing, everything in the data files is read"],
        ) == read(tmp_path)

    @pytest.mark.parametrize(
        "meta",
        [
            "",
            "1\n0,0\n",
            "x\n0,0\n0,35\n",
            "1\n1,0\n0,35\n",
            "1\n0,36\n0,35\n",
            "-1\n0,0\n0,35\n",
            "1\n0,0\n0,35\n\n",
            b"\0" * 99,
        ],
    )
    def test_senseless_meta_file(self, tmp_path: Path, meta: str | bytes) -> None:
        """A meta file that is no such thing, or reads beyond where it writes, is as good as none."""
        make(tmp_path, meta=meta, d0=RECORD)

        assert ([MESSAGE], [f"{META}: makes no sense, everything in the data files is read"]) == read(
            tmp_path
        )

    def test_closing_early(self, tmp_path: Path) -> None:
        """A closed reader has nothing more to give."""
        make(tmp_path, meta="2\n0,0\n0,70\n", d0=RECORD * 2)
        reader = QueueReader(str(tmp_path), "t")
        reader.next()

        reader.close()

        assert (None, []) == (reader.next(), reader.problems)

    def test_reading_changes_nothing(self, tmp_path: Path) -> None:
        """The files are the same after reading, damaged or not."""
        make(tmp_path, meta="2\n0,0\n0,70\n", d0=RECORD + b"\xff" * 99 + RECORD)
        before = contents(tmp_path)

        read(tmp_path)

        assert before == contents(tmp_path)
