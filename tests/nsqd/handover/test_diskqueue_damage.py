"""Files of the original that are damaged."""

from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nsqkit.nsqd.handover.diskqueue import (
    StoredMessage,
    read_queue,
)
from tests.nsqd.handover.diskqueues import (
    DATA,
    MANY_TIMES,
    MESSAGE,
    META,
    RECORD,
    make,
    message,
    message_with_text,
    read,
    record,
    records,
)


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
