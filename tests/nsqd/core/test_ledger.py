"""What a topic owes, before and after a restart."""

from collections.abc import Callable

import pytest

from nsqkit.nsqd.core.ledger import record, save_memory
from nsqkit.nsqd.core.owed import TopicOwed
from nsqkit.nsqd.core.store import ChannelRecord, StoreError
from tests.nsqd.core.flavours import in_memory, stored, with_log
from tests.nsqd.core.sent import numbers

SECOND = 1_000_000_000


@pytest.fixture(params=["clean exit", "kill"])
def restart(request, node) -> Callable[[], None]:
    """Restart after a clean exit, or a kill behind a checkpoint."""

    def run() -> None:
        if request.param == "clean exit":
            node.stop()
        elif node.flavour == "memory":
            pytest.skip("a kill loses what is in memory")
        else:
            node.checkpoint()
        node.restart()

    return run


def extents(
    owed: ChannelRecord,
) -> tuple[list[tuple[int, int]], list[tuple[int, int]], list[tuple[int, int, int]]]:
    """Ready and deferred extents, and leftovers."""
    return (
        [(e.start, e.stop) for e in owed.ready],
        [(e.start, e.stop) for e in owed.deferred],
        [(leftover.position, leftover.attempts, leftover.due) for leftover in owed.leftovers],
    )


# -- what is written down


@stored
def test_record(node, publish, clock):
    """A checkpoint names positions: untried ones as extents, others one by one with attempts and due time."""
    consumer = node.client().subscribe("t", "c").ready(3)
    publish("t", *numbers(6))
    publish("t", b"6", delay=100)
    finished, requeued, _ = consumer.deliveries()
    consumer.ready(0).finish(finished.id).requeue(requeued.id, 5000)
    topic = node.topic("t")

    written = record(TopicOwed(topic, topic.store))

    waiting, owed = written.channels
    assert (7, 1, "", "c") == (written.end, written.needed_from, waiting.name, owed.name)
    assert ([(3, 6)], [(6, 7)], [(2, 1, 0), (1, 1, clock.now + 5 * SECOND)]) == extents(owed)
    assert ([], [], []) == extents(waiting)


@stored
def test_record_of_a_topic_without_channels(node, publish, settings):
    """What waits in the topic is written down under no name."""
    settings.mem_queue_size = 2
    publish("t", *numbers(2))
    publish("t", *numbers(3))
    topic = node.topic("t")

    (waiting,) = record(TopicOwed(topic, topic.store)).channels

    assert [(0, 5)] == extents(waiting)[0]


@stored
def test_ephemeral_channels_are_not_written_down(node, publish):
    """But the log is kept for them as long as they live."""
    node.channel("t", "c#ephemeral")
    publish("t", b"x")
    topic = node.topic("t")

    written = record(TopicOwed(topic, topic.store))

    assert [""] == [owed.name for owed in written.channels]
    assert 0 == written.needed_from


@stored
def test_nothing_is_owed(node, publish):
    """When everything is finished the log is not needed any more."""
    node.channel("t", "c")
    publish("t", *numbers(5))
    node.drained()

    node.checkpoint()

    assert [] == node.log("t").batches


# -- round trips


@with_log
def test_ready_messages(node, publish, settings, restart):
    """What was ready comes in order, also what is beyond memory."""
    settings.mem_queue_size = 4
    node.channel("t", "c")
    node.channel("t", "other")
    for start in range(0, 12, 3):
        publish("t", *numbers(12)[start : start + 3])

    restart()

    assert [(body, 1) for body in numbers(12)] == node.drained()
    assert [(body, 1) for body in numbers(12)] == node.drained(channel="other")
    restart()
    assert [] == node.drained()


@with_log
def test_batch_in_use(node, publish, restart):
    """Of a batch that was partly delivered, the rest comes too, and what was finished does not."""
    consumer = node.client().subscribe("t", "c").ready(3)
    publish("t", *numbers(10))
    for delivery in consumer.deliveries()[:2]:
        consumer.ready(0).finish(delivery.id)

    restart()

    assert [(b"2", 2), *[(body, 1) for body in numbers(10)[3:]]] == sorted(node.drained())


@with_log
def test_attempts(node, publish, restart, clock):
    """What was in flight, timed out or given back comes at once, with its attempts."""
    consumer = node.client().subscribe("t", "c").ready(3)
    publish("t", *numbers(3))
    clock.advance(60)
    consumer.ready(0)
    for delivery in consumer.deliveries()[3:5]:
        consumer.requeue(delivery.id)

    restart()

    assert [(b"0", 3), (b"1", 3), (b"2", 3)] == sorted(node.drained())


@with_log
def test_deferred_messages(node, publish, restart, clock):
    """Delays go on over a restart: those of DPUB and of REQ, those over and those not over meanwhile."""
    consumer = node.client().subscribe("t", "c").ready(10)
    publish("t", b"requeued")
    consumer.requeue(consumer.deliveries()[0].id, 50_000)
    publish("t", b"requeued, over")
    consumer.requeue(consumer.deliveries()[0].id, 5000)
    publish("t", b"deferred", delay=60)
    publish("t", b"deferred, over", delay=6)

    clock.now += 10 * SECOND
    restart()

    again = node.client().subscribe("t", "c").ready(10)
    assert [(b"deferred, over", 1), (b"requeued, over", 2)] == sorted(again.received())
    clock.advance(39.999)
    assert [] == again.received()
    clock.advance(0.001)
    assert [(b"requeued", 2)] == again.received()
    clock.advance(10)
    assert [(b"deferred", 1)] == again.received()


