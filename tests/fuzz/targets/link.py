"""A client's `Link`. Input: a byte for the publishes that wait, a byte for the way to cut, then a server's stream."""

import asyncio
from typing import Any

from nsqkit.client.link import Link
from nsqkit.client.message import Inbox
from nsqkit.errors import PublishError
from tests.client.wires import Wire
from tests.fuzz.source import Source, ways

MAX_FRAME = 4096


def check(data: bytes) -> None:
    """However the stream is cut, the same messages come, the same publishes fail, and the end has the same reason."""
    source = Source(data)
    waiting = source.byte() % 5
    seed = source.byte()
    stream = source.rest()
    loop = asyncio.new_event_loop()
    try:
        outcomes = [loop.run_until_complete(_outcome(chunks, waiting)) for chunks in ways(stream, seed)]
    finally:
        loop.close()
    assert all(outcome == outcomes[0] for outcome in outcomes)


async def _outcome(chunks: Any, waiting: int) -> object:
    inbox = Inbox("t", "c", lambda: 0.0, lambda _: 0)
    link = Link("n:4150", lambda: 0.0, MAX_FRAME, inbox)
    wire = Wire()
    complaints: list[str] = []
    link.on_complaint = lambda _, text: complaints.append(text)
    link.connection_made(wire)
    link.begin()
    futures = [link.publish(b"PUB t\n", b"x") for _ in range(waiting)]
    link.flush()
    came: list[tuple[str, int, int, bytes]] = []
    for chunk in chunks:
        if link.lost:
            break
        link.data_received(chunk)
        while (message := inbox.take()) is not None:
            came.append((message.id, message.timestamp, message.attempts, message.body))
            message.finish()
    link.flush()
    assert link.lost == wire.closed
    assert not link.lost or all(future.done() for future in futures)
    fates = [_fate(future) for future in futures]
    nops = wire.written.count(b"NOP\n") if not link.lost else -1
    # What comes in one chunk with the reason for the end is lost with the connection, as nsqd sends it again.
    return (came if not link.lost else None), fates, complaints, link.reason, nops


def _fate(future: asyncio.Future[None]) -> str:
    if not future.done():
        return "open"
    error = future.exception()
    assert error is None or isinstance(error, PublishError)
    return "ok" if error is None else f"{type(error).__name__}: {error}"
