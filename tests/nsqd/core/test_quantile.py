"""Latency percentiles."""

import math
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsqkit.nsqd.core.quantile import RELATIVE_ERROR, LatencyResult, LatencyWindow, ranked

PERCENTILES = (1.0, 0.99, 0.95, 0.5, 0.001)
WINDOW = 600_000_000_000
NOW = 1_700_000_000_000_000_000 // WINDOW * WINDOW  # a half begins here

samples = st.lists(st.integers(0, 2**63 - 1) | st.integers(0, 1000), min_size=1, max_size=300)


def filled(values: Sequence[int], now: int = NOW) -> LatencyWindow:
    """A window that has seen these values."""
    window = LatencyWindow(PERCENTILES, WINDOW)
    for value in values:
        window.add(value, now)
    return window


def together(windows: Iterable[LatencyWindow], now: int) -> LatencyResult:
    """The result of several channels."""
    counts: dict[int, int] = {}
    for window in windows:
        window.add_to(counts, now)
    return ranked(PERCENTILES, counts)


def exact(values: Sequence[int], quantile: float) -> int:
    """The least value that the given share of all values does not exceed."""
    return sorted(values)[max(math.ceil(len(values) * quantile), 1) - 1]


@given(samples)
def test_error_is_within_the_bound(values: list[int]) -> None:
    """Every percentile is within RELATIVE_ERROR of the exact one, and that is less than one percent."""
    count, result = filled(values).result(NOW)

    assert RELATIVE_ERROR < 0.01
    assert len(values) == count
    assert list(PERCENTILES) == [quantile for quantile, _ in result]
    for quantile, value in result:
        expected = exact(values, quantile)
        assert abs(value - expected) <= expected * RELATIVE_ERROR


@given(st.lists(st.integers(0, 127), min_size=1))
def test_small_values_are_exact(values: list[int]) -> None:
    """Below 128 ns there is no error at all."""
    _, result = filled(values).result(NOW)

    assert [(quantile, exact(values, quantile)) for quantile in PERCENTILES] == result


def test_empty_window() -> None:
    """Without samples the values are 0."""
    assert (0, [(0.99, 0), (0.5, 0)]) == LatencyWindow([0.5, 0.99], WINDOW).result(NOW)


def test_percentiles_are_descending_as_configured() -> None:
    """The highest percentile comes first, and one that was configured twice comes twice."""
    window = LatencyWindow([0.5, 1.0, 0.5], WINDOW)
    window.add(100, NOW)

    assert (1, [(1.0, 100), (0.5, 100), (0.5, 100)]) == window.result(NOW)


def test_window_moves_by_halves() -> None:
    """A sample stays for the half in which it came and for the next one."""
    window = filled([100])
    window.add(20, NOW + WINDOW // 2)

    assert 2 == window.result(NOW + WINDOW - 1)[0]
    assert (1, (1.0, 20)) == (window.result(NOW + WINDOW)[0], window.result(NOW + WINDOW)[1][0])
    assert 0 == window.result(NOW + WINDOW * 3 // 2)[0]


def test_long_silence_empties_the_window() -> None:
    """After a pause of a window or more nothing old is left."""
    window = filled([100])

    window.add(7, NOW + 10 * WINDOW)

    assert (1, (1.0, 7)) == (window.result(NOW + 10 * WINDOW)[0], window.result(NOW + 10 * WINDOW)[1][0])


def test_clock_set_back() -> None:
    """When the clock goes back, samples are kept, and negative ones count as 0."""
    window = filled([100])

    window.add(-5, NOW - 10 * WINDOW)

    assert (2, (0.001, 0)) == (window.result(NOW)[0], window.result(NOW)[1][-1])


@given(st.lists(samples, min_size=1, max_size=4))
def test_merging_is_counting_together(channels: list[list[int]]) -> None:
    """The result of several channels is that of one channel with all their samples."""
    every = [value for values in channels for value in values]

    assert filled(every).result(NOW) == together([filled(values) for values in channels], NOW)


def test_merging_nothing() -> None:
    """No channels at all have no samples."""
    assert (0, [(0.5, 0)]) == ranked([0.5], {})


def test_merging_drops_what_is_old() -> None:
    """A channel without traffic does not keep its old samples in the topic's result."""
    old, new = filled([100]), filled([7], NOW + 2 * WINDOW)

    assert 1 == together([old, new], NOW + 2 * WINDOW)[0]


@pytest.mark.parametrize("window_ns", [0, 1])
def test_tiny_window(window_ns: int) -> None:
    """A window too short to be halved keeps something for an instant."""
    window = LatencyWindow([0.5], window_ns)
    window.add(5, NOW)

    assert (1, [(0.5, 5)]) == window.result(NOW)


def test_memory_is_bounded() -> None:
    """However many values there are, they need at most 64 buckets for each power of two."""
    window = filled([value * 999_983 % 2**40 for value in range(50_000)])

    assert sum(len(half) for half in window.halves(NOW)) <= 41 * 64
