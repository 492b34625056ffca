"""When a program is started again, on a clock that only the test moves."""

import pytest

from nsqkit.up.restarts import Restarts

KILLED = -9


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self):
        self.now = 1000.0


@pytest.fixture
def live():
    """Lets a program live so long and end so: `live(seconds, code)` is the pause that follows."""
    clock, restarts = Clock(), Restarts()

    def one_life(seconds: float, code: int = KILLED) -> float | None:
        restarts.started(clock.now)
        clock.now += seconds
        pause = restarts.ended(code, clock.now)
        clock.now += pause or 0
        return pause

    return one_life


def test_pauses_double_up_to_a_limit(live):
    """The first restart is immediate, the next wait 1, 2, 4 ... and never more than 30 seconds."""
    assert [0, 1, 2, 4, 8, 16, 30, 30, 30] == [live(1) for _ in range(9)]


def test_long_series_stays_at_the_limit(live):
    """After very many deaths the pause is still the longest one."""
    assert 30 == [live(1) for _ in range(2000)][-1]


def test_a_minute_alive_is_forgiven(live):
    """A program that was alive for a minute starts again at once, and the series begins anew."""
    assert [0, 1, 2] == [live(59) for _ in range(3)]
    assert [0, 1] == [live(60), live(1)]


@pytest.mark.parametrize("code", [1, 2])
def test_third_refusal_in_a_row_is_the_last(live, code):
    """A program that ends with exit code 1 or 2 right after its start, three times in a row, is given up."""
    assert [0, 1, None] == [live(0.3, code), live(0.3, code), live(0.3, code)]


@pytest.mark.parametrize("other", [(0.3, KILLED), (0.3, 0), (0.3, 3), (11.0, 1), (70.0, 1)])
def test_other_endings_are_no_refusals(live, other):
    """Being killed, another exit code, or exit code 1 much later: none of them counts, and each ends the row."""
    for _ in range(4):
        assert None is not live(0.3, 1)
        assert None is not live(0.3, 1)
        assert None is not live(*other)
