"""The protocol between nsqd and nsqlookupd."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsqkit.wire.registration import (
    MAGIC,
    OK,
    PING,
    BadReply,
    ReplyReader,
    encode_identify,
    encode_register,
    encode_reply,
    encode_unregister,
)

LIMIT = 1000


def test_commands():
    """Commands are lines; IDENTIFY has a body after its size."""
    assert (b"  V1", b"OK", b"PING\n") == (MAGIC, OK, PING)
    assert b"IDENTIFY\n\0\0\0\2{}" == encode_identify(b"{}")
    assert b"REGISTER t c\n" == encode_register("t", "c")
    assert b"REGISTER t#ephemeral\n" == encode_register("t#ephemeral", "")
    assert b"UNREGISTER t c\n" == encode_unregister("t", "c")
    assert b"UNREGISTER t\n" == encode_unregister("t", "")


def test_replies_are_read(chunks):
    """Replies come out as they went in, however the bytes are cut; what is not whole waits."""
    payloads = [b"OK", b"", b'{"version":"1.3.0"}', b"x" * LIMIT]
    stream = b"".join(map(encode_reply, payloads))
    reader = ReplyReader(LIMIT)

    assert payloads == read(reader, chunks(stream, b"\0\0\0\2O"))


def test_rest_of_a_reply():
    """What was left of one chunk goes on in the next."""
    reader = ReplyReader(LIMIT)

    assert [b"OK"] == reader.feed(b"\0\0\0\2OK\0\0\0")
    assert [] == reader.feed(b"\2O")
    assert [b"OK", b""] == reader.feed(b"K\0\0\0\0")


@pytest.mark.parametrize(
    "size, text",
    [
        (b"\0\0\3\xe9", "a reply of 1001 bytes is over the limit of 1000"),
        (b"\x7f\xff\xff\xff", "a reply of 2147483647 bytes is over the limit of 1000"),
        (b"\xff\xff\xff\xff", "a reply of 4294967295 bytes is over the limit of 1000"),
        (b"HTTP", "a reply of 1213486160 bytes is over the limit of 1000"),
    ],
)
def test_size_that_makes_no_sense(chunks, size, text):
    """A reply over the limit is refused as soon as its size is known; a negative size is a very large one."""
    reader = ReplyReader(LIMIT)

    with pytest.raises(BadReply, match=f"^{text}$"):
        read(reader, chunks(encode_reply(b"OK") + size))


@given(st.lists(st.binary(max_size=LIMIT), max_size=5), st.data())
def test_any_cuts(payloads, data):
    """The replies do not depend on where the stream is cut."""
    stream = b"".join(map(encode_reply, payloads))
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)))))
    reader = ReplyReader(LIMIT)

    pieces = [stream[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True)]

    assert payloads == read(reader, pieces)


def read(reader, chunks):
    """The replies in all chunks."""
    return [reply for chunk in chunks for reply in reader.feed(chunk)]
