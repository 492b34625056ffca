"""A message and its answers, and the inbox in which it waits."""

import asyncio
from datetime import timedelta

import pytest

from nsqkit.client.link import Link
from nsqkit.client.message import BACK_OFF, CONTINUE, RESUME, Inbox
from nsqkit.errors import AlreadyAnswered, RequeueMessage
from nsqkit.options.duration import Duration
from tests.client.wires import Wire, message_frame


class Place:
    """An inbox with one link, a wire, and a clock that is set by hand."""

    def __init__(self):
        self.time = 100.0
        self.inbox = Inbox("orders", "billing", lambda: self.time, lambda d: Duration.of(d).milliseconds)
        self.answers: list[int] = []
        self.inbox.on_answer = self.answers.append
        self.late: list[tuple[str, str]] = []
        self.inbox.on_late = lambda what, message: self.late.append((what, message.id))
        self.link, self.wire = self.connect()

    def connect(self):
        """One more link."""
        link = Link("here:4150", lambda: self.time, 0, self.inbox)
        wire = Wire()
        link.connection_made(wire)
        link.begin()
        return link, wire

    def receive(self, number=1, body=b"body", attempts=1, link=None):
        """The message, handed out."""
        (link or self.link).data_received(message_frame(number, body, attempts))
        return self.inbox.take()

    def written(self):
        """What went to nsqd since it was asked last."""
        self.link.flush()
        return self.wire.take()


def within_loop(test):
    """Run the test in a loop, with a place of its own."""

    def run():
        async def inside():
            outcome = test(Place())
            if outcome is not None:
                await outcome

        asyncio.run(inside())

    run.__doc__ = test.__doc__
    run.__name__ = test.__name__
    return run


@within_loop
async def test_a_message_says_where_it_is_from(place):
    """Its fields are what nsqd sent, and the connection's."""
    message = place.receive(0xAB, b'{"a": 1}', attempts=3)

    assert "00000000000000ab" == message.id
    assert ("orders", "billing", "here:4150") == (message.topic, message.channel, message.nsqd)
    assert (1_700_000_000_000_000_171, 3, 100.0) == (message.timestamp, message.attempts, message.received_at)
    assert {"a": 1} == message.json()
    assert "<Message 00000000000000ab of orders/billing, 8 bytes, attempt 3>" == repr(message)
    assert not message.answered
    assert not message.expired
    place.time += 60.5
    assert message.expired


@within_loop
async def test_an_answer_needs_no_await_and_can_be_awaited(place):
    """Both send it."""
    place.receive(1).finish()
    await place.receive(2).finish()
    await place.receive(3).requeue(timedelta(seconds=2), backoff=False)
    place.receive(4).requeue("1m")
    message = place.receive(5)
    await message.touch()

    assert (
        b"FIN 0000000000000001\nFIN 0000000000000002\nREQ 0000000000000003 2000\n"
        b"REQ 0000000000000004 60000\nTOUCH 0000000000000005\n"
    ) == place.written()
    assert [CONTINUE, BACK_OFF] == place.answers
    assert (2, 2, 1) == (place.inbox.finished, place.inbox.requeued, place.inbox.touched)


@within_loop
async def test_a_second_answer_is_an_error(place):
    """Whatever the first one was; and nothing is sent."""
    message = place.receive()
    message.requeue(0)
    place.written()

    for again in (message.finish, message.requeue, message.touch):
        with pytest.raises(AlreadyAnswered, match="0000000000000001"):
            again()
    assert b"" == place.written()


@pytest.mark.parametrize("delay", [-1, "-1s", "soon", float("nan")])
def test_a_delay_that_makes_no_sense_is_refused(delay):
    """And the message may still be answered."""

    @within_loop
    async def test(place):
        message = place.receive()
        with pytest.raises(ValueError):
            message.requeue(delay)
        message.finish()

    test()


@within_loop
async def test_the_delay_grows_with_the_attempts(place):
    """90 s for each, up to 15 minutes."""
    for attempts in (1, 2, 20):
        place.receive(1, attempts=attempts).requeue()

    lines = place.written().split(b"\n")[:-1]
    assert [b"90000", b"180000", b"900000"] == [line.split()[2] for line in lines]


@within_loop
async def test_a_block_finishes_its_message(place):
    """Unless it was answered inside."""
    async with place.receive(1) as message:
        assert message.body == b"body"
    async with place.receive(2) as message:
        message.requeue(0)

    assert b"FIN 0000000000000001\nREQ 0000000000000002 0\n" == place.written()
    assert {} == place.link.busy


