"""A consumer's place in a channel: RDY and what is in flight."""

import pytest


def test_nothing_before_rdy(consumer, publish):
    """A consumer gets nothing until it says RDY."""
    consumer.subscribe("t", "c")

    publish("t", b"one")

    assert [] == consumer.received()
    assert [b"one"] == consumer.ready(1).bodies()


def test_rdy_is_a_ceiling(consumer, publish):
    """RDY is no credit that is used up: it limits what is in flight, again and again."""
    consumer.subscribe("t", "c").ready(2)
    publish("t", *[b"%d" % n for n in range(5)])

    batches = []
    while deliveries := consumer.deliveries():
        batches.append([delivery.body for delivery in deliveries])
        consumer.finish(*[delivery.id for delivery in deliveries])

    assert [[b"0", b"1"], [b"2", b"3"], [b"4"]] == batches


def test_lowering_rdy_recalls_nothing(consumer, publish, node):
    """With more in flight than RDY nothing is sent until enough is finished."""
    consumer.subscribe("t", "c").ready(3)
    publish("t", *[b"%d" % n for n in range(5)])
    first = consumer.deliveries()

    consumer.ready(2)
    consumer.finish(first[0].id)
    assert [] == consumer.bodies()
    consumer.finish(first[1].id)

    assert [b"3"] == consumer.bodies()
    assert 2 == node.channel("t", "c").in_flight_count


def test_rdy_zero_stops(consumer, publish):
    """RDY 0 stops deliveries; raising it again starts them."""
    consumer.subscribe("t", "c").ready(5).ready(0)

    publish("t", b"one")
    assert [] == consumer.bodies()

    assert [b"one"] == consumer.ready(1).bodies()


@pytest.mark.parametrize("command", [b"FIN %s\n", b"REQ %s 0\n", b"REQ %s 5000\n"])
def test_room_after_each_way_out(command, consumer, publish):
    """Whatever ends a delivery makes room for the next one."""
    consumer.subscribe("t", "c").ready(1)
    publish("t", b"one", b"two")

    consumer.send(command % consumer.deliveries()[0].id)

    assert [b"two"] == consumer.bodies()


def test_room_after_a_timeout(consumer, publish, clock):
    """So does a timeout: the next message comes first."""
    consumer.subscribe("t", "c").ready(1)
    publish("t", b"one", b"two")
    assert [b"one"] == consumer.bodies()

    clock.advance(60)

    assert [(b"two", 1)] == consumer.received()


def test_counters(consumer, publish, node):
    """Deliveries, FINs and REQs are counted for each consumer."""
    consumer.subscribe("t", "c").ready(3)
    publish("t", b"one", b"two", b"three")
    one, two, _ = consumer.deliveries()

    consumer.finish(one.id).requeue(two.id)

    (subscriber,) = node.channel("t", "c").subscribers
    assert (4, 1, 1, 2) == (
        subscriber.message_count,
        subscriber.finish_count,
        subscriber.requeue_count,
        len(subscriber.in_flight),
    )


def test_timeouts_go_on_after_the_connection_is_gone(node, publish, clock):
    """Messages delivered at different times to a consumer that left come back one by one."""
    gone = node.client().identify(msg_timeout=10_000).subscribe("t", "c").ready(5)
    for body in (b"one", b"two"):
        publish("t", body)
        clock.advance(4)
    gone.leave()
    stays = node.client().subscribe("t", "c").ready(5)

    clock.advance(2)
    assert [(b"one", 2)] == stays.received()
    clock.advance(4)

    assert [(b"two", 2)] == stays.received()
    assert [] == node.channel("t", "c").departed


def test_many_deadlines_after_a_long_sleep(node, publish, clock):
    """When the machine slept through several deadlines, each message comes back once."""
    consumer = node.client().identify(msg_timeout=10_000).subscribe("t", "c").ready(100)
    publish("t", *[b"%d" % n for n in range(5)])
    clock.advance(5)
    publish("t", *[b"%d" % n for n in range(5, 10)])

    clock.jump(50)

    assert [1] * 10 + [2] * 10 == [attempts for _, attempts in consumer.received()]
    assert 10 == node.channel("t", "c").timeout_count
