"""The daemon's clock."""

from nsqkit.clock import Clock


class Sources:
    """A calendar and a clock that only rises, both in ns."""

    def __init__(self):
        self.calendar = 1_700_000_000_000_000_000
        self.boot = 5_000

    def clock(self):
        """A clock on these."""
        return Clock(lambda: self.calendar, lambda: self.boot)


def test_begins_with_the_calendar():
    """The first time is the calendar's, and it goes on with the other clock."""
    sources = Sources()
    clock = sources.clock()

    assert sources.calendar == clock.now()
    sources.boot += 7

    assert sources.calendar + 7 == clock.now()


def test_setting_the_calendar_moves_nothing():
    """Whoever sets the calendar, forth or back, changes no timeout."""
    sources = Sources()
    clock = sources.clock()
    before = clock.now()

    for minutes in (5, -10):
        sources.calendar += minutes * 60_000_000_000
        assert before == clock.now()


def test_real_sources():
    """Without other sources it is the time of now, and rises."""
    clock = Clock()

    first = clock.now()

    assert first > 1_700_000_000_000_000_000
    assert clock.now() >= first
