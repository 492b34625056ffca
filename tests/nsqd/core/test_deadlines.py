"""Alarms. Channels are the alarms here: they ring when the next deferred message is due."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsqkit.nsqd.core.deadlines import SLICE, Alarm, Deadlines

SECOND = 1_000_000_000


def ringing(node, *delays: float):
    """A new channel with messages deferred for so many seconds."""
    channel = node.channel("t", f"c{len(node.topic('t').channels)}")
    for delay in delays:
        node.publish("t", b"x", delay=delay)
    return channel


def test_no_alarm():
    """Without alarms there is no next time, and nothing rings."""
    deadlines = Deadlines()

    deadlines.run(2**62)

    assert 0 == deadlines.next()


def test_next_is_the_earliest(node):
    """The next time is that of the alarm that rings first."""
    deadlines = Deadlines()
    first, second = ringing(node), ringing(node)

    deadlines.set(first, 20)
    deadlines.set(second, 10)

    assert 10 == deadlines.next()


def test_an_alarm_is_only_moved_up(node):
    """Setting an alarm to a later time changes nothing, to an earlier one moves it."""
    deadlines = Deadlines()
    alarm = ringing(node)

    deadlines.set(alarm, 20)
    deadlines.set(alarm, 30)
    assert 20 == deadlines.next()
    deadlines.set(alarm, 10)

    assert 10 == deadlines.next()


def test_ringing_clears_an_alarm(node):
    """After it rang an alarm is not set any more, also where it had been set to a later time before."""
    deadlines = Deadlines()
    alarm = ringing(node)
    deadlines.set(alarm, 20)
    deadlines.set(alarm, 10)

    deadlines.run(10)

    assert 0 == alarm.rings_at
    assert 0 == deadlines.next()


def test_what_is_not_due_does_not_ring(node):
    """An alarm rings at its time and not a nanosecond earlier."""
    deadlines = Deadlines()
    alarm = ringing(node)
    deadlines.set(alarm, 10)

    deadlines.run(9)
    assert 10 == deadlines.next()
    deadlines.run(10)

    assert 0 == deadlines.next()


def test_owner_is_asked_for_the_next_time(node, clock):
    """An alarm that rings tells when it wants to ring again."""
    channel = ringing(node, 3, 1, 2)
    deadlines = node.broker.deadlines

    times = []
    while deadlines.next():
        times.append((deadlines.next() - clock.now) // SECOND)
        deadlines.run(deadlines.next())

    assert [1, 2, 3] == times
    assert 3 == channel.queue.depth()


def test_an_alarm_must_ring():
    """An alarm without `ring` is none."""
    with pytest.raises(NotImplementedError):
        Alarm().ring(1)


@given(
    delays=st.lists(st.integers(1, 50), max_size=30),
    steps=st.lists(st.integers(0, 20), max_size=10),
)
def test_everything_rings_in_time(new_node, delays, steps):
    """Each deferred message of each channel becomes ready when its time has come, not before."""
    node = new_node("os")
    channels = [ringing(node) for _ in range(3)]
    for delay in delays:
        node.publish("t", b"x", delay=delay)
    passed = 0

    for step in [*steps, 50]:
        node.clock.jump(step)
        passed += step
        due = sum(delay <= passed for delay in delays)
        assert [due] * 3 == [channel.queue.depth() for channel in channels]
        assert [len(delays) - due] * 3 == [len(channel.deferred) for channel in channels]
        assert (node.broker.deadlines.next() == 0) == (due == len(delays))


def test_alarms_that_were_cancelled_are_let_go(node):
    """Nothing that was cancelled rings or is kept: its owner may be gone, and the time far off."""
    deadlines = Deadlines()
    alarms = [ringing(node) for _ in range(50)]
    for number, alarm in enumerate(alarms):
        deadlines.set(alarm, 10_000 + number)

    for alarm in alarms[1:]:
        deadlines.cancel(alarm)
        deadlines.cancel(alarm)

    assert [alarms[0]] == list(deadlines._alarms.values())
    assert 10_000 == deadlines.next()


def test_many_alarms_at_one_moment(new_node):
    """A turn rings so many alarms, and is followed by another one at once; cancelled ones count too."""
    deadlines = Deadlines()
    node = new_node("os")
    alarms = [ringing(node) for _ in range(3 * SLICE)]
    for alarm in alarms:
        deadlines.set(alarm, 10)
    for alarm in alarms[: SLICE + 1]:
        deadlines.cancel(alarm)

    assert 10 == deadlines.next()  # there may be more of them, before the first that rings
    rung = []
    for _ in range(3):
        deadlines.run(10)
        rung.append((sum(alarm.rings_at == 10 for alarm in alarms), deadlines.overdue))

    assert [(SLICE, True), (0, False), (0, False)] == rung
