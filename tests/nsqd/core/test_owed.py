"""What a channel owes at one moment."""

import pytest

from nsqkit.nsqd.core.ledger import CARRIED, SLICE, carry_forward, record, stuck
from nsqkit.nsqd.core.owed import TopicOwed
from tests.nsqd.core.flavours import stored

SECOND = 1_000_000_000


def owed_by(node) -> TopicOwed:
    """What topic `t` owes now."""
    return TopicOwed(node.topic("t"), node.log("t"))


def written(record) -> set[int]:
    """The positions that a checkpoint names for channel `c`."""
    (channel,) = [channel for channel in record.channels if channel.name == "c"]
    found = [range(extent.start, extent.stop) for extent in channel.ready + channel.deferred]
    singles = [leftover.position for leftover in channel.leftovers]
    assert len(singles) + sum(map(len, found)) == len({*singles, *(n for some in found for n in some)})
    return {*singles, *(n for some in found for n in some)}


@stored
def test_every_state_is_in_it_once(node, publish, settings):
    """Ready in memory, only in the log, deferred, due again, in flight."""
    settings.mem_queue_size = 4
    consumer = node.client().subscribe("t", "c").ready(2)
    publish("t", *[b"%d" % n for n in range(4)])
    publish("t", b"4", delay=100)
    publish("t", *[b"%d" % n for n in range(5, 20)])
    first, _ = consumer.deliveries()
    consumer.ready(1).requeue(first.id, 0)

    owed = node.topic("t").channels["c"].owed()

    assert [(n, n + 1) for n in range(20)] == [
        (n, n + 1) for start, stop in owed.positions() for n in range(start, stop)
    ]
    assert (1, 1, True) == (len(owed.flying), len(owed.deferred), bool(owed.extents))


@stored
def test_it_keeps_its_moment(node, publish, settings):
    """A checkpoint that is written down later names what was owed when it was begun, wherever that is by now."""
    settings.mem_queue_size = 3
    consumer = node.client().subscribe("t", "c").ready(2)
    for n in range(10):
        publish("t", b"%d" % n + bytes(100_000))  # so that a read of the log brings a part of them
    publish("t", b"10", delay=5)
    owed = owed_by(node)

    node.clock.advance(10)
    consumer.ready(6)
    consumer.finish(*[delivery.id for delivery in consumer.deliveries()])
    publish("t", b"later")

    found = record(owed)
    assert (set(range(11)), 11, 0) == (written(found), found.end, found.needed_from)


@stored
@pytest.mark.parametrize("state", ["deferred", "in flight"])
def test_others_have_their_turn_in_between(node, publish, state):
    """Many messages are written down a slice at a time."""
    consumer = node.client().subscribe("t", "c").ready(2500)
    if state == "deferred":
        for _ in range(2 * SLICE):
            publish("t", b"x", delay=100)
    else:
        publish("t", *[b"x"] * 2 * SLICE)
    assert 2 * SLICE * (state == "in flight") == len(consumer.deliveries())
    pauses: list[None] = []

    found = record(owed_by(node), lambda: pauses.append(None))

    assert set(range(2 * SLICE)) == written(found)
    assert len(pauses) >= 2


@stored
def test_many_delays_make_few_ranges(node, publish, clock):
    """In whatever order they are due, neighbours in the log are written down together."""
    node.channel("t", "c")
    for n in range(3000):
        publish("t", b"x", delay=1000 + (n * 7919) % 3000)
    clock.advance(1499.5)

    found = record(owed_by(node))

    (channel,) = [channel for channel in found.channels if channel.name == "c"]
    assert 2500 == sum(extent.stop - extent.start for extent in channel.deferred)
    assert sorted(extent.start for extent in channel.deferred) == [e.start for e in channel.deferred]
    assert all(one.stop < two.start for one, two in zip(channel.deferred, channel.deferred[1:], strict=False))


@stored
def test_leftovers_are_carried_some_at_a_time(node, publish):
    """A turn copies so many, and the next goes on with the rest."""
    consumer = node.client().subscribe("t", "c").ready(2500)
    count = CARRIED + 10
    node.log("t").segment = 2400
    publish("t", *[b"%d" % n for n in range(2400)])
    publish("t", b"x")
    delivered = consumer.deliveries()
    consumer.finish(*[delivery.id for delivery in delivered[count:]])

    carried = []
    for _ in range(2):
        owed = owed_by(node)
        assert owed.oldest is not None
        carried.append(carry_forward(stuck(owed, owed.oldest), node.log("t")))
        node.checkpoint()

    assert [CARRIED, 10] == carried
    assert node.log("t").start() >= 2400
    node.restart()
    again = node.client().subscribe("t", "c").ready(2500)
    assert sorted(b"%d" % n for n in range(count)) == sorted(d.body for d in again.deliveries())


@stored
def test_what_is_finished_meanwhile_may_be_carried(node, publish):
    """The copy is given to nobody."""
    consumer = node.client().subscribe("t", "c").ready(2500)
    node.log("t").segment = 100
    publish("t", *[b"%d" % n for n in range(200)])
    delivered = consumer.deliveries()
    consumer.finish(*[delivery.id for delivery in delivered[2:]])
    owed = owed_by(node)
    assert owed.oldest is not None
    left = stuck(owed, owed.oldest)
    consumer.finish(delivered[0].id)

    assert 2 == carry_forward(left, node.log("t"))

    node.checkpoint()
    node.restart()
    again = node.client().subscribe("t", "c").ready(10)
    assert [b"1"] == [delivery.body for delivery in again.deliveries()]
