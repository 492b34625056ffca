"""Consuming: handlers, giving up, and touching."""

import asyncio

import pytest

from nsqkit.client.message import Message
from nsqkit.client.state import ConsumerState
from nsqkit.errors import OptionError
from tests.client.places import A, B, consuming, made, numbers, settle, stopped
from tests.client.wires import CLOSE_WAIT, message_frame

State = ConsumerState


@consuming
async def test_a_handler_gets_messages(clock, nsqds, make):
    """What returns is finished; what raises comes again, and is logged; `run` ends with the stop."""
    seen = []

    async def handler(message):
        seen.append(int(message.id, 16))
        if len(seen) == 2:
            raise RuntimeError("no")

    consumer = made(make, handler=handler, concurrency=3)
    task = asyncio.ensure_future(consumer.run())
    await settle()
    nsqds[A].send(*(message_frame(n) for n in (1, 2, 3)))
    await settle()

    assert [1, 2, 3] == seen
    assert [b"RDY 3", b"FIN %016x" % 1, b"REQ %016x 90000" % 2, b"RDY 0", b"FIN %016x" % 3] == nsqds[A].sent()
    await stopped(consumer, nsqds, A)
    await task
    with pytest.raises(OptionError, match="go to the handler"):
        aiter(consumer)


@consuming
async def test_a_plain_function_runs_in_a_thread(clock, nsqds, make):
    """And several at a time."""
    from threading import Barrier, current_thread

    together = Barrier(2, timeout=10)
    names = []

    def handler(_):
        together.wait()
        names.append(current_thread().name)

    consumer = made(make, handler=handler, concurrency=2)
    await consumer.start()
    await settle()
    nsqds[A].send(message_frame(1), message_frame(2))
    stop = asyncio.ensure_future(consumer.stop())  # waits for both
    await settle()
    nsqds[A].send(CLOSE_WAIT)
    await stop
    assert 2 == consumer.stats().finished
    assert all(name.startswith("nsqkit-handler") for name in names)


@consuming
async def test_a_message_is_given_up_after_max_attempts(clock, nsqds, make):
    """The handler never sees it, the hook does; without a hook a line says so."""
    seen: list[int] = []
    given_up: list[Message] = []
    consumer = made(
        make,
        handler=lambda message: seen.append(message.attempts),
        max_attempts=2,
        on_giving_up=given_up.append,
    )
    await consumer.start()
    await settle()
    nsqds[A].send(message_frame(1, attempts=3))
    await settle()
    assert ([], [1]) == (seen, numbers(*given_up))
    assert [b"RDY 1", b"FIN %016x" % 1] == nsqds[A].sent()
    assert 1 == consumer.stats().given_up
    await stopped(consumer, nsqds, A)


@consuming
async def test_a_hook_that_fails_gives_the_message_back(clock, nsqds, make):
    """It is not lost because of that."""

    async def hook(_):
        raise RuntimeError("no")

    async with made(make, max_attempts=2, on_giving_up=hook) as consumer:
        await settle()
        nsqds[A].send(message_frame(1, attempts=3), message_frame(2))
        assert [2] == numbers(await consumer.get())
        assert [b"RDY 1", b"REQ %016x 270000" % 1] == nsqds[A].sent()[:2]
        nsqds[A].send(CLOSE_WAIT)


@consuming
async def test_iteration_counts_no_attempts_unless_asked(clock, nsqds, make):
    """Who answers by hand decides by hand."""
    async with made(make) as consumer:
        await settle()
        nsqds[A].send(message_frame(1, attempts=99))
        assert [1] == numbers(await consumer.get())
        nsqds[A].send(CLOSE_WAIT)
    async with made(make, B, max_attempts=5) as consumer:
        await settle()
        nsqds[B].send(message_frame(1, attempts=99))
        assert await consumer.get(timeout=0) is None
        nsqds[B].send(CLOSE_WAIT)


@consuming
async def test_what_is_worked_on_is_touched(clock, nsqds, make):
    """At half its time, again and again, up to max_processing_time."""
    async with made(make, max_processing_time=100) as consumer:
        await settle()
        nsqds[A].send(message_frame(1))
        async with await consumer.get() as message:
            nsqds[A].sent()
            await clock.advance(29)
            assert [] == nsqds[A].sent()
            await clock.advance(2)
            assert [b"TOUCH %016x" % 1] == nsqds[A].sent()
            nsqds[A].link.heard_at = clock.now()
            await clock.advance(30)
            assert [b"TOUCH %016x" % 1] == nsqds[A].sent()
            assert not message.expired
            nsqds[A].link.heard_at = clock.now() + 1000  # heartbeats came
            await clock.advance(200)
            assert [b"TOUCH %016x" % 1] == nsqds[A].sent()
            assert message.expired
        assert [b"FIN %016x" % 1] == nsqds[A].sent()
        nsqds[A].send(CLOSE_WAIT)


@consuming
async def test_each_is_touched_in_its_own_time(clock, nsqds, make):
    """nsqds may have other times, and the shorter one counts though it was begun later."""
    async with made(make, A, B, max_in_flight=2) as consumer:
        await settle()
        nsqds[B].link.msg_timeout = 2.0
        nsqds[A].send(message_frame(1))
        async with await consumer.get():
            nsqds[B].send(message_frame(2))
            async with await consumer.get():
                nsqds[B].sent()
                await clock.advance(1.5)
                assert [b"TOUCH %016x" % 2] == nsqds[B].sent()
                nsqds[A].sent()
                await clock.advance(29)
                assert [b"TOUCH %016x" % 1] == nsqds[A].sent()
        for nsqd in (A, B):
            nsqds[nsqd].send(CLOSE_WAIT)


@consuming
async def test_giving_up_has_the_time_it_needs(clock, nsqds, make):
    """The time limit of who asks is for waiting."""
    go_on = asyncio.Event()
    buried = []

    async def bury(message):
        await go_on.wait()
        buried.append(message.id)

    async with made(make, max_attempts=1, on_giving_up=bury) as consumer:
        await settle()
        nsqds[A].send(message_frame(1, attempts=2))
        getting = asyncio.ensure_future(consumer.get(timeout=0))
        await settle()
        assert not getting.done()
        go_on.set()
        assert await getting is None
        assert 1 == len(buried)
        nsqds[A].send(CLOSE_WAIT)


@consuming
async def test_nothing_is_touched_if_that_is_off(clock, nsqds, make):
    """`auto_touch=False`."""
    async with made(make, auto_touch=False) as consumer:
        await settle()
        nsqds[A].send(message_frame(1))
        async with await consumer.get():
            nsqds[A].link.heard_at = clock.now() + 1000
            nsqds[A].sent()
            await clock.advance(50)
            assert [] == nsqds[A].sent()
        nsqds[A].send(CLOSE_WAIT)
