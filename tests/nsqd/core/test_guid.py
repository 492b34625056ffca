"""Message ids."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsqkit.nsqd.core.guid import EPOCH_TICKS, SEQUENCES, IdSource, id_prefix, id_suffix, id_text

NOW = 1_700_000_000_000_000_000


def test_layout():
    """Time, node and sequence stand where NSQ has them."""
    ids = IdSource(1023)

    ids.take(5, NOW)
    value = ids.take(1, NOW)

    assert ((NOW >> 20) - EPOCH_TICKS, 1023, 5) == (value >> 22, value >> 12 & 1023, value & 4095)


def test_a_full_tick_is_continued_in_the_next():
    """More than 4096 ids in a tick run ahead of the clock, and the clock catches up with them."""
    ids = IdSource(0)

    first = ids.take(SEQUENCES, NOW)
    second = ids.take(1, NOW)
    third = ids.take(1, NOW + (1 << 20))
    fourth = ids.take(1, NOW + (2 << 20))

    assert 0 == first & 4095
    assert [first + (1 << 22), first + (1 << 22) + 1, first + (2 << 22)] == [second, third, fourth]


def test_ids_of_a_batch_share_a_tick():
    """A batch that does not fit what is left of a tick begins a new one."""
    ids = IdSource(0)

    first = ids.take(SEQUENCES - 1, NOW)
    second = ids.take(2, NOW)

    assert (0, 1) == (second & 4095, (second >> 22) - (first >> 22))


@given(
    st.lists(st.tuples(st.integers(1, SEQUENCES), st.integers(-(10**10), 10**10)), max_size=50),
    st.integers(0, 1023),
)
def test_ids_always_grow(takes, node):
    """Ids are consecutive within a batch and grow from batch to batch, whatever the clock does."""
    ids = IdSource(node)
    used = -1
    now = NOW

    for count, step in takes:
        now += step
        first = ids.take(count, now)
        assert used < first
        assert [node] == list({value >> 12 & 1023 for value in (first, first + count - 1)})
        assert first >> 22 == first + count - 1 >> 22
        used = first + count - 1


@given(st.integers(0, 1023), st.integers(0, 1023), st.integers(-(10**15), 10**15), st.integers(0, 4095))
def test_ids_from_before_a_restart_are_skipped(before, after, step, sequence):
    """Even if the clock went back and the node has another number, no old id comes again."""
    used = ((NOW >> 20) - EPOCH_TICKS) << 22 | before << 12 | sequence
    ids = IdSource(after)

    ids.skip_past(used)

    assert used < ids.take(1, NOW + step)


def test_skipping_what_is_long_past():
    """An old id in the log does not hold the clock back."""
    ids = IdSource(0)
    first = ids.take(10, NOW)

    ids.skip_past(first - (1 << 22))

    assert first + 10 == ids.take(1, NOW)


@pytest.mark.parametrize(
    "value, text",
    [(0, b"0" * 16), (0x0DEFACED12345678, b"0defaced12345678"), (2**63 - 1, b"7fffffffffffffff")],
)
def test_text(value, text):
    """An id is 16 lower-case hex digits; those of a batch share the first 13."""
    assert text == id_text(value)
    assert (text[:13], text[13:]) == (id_prefix(value), id_suffix(value))
