"""One connection: replies, messages, commands, and how it ends."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsqkit.client.link import HIGH_WATER, PIECES, Link
from nsqkit.client.message import Inbox
from nsqkit.errors import ConnectionFailed, NotSent, OutcomeUnknown, PublishError, Refused
from nsqkit.wire.compression import Snappy
from tests.client.wires import HEARTBEAT, OK, Wire, error, frame, message_frame


def made(max_frame=0, inbox=None, begun=True):
    """A link on a wire; in a running loop."""
    link = Link("here:4150", lambda: 0.0, max_frame, inbox)
    wire = Wire()
    link.connection_made(wire)
    if begun:
        link.begin()
    return link, wire


def an_inbox():
    """An inbox whose clock stands at 0."""
    return Inbox("orders", "billing", lambda: 0.0, lambda _: 1)


async def outcome(future):
    """What a publish came to: None, or the kind of error."""
    try:
        await future
    except PublishError as error:
        return type(error)
    return None


def run(test):
    """Run an async function."""
    return asyncio.run(test())


@given(st.lists(st.integers(1, 60), max_size=30))
def test_a_stream_means_the_same_however_it_is_cut(cuts):
    """Replies, heartbeats and messages are taken from chunks of any size."""
    stream = (
        message_frame(1, b"")
        + HEARTBEAT
        + OK
        + message_frame(2, b"two" * 30, attempts=300)
        + error("E_FIN_FAILED FIN 0 failed")
        + OK
        + message_frame(3)
    )

    async def test():
        inbox = an_inbox()
        link, wire = made(inbox=inbox)
        published = [link.publish(b"PUB a\n", b"x") for _ in range(2)]
        complaints = []
        link.on_complaint = lambda _, text: complaints.append(text)
        await asyncio.sleep(0)
        wire.take()
        rest = stream
        for cut in cuts:
            link.data_received(rest[:cut])
            rest = rest[cut:]
            if not rest:
                break
        if rest:
            link.data_received(rest)
        await asyncio.sleep(0)

        messages = list(inbox.waiting)
        assert [(b"", 1), (b"two" * 30, 300), (b"body", 1)] == [(m.body, m.attempts) for m in messages]
        assert [f"{n:016x}" for n in (1, 2, 3)] == [m.id for m in messages]
        assert 1_700_000_000_000_000_001 == messages[0].timestamp
        assert all(future.done() for future in published)
        assert ["E_FIN_FAILED FIN 0 failed"] == complaints
        assert b"NOP\n" == wire.take()
        assert not link.lost

    run(test)


def test_commands_of_one_pass_leave_in_one_write():
    """Publishes and answers are written together at the end of the pass."""

    async def test():
        link, wire = made(inbox=an_inbox())
        link.data_received(message_frame(1) + message_frame(2))
        one, two = link.inbox.waiting
        one.finish()
        two.requeue(1.5)
        two_publishes = [link.publish(b"PUB a\n", b"one"), link.publish(b"DPUB a 5\n", bytearray(b"three"))]

        assert b"" == wire.take()
        await asyncio.sleep(0)

        assert (
            b"FIN 0000000000000001\nREQ 0000000000000002 1\nPUB a\n\0\0\0\3oneDPUB a 5\n\0\0\0\5three"
        ) == wire.take()
        link.data_received(OK + OK)
        assert [None, None] == [await outcome(future) for future in two_publishes]
        assert 0 == link.in_flight
        assert 2 == link.published

    run(test)


def test_a_cancelled_publish_keeps_its_place():
    """Its reply is dropped, and the next reply is for the next publish."""

    async def test():
        link, _ = made()
        first, second = link.publish(b"PUB a\n", b"1"), link.publish(b"PUB a\n", b"2")
        first.cancel()
        link.data_received(OK)

        assert not second.done()
        link.data_received(OK)
        assert await outcome(second) is None

    run(test)


def test_an_error_fails_its_own_publish_and_leaves_the_later_ones_unknown():
    """The refused one has nsqd's words; those behind it were sent, and get no answer; what was not sent says so."""

    async def test():
        link, wire = made()
        first, second, third = (link.publish(b"PUB a\n", b"%d" % n) for n in range(3))
        await asyncio.sleep(0)
        fourth = link.publish(b"PUB a\n", b"4")
        link.data_received(OK + error("E_BAD_TOPIC PUB topic name is not valid"))

        assert await outcome(first) is None
        with pytest.raises(Refused) as refused:
            await second
        assert ("E_BAD_TOPIC", "PUB topic name is not valid") == (refused.value.code, refused.value.detail)
        assert OutcomeUnknown == await outcome(third)
        assert NotSent == await outcome(fourth)
        assert wire.closed
        assert link.lost

    run(test)


