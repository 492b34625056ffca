"""Consuming: who gets how many, what becomes of messages, and that nothing waits in silence."""

import asyncio

import pytest

from nsqkit.client.consumer import TURN, Consumer
from nsqkit.client.state import ConsumerState
from nsqkit.errors import AuthFailed, ConnectionFailed, ConsumerFailed, OptionError
from tests.client.places import A, B, C, assert_state, consuming, made, numbers, settle, stopped
from tests.client.wires import CLOSE_WAIT, error, message_frame

State = ConsumerState


@consuming
async def test_iteration_gives_what_came(clock, nsqds, make):
    """It waits when there is nothing, and ends when the consumer is stopped."""
    consumer = made(make, max_in_flight=5)
    got = []

    async def consume():
        async with consumer:
            async for message in consumer:
                async with message:
                    got.append(message)

    task = asyncio.ensure_future(consume())
    await settle()
    assert [b"RDY 5"] == nsqds[A].sent()
    nsqds[A].send(message_frame(1), message_frame(2))
    await settle()
    nsqds[A].send(message_frame(3))
    await settle()
    assert [1, 2, 3] == numbers(*got)
    assert [b"FIN %016x" % n for n in (1, 2, 3)] == nsqds[A].sent()

    await stopped(consumer, nsqds, A)
    await task
    assert_state(consumer, State.STOPPED)
    assert (3, 3) == (consumer.stats().received, consumer.stats().finished)


@consuming
async def test_others_have_the_loop_while_many_are_handed_out(clock, nsqds, make):
    """A body that never waits does not hold it for long."""
    async with made(make, max_in_flight=TURN * 4) as consumer:
        await settle()
        nsqds[A].send(*(message_frame(n) for n in range(TURN * 3)))
        passes = 0

        async def count():
            nonlocal passes
            while True:
                passes += 1
                await asyncio.sleep(0)

        counting = asyncio.ensure_future(count())
        taken = 0
        async for message in consumer:
            message.finish()
            taken += 1
            if taken == TURN * 3:
                break
        counting.cancel()
        assert passes >= 2
        nsqds[A].send(CLOSE_WAIT)


@consuming
async def test_nothing_there_is_none(clock, nsqds, make):
    """Not an exception; and what comes in time is given."""
    async with made(make) as consumer:
        assert await consumer.get(timeout=0) is None
        await settle()
        waiting = asyncio.ensure_future(consumer.get())
        await settle()
        nsqds[A].send(message_frame(7))
        assert [7] == numbers(await waiting)
        nsqds[A].send(CLOSE_WAIT)
        await stopped(consumer, nsqds)
        assert await consumer.get() is None


def test_a_consumer_that_makes_no_sense_is_refused():
    """The error names what is wrong."""
    for arguments, words in (
        ({"nsqd": A, "topic": "no good"}, "topic"),
        ({"nsqd": A, "channel": ""}, "channel"),
        ({}, "where to consume"),
        ({"nsqd": "nowhere"}, "nowhere"),
        ({"nsqd": A, "concurrency": 2}, "handler"),
        ({"nsqd": A, "handler": print, "concurrency": 0}, "concurrency"),
        ({"nsqd": A, "handler": 3}, "handler: 3 can't be called"),
        ({"nsqd": A, "max_in_flight": -1}, "max_in_flight"),
    ):
        with pytest.raises(OptionError, match=words):
            Consumer(**({"topic": "t", "channel": "c"} | arguments))


@consuming
async def test_a_consumer_that_was_not_started_says_so(clock, nsqds, make):
    """Instead of waiting for good."""
    consumer = made(make)
    with pytest.raises(OptionError, match="not started"):
        await consumer.get()
    await consumer.stop()
    assert_state(consumer, State.STOPPED)
    with pytest.raises(ConsumerFailed, match="make another one"):
        await consumer.start()


@consuming
async def test_max_in_flight_is_shared(clock, nsqds, make):
    """Among all connections, and anew when one comes or goes."""
    async with made(make, A, B, max_in_flight=5) as consumer:
        await settle()
        ready = {stats.nsqd: stats.ready for stats in consumer.stats().connections}
        assert [2, 3] == sorted(ready.values())
        nsqds[A].die()
        await settle()
        assert [(B, 5)] == [(stats.nsqd, stats.ready) for stats in consumer.stats().connections]
        nsqds[B].send(CLOSE_WAIT)


