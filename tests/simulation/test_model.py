"""The checker finds what it is there to find."""

from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest

from tests.simulation.books import Command, Violation
from tests.simulation.model import Cover, Model

SECOND = 1_000_000_000
CONFIG = {"requeue_on_disconnect": 0, "checkpoint_interval": SECOND, "sync_timeout": 2 * SECOND}


@pytest.fixture
def consumer() -> Any:
    """A client of t:a with RDY 2."""
    return SimpleNamespace(
        number=1,
        topic="t",
        channel="a",
        msg_timeout=10 * SECOND,
        ready=2,
        dead=False,
        last_serials={},
        flights={},
        awaited=deque(),
        risk=None,
    )


@pytest.fixture
def model():
    """A checker of os mode, with a topic and a channel."""
    model = Model("os", CONFIG, 20 * SECOND)
    model.created("t", "a", 0)
    return model


def publish(model: Model, *bodies: bytes, now: int = 0, due: int = 0) -> None:
    """Publish and hear OK."""
    sent = model.publish("t", list(bodies), due, 0)
    model.taken(sent)
    model.turned(now)
    model.settled(sent, "ok", now)


def finish(model: Model, consumer: Any, message_id: bytes, now: int) -> None:
    """FIN."""
    command = Command("FIN")
    command.id = message_id
    model.answer(consumer, command, 0, now)


def broken(kind: str) -> Any:
    """A promise that is broken in this way."""
    return pytest.raises(Violation, match=f"^{kind}: ")


def test_what_is_owed_is_missed(model, consumer):
    """Until it is finished."""
    publish(model, b"1", b"2")
    model.delivered(consumer, b"x", b"1", 1, 0)
    finish(model, consumer, b"x", 1)

    assert ["t:a b'2'"] == model.missing()


def test_what_was_refused_is_not_owed(model):
    """Nor is what nobody heard of."""
    sent = model.publish("t", [b"1"], 0, 0)
    model.taken(sent)
    model.turned(0)
    model.settled(sent, "refused", 0)

    assert [] == model.missing()


@pytest.mark.parametrize("due, now, kind", [(5, 4, "too early"), (5, 5, "")])
def test_deferred_messages_are_not_early(model, consumer, due, now, kind):
    """They may come when they are due."""
    publish(model, b"1", due=due)
    if not kind:
        model.delivered(consumer, b"x", b"1", 1, now)
        return
    with broken(kind):
        model.delivered(consumer, b"x", b"1", 1, now)


def test_nobody_invents_messages(model, consumer):
    """What was never published is not delivered."""
    with broken("never published"):
        model.delivered(consumer, b"x", b"1", 1, 0)


def test_a_new_channel_gets_nothing_old(model, consumer):
    """It gets what is published after it exists."""
    publish(model, b"1")
    model.created("t", "b", 1)
    consumer.channel = "b"

    with broken("not for this channel"):
        model.delivered(consumer, b"x", b"1", 1, 2)


def test_finished_is_finished(model, consumer):
    """Nothing comes again that was finished."""
    publish(model, b"1")
    model.delivered(consumer, b"x", b"1", 1, 0)
    finish(model, consumer, b"x", 1)

    with broken("came again"):
        model.delivered(consumer, b"x", b"1", 2, 20 * SECOND)


