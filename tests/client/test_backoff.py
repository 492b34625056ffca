"""Back-off: how long a consumer takes no messages after failures."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsqkit.client.backoff import Backoff, BackoffState, Signal

NORMAL, PAUSED, TESTING = BackoffState
RESUME, FAIL, CONTINUE = Signal


def made(longest=120.0, full_jitter=False, recovery="step"):
    """Back-off by the defaults."""
    return Backoff(1.0, longest, full_jitter, Random(1), recovery)


def after_pause(backoff, signal):
    """The pause is over, and the one message came to this."""
    backoff.pause_over()
    return backoff.signal(signal)


def test_pauses_double_up_to_the_longest_level():
    """2, 4 ... 64 s; the next would be above two minutes, so it stays."""
    backoff = made()

    pauses = [backoff.signal(FAIL), *(after_pause(backoff, FAIL) for _ in range(7))]

    assert [2, 4, 8, 16, 32, 64, 64, 64] == pauses
    assert 6 == backoff.level


def test_each_success_is_a_step_back():
    """And only the last one ends it."""
    backoff = made()
    backoff.signal(FAIL)
    after_pause(backoff, FAIL)

    assert 2 == after_pause(backoff, RESUME)
    assert PAUSED is backoff.state
    assert after_pause(backoff, RESUME) is None
    assert (NORMAL, 0) == (backoff.state, backoff.level)


def test_while_it_is_paused_nothing_counts():
    """What comes then is of messages that were under way before."""
    backoff = made()
    backoff.signal(FAIL)

    assert [None, None, None] == [backoff.signal(signal) for signal in Signal]
    assert (PAUSED, 1) == (backoff.state, backoff.level)


def test_a_message_given_back_for_another_reason_is_tried_again():
    """At the same level; and when all is well it means nothing."""
    backoff = made()
    assert backoff.signal(CONTINUE) is None
    backoff.signal(FAIL)

    assert 2 == after_pause(backoff, CONTINUE)
    assert 1 == backoff.level


@pytest.mark.parametrize(
    ("recovery", "levels"), [("step", [3, 2, 1, 0]), ("halve", [2, 1, 0]), ("immediate", [0])]
)
def test_recovery_is_a_matter_of_choice(recovery, levels):
    """One level after another, half of them, or all."""
    backoff = made(recovery=recovery)
    backoff.signal(FAIL)
    for _ in range(3):
        after_pause(backoff, FAIL)

    seen = []
    while backoff.level:
        after_pause(backoff, RESUME)
        seen.append(backoff.level)

    assert levels == seen


def test_without_a_longest_pause_there_is_no_back_off():
    """0 turns it off."""
    backoff = made(longest=0)

    assert backoff.signal(FAIL) is None
    assert NORMAL is backoff.state


def test_full_jitter_pauses_for_anything_up_to_the_pause():
    """So that many consumers do not come back together."""
    pauses = [made(full_jitter=True).signal(FAIL) for _ in range(3)]
    backoff = made(full_jitter=True)
    more = [backoff.signal(FAIL), *(after_pause(backoff, FAIL) for _ in range(50))]

    assert all(0 <= pause <= 64 for pause in pauses + more)
    assert len(set(more)) > 40


def test_the_end_of_a_pause_that_is_none_changes_nothing():
    """A timer may be late."""
    backoff = made()
    backoff.pause_over()

    assert NORMAL is backoff.state


@given(st.lists(st.sampled_from([*Signal, "over"])), st.sampled_from(["step", "halve", "immediate"]))
def test_pauses_are_never_longer_than_the_longest(steps, recovery):
    """And state and level always agree."""
    backoff = made(longest=10, recovery=recovery)
    for step in steps:
        pause = backoff.pause_over() if step == "over" else backoff.signal(step)

        assert pause is None or 0 < pause <= 10
        assert (backoff.level == 0) is (backoff.state is NORMAL)
        assert (pause is not None) <= (backoff.state is PAUSED)