@consuming
async def test_a_lost_connection_is_made_again(clock, nsqds, make):
    """Iteration waits meanwhile, and the state says why."""
    states: list[ConsumerState] = []
    async with made(make, on_state=states.append, reconnect_max=5) as consumer:
        waiting = asyncio.ensure_future(anext(consumer))
        await settle()
        nsqds[A].die()
        await clock.advance(10)
        assert_state(consumer, State.CONNECTING)
        nsqds[A].error = None
        await clock.advance(10)
        assert_state(consumer, State.CONSUMING)
        assert [b"RDY 1"] == nsqds[A].sent()
        nsqds[A].send(message_frame(4))
        assert [4] == numbers(await waiting)
        assert [State.CONNECTING, State.CONSUMING, State.CONNECTING, State.CONSUMING] == states
        nsqds[A].send(CLOSE_WAIT)


@consuming
async def test_a_connection_that_is_refused_at_once_is_not_made_again_and_again(clock, nsqds, make):
    """Each one comes later than the one before."""
    async with made(make, reconnect_min=1, reconnect_max=60) as consumer:
        for _ in range(600):
            await clock.advance(0.1)
            if nsqds[A].links and not nsqds[A].link.lost:
                nsqds[A].send(error("E_INVALID RDY count 1 out of range"))
        assert 3 <= nsqds[A].tries <= 10
        assert_state(consumer, State.CONNECTING)


@consuming
async def test_it_gives_up_when_it_is_told_to(clock, nsqds, make):
    """Iteration, get and run raise, and say why there is no connection."""
    nsqds[A].error = ConnectionFailed(A, "cannot connect: connection refused")
    async with made(make, give_up_after=60) as consumer:
        waiting = asyncio.ensure_future(anext(consumer))
        await clock.advance(59)
        assert not waiting.done()
        await clock.advance(2)
        with pytest.raises(ConsumerFailed, match="for 1m0s .give_up_after.: .*connection refused"):
            await waiting
        with pytest.raises(ConsumerFailed):
            await consumer.get()
        with pytest.raises(ConsumerFailed):
            await consumer.run()
    assert_state(consumer, State.FAILED)


@consuming
async def test_time_without_a_connection_counts_anew_each_time(clock, nsqds, make):
    """A connection in between is a success."""
    async with made(make, give_up_after=60, reconnect_max=5) as consumer:
        for _ in range(3):
            await settle()
            nsqds[A].die()
            await clock.advance(50)
            nsqds[A].error = None
            await clock.advance(6)
            assert_state(consumer, State.CONSUMING)
        nsqds[A].send(CLOSE_WAIT)


@consuming
async def test_refusals_for_good_end_it_at_once(clock, nsqds, make):
    """When every nsqd refuses, and there is no nsqlookupd that may know another."""
    nsqds[A].error = AuthFailed(A, "it wants AUTH: set auth_secret", final=True)
    nsqds[B].error = AuthFailed(B, "it wants AUTH: set auth_secret", final=True)
    async with made(make, A, B) as consumer:
        with pytest.raises(ConsumerFailed, match="set auth_secret.*set auth_secret") as failed:
            await consumer.get()
        assert nsqds[A].error is failed.value.__cause__
    nsqds[B].error = ConnectionFailed(B, "no")
    async with made(make, A, B) as consumer:
        await settle()
        assert_state(consumer, State.CONNECTING)


@consuming
async def test_max_in_flight_can_be_changed(clock, nsqds, make):
    """0 pauses."""
    async with made(make, max_in_flight=3) as consumer:
        await settle()
        consumer.max_in_flight = 7
        consumer.pause()
        assert_state(consumer, State.PAUSED)
        consumer.unpause()
        assert [b"RDY 3", b"RDY 7", b"RDY 0", b"RDY 7"] == nsqds[A].sent()
        assert_state(consumer, State.CONSUMING)
        with pytest.raises(OptionError):
            consumer.max_in_flight = -1
        nsqds[A].send(CLOSE_WAIT)


@consuming
async def test_a_failure_backs_off(clock, nsqds, make):
    """No messages for 2 s, then one; if that is finished all is as before."""
    async with made(make, max_in_flight=5) as consumer:
        await settle()
        nsqds[A].send(message_frame(1), message_frame(2))
        one, two = await consumer.get(), await consumer.get()
        one.requeue()
        two.finish()  # a late success tells nothing
        assert_state(consumer, State.BACKOFF)
        assert 1 == consumer.stats().backoff_level
        await clock.advance(2)
        nsqds[A].send(message_frame(3))
        (await consumer.get()).finish()
        assert_state(consumer, State.CONSUMING)
        assert [
            b"RDY 5", b"REQ %016x 90000" % 1, b"RDY 0", b"FIN %016x" % 2, b"RDY 1", b"FIN %016x" % 3, b"RDY 5",
        ] == nsqds[A].sent()  # fmt: skip
        nsqds[A].send(CLOSE_WAIT)


