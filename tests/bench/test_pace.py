"""The schedule of a fixed rate."""

import pytest

from nsqkit.bench.pace import Schedule


def test_messages_are_due_at_even_intervals() -> None:
    """Message i is due at start + i / rate, the first one at the start."""
    schedule = Schedule(rate=1000, count=5, start_ns=50)

    assert [50, 1_000_050, 2_000_050] == [schedule.due_at(index) for index in range(3)]


@pytest.mark.parametrize(
    ("now", "due"), [(49, 0), (50, 1), (1_000_049, 1), (1_000_050, 2), (3_500_000, 4), (10**12, 5)]
)
def test_due_by_counts_what_should_have_been_sent(now: int, due: int) -> None:
    """Someone who comes late sends everything that was due meanwhile, but never more than the count."""
    assert due == Schedule(rate=1000, count=5, start_ns=50).due_by(now)


@pytest.mark.parametrize("rate", [0.3, 1, 3, 7, 999.9, 1000, 33_333, 1_000_003])
def test_due_by_agrees_with_due_at(rate: float) -> None:
    """A message is not due a nanosecond before its time, and due at its time, whatever rounding does."""
    schedule = Schedule(rate=rate, count=10**9, start_ns=987_654_321_000)

    for index in (0, 1, 2, 3, 10, 12_345, 999_999):
        assert index + 1 == schedule.due_by(schedule.due_at(index))
        assert index == schedule.due_by(schedule.due_at(index) - 1)
