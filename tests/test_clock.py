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


def test_a_step_of_the_calendar_is_told():
    """Within a second of asking, whoever wants to know hears how far it was set; what is no step is not told."""
    sources = Sources()
    clock = sources.clock()
    steps: list[int] = []
    clock.on_step = steps.append
    clock.now()

    sources.calendar += 3_600_000_000_000
    sources.boot += 999_999_999
    sources.calendar += 999_999_999
    clock.now()
    assert [] == steps
    sources.boot += 1
    sources.calendar += 1
    clock.now()
    assert [3_600_000_000_000] == steps
    for drift in (60_000_000, 60_000_000):
        sources.boot += 1_000_000_000
        sources.calendar += 1_000_000_000 + drift
        clock.now()
    assert [3_600_000_000_000, 3_600_120_000_000] == steps
    sources.boot += 1_000_000_000
    sources.calendar -= 3_600_000_000_000
    clock.now()

    assert -880_000_000 == steps[-1]
    assert steps[-1] == clock.ahead


def test_real_sources():
    """Without other sources it is the time of now, and rises."""
    clock = Clock()

    first = clock.now()

    assert first > 1_700_000_000_000_000_000
    assert clock.now() >= first
