import asyncio
import time
from itertools import pairwise

import pytest

from nsqkit import ConsumerState
from nsqkit.client.clock import clock_of
from nsqkit.nsqd.core.session import MAGIC
from tests.testing.scene import in_nsq

HEARTBEAT = b"\0\0\0\x0f\0\0\0\0_heartbeat_"


async def collect(nsq, consumer, bodies):
    """Finish what comes, and note when it came, in seconds of the nsqd."""
    async for message in consumer:
        bodies.append((round(nsq.now()), message.body, message.attempts))
        await message.finish()


@in_nsq()
async def test_deferred_messages_come_in_the_order_of_their_time(nsq):
    """An hour's worth of deferrals comes in a moment, each at its own time."""
    came: list[tuple[int, bytes, int]] = []
    began = time.monotonic()
    async with nsq.producer() as producer, nsq.consumer("orders", "billing", max_in_flight=5) as consumer:
        start = nsq.now()
        for seconds in (3600, 60, 1800, 61):
            await producer.publish("orders", b"%d" % seconds, delay=seconds)
        collecting = asyncio.ensure_future(collect(nsq, consumer, came))

        await nsq.advance(3600)

        assert [b"60", b"61", b"1800", b"3600"] == [body for _, body, _ in came]
        assert all(int(body) <= at - start + 1 <= int(body) + 3 for at, body, _ in came)
        collecting.cancel()
    assert time.monotonic() - began < 60


@in_nsq()
async def test_nothing_comes_before_its_time(nsq):
    """A little less than the delay is not enough."""
    async with nsq.producer() as producer, nsq.consumer("orders", "billing") as consumer:
        await producer.publish("orders", b"one", delay=3600)
        await nsq.advance(3590)
        assert 1 == nsq.topic("orders").channel("billing").deferred
        assert 0 == consumer.stats().received

        await nsq.advance(10)

        assert 1 == consumer.stats().received


@in_nsq(msg_timeout="10s")
async def test_messages_time_out(nsq):
    """A message that is not finished comes again after its timeout, unless it is touched."""
    async with nsq.producer() as producer, nsq.consumer("orders", "billing") as consumer:
        await producer.publish("orders", b"one")
        assert 1 == (await consumer.get()).attempts
        await nsq.advance(10)
        assert 1 == nsq.topic("orders").channel("billing").timed_out

        message = await consumer.get(timeout=10)
        assert 2 == message.attempts
        async with message:
            await nsq.advance(100)

        await nsq.drained("orders", "billing")
        assert 1 == nsq.topic("orders").channel("billing").timed_out


@in_nsq()
async def test_requeued_messages_come_after_their_delay_and_back_off(nsq):
    """A handler that fails three times is tried again later each time, with back-off, all in one advance."""
    attempts = []

    async def handle(message):
        attempts.append((message.attempts, nsq.now()))
        if message.attempts < 4:
            raise OSError("not yet")

    consumer = nsq.consumer("orders", "billing", handler=handle, backoff_recovery="immediate")
    async with nsq.producer() as producer, consumer:
        await producer.publish("orders", b"one")
        await nsq.advance(1)
        assert ConsumerState.BACKOFF == consumer.state

        await nsq.advance(3600)

        assert [1, 2, 3, 4] == [number for number, _ in attempts]
        pauses = [after - before for (_, before), (_, after) in pairwise(attempts)]
        assert pauses == sorted(pauses)
        assert pauses[0] >= 89  # default_requeue_delay
        await nsq.drained("orders", "billing")
        assert ConsumerState.CONSUMING == consumer.state


@in_nsq()
async def test_clients_connect_again(nsq):
    """What waits for its next try to connect tries it when its time has come."""
    async with nsq.consumer("orders", "billing") as consumer:
        await consumer.wait_for(ConsumerState.CONSUMING)
        await nsq.kill()
        await nsq.advance(120)
        assert ConsumerState.CONNECTING == consumer.state
        await nsq.start_again()

        await nsq.advance(60)

        assert ConsumerState.CONSUMING == consumer.state


@in_nsq()
async def test_connections_outlast_the_time(nsq):
    """Heartbeats are answered on the way, so after a day a client is still on its first connection."""
    async with nsq.producer() as producer, nsq.consumer("orders", "billing") as consumer:
        await producer.publish("orders", b"one")
        await (await consumer.get()).finish()
        before = set(nsq.nsqd.broker.sessions)

        await nsq.advance(6 * 3600)

        assert before == set(nsq.nsqd.broker.sessions)
        assert 2 == len(before)


