"""How long messages took until they were finished, counted in fixed buckets: what Prometheus calls histograms.

Times are ns. Messages that are finished one after the other mostly took about as long. So the buckets of the last one
are kept with their bounds, and one that falls into the same costs some comparisons and additions, no more.
"""

from typing import Final, final

from mypy_extensions import i64

BOUNDS: Final[tuple[int, ...]] = tuple(
    bound for power in range(5, 13) for bound in (3 * 10**power, 10 ** (power + 1))
)
"""Upper bounds of the buckets, 0.3 ms to 10,000 s; what takes longer is in a last one."""

LONGEST: Final = 1 << 52  # that is counted, 52 days: what takes longer is taken for that
RUN: Final = 1 << 10  # most in a run, so that their sum is below 1 << 62


@final
class Histogram:
    """Counts by bucket, and a sum."""

    def __init__(self) -> None:
        self.counts: list[int] = []  # none until there is something to count
        self.sum = 0
        self.bucket: i64 = 0  # of the last one,
        self.low: i64 = 0  # which takes what is above this
        self.high: i64 = 0  # and up to this

    def count(self, run: i64, run_sum: i64) -> None:
        """Count a run of durations that fell into the bucket."""
        if run > 0:
            self.counts[self.bucket] += int(run)
            self.sum += int(run_sum)

    def turn(self, duration: i64) -> None:
        """Go to the bucket of this one."""
        if not self.counts:
            self.counts = [0] * (len(BOUNDS) + 1)
        low: i64 = 0
        high: i64 = len(BOUNDS)
        while low < high:
            middle = (low + high) // 2
            if duration <= BOUNDS[middle]:
                high = middle
            else:
                low = middle + 1
        self.bucket = low
        self.low = BOUNDS[low - 1] if low > 0 else -1
        self.high = BOUNDS[low] if low < len(BOUNDS) else LONGEST


@final
class Latencies:
    """What became of the messages of one channel."""

    def __init__(self) -> None:
        self._since_publish = Histogram()
        self._since_send = Histogram()
        self._run: i64 = 0  # messages that followed each other in the same buckets, not counted yet,
        self._publish_sum: i64 = 0  # and how long they took together
        self._send_sum: i64 = 0
        self._publish_low: i64 = 0
        self._publish_high: i64 = 0
        self._send_low: i64 = 0
        self._send_high: i64 = 0

    def add(self, since_publish: i64, since_send: i64) -> None:
        """A message is finished. Negative times, left by a clock that was set back, count as 0."""
        if (
            since_publish <= self._publish_low
            or since_publish > self._publish_high
            or since_send <= self._send_low
            or since_send > self._send_high
            or self._run == RUN
        ):
            since_publish = min(max(since_publish, 0), LONGEST)
            since_send = min(max(since_send, 0), LONGEST)
            self._turn(since_publish, since_send)
        self._run += 1
        self._publish_sum += since_publish
        self._send_sum += since_send

    def since_publish(self) -> Histogram:
        """From the publish to the FIN."""
        self._settle()
        return self._since_publish

    def since_send(self) -> Histogram:
        """From the last delivery to the FIN."""
        self._settle()
        return self._since_send

    def _settle(self) -> None:
        """Count the run."""
        self._since_publish.count(self._run, self._publish_sum)
        self._since_send.count(self._run, self._send_sum)
        self._run = 0
        self._publish_sum = 0
        self._send_sum = 0

    def _turn(self, since_publish: i64, since_send: i64) -> None:
        self._settle()
        self._since_publish.turn(since_publish)
        self._since_send.turn(since_send)
        self._publish_low = self._since_publish.low
        self._publish_high = self._since_publish.high
        self._send_low = self._since_send.low
        self._send_high = self._since_send.high
