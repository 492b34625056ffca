"""Answers that may be long: made while they are sent, a slice at a time, so that nothing else waits for them.

Their endpoint gives pieces: an iterator that does little for each (a fraction of SLICE). All long answers of a daemon
share its `Slices`: however many are asked for at once, each pass of the event loop works for one slice. No more of an
answer is held than PIECE bytes and what the transport takes; a client that reads slowly slows down nobody but itself.

An answer that is not long after all looks like any other; else it is chunked. HTTP/1.0 has no chunks: its answers are
put together first, and must not be too long for that.
"""

import asyncio
import heapq
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from time import perf_counter
from typing import Final

from starlette.types import Receive, Scope, Send

from nsqkit.web.answers import JSON, NSQ, TEXT, Answer, Header, Style, refusal
from nsqkit.web.errors import VersionNotSupported

SLICE: Final = 0.001
"""Seconds of work in one pass of the loop."""

PIECE: Final = 65_536
"""Bytes that are sent at once; shorter answers are sent whole."""

MAX_WHOLE: Final = 16_777_216
"""Bytes of an answer that is put together; a longer one is refused."""

RUN: Final = 1000
"""Names that are sorted in one step."""

CONNECTION: Final = "nsqkit.connection"
"""The key of a request's scope that holds its transport, which tells whether there is still somebody to answer."""


class Slices:
    """Shares out the event loop among long pieces of work: one slice in each pass, whoever came first first.

    `note` hears of each pass that has one, so that it can be measured.
    """

    def __init__(self, note: Callable[[], None] = lambda: None) -> None:
        self._note = note
        self._gate = asyncio.Lock()

    async def turn(self) -> None:
        """Return in a later pass of the loop, in which nobody else has a slice."""
        async with self._gate:
            await asyncio.sleep(0)
            self._note()


class Pieces:
    """The pieces of one answer, put together to what is sent at once."""

    def __init__(self, slices: Slices, pieces: Iterator[bytes]) -> None:
        self.ended = False
        self._slices = slices
        self._pieces = pieces

    async def next(self) -> bytes:
        """Some PIECE bytes, or what is left; `ended` tells that this is the last."""
        parts: list[bytes] = []
        size = 0
        while size < PIECE and not self.ended:
            await self._slices.turn()
            end = perf_counter() + SLICE
            for part in self._pieces:
                parts.append(part)
                size += len(part)
                if size >= PIECE or perf_counter() >= end:
                    break
            else:
                self.ended = True
        return b"".join(parts)


class LongAnswer(Answer):
    """A response whose first piece is there; the rest is made while it is sent."""

    __slots__ = ("_pieces",)

    def __init__(self, first: bytes, pieces: Pieces, content_type: str, headers: Sequence[Header]) -> None:
        super().__init__(200, first, content_type, headers)
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        if scope.get("http_version") == "1.0":
            await self._send_whole(scope, receive, send)
            return
        headers = [header for header in self.headers if header[0] != b"content-length"]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        connection = scope.get(CONNECTION)
        piece = self.body
        while connection is None or not connection.is_closing():
            last = self._pieces.ended
            await send({"type": "http.response.body", "body": piece, "more_body": not last})
            if last:
                return
            piece = await self._pieces.next()

    async def _send_whole(self, scope: Scope, receive: Receive, send: Send) -> None:
        parts = [self.body]
        size = len(self.body)
        while not self._pieces.ended:
            parts.append(await self._pieces.next())
            size += len(parts[-1])
            if size > MAX_WHOLE:
                await refusal(VersionNotSupported("ANSWER_TOO_LONG: ask with HTTP/1.1"), Style.NSQ)(
                    scope, receive, send
                )
                return
        headers = [header for header in self.headers if header[0] not in {b"content-length", b"content-type"}]
        content_type = dict(self.headers)[b"content-type"].decode()
        await Answer(self.status, b"".join(parts), content_type, headers)(scope, receive, send)


async def long_json(slices: Slices, pieces: Iterator[bytes]) -> Answer:
    """The answer whose JSON these pieces are. What the first of them raise is raised here."""
    return await long_answer(slices, pieces, JSON)


async def long_text(slices: Slices, pieces: Iterator[bytes]) -> Answer:
    """The answer whose text these pieces are."""
    return await long_answer(slices, pieces, TEXT)


async def long_answer(slices: Slices, pieces: Iterator[bytes], content_type: str) -> Answer:
    """The answer of another type."""
    source = Pieces(slices, pieces)
    first = await source.next()
    if source.ended:
        return Answer(200, first, content_type, [NSQ])
    return LongAnswer(first, source, content_type, [NSQ])


def in_order(names: Iterable[str]) -> Generator[bytes, None, Iterator[str]]:
    """Names in their order, from within an iterator of pieces (with `yield from`), which sorting gives empty ones."""
    rest = list(names)
    runs: list[list[str]] = []
    for at in range(0, len(rest), RUN):
        runs.append(sorted(rest[at : at + RUN]))
        yield b""
    return heapq.merge(*runs) if len(runs) > 1 else iter(runs[0] if runs else ())
