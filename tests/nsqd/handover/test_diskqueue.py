"""NSQ's disk queue files, read and written.

Fixtures that show the format are spelled out as bytes, so that reader and writer can't be wrong together.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from nsqkit.nsqd.handover.diskqueue import (
    Queue,
    QueueContents,
    QueueReader,
    StoredMessage,
    find_queues,
    queue_files,
    read_queue,
    write_queue,
)

DATA = "t.diskqueue.000000.dat"
META = "t.diskqueue.meta.dat"
MANY_TIMES = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)

RECORD = (
    b"\x00\x00\x00\x1f"  # 26 + 5 bytes follow
    b"\x17\x97\x9c\xfe\x36\x2a\x00\x00"  # 1700000000 s in ns
    b"\x00\x03"  # attempts
    b"0a1b2c3d4e5f6789"  # id
    b"hello"
)
MESSAGE = StoredMessage(1_700_000_000_000_000_000, 3, b"0a1b2c3d4e5f6789", b"hello")

ids = st.integers(0, 2**64 - 1).map(lambda number: b"%016x" % number)
any_message = st.builds(
    StoredMessage, st.integers(-(2**63), 2**63 - 1), st.integers(0, 65535), ids, st.binary(max_size=99)
)
# Without checksums, damage can only be told from bodies that don't look like headers or never written space.
text_body = st.text("uvwxyz {}", max_size=99).map(str.encode)
times = st.integers(1_500_000_000_000_000_000, 2_000_000_000_000_000_000)
message_with_text = st.builds(StoredMessage, times, st.integers(0, 9), ids, text_body)


def message(number: int, body: bytes = b"body") -> StoredMessage:
    """A message that differs from all others."""
    return StoredMessage(1_700_000_000_000_000_000 + number, 1, b"%016x" % (0xABC0 + number), body)


def record(stored: StoredMessage) -> bytes:
    """A message as NSQ puts it into a data file."""
    payload = stored.timestamp.to_bytes(8, "big", signed=True) + stored.attempts.to_bytes(2, "big")
    payload += stored.id + stored.body
    return len(payload).to_bytes(4, "big") + payload


def records(messages: Iterable[StoredMessage]) -> bytes:
    """Messages one after the other."""
    return b"".join(record(stored) for stored in messages)


def make(data_path: Path, **files: bytes | bytearray | str) -> None:
    """Files of queue t: `meta`, and data files by number, `d0`, `d1` and so on."""
    for key, content in files.items():
        name = META if key == "meta" else f"t.diskqueue.{int(key[1:]):06d}.dat"
        (data_path / name).write_bytes(content.encode() if isinstance(content, str) else content)


def read(data_path: Path) -> QueueContents:
    """All of queue t."""
    return read_queue(str(data_path), "t")


def write(data_path: Path, messages: Iterable[StoredMessage], max_bytes_per_file: int = 1000) -> int:
    """Write queue t."""
    return write_queue(str(data_path), "t", messages, max_bytes_per_file)


def contents(data_path: Path) -> dict[str, bytes]:
    """All files of a data path."""
    return {path.name: path.read_bytes() for path in data_path.iterdir()}


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


class TestDamage:
    """What can be told from damage is read, the rest is reported."""

    def test_bad_file(self, tmp_path: Path) -> None:
        """A file that nsqd put aside is reported, not read."""
        make(tmp_path, meta="0\n1,0\n1,35\n", d1=RECORD)
        (tmp_path / f"{DATA}.bad").write_bytes(RECORD)

        assert ([MESSAGE], [f"{DATA}.bad: put aside by nsqd because of damage, not read"]) == read(tmp_path)

    @pytest.mark.parametrize(
        "length", [0, 25, 26, 30, 32, 33, 35, 60, 64, 66, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
    )
    def test_wrong_length(self, tmp_path: Path, length: int) -> None:
        """A record with a wrong length, whatever it is, is lost alone."""
        broken = length.to_bytes(4, "big") + RECORD[4:]
        make(
            tmp_path,
            meta="4\n0,0\n0,137\n",
            d0=record(message(1)) + broken + records([message(2), message(3)]),
        )

        assert (
            [message(1), message(2), message(3)],
            [
                f"{DATA}: skipped 35 damaged bytes in 1 places, the first at 34",
                f"{META}: tells of 4 messages, 3 were found",
            ],
        ) == read(tmp_path)

    def test_two_places(self, tmp_path: Path) -> None:
        """Damage in several places of a file makes one line."""
        garbage = b"\xee" * 50
        make(tmp_path, meta="4\n0,0\n0,240\n", d0=garbage + RECORD * 3 + garbage + RECORD)

        contents = read(tmp_path)

        # The record before the second garbage is given up: its length could be what is wrong.
        assert [MESSAGE] * 3 == contents.messages
        assert f"{DATA}: skipped 135 damaged bytes in 2 places, the first at 0" == contents.problems[0]

    @pytest.mark.parametrize("bit", range(32))
    @pytest.mark.parametrize(
        "body", [b"0123456789abcdef" * 40, b"x" * 640, b'{"id":"0123456789abcdef0123456789"}' * 20]
    )
    def test_flipped_bit_in_a_length(self, tmp_path: Path, body: bytes, bit: int) -> None:
        """Any wrong bit in a length costs one message, also among bodies of hex digits."""
        messages = [message(number, body) for number in range(40)]
        data = bytearray(records(messages))
        at = 20 * len(record(messages[0]))
        data[at + 3 - bit // 8] ^= 1 << bit % 8
        make(tmp_path, meta=f"40\n0,0\n0,{len(data)}\n", d0=data)

        assert messages[:20] + messages[21:] == read(tmp_path).messages

    def test_body_that_holds_records(self, tmp_path: Path) -> None:
        """In an undamaged file a body may look like anything, a queue file included."""
        messages = [message(number, RECORD * 3) for number in range(5)]
        make(tmp_path, meta="5\n0,0\n0,675\n", d0=records(messages))

        assert (messages, []) == read(tmp_path)

    def test_torn_tail(self, tmp_path: Path) -> None:
        """A record that was cut off is reported, wherever the cut is; what is before it is read."""
        for cut in range(1, len(RECORD)):
            make(tmp_path, meta="1\n0,0\n0,34\n", d0=record(message(1)) + RECORD[:cut])

            assert (
                [message(1)],
                [f"{DATA}: skipped {cut} damaged bytes in 1 places, the first at 34"],
            ) == read(tmp_path)

    def test_never_written_space(self, tmp_path: Path) -> None:
        """Zeros at the end, as after a power cut, cost no message."""
        make(tmp_path, meta="1\n0,0\n0,34\n", d0=RECORD + record(message(1)) + bytes(200_000))

        contents = read(tmp_path)

        assert [MESSAGE, message(1)] == contents.messages
        assert [f"{DATA}: skipped 200000 damaged bytes in 1 places, the first at 69"] == contents.problems

    @pytest.mark.parametrize("size", [1, 4, 8, 12, 15, 20, 30, 31, 34, 35, 50, 69, 100, 512])
    def test_zeroed_place(self, tmp_path: Path, size: int) -> None:
        """Wherever a place is zeroed, the records before and after it are kept."""
        messages = [message(number, b"body %d" % number) for number in range(60)]
        whole = records(messages)
        one = len(record(messages[10]))
        first = len(records(messages[:10]))
        for start in range(first, first + one):
            data = bytearray(whole)
            data[start : start + size] = bytes(size)
            make(tmp_path, meta=f"60\n0,0\n0,{len(data)}\n", d0=data)

            found = read(tmp_path).messages

            intact = [m for m in messages if record(m) in data]
            assert intact == [m for m in found if m in messages]
            assert len(intact) >= 60 - 1 - (size + one - 1) // one

    def test_damage_does_not_spread_to_other_files(self, tmp_path: Path) -> None:
        """After a file without a single record the next one is read."""
        make(tmp_path, meta="1\n0,0\n1,35\n", d0=b"no queue at all " * 10_000, d1=RECORD)

        contents = read(tmp_path)

        assert [MESSAGE] == contents.messages
        assert [f"{DATA}: skipped 160000 damaged bytes in 1 places, the first at 0"] == contents.problems

    def test_strange_id(self, tmp_path: Path) -> None:
        """A message whose id alone is damaged is kept: its place between its neighbours is certain."""
        strange = MESSAGE._replace(id=b"not hex digits !")
        make(tmp_path, meta="3\n0,0\n0,105\n", d0=RECORD + record(strange) + RECORD)

        assert ([MESSAGE, strange, MESSAGE], []) == read(tmp_path)

    def test_long_messages(self, tmp_path: Path) -> None:
        """A body above the reader's limit is damage, one at the limit is not."""
        data = records([message(1, b"x" * 101), message(2, b"x" * 100)])
        make(tmp_path, meta=f"2\n0,0\n0,{len(data)}\n", d0=data)

        assert [message(2, b"x" * 100)] == read_queue(str(tmp_path), "t", max_body_bytes=100).messages

    def test_unreadable_file_is_not_damage(self, tmp_path: Path) -> None:
        """A file that can't be read raises: nothing is known about its content."""
        (tmp_path / DATA).mkdir()

        with pytest.raises(OSError, match=DATA):
            read(tmp_path)

    @MANY_TIMES
    @given(st.lists(message_with_text, max_size=9), st.integers(min_value=0))
    def test_truncation(
        self, tmp_path_factory: pytest.TempPathFactory, messages: list[StoredMessage], cut: int
    ) -> None:
        """Of a file that was cut off, exactly the whole records are read, and a rest is reported."""
        data_path = tmp_path_factory.mktemp("queue")
        data = records(messages)
        data = data[: cut % (len(data) + 1)]
        make(data_path, meta=f"0\n0,0\n0,{len(data)}\n", d0=data)

        found, problems = read(data_path)

        assert messages[: len(found)] == found
        assert len(problems) == (records(found) != data)
        assert len(found) == len(messages) or len(data) < len(records(messages[: len(found) + 1]))

    @MANY_TIMES
    @given(st.lists(message_with_text, min_size=1, max_size=9), st.integers(min_value=0))
    def test_one_flipped_bit(
        self, tmp_path_factory: pytest.TempPathFactory, messages: list[StoredMessage], flip: int
    ) -> None:
        """One wrong bit costs or changes its own message only, unless it lets it end where another one does."""
        data_path = tmp_path_factory.mktemp("queue")
        data = bytearray(records(messages))
        byte, bit = divmod(flip % (len(data) * 8), 8)
        data[byte] ^= 1 << bit
        make(data_path, meta=f"0\n0,0\n0,{len(data)}\n", d0=data)

        found = read(data_path).messages

        starts = [len(records(messages[:index])) for index in range(len(messages) + 1)]
        hit = max(index for index, start in enumerate(starts) if start <= byte)
        if byte - starts[hit] < 4:
            assume(starts[hit] + 4 + int.from_bytes(data[starts[hit] : starts[hit] + 4], "big") not in starts)
            assert messages[:hit] + messages[hit + 1 :] == found
        else:
            assert len(messages) == len(found)
            assert messages[:hit] + messages[hit + 1 :] == found[:hit] + found[hit + 1 :]

    @MANY_TIMES
    @given(
        st.lists(message_with_text, max_size=9),
        st.lists(st.tuples(st.integers(min_value=0), st.binary(min_size=1, max_size=60)), max_size=5),
    )
    def test_arbitrary_damage(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        messages: list[StoredMessage],
        damage: list[tuple[int, bytes]],
    ) -> None:
        """Whatever is overwritten, reading does not raise, and gives no more than the file holds."""
        data_path = tmp_path_factory.mktemp("queue")
        data = bytearray(records(messages))
        for place, junk in damage:
            start = place % (len(data) + 1)
            data[start : start + len(junk)] = junk
        make(data_path, meta=f"0\n0,0\n0,{len(data)}\n", d0=data)

        found = read(data_path).messages

        assert len(records(found)) <= len(data)

    @MANY_TIMES
    @given(st.binary(max_size=500), st.binary(max_size=60))
    def test_arbitrary_files(
        self, tmp_path_factory: pytest.TempPathFactory, data: bytes, meta: bytes
    ) -> None:
        """Files of any content can be read."""
        data_path = tmp_path_factory.mktemp("queue")
        make(data_path, meta=meta, d0=data)

        assert len(records(read(data_path).messages)) <= len(data)