@within_loop
async def test_what_has_waited_for_long_is_touched_when_its_block_begins(place):
    """Its time must not end before somebody looks."""
    place.link.data_received(message_frame(1) + message_frame(2))
    place.time += 20
    async with place.inbox.take():
        place.time += 15
        assert b"" == place.written()
        async with place.inbox.take() as message:
            assert b"TOUCH 0000000000000002\n" == place.written()
            assert place.time + 60 == message.deadline


@within_loop
async def test_a_block_that_fails_requeues_its_message(place):
    """An exception goes on; RequeueMessage says how and ends there; who is cancelled gives back at once."""
    with pytest.raises(KeyError):
        async with place.receive(1):
            raise KeyError
    async with place.receive(2):
        raise RequeueMessage(delay=7, backoff=False)
    with pytest.raises(asyncio.CancelledError):
        async with place.receive(3):
            raise asyncio.CancelledError
    with pytest.raises(KeyError):  # noqa: PT012 - it is answered before
        async with place.receive(4) as message:
            message.finish()
            raise KeyError

    assert (
        b"REQ 0000000000000001 90000\nREQ 0000000000000002 7000\nREQ 0000000000000003 0\nFIN 0000000000000004\n"
    ) == place.written()
    assert [BACK_OFF, CONTINUE, CONTINUE] == place.answers


@within_loop
async def test_finishing_is_reported_to_who_is_attentive(place):
    """A healthy consumer is not told of each; one in back-off is."""
    place.receive().finish()
    place.inbox.attentive = True
    place.receive().finish()

    assert [RESUME] == place.answers


@within_loop
async def test_an_answer_after_the_connection_was_lost_is_reported(place):
    """nsqd has given the message to somebody else, so nothing is sent, and nothing raised."""
    first, second, third = (place.receive(number) for number in (1, 2, 3))
    place.link.connection_lost(None)

    first.finish()
    second.requeue()
    third.touch()

    assert [
        ("finished", first.id),
        ("requeued", second.id),
        ("touched", third.id),
    ] == place.late
    assert first.expired
    assert (0, 0, 3) == (place.inbox.finished, place.inbox.requeued, place.inbox.late)


@within_loop
async def test_what_waited_for_too_long_is_not_handed_out(place):
    """nsqd has given it to somebody else: to handle it here would be to handle it twice."""
    place.link.data_received(message_frame(1))
    place.time += 59
    place.link.data_received(message_frame(2))
    place.time += 2

    assert "0000000000000002" == place.inbox.take().id
    assert place.inbox.take() is None
    assert 1 == place.inbox.expired
    assert [("", "0000000000000001")] == place.late


@within_loop
async def test_a_lost_connection_takes_what_was_not_handed_out_with_it(place):
    """What came by another connection stays."""
    other, _ = place.connect()
    place.link.data_received(message_frame(1))
    other.data_received(message_frame(2))
    place.link.connection_lost(None)

    assert "0000000000000002" == place.inbox.take().id
    assert place.inbox.take() is None


@within_loop
async def test_what_was_not_handed_out_can_be_given_back(place):
    """It comes again at once, to anybody."""
    place.link.data_received(message_frame(1) + message_frame(2))

    assert 2 == place.inbox.give_back()
    assert b"REQ 0000000000000001 0\nREQ 0000000000000002 0\n" == place.written()


@within_loop
async def test_as_many_wake_as_messages_came(place):
    """Others go on waiting; one who was woken and cancelled wakes another."""
    waiters = [asyncio.ensure_future(place.inbox.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    place.link.data_received(message_frame(1))
    waiters[0].cancel()
    await asyncio.wait(waiters[:2])

    assert [True, False, False] == [waiters[0].cancelled(), waiters[1].cancelled(), waiters[2].done()]
    place.inbox.wake_all()
    await waiters[2]


@within_loop
async def test_who_waits_no_longer_leaves_nothing_behind(place):
    """A program that asks with a time limit, again and again, does not grow."""
    for _ in range(5):
        waiter = asyncio.ensure_future(place.inbox.wait())
        await asyncio.sleep(0)
        waiter.cancel()
        await asyncio.wait((waiter,))

    assert 0 == len(place.inbox._waiters)


@within_loop
async def test_a_closed_inbox_hands_out_nothing(place):
    """What comes then is given back."""
    place.inbox.closed = True

    assert place.receive() is None
    assert 1 == place.inbox.give_back()
