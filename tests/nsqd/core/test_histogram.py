"""Latencies in buckets."""

from bisect import bisect_left
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from nsqkit.nsqd.core.histogram import BOUNDS, LONGEST, RUN, Latencies

durations = st.integers(-(2**62), 2**62) | st.integers(0, 10**10) | st.sampled_from(BOUNDS)


def filled(pairs: Iterable[tuple[int, int]]) -> Latencies:
    """One that has seen these."""
    latencies = Latencies()
    for pair in pairs:
        latencies.add(*pair)
    return latencies


@given(st.lists(st.tuples(durations, durations), min_size=1))
def test_each_is_in_its_bucket(pairs):
    """A bucket takes what is above the bound before it and up to its own; negative ones are 0, and long ones cut."""
    latencies = filled(pairs)

    for index, histogram in enumerate((latencies.since_publish(), latencies.since_send())):
        counts = [0] * (len(BOUNDS) + 1)
        for pair in pairs:
            counts[bisect_left(BOUNDS, pair[index])] += 1
        assert counts == histogram.counts
        assert sum(min(max(pair[index], 0), LONGEST) for pair in pairs) == histogram.sum


def test_what_is_counted_stays():
    """Looking at it in between changes nothing."""
    latencies = Latencies()
    assert ([], 0) == (latencies.since_send().counts, latencies.since_send().sum)
    for number in range(1, 4):
        latencies.add(2_000_000, 1_000_000)
        assert [0, number, 0] == latencies.since_send().counts[:3]
        assert [0, 0, number] == latencies.since_publish().counts[:3]
        assert (number * 2_000_000, number * 1_000_000) == (
            latencies.since_publish().sum,
            latencies.since_send().sum,
        )


def test_the_sum_may_be_longer_than_an_integer_of_the_machine():
    """Many long ones in a row, which all fall into one bucket."""
    count = 3 * RUN + 1
    latencies = filled([(LONGEST, LONGEST)] * count)

    assert count * LONGEST == latencies.since_publish().sum == latencies.since_send().sum
    assert count == latencies.since_publish().counts[-1] == latencies.since_send().counts[-1]
    assert RUN * LONGEST < 1 << 63


def test_bounds():
    """They grow by about the square root of ten, from 0.3 ms to 10,000 s."""
    assert (300_000, 1_000_000, 3_000_000) == BOUNDS[:3]
    assert 10_000 * 10**9 == BOUNDS[-1]
    assert 16 == len(BOUNDS)
    assert list(BOUNDS) == sorted(set(BOUNDS))
