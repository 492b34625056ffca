"""The bytes of a log."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsqkit.nsqd.core.batch import KEPT, Batch
from nsqkit.nsqd.storage.segment import (
    BATCH_HEADER,
    FILE_HEADER,
    INDEX_STEP,
    Segment,
    decode,
    encode_header,
    file_header,
    header_before,
    header_position,
    is_renewed,
    renewed_header,
    whole_length,
)

HEADER = b"NSQKLOG\n\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x02"
BATCH = (
    b"NSQb"
    b"\x00\x00\x00\x0d"  # 13 bytes of data
    b"\xd6\x7c\x2b\xaf"  # crc32c of all that follows
    b"\x00\x00\x00\x02"  # messages
    b"\x00\x00\x00\x01"  # carried
    b"\x00\x00\x00\x00\x00\x00\x01\x00"  # position
    b"\x0a\x1b\x2c\x3d\x4e\x5f\x60\x00"  # first id
    b"\x17\x97\x9c\xfe\x36\x2a\x00\x00"  # timestamp
    b"\x17\x97\x9c\xff\xff\xff\xff\xff"  # due
    b"\x00\x00\x00\x01a\x00\x00\x00\x04bcde"
)
longs = st.integers(-(2**63), 2**63 - 1)


def sample() -> Batch:
    """What BATCH says."""
    batch = Batch(BATCH[BATCH_HEADER:], 2, 0x17979CFE362A0000, 0x17979CFFFFFFFFFF, None)
    batch.first_position = 256
    batch.first_id = 0x0A1B2C3D4E5F6000
    batch.carried = True
    return batch


def test_file_header():
    """A segment begins with its magic, version and first position."""
    assert HEADER == file_header(258)
    assert FILE_HEADER == len(HEADER)
    assert 258 == header_position(HEADER)
    assert -1 == header_before(HEADER)
    assert 250 == header_before(file_header(258, 8))
    assert -1 == header_before(file_header(1 << 40, 1 << 31))


def test_renewed_header():
    """It names its first position and no file before, and one wrong bit makes it no header at all."""
    header = renewed_header(258)
    assert (FILE_HEADER, True, 258, -1) == (
        len(header),
        is_renewed(header),
        header_position(header),
        header_before(header),
    )
    assert not is_renewed(HEADER)
    for bit in range(8 * len(header)):
        wrong = bytearray(header)
        wrong[bit // 8] ^= 1 << bit % 8
        assert not is_renewed(bytes(wrong))
        assert -1 == header_position(bytes(wrong))


@pytest.mark.parametrize(
    "raw", [b"", HEADER[:-1], b"M" + HEADER[1:], HEADER[:11] + b"\x02" + HEADER[12:], bytes(24)]
)
def test_what_is_no_file_header(raw):
    """Anything else is no segment of ours."""
    assert -1 == header_position(raw)


def test_batch_format():
    """A batch is its header, byte by byte as documented, and the data of the publish command."""
    assert BATCH == encode_header(sample()) + sample().data


def test_batch_is_read_back():
    """Everything that delivery needs is in the log."""
    batch = decode(b"xyz" + BATCH + b"more", 3)

    assert batch is not None
    assert (BATCH[BATCH_HEADER:], 2, 256, True, KEPT) == (
        batch.data, batch.count, batch.first_position, batch.carried, batch.state,
    )  # fmt: skip
    assert (sample().first_id, sample().timestamp, sample().due) == (
        batch.first_id,
        batch.timestamp,
        batch.due,
    )


@given(st.lists(st.binary(max_size=20), max_size=5), longs, longs, longs, longs, st.booleans())
def test_any_batch_is_read_back(bodies, position, first_id, timestamp, due, carried):
    """Encoding and decoding are inverse."""
    data = b"".join(len(body).to_bytes(4, "big") + body for body in bodies)
    batch = Batch(data, len(bodies), timestamp, due, None)
    batch.first_position, batch.first_id, batch.carried = position, first_id, carried
    raw = encode_header(batch) + data

    twin = decode(raw, 0)

    assert len(raw) == whole_length(raw, 0)
    assert twin is not None
    assert raw == encode_header(twin) + twin.data


def test_no_flipped_bit_goes_unnoticed():
    """A batch with one wrong bit is no batch, or one of another length."""
    for bit in range(8 * len(BATCH)):
        raw = bytearray(BATCH)
        raw[bit // 8] ^= 1 << bit % 8
        damaged = bytes(raw)

        assert whole_length(damaged, 0) != len(BATCH) or decode(damaged, 0) is None


@pytest.mark.parametrize(
    "at, value",
    [
        (0, b"NSQc"),
        (4, b"\xff\xff\xff\xff"),
        (4, b"\x7f\xff\xff\xff"),
        (12, b"\xff\xff\xff\xff"),
        (12, b"\0\0\0\x04"),
    ],
)
def test_impossible_lengths(at, value):
    """A wrong magic, and lengths and counts that can't be, are no batch."""
    assert -1 == whole_length(BATCH[:at] + value + BATCH[at + 4 :], 0)


class TestIndex:
    """A segment remembers where some of its batches begin."""

    def test_without_memory_reading_begins_at_the_front(self):
        """Nothing is known about a segment that was just opened."""
        assert FILE_HEADER == Segment("path", 100, 5000).offset_before(3000)

    def test_nearest_batch_in_front(self):
        """Reading begins at the last remembered batch that is not behind the position."""
        segment = Segment("path", 0, 10 * INDEX_STEP)
        for number in range(5):
            segment.remember(10 * number, FILE_HEADER + number * INDEX_STEP)

        assert [FILE_HEADER + n * INDEX_STEP for n in (0, 0, 1, 1, 4, 4)] == [
            segment.offset_before(position) for position in (0, 9, 10, 19, 40, 1000)
        ]

    def test_the_end_may_be_seen_before_the_front(self):
        """What is in front of the first remembered batch is remembered too, when it is read later."""
        segment = Segment("path", 0, 10 * INDEX_STEP)
        for number in (8, 9, 0, 1, 4):
            segment.remember(10 * number, FILE_HEADER + number * INDEX_STEP)

        assert [FILE_HEADER + n * INDEX_STEP for n in (0, 1, 1, 4, 4, 8, 9)] == [
            segment.offset_before(position) for position in (5, 10, 39, 40, 79, 80, 95)
        ]

    def test_only_one_batch_in_a_step_is_remembered(self):
        """The index stays small, and offsets grow."""
        segment = Segment("path", 0, 10 * INDEX_STEP)
        for number, offset in enumerate((24, 100, INDEX_STEP, 30, INDEX_STEP + 24, INDEX_STEP + 30)):
            segment.remember(number, offset)

        assert [24, 24, INDEX_STEP + 24] == [segment.offset_before(position) for position in (0, 3, 4)]
