"""MPUB bodies: `CommandReader.batch` over TCP and `/mpub?binary=true` over HTTP, against one plain reading.

Input: a byte for the way to cut, one for the mode. Mode 0: the rest is the body. Other modes: the rest is a list of
message sizes, from which a body of up to some hundred kilobytes is made, maybe with one byte of it changed.
"""

from typing import Final

from nsqkit.nsqd.web.publishing import _lines, _unpack
from nsqkit.web.errors import TooLarge
from nsqkit.wire.commands import CommandReader
from nsqkit.wire.errors import ClientError
from tests.fuzz.source import Source, same, ways
from tests.fuzz.targets.commands import Event, batch_of

MAX_MESSAGE: Final = 70_000
MAX_BODY: Final = 200_000


def check(data: bytes) -> None:
    """Both ways in agree with a plain reading; what is taken splits into the same messages again."""
    source = Source(data)
    seed = source.byte()
    body = _built(source) if source.byte() & 1 else source.rest()
    expected, end = batch_of(body, 0, MAX_MESSAGE, MAX_BODY)
    for chunks in ways(body, seed) if len(body) < 5000 else [[body], _blocks(body, seed)]:
        assert expected == _read(chunks, end)
    _check_http(body[4:])
    _check_lines(body)


def _built(source: Source) -> bytes:
    """A body of messages whose sizes are in the input."""
    damage = source.number()
    change = source.byte()
    messages: list[bytes] = []
    while source and len(messages) < 400 and sum(map(len, messages)) < MAX_BODY + MAX_MESSAGE:
        kind = source.byte()
        size = source.number() % (MAX_MESSAGE + 2) if kind & 1 else kind >> 1
        messages.append(size.to_bytes(4, "big") + bytes([kind]) * size)
    content = len(messages).to_bytes(4, "big") + b"".join(messages)
    body = bytearray(len(content).to_bytes(4, "big") + content)
    body[damage % len(body)] ^= change
    return bytes(body)


def _blocks(body: bytes, seed: int) -> list[bytes]:
    size = 1 + seed * 331
    return [body[at : at + size] for at in range(0, len(body), size)]


def _read(chunks: list[bytes], end: int) -> Event:
    reader = CommandReader()
    fed = 0
    for number, chunk in enumerate(chunks):
        fed += len(chunk)
        if not reader.feed(chunk):
            continue
        try:
            messages = reader.batch(MAX_MESSAGE, MAX_BODY)
        except ClientError as error:
            return type(error).__name__, str(error)
        if messages is not None:
            left = sum(map(len, chunks[number + 1 :]))
            assert fed - reader.pending() == end
            assert left == 0 or fed >= end
            return "batch", (int(reader.batch_count), messages)
        held = reader.pending() + sum(map(len, reader._batch_parts))
        assert held <= MAX_BODY + 8 + len(chunk)
    assert reader.batch_fault().startswith("E_BAD_")
    return "rest", "M"


def _check_http(body: bytes) -> None:
    expected, _ = batch_of(len(body).to_bytes(4, "big") + body, 0, MAX_MESSAGE, MAX_BODY)
    try:
        data, count = _unpack(body, MAX_MESSAGE, MAX_BODY)
    except TooLarge as error:
        missing = "BAD_BODY" if len(body) < 4 else "BAD_MESSAGE"
        texts = {"BadBody": "BAD_BODY", "BadMessage": "BAD_MESSAGE", "rest": missing}
        same(texts[expected[0]], error.text)
    else:
        assert ("batch", (count, data)) == expected


def _check_lines(body: bytes) -> None:
    lines = [line for line in body.split(b"\n") if line]
    try:
        data, count = _lines(body, MAX_MESSAGE)
    except TooLarge as error:
        same("MSG_TOO_BIG", error.text)
        assert any(len(line) > MAX_MESSAGE for line in lines)
    else:
        assert data == b"".join(len(line).to_bytes(4, "big") + line for line in lines)
        assert count == len(lines)
