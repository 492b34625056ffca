"""Publishing: what is checked, where it goes, and what becomes of it when connections break."""

import asyncio
from typing import Any

import pytest

from nsqkit.client.options import ProducerOptions
from nsqkit.client.producer import Producer
from nsqkit.errors import (
    BadDelay,
    BadTopicName,
    ConnectionFailed,
    EmptyMessage,
    MessageTooLarge,
    NotSent,
    OptionError,
    OutcomeUnknown,
    Refused,
)
from tests.client.places import running, settle
from tests.client.wires import OK, error

A, B = "a:4150", "b:4150"
producing = running(Producer)


async def begun(publish):
    """A publish under way, as a task."""
    task = asyncio.ensure_future(publish)
    await settle()
    return task


@producing
async def test_each_command_goes_out_as_nsqd_expects_it(clock, nsqds, make):
    """PUB, DPUB with milliseconds, and MPUB with its count and sizes."""
    async with make(A) as producer:
        tasks = [
            await begun(producer.publish("orders", b"one")),
            await begun(producer.publish("orders", memoryview(b"two"), delay="1.5s")),
            await begun(producer.publish_many("orders", [b"a", bytearray(b"bc")])),
        ]
        nsqds[A].link.flush()

        assert (
            b"PUB orders\n\0\0\0\3one"
            b"DPUB orders 1500\n\0\0\0\3two"
            b"MPUB orders\n\0\0\0\x0f\0\0\0\2\0\0\0\1a\0\0\0\2bc"
        ) == nsqds[A].wire.take()
        nsqds[A].send(OK, OK, OK)
        await asyncio.gather(*tasks)
        assert (3, 0, 1) == (
            producer.stats().published,
            producer.stats().pending,
            producer.stats().connections,
        )


@producing
async def test_what_makes_no_sense_is_refused_before_it_is_sent(clock, nsqds, make):
    """Each has an error of its own, and the connection lives on."""
    async with make(A, max_msg_size=10, max_body_size=30) as producer:
        await settle()
        for bad, publish in (
            (BadTopicName, producer.publish("no good", b"x")),
            (EmptyMessage, producer.publish("t", b"")),
            (MessageTooLarge, producer.publish("t", b"x" * 11)),
            (BadDelay, producer.publish("t", b"x", delay=-1)),
            (BadDelay, producer.publish("t", b"x", delay="soon")),
            (BadDelay, producer.publish("t", b"x", delay=3601)),
            (TypeError, producer.publish("t", "text")),
            (EmptyMessage, producer.publish_many("t", [])),
            (EmptyMessage, producer.publish_many("t", [b"x", b""])),
            (MessageTooLarge, producer.publish_many("t", [b"x" * 11])),
            (MessageTooLarge, producer.publish_many("t", [b"x" * 9] * 3)),
        ):
            with pytest.raises(bad):
                await publish
        assert [] == nsqds[A].sent()


def test_a_producer_without_an_address_is_refused():
    """And one whose address is none, or whose options are given twice."""
    cases: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((), {}),
        (("nowhere",), {}),
        ((A,), {"retries": -1}),
        ((A,), {"no_such": 1}),
        (([A],), {}),
        ((A,), {"retries": 1, "options": ProducerOptions()}),
    ]
    for arguments, more in cases:
        with pytest.raises((OptionError, TypeError)):
            Producer(*arguments, **more)


@producing
async def test_nsqds_are_taken_in_turn(clock, nsqds, make):
    """Unless one is gone: then the others get all."""
    async with make(A, B) as producer:
        await settle()
        for number in range(4):
            await begun(producer.publish("t", b"%d" % number))
        assert [2, 2] == [nsqds[A].link.pending, nsqds[B].link.pending]
        for nsqd in (A, B):
            nsqds[nsqd].send(OK, OK)
        nsqds[A].die()
        last = [await begun(producer.publish("t", b"x")) for _ in range(2)]
        nsqds[B].send(OK, OK)
        await asyncio.gather(*last)


@producing
async def test_a_sticky_producer_stays_with_the_first(clock, nsqds, make):
    """As long as it is there."""
    async with make(A, B, strategy="sticky") as producer:
        await settle()
        for _ in range(3):
            await begun(producer.publish("t", b"x"))
        assert [3, 0] == [nsqds[A].link.pending, nsqds[B].link.pending]
        nsqds[A].send(OK, OK, OK)