async def _client(nsq, answers):
    """A client that is slow to answer heartbeats, as one in another process is; `answers` says how many it does."""
    reader, writer = await asyncio.open_connection(*nsq.tcp_address.split(":"))
    writer.write(MAGIC)
    heartbeats = 0
    try:
        while heartbeats < answers and await reader.readexactly(len(HEARTBEAT)) == HEARTBEAT:
            heartbeats += 1
            await asyncio.get_running_loop().run_in_executor(None, time.sleep, 0.02)
            writer.write(b"NOP\n")
        await reader.read()
    finally:
        writer.close()
    return heartbeats


@in_nsq()
async def test_clients_elsewhere_have_the_time_to_answer(nsq):
    """A client that takes its real time to answer is not cut off, although an hour passes in a moment."""
    client = asyncio.ensure_future(_client(nsq, 1000))
    await nsq.advance(0)
    assert 1 == len(nsq.nsqd.broker.sessions)

    await nsq.advance(600)

    assert not client.done()
    nsq.disconnect_all()
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await client


@in_nsq()
async def test_clients_that_never_answer_are_cut_off(nsq):
    """Who does not answer two heartbeats is hung up on, as nsqd does; the time goes on."""
    client = asyncio.ensure_future(_client(nsq, 1))
    await nsq.advance(0)
    assert 1 == len(nsq.nsqd.broker.sessions)

    await nsq.advance(300)

    assert 1 == await client
    assert {} == nsq.nsqd.broker.sessions


@in_nsq()
async def test_sleepers_wake_in_order(nsq):
    """`nsq.sleep` returns when the virtual time has come, one after the other; nobody wakes too early."""
    woken = []
    start = nsq.now()

    async def sleep(seconds):
        await nsq.sleep(seconds)
        woken.append((seconds, round(nsq.now() - start)))

    sleepers = [asyncio.ensure_future(sleep(seconds)) for seconds in (300, 100, 200, 400)]
    await nsq.advance(301)

    assert [(100, 100), (200, 200), (300, 300)] == woken
    sleepers[-1].cancel()


@in_nsq()
async def test_time_also_passes_by_itself(nsq):
    """Without anybody moving it, the clock runs, for nsqd and clients, as fast as a real one; also after a move."""
    await nsq.advance(3600)
    began, start = time.monotonic(), nsq.now()
    async with nsq.producer() as producer, nsq.consumer("orders", "billing") as consumer:
        await producer.publish("orders", b"one", delay="50ms")
        message = await consumer.get(timeout=10)
        await message.finish()
        await nsq.sleep(0.05)

    assert nsq.now() - start == pytest.approx(time.monotonic() - began, abs=0.5)
    assert time.monotonic() - began > 0.1


@in_nsq(msg_timeout="1s")
async def test_a_deadline_after_a_move_is_kept_in_real_time(nsq):
    """A timeout that is due in a second comes in a second, although nsqd's timer was set for a later one before."""
    async with nsq.producer() as producer, nsq.consumer("orders", "billing", max_in_flight=1) as consumer:
        await producer.publish("orders", b"later", delay=60)
        await nsq.advance(59)
        await nsq.advance(0.9)
        began = time.monotonic()

        await consumer.get(timeout=10)
        assert 2 == (await consumer.get(timeout=10)).attempts

        assert time.monotonic() - began < 5


@in_nsq()
async def test_moves_do_not_mix(nsq):
    """Two tasks that advance at once move the clock by both."""
    start = nsq.now()

    await asyncio.gather(nsq.advance(100), nsq.advance(50))

    assert 150 <= nsq.now() - start < 155
    with pytest.raises(ValueError, match="time does not go back: -1"):
        await nsq.advance(-1)


@in_nsq()
async def test_a_timer_that_fails_or_is_cancelled(nsq):
    """One that was cancelled does not ring; an error in one is reported by the loop, and the others ring."""
    rung: list[object] = []
    errors = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: errors.append(str(context["exception"])))
    clock = clock_of(loop)
    now = clock.now()
    clock.call_at(now + 1, lambda: rung.append(1 / 0))
    clock.call_at(now + 2, lambda: rung.append("no")).cancel()
    clock.call_at(now + 3, lambda: rung.append("yes"))

    await nsq.advance(3)

    assert ["yes"] == rung
    assert ["division by zero"] == errors


@in_nsq()
async def test_somebody_who_never_rests_does_not_hold_up_the_time(nsq):
    """A task that publishes all the time is no reason to wait for ever."""
    async with nsq.producer() as producer:

        async def publish():
            while True:
                await producer.publish("orders", b"one")

        publishing = asyncio.ensure_future(publish())
        start = nsq.now()

        await nsq.advance(60)

        assert nsq.now() - start >= 60
        publishing.cancel()
