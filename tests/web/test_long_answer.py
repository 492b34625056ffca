"""Answers that are made while they are sent."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from nsqkit.web.errors import BadRequest
from nsqkit.web.long_answer import CONNECTION, PIECE, RUN, Slices, in_order, long_text


class Connection:
    """A transport, closed after so many messages."""

    def __init__(self, most: int) -> None:
        self.sent: list[dict[str, Any]] = []
        self.most = most

    def is_closing(self) -> bool:
        """Is the client gone?"""
        return len(self.sent) >= self.most

    async def send(self, message: Any) -> None:
        """Take a message."""
        self.sent.append(message)


async def never() -> Any:
    """Nobody sends anything."""
    raise AssertionError


def answered(pieces: Iterator[bytes], *, version: str = "1.1", most: int = 1000) -> list[dict[str, Any]]:
    """What is sent to a client that leaves after so many messages."""

    async def serve() -> list[dict[str, Any]]:
        connection = Connection(most)
        answer = await long_text(Slices(), pieces)
        await answer({"http_version": version, CONNECTION: connection}, never, connection.send)
        return connection.sent

    return asyncio.run(serve())


def lengths(sent: list[dict[str, Any]]) -> list[bytes]:
    """The values of Content-Length."""
    return [value for name, value in sent[0]["headers"] if name == b"content-length"]


def test_short_answer_has_a_length():
    """What fits into one piece looks like any other answer."""
    start, body = answered(iter([b"one ", b"", b"two"]))

    assert (200, [b"7"]) == (start["status"], lengths([start]))
    assert {"type": "http.response.body", "body": b"one two"} == body


def test_long_answer_is_sent_in_pieces():
    """It has no length, and comes in pieces of which none is much longer than PIECE."""
    sent = answered(b"x" * 1000 for _ in range(200))

    bodies = sent[1:]
    assert [] == lengths(sent)
    assert 200_000 == sum(len(message["body"]) for message in bodies)
    assert max(len(message["body"]) for message in bodies) < PIECE + 1000
    assert [True] * (len(bodies) - 1) + [False] == [message["more_body"] for message in bodies]


def test_too_long_for_http_1_0():
    """What is too long to be put together is refused, and HTTP/1.1 named."""
    start, body = answered((b"x" * 65_536 for _ in range(300)), version="1.0")

    assert 505 == start["status"]
    assert b'{"message":"ANSWER_TOO_LONG: ask with HTTP/1.1"}' == body["body"]


def test_long_answer_in_http_1_0():
    """HTTP/1.0 knows no chunks: the answer has a length."""
    start, body = answered((b"x" * 1000 for _ in range(200)), version="1.0")

    assert [b"200000"] == lengths([start])
    assert 200_000 == len(body["body"])


def test_nothing_is_made_for_a_client_that_has_gone():
    """Its answer ends where it is."""
    made: list[int] = []

    def pieces() -> Iterator[bytes]:
        for number in range(1000):
            made.append(number)
            yield b"x" * PIECE

    answered(pieces(), most=3)

    assert 3 == len(made)


def test_error_before_the_answer_begins():
    """What the first piece raises is raised before anything is sent."""

    def pieces() -> Iterator[bytes]:
        yield b""
        raise BadRequest("NO")

    with pytest.raises(BadRequest):
        answered(pieces())


def test_one_slice_in_each_pass_of_the_loop():
    """However many want one, no two have a slice in the same pass, and each has its turn."""

    async def scene() -> list[tuple[str, int]]:
        slices, loop = Slices(), asyncio.get_running_loop()
        passes = 0
        had: list[tuple[str, int]] = []

        def count() -> None:
            nonlocal passes
            passes += 1
            loop.call_soon(count)

        async def want(name: str) -> None:
            for _ in range(5):
                await slices.turn()
                had.append((name, passes))

        loop.call_soon(count)
        await asyncio.gather(*(want(name) for name in "abc"))
        return had

    had = asyncio.run(scene())

    assert len(had) == len({at for _, at in had})
    assert list("abcabcabcabcabc") == [name for name, _ in had]


def test_each_slice_is_noted():
    """In the pass that has it, so that it can be measured."""

    async def scene() -> list[str]:
        said: list[str] = []
        slices = Slices(lambda: said.append("noted"))
        for _ in range(2):
            await slices.turn()
            said.append("had")
        return said

    assert ["noted", "had"] * 2 == asyncio.run(scene())


@pytest.mark.parametrize("count", [0, 1, RUN, 3 * RUN + 1])
def test_names_in_order(count):
    """Any number of names is sorted, with a piece for each run."""
    names = [f"{(number * 7919) % 10007:05}" for number in range(count)]
    pieces = in_order(names)
    empty = []
    try:
        while True:
            empty.append(next(pieces))
    except StopIteration as end:
        ordered = [*end.value]

    assert sorted(names) == ordered
    assert [b""] * -(-count // RUN) == empty
