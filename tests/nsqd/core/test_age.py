"""How old the oldest message of a channel is."""

import pytest

from nsqkit.nsqd.core.age import oldest
from nsqkit.nsqd.core.queue import LOOKS, READ_BLOCK
from nsqkit.nsqd.core.settings import SECOND
from tests.nsqd.core.node import NOW
from tests.nsqd.core.sent import sized


@pytest.fixture
def age(node, clock):
    """Asks for the age of the oldest message of t:c, in seconds; -1 if there is none."""
    channel = node.channel("t", "c")

    def ask() -> float:
        since = oldest(channel)
        return (clock.now - since) / SECOND if since else -1

    return ask


def test_nothing_is_as_old_as_nothing(node, age):
    """Neither an empty channel nor one with a message that waits for its time has an oldest one."""
    assert -1 == age()
    node.client().send(b"DPUB t 60000\n" + sized(b"later"))
    assert -1 == age()


def test_what_waits_grows_old(publish, clock, age):
    """The first one published is the oldest."""
    publish("t", b"one", b"two")
    clock.advance(2)
    publish("t", b"three")
    clock.advance(3)

    assert 5 == age()


def test_what_is_in_flight_grows_old(node, publish, clock, age):
    """Until it is finished, then the next one is the oldest; the end is the channel's youth."""
    consumer = node.client().subscribe("t", "c").ready(2)
    publish("t", b"one")
    clock.advance(1)
    publish("t", b"two")
    first, second = consumer.deliveries()
    assert 1 == age()

    consumer.finish(first.id)
    assert 0 == age()
    consumer.finish(second.id)
    assert -1 == age()


def test_what_comes_back_is_as_old_as_before(node, publish, clock, age):
    """A message that is requeued stands behind newer ones, and is found nevertheless."""
    consumer = node.client().subscribe("t", "c").ready(1)
    publish("t", b"old")
    (old,) = consumer.deliveries()
    clock.advance(1)
    publish("t", *[b"x"] * 10)
    consumer.ready(0)
    consumer.requeue(old.id)

    assert 1 == age()


def test_what_comes_back_is_found_behind_many(node, publish, clock, age):
    """Both ends of what waits are looked at."""
    consumer = node.client().subscribe("t", "c").ready(1)
    publish("t", b"old")
    (old,) = consumer.deliveries()
    consumer.ready(0)
    clock.advance(1)
    for _ in range(2 * LOOKS):
        publish("t", b"x")
    consumer.requeue(old.id)

    assert 1 == age()


def test_the_one_in_hand_counts(node, publish, clock, age):
    """A batch of which a part was sent and finished is as old as it was."""
    publish("t", b"one", b"two")
    clock.advance(1)
    consumer = node.client().subscribe("t", "c").ready(1)
    (one,) = consumer.deliveries()
    consumer.ready(0)
    consumer.finish(one.id)
    publish("t", b"three")

    assert 1 == age()


def test_of_many_consumers_some_are_looked_at(node, publish, clock, age):
    """The first message in flight to each, for as many as there are looks; those who left with messages count too."""
    consumers = [node.client().subscribe("t", "c").ready(1) for _ in range(LOOKS + 1)]
    publish("t", b"old")
    clock.advance(1)
    publish("t", *[b"x"] * LOOKS)
    assert 1 == age()

    consumers[0].leave()
    clock.advance(2)
    assert 2 <= age() <= 3


@pytest.mark.parametrize("flavour", ["os", "memory"], indirect=True)
def test_what_only_the_log_has_grows_old(node, settings, publish, clock):
    """Without reading it; what was read is as old as it is."""
    settings.mem_queue_size = 0
    channel = node.channel("t", "c")
    publish("t", b"one", b"two")
    clock.advance(1)
    publish("t", b"three", b"four")
    clock.advance(1)
    assert NOW == oldest(channel)

    node.client().subscribe("t", "c").ready(3)
    assert NOW == oldest(channel)
    node.clients[-1].finish(*[one.id for one in node.clients[-1].deliveries()[:2]])
    assert NOW + SECOND == oldest(channel)


@pytest.mark.parametrize("flavour", ["os"], indirect=True)
def test_what_is_left_in_the_log_is_no_older_than_what_was_read(node, settings, publish, clock):
    """It was published after that."""
    settings.mem_queue_size = 0
    channel = node.channel("t", "c")
    for _ in range(3):
        publish("t", b"x" * READ_BLOCK)
        clock.advance(1)
    consumer = node.client().subscribe("t", "c").ready(1)
    consumer.finish(consumer.deliveries()[0].id)

    assert NOW + SECOND == oldest(channel)


@pytest.mark.parametrize("flavour", ["os"], indirect=True)
def test_after_a_restart_age_begins_anew_until_the_log_is_read(node, publish, clock):
    """When it was published is only in the log, so what a checkpoint names is as old as the process, or older."""
    consumer = node.client().subscribe("t", "c").ready(1)
    publish("t", b"one", b"two")
    consumer.finish(consumer.deliveries()[0].id)
    clock.advance(5)
    node.checkpoint()
    node.restart()
    restarted = clock.now
    clock.advance(1)

    assert restarted == oldest(node.channel("t", "c"))
    node.client().subscribe("t", "c").ready(1)
    assert NOW == oldest(node.channel("t", "c"))
