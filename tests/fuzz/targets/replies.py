"""`ReplyReader` of the registration protocol. Input: a byte for the way to cut, then an nsqlookupd's stream."""

from typing import Final

from nsqkit.wire.registration import BadReply, ReplyReader, encode_reply
from tests.fuzz.source import Source, ways

MAX_SIZE: Final = 300


def check(data: bytes) -> None:
    """Every way to cut gives the same replies; encoded again, they are the stream; memory is bounded."""
    source = Source(data)
    seed = source.byte()
    stream = source.rest()
    expected, error = _reference(stream)
    for chunks in ways(stream, seed):
        found: list[bytes] = []
        raised = False
        reader = ReplyReader(MAX_SIZE)
        for chunk in chunks:
            try:
                found += reader.feed(chunk)
            except BadReply:
                raised = True
                break
            assert len(reader._input) <= MAX_SIZE + 4
        assert error == raised
        assert found == expected or (raised and found == expected[: len(found)])
    assert stream.startswith(b"".join(map(encode_reply, expected)))


def _reference(stream: bytes) -> tuple[list[bytes], bool]:
    replies: list[bytes] = []
    while len(stream) >= 4:
        size = int.from_bytes(stream[:4], "big")
        if size > MAX_SIZE:
            return replies, True
        if len(stream) < 4 + size:
            break
        replies.append(stream[4 : 4 + size])
        stream = stream[4 + size :]
    return replies, False
