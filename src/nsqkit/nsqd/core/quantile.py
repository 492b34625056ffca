"""End-to-end latency percentiles of a channel, over a moving window (spec/nsqd-semantics.md, section 10).

Samples are counted in buckets. A sample's bucket is its value with all but the leading 7 binary digits cleared,
so a bucket is at most 1/64 as wide as the values in it, and its middle is within 1/128 (0.8 %) of each of them;
values below 128 ns are exact. There are 64 buckets for each power of two: at most 3,712 for 63-bit values, a few
hundred in practice, however many samples they count.

The window is two halves. Samples go into the newer one; when half a window has passed, the older is dropped.
Results cover both, so between half a window and a whole one. Times are integers, in ns.
"""

import math
from collections.abc import Sequence
from typing import Final

RELATIVE_ERROR: Final = 1 / 128  # of a value in a result, at most

_DIGITS: Final = 7  # leading binary digits of a sample that its bucket keeps

LatencyResult = tuple[int, list[tuple[float, int]]]
"""How many samples there are, and (quantile, value in ns) with the highest quantile first."""


class LatencyWindow:
    """The latencies of one channel. `percentiles` are in (0, 1]."""

    def __init__(self, percentiles: Sequence[float], window_ns: int) -> None:
        self.percentiles = sorted(percentiles, reverse=True)
        self.window_ns = window_ns
        self._half_ns = max(window_ns // 2, 1)
        self._half = 0  # number of the newer half, counted from the epoch
        self._newer: dict[int, int] = {}  # bucket -> samples
        self._older: dict[int, int] = {}

    def add(self, value_ns: int, now: int) -> None:
        """Count one sample. A negative one, left by a clock that was set back, counts as 0."""
        if now // self._half_ns > self._half:
            self._advance(now)
        value_ns = max(value_ns, 0)
        shift = value_ns.bit_length() - _DIGITS
        bucket = value_ns >> shift << shift if shift > 0 else value_ns
        self._newer[bucket] = self._newer.get(bucket, 0) + 1

    def result(self, now: int) -> LatencyResult:
        """The percentiles of the window that ends now; the values are 0 if it is empty."""
        counts: dict[int, int] = {}
        self.add_to(counts, now)
        return ranked(self.percentiles, counts)

    def halves(self, now: int) -> tuple[dict[int, int], dict[int, int]]:
        """Samples by bucket, of the newer and of the older half."""
        if now // self._half_ns > self._half:
            self._advance(now)
        return self._newer, self._older

    def add_to(self, counts: dict[int, int], now: int) -> None:
        """Add the samples to those of other channels, by bucket."""
        for half in self.halves(now):
            for bucket, count in half.items():
                counts[bucket] = counts.get(bucket, 0) + count

    def _advance(self, now: int) -> None:
        """Begin the half that `now` is in. A clock that was set back does not lead here."""
        half = now // self._half_ns
        self._older = self._newer if half == self._half + 1 else {}
        self._newer = {}
        self._half = half


def ranked(percentiles: Sequence[float], counts: dict[int, int]) -> LatencyResult:
    """The percentiles of samples by bucket."""
    descending = sorted(percentiles, reverse=True)
    total = sum(counts.values())
    if not total:
        return 0, [(quantile, 0) for quantile in descending]
    values: list[tuple[float, int]] = []
    buckets = sorted(counts, reverse=True)
    index, above = 0, 0  # `above` samples are in the buckets before `index`
    for quantile in descending:
        # The least sample that is not exceeded by more than the share 1 - quantile of all ("nearest rank").
        allowed = total - max(math.ceil(total * quantile), 1)
        while above + counts[buckets[index]] <= allowed:
            above += counts[buckets[index]]
            index += 1
        values.append((quantile, _middle(buckets[index])))
    return total, values


def _middle(bucket: int) -> int:
    shift = bucket.bit_length() - _DIGITS
    return bucket + (1 << shift >> 1) if shift > 0 else bucket
