"""A histogram of how long something took."""

import pytest

from nsqkit.nsqd.storage.durations import BOUNDS, Durations


@pytest.mark.parametrize(
    ("seconds", "index"), [(0.0, 0), (0.0005, 0), (0.0006, 1), (10.0, len(BOUNDS) - 1), (10.1, len(BOUNDS))]
)
def test_each_is_counted_once(seconds, index):
    """It is counted under the first bound that it does not exceed, or after all of them."""
    durations = Durations()

    durations.add(seconds)

    assert 1 == durations.count == durations.counts[index] == sum(durations.counts)
    assert seconds == durations.seconds


def test_they_add_up():
    """All together, and one by one."""
    durations = Durations()
    for seconds in (0.25, 0.5, 0.25):
        durations.add(seconds)

    assert (3, 1.0) == (durations.count, durations.seconds)
    assert [1, 2] == sorted(count for count in durations.counts if count)
