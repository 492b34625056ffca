"""The checkpoint file."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsqkit.nsqd.core.store import ChannelRecord, Extent, Leftover, TopicRecord
from nsqkit.nsqd.storage.checkpoint import Synced, decode, encode

longs = st.integers(-(2**63), 2**63 - 1)
extents = st.lists(st.tuples(longs, longs), max_size=4)
leftovers = st.lists(st.tuples(longs, longs, longs), max_size=4)
channels = st.lists(st.tuples(st.text(max_size=64), extents, extents, leftovers), max_size=4)


def build(numbers, channels) -> TopicRecord:
    """A record from plain values."""
    record = TopicRecord()
    record.end, record.last_id, record.needed_from = numbers
    for name, ready, deferred, leftovers in channels:
        channel = ChannelRecord(name)
        channel.ready = [Extent(*extent) for extent in ready]
        channel.deferred = [Extent(*extent) for extent in deferred]
        channel.leftovers = [Leftover(*leftover) for leftover in leftovers]
        record.channels.append(channel)
    return record


def plain(record: TopicRecord):
    """What `build` takes."""
    return (record.end, record.last_id, record.needed_from), [
        (
            channel.name,
            [(extent.start, extent.stop) for extent in channel.ready],
            [(extent.start, extent.stop) for extent in channel.deferred],
            [(leftover.position, leftover.attempts, leftover.due) for leftover in channel.leftovers],
        )
        for channel in record.channels
    ]


SAMPLE = ((100, 77, 5), [("", [(90, 95)], [], []), ("c", [(5, 9), (50, 100)], [(7, 8)], [(6, 3, 12345)])])


@given(st.tuples(longs, longs, longs), channels, st.tuples(longs, longs, longs))
def test_round_trip(numbers, channels, synced):
    """A checkpoint says what was written, in order."""
    raw = encode(build(numbers, channels), Synced(*synced))

    found = decode(raw)

    assert found is not None
    assert (numbers, channels) == plain(found[0])
    assert synced == (found[1].segment, found[1].offset, found[1].position)


def test_format():
    """The front of the file is as documented."""
    raw = encode(build((1, 2, 3), []), Synced(4, 5, 6))

    assert b"NSQKCKP\n\x00\x00\x00\x01" == raw[:12]
    assert b"".join(n.to_bytes(8, "big") for n in range(1, 7)) + bytes(4) == raw[16:]


def test_every_flipped_bit_is_noticed():
    """A damaged checkpoint is none."""
    whole = encode(build(*SAMPLE), Synced(1, 2, 3))

    for bit in range(8 * len(whole)):
        raw = bytearray(whole)
        raw[bit // 8] ^= 1 << bit % 8
        assert decode(bytes(raw)) is None


def test_every_cut_is_noticed():
    """An incomplete checkpoint is none, nor is one with something behind it."""
    whole = encode(build(*SAMPLE), Synced(1, 2, 3))

    assert [None] * len(whole) == [decode(whole[:size]) for size in range(len(whole))]
    assert decode(whole + b"\x00") is None


@given(st.binary(max_size=200))
def test_anything_else(raw):
    """No bytes raise."""
    assert decode(raw) is None


@pytest.mark.parametrize("version", [0, 2])
def test_other_versions(version):
    """What another version wrote is not guessed at."""
    whole = encode(build(*SAMPLE), Synced(1, 2, 3))

    assert decode(whole[:8] + version.to_bytes(4, "big") + whole[12:]) is None