def test_a_lost_connection_says_of_each_publish_whether_it_was_sent():
    """What left has an unknown outcome; what waits in the buffer was not sent."""

    async def test():
        link, _ = made()
        lost: list[Link] = []
        link.on_lost = lost.append
        sent = link.publish(b"PUB a\n", b"1")
        await asyncio.sleep(0)
        kept = link.publish(b"PUB a\n", b"2")
        link.connection_lost(ConnectionResetError(104, "Connection reset by peer"))

        assert [OutcomeUnknown, NotSent] == [await outcome(sent), await outcome(kept)]
        assert [link] == lost
        assert "connection reset by peer" == link.reason

    run(test)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "it is no nsqd"),
        (b"\0\0\0\3\0\0\0\0", "a frame of 3 bytes"),
        (b"\0\0\1\1\0\0\0\0", "a frame of 257 bytes"),
        (frame(7, b"what"), "a frame of kind 7"),
        (OK, "more than it was asked"),
        (error("E_INVALID no"), "it answered E_INVALID no"),
    ],
)
def test_what_makes_no_sense_ends_the_connection(data, words):
    """The reason says what came."""

    async def test():
        link, wire = made(max_frame=256)
        link.data_received(data)

        assert wire.closed
        assert words in link.reason

    run(test)


def test_publishers_wait_for_room_in_order():
    """No more than max_pending are sent unanswered; an answer lets the next one go, and so does the end."""

    async def test():
        link, _ = made()
        link.max_pending = 2
        link.max_pending_bytes = 10
        link.publish(b"PUB a\n", b"x" * 9)
        assert link.has_room()
        link.publish(b"PUB a\n", b"y")
        assert not link.has_room()
        first, second = link.room(), link.room()
        await asyncio.sleep(0)

        link.data_received(OK)
        await asyncio.sleep(0)

        assert first.done()
        assert not second.done()
        link.abort("enough")
        await second

    run(test)


def test_room_that_is_not_used_goes_to_the_next():
    """Nobody waits for good because somebody else went away, and who did leaves nothing behind."""

    async def test():
        link, _ = made()
        link.max_pending = 1
        link.publish(b"PUB a\n", b"x")
        first, second, third = link.room(), link.room(), link.room()
        link.forget(third)
        link.data_received(OK)
        assert [True, False] == [first.done(), second.done()]

        link.forget(first)

        assert second.done()
        assert not third.done()
        assert 0 == len(link._room_waiters)

    run(test)


def test_a_full_transport_leaves_no_room():
    """While the transport holds too much nothing is to be published, and if nothing leaves it the link ends."""

    async def test():
        link, wire = made()
        link.write_timeout = 0.0
        wire.size = HIGH_WATER + 1
        link.pause_writing()
        assert not link.has_room()
        link.resume_writing()
        assert link.has_room()

        link.pause_writing()
        over = asyncio.Event()
        link.on_lost = lambda _: over.set()
        await over.wait()

        assert "took nothing" in link.reason

    run(test)


def test_handshakes_take_one_reply_at_a_time():
    """What follows a reply is not read before somebody knows which layer it is of."""

    async def test():
        link, _ = made(begun=False)
        server = Snappy()
        server.send(OK)
        link.data_received(frame(0, b"{}") + server.output())

        assert b"{}" == await link.reply()
        link.add_layer(Snappy())
        assert b"OK" == await link.reply()

        waiting = asyncio.ensure_future(link.reply())
        await asyncio.sleep(0)
        link.connection_lost(None)
        with pytest.raises(ConnectionFailed, match="here:4150: it closed the connection"):
            await waiting

    run(test)


def test_an_error_instead_of_a_reply_is_raised():
    """So who shakes hands knows what nsqd said."""

    async def test():
        link, _ = made(begun=False)
        link.data_received(error("E_AUTH_FAILED AUTH failed"))
        with pytest.raises(Refused, match="E_AUTH_FAILED"):
            await link.reply()

    run(test)


def test_much_that_is_compressed_is_taken_in_shares():
    """A chunk that stands for many pieces does not hold the loop; nothing more is read meanwhile."""

    async def test():
        link, wire = made(inbox=an_inbox())
        link.add_layer(Snappy())
        server = Snappy()
        count = PIECES * 2
        for number in range(count):
            server.send(message_frame(number, b"z" * 65536))
        link.data_received(server.output())

        assert not wire.reading
        assert 0 < link.in_flight < count
        while not wire.reading:  # noqa: ASYNC110 - a pass of the loop is what it waits for
            await asyncio.sleep(0)
        assert count == link.in_flight

    run(test)


def test_garbage_in_a_layer_ends_the_connection():
    """The reason is the layer's."""

    async def test():
        link, wire = made()
        link.add_layer(Snappy())
        link.data_received(b"this is no snappy")

        assert wire.closed
        assert link.misled
        assert "snappy" in link.reason

    run(test)