@producing
async def test_a_publish_waits_for_its_connection(clock, nsqds, make):
    """An nsqd that comes up soon gets it; the wait makes the next try come sooner."""
    nsqds[A].error = ConnectionFailed(A, "connection refused")
    async with make(A, reconnect_min=30, reconnect_max=60) as producer:
        await settle()
        task = await begun(producer.publish("t", b"x"))
        nsqds[A].error = None
        await clock.advance(1.0)
        nsqds[A].send(OK)
        await task
        assert 2 == nsqds[A].tries


@producing
async def test_a_publish_that_waits_makes_no_try_later(clock, nsqds, make):
    """Only sooner."""
    nsqds[A].error = ConnectionFailed(A, "connection refused")
    async with make(A, reconnect_min=0.05, reconnect_max=0.05) as producer:
        task = await begun(producer.publish("t", b"x"))
        await clock.advance(0.5)
        assert nsqds[A].tries >= 10
        nsqds[A].error = None
        await clock.advance(0.05)
        nsqds[A].send(OK)
        await task


@producing
async def test_without_a_connection_a_publish_was_not_sent(clock, nsqds, make):
    """After `send_timeout`, and the error says why there is none."""
    nsqds[A].error = ConnectionFailed(A, "cannot connect: connection refused")
    async with make(A, send_timeout=0) as producer:
        with pytest.raises(NotSent, match="no connection to an nsqd .*connection refused"):
            await producer.publish("t", b"x")
        assert {A: "cannot connect: connection refused"} == producer.stats().failures


@producing
async def test_without_room_a_publish_was_not_sent(clock, nsqds, make):
    """As many wait for their answers as may."""
    async with make(A, max_pending=1, send_timeout=0.001) as producer:
        await settle()
        first = await begun(producer.publish("t", b"x"))
        with pytest.raises(NotSent, match="1 publishes wait for their answers"):
            await producer.publish("t", b"y")
        nsqds[A].send(OK)
        await first


@producing
async def test_room_lets_the_next_one_go(clock, nsqds, make):
    """Nobody is refused who can wait."""
    async with make(A, max_pending=1) as producer:
        await settle()
        tasks = [await begun(producer.publish("t", b"x")) for _ in range(3)]
        for _ in tasks:
            assert 1 == nsqds[A].link.pending
            nsqds[A].send(OK)
            await settle()
        await asyncio.gather(*tasks)


@producing
async def test_what_may_have_arrived_is_not_sent_again(clock, nsqds, make):
    """Unless it was asked for."""
    async with make(A, B) as producer:
        await settle()
        task = await begun(producer.publish("t", b"x"))
        holder, other = (A, B) if nsqds[A].link.pending else (B, A)
        nsqds[holder].link.flush()
        nsqds[holder].die()
        with pytest.raises(OutcomeUnknown):
            await task
        assert 0 == nsqds[other].link.pending

    async with make("c:1", "d:1", retry_unknown=True) as producer:
        await settle()
        task = await begun(producer.publish("t", b"x"))
        holder, other = ("c:1", "d:1") if nsqds["c:1"].link.pending else ("d:1", "c:1")
        nsqds[holder].link.flush()
        nsqds[holder].die()
        await settle()
        nsqds[other].send(OK)
        await task


@producing
async def test_an_nsqd_that_cannot_keep_it_is_left_for_another(clock, nsqds, make):
    """A full disk of one is no reason to fail; with one nsqd alone it is."""
    async with make(A, B) as producer:
        await settle()
        task = await begun(producer.publish("t", b"x"))
        holder, other = (A, B) if nsqds[A].link.pending else (B, A)
        nsqds[holder].send(error("E_PUB_FAILED PUB failed no space left"))
        await settle()
        nsqds[other].send(OK)
        await task
    async with make("c:1") as producer:
        await settle()
        task = await begun(producer.publish("t", b"x"))
        nsqds["c:1"].send(error("E_PUB_FAILED PUB failed no space left"))
        with pytest.raises(Refused, match="E_PUB_FAILED PUB failed no space left"):
            await task