@pytest.mark.parametrize("after, again", [(SECOND // 2, True), (2 * SECOND, False)])
def test_a_kill_forgets_the_last_interval(model, consumer, after, again):
    """What was finished before is in a checkpoint."""
    publish(model, b"1")
    model.delivered(consumer, b"x", b"1", 1, 0)
    finish(model, consumer, b"x", 1)
    model.killed(1 + after, [consumer])

    if again:
        model.delivered(consumer, b"x", b"1", 1, 3 * SECOND)
        return
    with broken("came again"):
        model.delivered(consumer, b"x", b"1", 1, 3 * SECOND)


@pytest.mark.parametrize("after, lost", [(SECOND, True), (3 * SECOND, False)])
def test_a_power_cut_loses_what_was_not_synced(model, consumer, after, lost):
    """In os mode, and no more than that."""
    publish(model, b"1", now=1)

    model.lost_power(1 + after, [consumer])

    assert ([] if lost else ["t:a b'1'"]) == model.missing()


def test_one_publishers_messages_stay_in_order(model, consumer):
    """What one connection sent comes in that order; so does what was sent after another's OK."""
    model.taken(model.publish("t", [b"1"], 0, 0, publisher=7))
    model.taken(model.publish("t", [b"2"], 0, 0, publisher=8))
    model.taken(model.publish("t", [b"3"], 0, 0, publisher=7))
    model.turned(1)

    model.delivered(consumer, b"y", b"2", 1, 2)
    model.delivered(consumer, b"z", b"3", 1, 2)
    consumer.flights.clear()
    with broken("out of order"):
        model.delivered(consumer, b"x", b"1", 1, 2)


def test_an_ok_orders_the_publishers(model, consumer):
    """A message whose publisher had its OK comes before what others sent later."""
    publish(model, b"1")
    publish(model, b"2")

    model.delivered(consumer, b"y", b"2", 1, 2)
    with broken("out of order"):
        model.delivered(consumer, b"x", b"1", 1, 2)


def test_attempts_do_not_fall(model, consumer):
    """Each delivery counts one more."""
    publish(model, b"1")
    model.delivered(consumer, b"x", b"1", 2, 0)

    with broken("attempts fell"):
        model.delivered(consumer, b"x", b"1", 2, 20 * SECOND)


def test_one_consumer_gets_the_order_of_publishing(model, consumer):
    """What was never tried before does not overtake."""
    publish(model, b"1", b"2")
    model.delivered(consumer, b"y", b"2", 1, 0)

    with broken("out of order"):
        model.delivered(consumer, b"x", b"1", 1, 0)


def test_nobody_else_gets_what_is_in_flight(model, consumer):
    """Until it times out."""
    publish(model, b"1")
    model.delivered(consumer, b"x", b"1", 1, 0)

    with broken("in flight twice"):
        model.delivered(consumer, b"x", b"1", 2, 9 * SECOND)


def test_nobody_gets_more_than_he_wants(model, consumer):
    """RDY is a ceiling."""
    publish(model, b"1", b"2", b"3")
    model.delivered(consumer, b"x", b"1", 1, 0)
    model.delivered(consumer, b"y", b"2", 1, 0)

    with broken("more than RDY"):
        model.delivered(consumer, b"z", b"3", 1, 0)


def test_a_paused_channel_is_silent(model, consumer):
    """As long as the pause lasts."""
    publish(model, b"1")
    model.pause("t", "a", True, 0)

    with broken("sent while paused"):
        model.delivered(consumer, b"x", b"1", 1, 0)


def test_a_finish_must_not_fail_without_a_reason(model, consumer):
    """In time, and by whom it was sent to."""
    publish(model, b"1")
    model.delivered(consumer, b"x", b"1", 1, 0)
    command = Command("FIN")
    command.id = b"x"
    model.answer(consumer, command, 0, SECOND)

    with broken("FIN failed"):
        model.answered(command, "failed")


def test_what_clients_rely_on_survives_a_kill(model, consumer):
    """A topic and a channel that were saved are there at the next start."""
    model.saved()
    model.killed(SECOND, [consumer])

    with broken("channel lost"):
        model.found({"t": {}}, {"t": False}, certain=False)


def test_troubles_cover_nothing():
    """While the disk fails nothing becomes safe; afterwards it takes its time again."""
    cover = Cover(10)
    assert 90 == cover.at(100)

    cover.begin(100)
    assert 90 == cover.at(200)
    cover.end(200)

    assert [90, 90, 201] == [cover.at(now) for now in (205, 210, 211)]
