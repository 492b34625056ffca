"""Batches: the messages of one publish."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsqkit.nsqd.core.batch import FAILED, KEPT, PENDING, Batch, Publisher, batch_of
from nsqkit.nsqd.core.guid import id_text
from nsqkit.wire.message import NOWHERE, Message

NOW = 1_700_000_000_000_000_000
FIRST_ID = 0x0123456789ABC010

many_bodies = st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=10)


def batch_with(bodies: list[bytes], position: int = NOWHERE) -> Batch:
    """A batch of these messages."""
    data = b"".join(struct.pack(">i", len(body)) + body for body in bodies)
    batch = Batch(data, len(bodies), NOW, NOW + 5, None)
    batch.first_id = FIRST_ID
    batch.first_position = position
    return batch


def messages_of(batch: Batch) -> list[tuple[bytes, bytes, int]]:
    """Id, body and position of each message."""
    found = [batch.message(index, batch.offset_of(index)) for index in range(int(batch.count))]
    assert all((NOW, 0, True) == (m.timestamp, m.attempts, m.loaded) for m in found)
    return [(m.id, m.body, m.position) for m in found]


class Receipts(Publisher):
    """A publisher that notes what it is told."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, str]] = []

    def settled(self, batch: Batch) -> None:
        """Note it."""
        self.seen.append((batch.state, batch.cause))


@given(many_bodies, st.sampled_from([NOWHERE, 0, 7]))
def test_messages(bodies, position):
    """Messages have consecutive ids and, if the batch has any, consecutive positions."""
    expected = [
        (id_text(FIRST_ID + i), body, NOWHERE if position == NOWHERE else position + i)
        for i, body in enumerate(bodies)
    ]

    assert expected == messages_of(batch_with(bodies, position))


@given(many_bodies, st.sampled_from([NOWHERE, 0, 7]), st.data())
def test_part(bodies, position, data):
    """A part has its messages' ids, positions and due time."""
    whole = batch_with(bodies, position)
    start = data.draw(st.integers(0, len(bodies) - 1))
    stop = data.draw(st.integers(start + 1, len(bodies)))

    part = whole.part(start, stop)

    assert messages_of(whole)[start:stop] == messages_of(part)
    assert (stop - start, NOW, NOW + 5) == (part.count, part.timestamp, part.due)
    assert sum(map(len, bodies[start:stop])) == part.body_bytes()


def test_part_that_is_everything():
    """The whole batch is no new object."""
    whole = batch_with([b"a", b"b"])

    assert whole is whole.part(0, 2)


@pytest.mark.parametrize("carried", [False, True])
def test_part_of_a_carried_batch(carried):
    """A part is as carried, and as safe, as the whole."""
    whole = batch_with([b"a", b"b"], 3)
    whole.carried = carried
    whole.settle(KEPT, "")

    part = whole.part(1, 2)

    assert (carried, KEPT) == (part.carried, part.state)


def test_copy():
    """A copy has the message's id, time and due time, and no position yet."""
    copy = batch_with([b"a", b"bb", b"c"], 3).copy(1)

    assert [(id_text(FIRST_ID + 1), b"bb", NOWHERE)] == messages_of(copy)
    assert (1, NOW + 5, True, KEPT) == (copy.count, copy.due, copy.carried, copy.state)


def test_batch_of_a_message():
    """A single message becomes a batch that gives it back."""
    message = Message(b"0123456789abcdef", NOW, 3, b"body", NOWHERE)

    batch = batch_of(message, NOW + 9)

    assert [(b"0123456789abcdef", b"body", NOWHERE)] == messages_of(batch)
    assert (NOW, NOW + 9, True) == (batch.timestamp, batch.due, batch.carried)


@pytest.mark.parametrize("state, cause", [(KEPT, ""), (FAILED, "disk full")])
def test_settling(state, cause):
    """The publisher is told once, and then forgotten."""
    receipts = Receipts()
    batch = Batch(b"\0\0\0\1a", 1, NOW, 0, receipts)
    assert PENDING == batch.state

    batch.settle(state, cause)

    assert [(state, cause)] == receipts.seen
    assert batch.publisher is None