@producing
async def test_room_at_any_connection_is_room(clock, nsqds, make):
    """One that is stuck holds up no publish for which another has room."""
    async with make(A, B, max_pending=1) as producer:
        await settle()
        two = [await begun(producer.publish("t", b"x")) for _ in range(2)]
        for free in (A, B):
            third = await begun(producer.publish("t", b"y"))
            nsqds[free].send(OK)
            await settle()
            assert 1 == nsqds[free].link.pending
            nsqds[free].send(OK)
            await third
            two.append(await begun(producer.publish("t", b"x")))
            assert 1 == nsqds[free].link.pending
        for nsqd in (A, B):
            nsqds[nsqd].send(OK)
        await asyncio.gather(*two)


@producing
async def test_room_that_comes_while_one_begins_to_wait_is_seen(clock, nsqds, make):
    """Also if nothing comes after it that could wake who waits."""
    for passes in range(6):
        async with make(A, B, max_pending=1) as producer:
            await settle()
            two = [await begun(producer.publish("t", b"x")) for _ in range(2)]
            more = [asyncio.ensure_future(producer.publish("t", b"y")) for _ in range(2)]
            for _ in range(passes):
                await asyncio.sleep(0)
            for nsqd in (A, B):
                nsqds[nsqd].send(OK)
            await settle()
            assert [1, 1] == [nsqds[nsqd].link.pending for nsqd in (A, B)]
            for nsqd in (A, B):
                nsqds[nsqd].send(OK)
            await asyncio.gather(*two, *more)


@producing
async def test_a_close_that_is_cancelled_goes_on(clock, nsqds, make):
    """A second one waits for it."""
    producer = make(A)
    await producer.start()
    await settle()
    task = await begun(producer.publish("t", b"x"))
    closing = await begun(producer.close())
    closing.cancel()
    again = await begun(producer.close())
    assert not again.done()
    nsqds[A].send(OK)
    await again
    await task
    assert nsqds[A].wire.closed


@producing
async def test_close_waits_for_answers(clock, nsqds, make):
    """What comes in time is a success; later nothing is taken any more."""
    producer = make(A)
    await producer.start()
    await settle()
    task = await begun(producer.publish("t", b"x"))
    closing = await begun(producer.close())
    with pytest.raises(NotSent, match="closed"):
        await producer.publish("t", b"y")
    nsqds[A].send(OK)
    await closing
    await task
    await producer.close()
    with pytest.raises(NotSent, match="make another one"):
        await producer.start()
    assert nsqds[A].wire.closed
    assert {asyncio.current_task()} == asyncio.all_tasks()


@producing
async def test_close_fails_what_is_not_answered_in_time(clock, nsqds, make):
    """Nobody waits for good."""
    producer = make(A)
    await producer.start()
    await settle()
    task = await begun(producer.publish("t", b"x"))
    await producer.close(timeout=0)
    with pytest.raises(OutcomeUnknown):
        await task


@producing
async def test_who_waits_for_a_connection_hears_of_the_close(clock, nsqds, make):
    """And is not left alone until the timeout."""
    nsqds[A].error = ConnectionFailed(A, "no")
    producer = make(A)
    await producer.start()
    task = await begun(producer.publish("t", b"x"))
    await producer.close()
    with pytest.raises(NotSent, match="closed"):
        await task


@producing
async def test_a_silent_nsqd_is_left(clock, nsqds, make):
    """After two heartbeats that did not come, the connection is given up and made anew."""
    async with make(A) as producer:
        await settle()
        task = await begun(producer.publish("t", b"x"))
        await clock.advance(59)
        assert not task.done()
        await clock.advance(2)
        with pytest.raises(OutcomeUnknown, match="nothing was heard of it for 60 s"):
            await task
        await clock.advance(1)
        assert 2 == nsqds[A].tries


@producing
async def test_tries_are_less_and_less_frequent(clock, nsqds, make):
    """From reconnect_min to reconnect_max, at random down to a half."""
    nsqds[A].error = ConnectionFailed(A, "no")
    async with make(A, reconnect_min=1, reconnect_max=8):
        await clock.advance(3600)
        assert 3600 / 8 <= nsqds[A].tries <= 3600 / 4 + 10