@consuming
async def test_a_stop_loses_nothing(clock, nsqds, make):
    """CLS goes out; what was not begun is given back, until CLOSE_WAIT comes; handlers end what they are at."""
    go_on = asyncio.Event()

    async def handler(_):
        await go_on.wait()

    consumer = made(make, handler=handler, concurrency=1, max_in_flight=3)
    await consumer.start()
    await settle()
    nsqds[A].send(message_frame(1), message_frame(2))
    await settle()
    stop = asyncio.ensure_future(consumer.stop())
    await settle()
    assert_state(consumer, State.STOPPING)
    assert [b"RDY 3", b"CLS", b"REQ %016x 0" % 2] == nsqds[A].sent()
    nsqds[A].send(message_frame(3), CLOSE_WAIT)
    await settle()
    assert [b"REQ %016x 0" % 3] == nsqds[A].sent()
    assert not stop.done()
    go_on.set()
    await stop
    assert b"FIN %016x\n" % 1 == nsqds[A].wire.take()
    assert_state(consumer, State.STOPPED)


@consuming
async def test_a_stop_ends_with_the_last_answer(clock, nsqds, make):
    """Whenever it comes: also in the moment between a look and the wait."""
    for passes in range(8):
        consumer = made(make, A, B)
        await consumer.start()
        await settle()
        stop = asyncio.ensure_future(consumer.stop())
        for _ in range(passes):
            await asyncio.sleep(0)
        for nsqd in (A, B):
            nsqds[nsqd].send(CLOSE_WAIT)
            await asyncio.sleep(0)
        await settle()
        assert stop.done()


@consuming
async def test_a_second_stop_waits_no_longer(clock, nsqds, make):
    """The handler is cancelled, and its message given back at once."""

    async def handler(_):
        await asyncio.Event().wait()

    consumer = made(make, handler=handler)
    await consumer.start()
    await settle()
    nsqds[A].send(message_frame(1))
    await settle()
    stops = [asyncio.ensure_future(consumer.stop()) for _ in range(2)]
    await settle()
    nsqds[A].send(CLOSE_WAIT)
    await asyncio.gather(*stops)
    assert nsqds[A].wire.take().endswith(b"REQ %016x 0\n" % 1)


@consuming
async def test_who_is_cancelled_loses_nothing(clock, nsqds, make):
    """The message goes back at once, and `run` stops the consumer."""

    async def handler(_):
        await asyncio.Event().wait()

    consumer = made(make, handler=handler, shutdown_timeout=0)
    task = asyncio.ensure_future(consumer.run())
    await settle()
    nsqds[A].send(message_frame(1))
    await settle()
    task.cancel()
    await settle()
    nsqds[A].send(CLOSE_WAIT)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert_state(consumer, State.STOPPED)
    assert nsqds[A].wire.take().endswith(b"REQ %016x 0\n" % 1)


@consuming
async def test_a_complaint_of_nsqd_ends_nothing(clock, nsqds, make):
    """A message that was somebody else's already is only worth a line."""
    async with made(make) as consumer:
        await settle()
        nsqds[A].send(error("E_FIN_FAILED FIN 0000000000000001 failed ID not in flight"), message_frame(2))
        assert [2] == numbers(await consumer.get())
        nsqds[A].send(CLOSE_WAIT)


@consuming
async def test_fewer_slots_than_connections_go_round(clock, nsqds, make):
    """Each connection is served after a while, and no more than max_in_flight are ready at any time."""
    served = set()
    async with made(make, A, B, C, max_in_flight=1) as consumer:
        for _ in range(60):
            await clock.advance(5)
            for nsqd in (A, B, C):
                nsqds[nsqd].link.heard_at = clock.now() + 1000
            ready = {stats.nsqd: stats.ready for stats in consumer.stats().connections}
            assert sum(ready.values()) <= 1
            served |= {nsqd for nsqd, count in ready.items() if count}
        assert {A, B, C} == served
        for nsqd in (A, B, C):
            nsqds[nsqd].send(CLOSE_WAIT)