@with_log
def test_ids_and_times(node, publish, restart, clock):
    """A message has the same id and timestamp afterwards."""
    consumer = node.client().subscribe("t", "c").ready(2)
    publish("t", *numbers(4))
    before = consumer.deliveries()
    consumer.requeue(before[0].id, 3000)

    clock.now += SECOND
    restart()
    again = node.client().subscribe("t", "c").ready(10)
    clock.advance(10)

    after = {delivery.body: delivery for delivery in again.deliveries()}
    assert set(numbers(4)) == set(after)
    assert [(b.id, b.timestamp) for b in before] == [
        (after[b.body].id, after[b.body].timestamp) for b in before
    ]
    assert 4 == len({delivery.id for delivery in after.values()})


@with_log
def test_waiting_messages(node, publish, settings, restart):
    """What waited for a channel, or for the end of a pause, still does."""
    settings.mem_queue_size = 3
    publish("t", *numbers(2))
    publish("t", *numbers(5))
    node.channel("u", "c")
    node.topic("u").pause(True, node.clock.now)
    publish("u", *numbers(3))

    restart()

    assert (7, 3) == (node.topic("t").depth(), node.topic("u").depth())
    assert [(body, 1) for body in numbers(2) + numbers(5)] == node.drained()
    node.topic("u").pause(False, node.clock.now)
    assert [(body, 1) for body in numbers(3)] == node.drained("u")


@with_log
def test_deferred_messages_that_wait(node, publish, restart, clock):
    """A deferred message that no channel has yet keeps its time."""
    publish("t", b"x", delay=10)

    restart()
    consumer = node.client().subscribe("t", "c").ready(1)
    clock.advance(9.999)
    assert [] == consumer.bodies()
    clock.advance(0.001)

    assert [b"x"] == consumer.bodies()


@with_log
def test_emptied_and_deleted(node, publish, restart):
    """What was emptied or deleted does not come back."""
    node.channel("t", "emptied")
    node.channel("t", "deleted")
    publish("t", *numbers(5))
    publish("u", *numbers(5))

    node.channel("t", "emptied").empty()
    node.topic("t").delete_channel("deleted")
    node.topic("u").empty()
    restart()

    assert [] == node.drained("t", "emptied")
    assert [] == node.drained("t", "deleted")
    assert [] == node.drained("u")


@with_log
def test_many_restarts(node, publish, restart, clock, settings):
    """Nothing wears off, however often the broker is restarted."""
    settings.mem_queue_size = 2
    node.channel("t", "c")
    publish("t", *numbers(3))
    publish("t", b"3")
    publish("t", b"deferred", delay=1000)

    for attempt in range(1, 4):
        restart()
        consumer = node.client().subscribe("t", "c").ready(2)
        assert {attempt} == {a for _, a in consumer.received()} | {attempt}
        consumer.leave()
        clock.now += SECOND
    restart()

    assert sorted(numbers(4)) == sorted(body for body, _ in node.drained())
    clock.now += 1000 * SECOND
    restart()
    assert [(b"deferred", 1)] == node.drained()


# -- memory mode


@in_memory
def test_save_memory_writes_each_message_once(node, publish, settings):
    """Messages that several channels have are written once, what the log has already is not written again."""
    settings.mem_queue_size = 3
    for name in ("a", "b"):
        node.channel("t", name)
    publish("t", *numbers(3))
    publish("t", *numbers(5))
    topic = node.topic("t")

    save_memory(topic, topic.store)

    assert [(5, False), (3, True)] == [(batch.count, batch.carried) for batch in node.log("t").batches]


@in_memory
def test_what_could_not_be_saved_has_no_place_in_the_log(node, publish):
    """A checkpoint behind a failed write names no positions that later messages will get."""
    node.client().subscribe("t", "c").ready(1)
    publish("t", *numbers(3))
    publish("t", b"later", delay=60)
    topic = node.topic("t")
    node.log("t").failure = "disk full"

    with pytest.raises(StoreError, match="disk full"):
        save_memory(topic, topic.store)
    written = record(TopicOwed(topic, topic.store))

    assert [([], [], [])] == [(c.ready, c.deferred, c.leftovers) for c in written.channels if c.name]
    assert 0 == written.end


@in_memory
def test_saved_memory_is_only_for_its_channels(node, publish):
    """A message that one channel has finished does not come back to it because another one has saved it."""
    consumer = node.client().subscribe("t", "done").ready(10)
    node.channel("t", "idle")
    publish("t", *numbers(3))
    consumer.finish(*[delivery.id for delivery in consumer.deliveries()])

    node.stop()
    node.restart()

    assert [] == node.drained(channel="done")
    assert [(body, 1) for body in numbers(3)] == node.drained(channel="idle")


@in_memory
def test_batch_in_use_by_several_channels(node, publish):
    """Each channel gets the rest of a batch that it has not delivered yet."""
    for name, ready in (("a", 1), ("b", 3), ("c", 0)):
        node.client().subscribe("t", name).ready(ready)
    publish("t", *numbers(5))

    node.stop()
    node.restart()

    for name, ready in (("a", 1), ("b", 3), ("c", 0)):
        expected = [(body, 2 if n < ready else 1) for n, body in enumerate(numbers(5))]
        assert expected == sorted(node.drained(channel=name))


@in_memory
def test_ephemeral_channels_are_not_saved(node, publish):
    """What only an ephemeral channel has is gone with it."""
    node.channel("t", "c#ephemeral")
    publish("t", *numbers(3))

    node.stop()

    assert [] == node.log("t").batches
