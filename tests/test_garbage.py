"""The garbage collector beside an event loop."""

import gc
import weakref
from contextlib import contextmanager

import pytest

from nsqkit.garbage import AT_LATEST_S, LOOK_S, REST, Garbage, thawed


class Loop:
    """Time that passes when it is told to, and what is to be called then."""

    def __init__(self):
        self.now = 0.0
        self.cpu = 0.0
        self._calls = []

    def time(self):
        """Seconds."""
        return self.now

    def cpu_time(self):
        """Seconds, of the loop's thread."""
        return self.cpu

    def call_soon_threadsafe(self, call):
        """Call it as soon as time passes."""
        self._calls.append(Timer(self.now, call))

    def call_later(self, delay, call):
        """Call it then."""
        self._calls.append(Timer(self.now + delay, call))
        return self._calls[-1]

    @property
    def waiting(self):
        """How many calls are to come."""
        return len(self._calls)

    def advance(self, seconds, load=0.0):
        """Let time pass, in which the loop uses so much of the CPU."""
        until = self.now + seconds
        while due := [timer for timer in self._calls if timer.when <= until]:
            timer = min(due, key=lambda timer: timer.when)
            self._calls.remove(timer)
            self.cpu += (timer.when - self.now) * load
            self.now = timer.when
            if not timer.cancelled:
                timer.call()
        self.cpu += (until - self.now) * load
        self.now = until


class Timer:
    """One call."""

    def __init__(self, when, call):
        self.when = when
        self.call = call
        self.cancelled = False

    def cancel(self):
        """Do not call it."""
        self.cancelled = True


@pytest.fixture(autouse=True)
def unfrozen():
    """Nothing is frozen before, whatever other tests left: nsqlookupd's registrations freeze as they grow."""
    gc.unfreeze()


class Cycle:
    """It refers to itself, so only the collector frees it."""

    def __init__(self):
        self.itself = self


@pytest.fixture
def loop():
    """An event loop."""
    return Loop()


@pytest.fixture
def garbage(loop):
    """The collector of this process, for the length of a test."""
    with Garbage(loop, loop.cpu_time) as garbage:
        yield garbage


@contextmanager
def frozen_cycle():
    """A cycle that a collection finds alive, and that is garbage later: whether it is still there."""
    cycle = Cycle()
    there = weakref.ref(cycle)
    gc.collect(1)
    yield there
    del cycle
    gc.collect(1)
    assert there() is not None, "it was frozen"


def test_what_survives_is_not_looked_at_again(garbage):
    """What a collection finds alive is put aside, so that the next one does not look at it."""
    with frozen_cycle():
        assert [] == [one for one in gc.get_objects() if isinstance(one, Cycle)]


def test_no_full_collection_comes_by_itself(garbage):
    """However much is made, the collector looks only at what was made lately."""
    before = gc.get_stats()[2]["collections"]

    kept = [[number] for number in range(100_000)]

    assert before == gc.get_stats()[2]["collections"]
    assert 100_000 == len(kept)


def test_cycles_are_freed_when_the_loop_is_idle(garbage, loop):
    """Garbage among what was put aside is freed as soon as there is nothing else to do."""
    with frozen_cycle() as there:
        pass

    loop.advance(10 * LOOK_S, load=0.5)
    assert there() is not None
    loop.advance(2 * LOOK_S)

    assert there() is None


def test_cycles_are_freed_in_the_end(garbage, loop):
    """A loop that is never idle has a full collection now and then all the same."""
    with frozen_cycle() as there:
        pass

    loop.advance(AT_LATEST_S + 2 * LOOK_S, load=0.5)

    assert there() is None


def test_a_loop_that_was_cleaned_is_left_alone(garbage, loop):
    """After a full collection nothing runs until there is something new to look at."""
    gc.collect(1)
    loop.advance(3 * LOOK_S)

    assert 0 == loop.waiting


def test_full_collections_are_rare(loop):
    """One that took long is followed by a long time without one, unless somebody asks for it."""
    ticks = iter([0.0] * 3 + [0.02] + [0.02] * 10_000)
    with Garbage(loop, lambda: next(ticks)):  # 20 ms
        gc.collect(1)
        loop.advance(2 * LOOK_S)
        with frozen_cycle() as there:
            pass
        loop.advance(REST * 0.02 - 5 * LOOK_S)
        assert there() is not None
        loop.advance(10 * LOOK_S)
        assert there() is None


def test_everything_can_be_collected_at_any_time(garbage):
    """While it is thawed the collector sees everything; then it is put aside again."""
    with frozen_cycle() as there:
        pass

    with thawed():
        gc.collect()

    assert there() is None
    assert gc.get_freeze_count() > 0


def test_the_collector_is_left_as_it_was_found(loop):
    """Afterwards the thresholds are what they were, nothing is frozen, and nobody listens."""
    before = gc.get_threshold(), gc.get_freeze_count(), len(gc.callbacks)

    with Garbage(loop):
        gc.collect(1)

    assert before == (gc.get_threshold(), gc.get_freeze_count(), len(gc.callbacks))


def test_thawing_freezes_nothing():
    """Where nothing was frozen, nothing is afterwards."""
    before = gc.get_freeze_count()

    with thawed():
        gc.collect(1)

    assert before == gc.get_freeze_count()
