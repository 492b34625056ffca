"""Commands cut out of a stream that arrives in any pieces."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsqkit.wire.commands import MAX_LINE, CommandReader, parse_number
from nsqkit.wire.errors import BadBody, BadMessage, ClientError, LineTooLong

MAX_MESSAGE, MAX_BODY = 1000, 5000
FIN = b"FIN 0123456789abcdef\n"


def sized(*bodies: bytes) -> bytes:
    """Each body after its size."""
    return b"".join(struct.pack(">i", len(body)) + body for body in bodies)


def batch(*bodies: bytes, size: int | None = None) -> bytes:
    """The body of an MPUB, with its own size or a wrong one."""
    messages = sized(*bodies)
    return struct.pack(">ii", len(messages) + 4 if size is None else size, len(bodies)) + messages


def read(chunks: list[bytes], step) -> tuple[object, bytes]:
    """What `step` gives for a reader fed with chunks, as soon as it gives something; and what is left."""
    reader = CommandReader()
    result = None
    for chunk in chunks:
        if reader.feed(chunk) and result is None:
            result = step(reader)
    left = reader.take(reader.pending())
    assert left is not None
    return result, left


@pytest.mark.parametrize(
    "sent, line",
    [
        (b"NOP\n", b"NOP"),
        (b"NOP\r\n", b"NOP"),
        (b"NOP\r\r\n", b"NOP\r"),
        (b"\n", b""),
        (b"\r\n", b""),
        (b"SUB a b \n", b"SUB a b "),
        (b"x" * (MAX_LINE - 1) + b"\n", b"x" * (MAX_LINE - 1)),
    ],
)
def test_line(chunks, sent, line):
    """A line ends at LF, and one CR before it is dropped."""
    found, left = read(chunks(sent), lambda reader: reader.line())

    assert line == found
    assert left in (b"", b"TAIL")


@pytest.mark.parametrize("tail", [b"", b"x", b"\n"])
def test_line_too_long(tail):
    """MAX_LINE bytes without an end can't become a line, whatever follows."""
    reader = CommandReader()
    reader.feed(b"x" * (MAX_LINE - 1))
    assert reader.line() is None

    reader.feed(b"x" + tail)

    with pytest.raises(LineTooLong):
        reader.line()


def test_take(chunks):
    """Bytes of a known number are given when all are there."""
    found, left = read(chunks(b"0123456789"), lambda reader: reader.take(10))

    assert b"0123456789" == found
    assert left in (b"", b"TAIL")


def test_feed_tells_whether_it_is_worth_looking():
    """While a long body is incomplete, its chunks are only collected."""
    reader = CommandReader()
    reader.feed(b"ab")
    assert reader.take(6) is None

    useful = [reader.feed(chunk) for chunk in (b"c", b"de", b"fg")]

    assert [False, False, True] == useful
    assert b"abcdef" == reader.take(6)
    assert 1 == reader.pending()


def test_discard():
    """Nothing is left of what was discarded, and nothing is waited for."""
    reader = CommandReader()
    reader.feed(b"abc")
    reader.take(100)
    reader.feed(b"def")

    reader.discard()

    assert 0 == reader.pending()
    assert reader.feed(b"NOP\n")
    assert b"NOP" == reader.line()


def test_sizes_are_signed():
    """A size is a signed number, and looking at it does not consume it."""
    reader = CommandReader()
    reader.feed(b"\xff\xff\xff")
    assert not reader.has(4)

    reader.feed(b"\xfb")

    assert reader.has(4)
    assert -5 == reader.peek_size()
    assert 4 == reader.pending()


# -- FIN


def test_finish_id():
    """A complete FIN line gives its id."""
    reader = CommandReader()
    reader.feed(FIN + b"FIN")

    assert b"0123456789abcdef" == reader.finish_id()
    assert 3 == reader.pending()


@pytest.mark.parametrize(
    "line",
    [
        b"FIN 0123456789abcde\r\n",
        b"FIN 0123456789abcdef\r\n",
        b"FIN 0123456789abcdef0\n",
        b"FIN 0123456789abcdef x\n",
        b"FIN 0123456 89abcdef\n",
        b"FIN 0123456\nNOP\nNOP\n\n",
        b"FIN\n0123456789abcdef\n",
        b"REQ 0123456789abcdef\n",
        b"fin 0123456789abcdef\n",
        FIN[:-1],
    ],
)
def test_other_lines_are_no_finish_id(line):
    """Whatever is not exactly a FIN with 16 digits is left for `line`."""
    reader = CommandReader()
    reader.feed(line)

    assert reader.finish_id() is None
    assert len(line) == reader.pending()


# -- MPUB


def read_batch(reader: CommandReader) -> tuple[bytes, int] | bytes | None:
    """The batch and its count, or the error frame it is answered with."""
    try:
        messages = reader.batch(MAX_MESSAGE, MAX_BODY)
    except ClientError as error:
        reader.discard()
        return error.frame_payload()
    return None if messages is None else (messages, int(reader.batch_count))


@pytest.mark.parametrize(
    "bodies",
    [[b"one"], [b"one", b"two", b"x" * MAX_MESSAGE], [b"x"] * ((MAX_BODY - 4) // 5)],
    ids=["one", "three", "as many as possible"],
)
def test_batch(chunks, bodies):
    """The messages come out with their sizes, and the number of them."""
    found, left = read(chunks(batch(*bodies)), read_batch)

    assert (sized(*bodies), len(bodies)) == found
    assert left in (b"", b"TAIL")


@pytest.mark.parametrize("size", [1, 15, 17, MAX_BODY])
def test_wrong_body_size_does_not_matter(chunks, size):
    """The size before a batch is not what ends it."""
    found, left = read(chunks(batch(b"one", b"two", size=size)), read_batch)

    assert (sized(b"one", b"two"), 2) == found
    assert left in (b"", b"TAIL")


@pytest.mark.parametrize("chunk_size", [1000, 30_000, 65_537, 200_000])
@pytest.mark.parametrize("size", [5, 100_000, 150_004, 200_000])
def test_wrong_size_of_a_long_batch(chunk_size, size):
    """Even a long batch in pieces ends where its last message ends, whatever size it claims."""
    bodies = [b"x" * 1000] * 149 + [b"y" * 400]
    stream = batch(*bodies, size=size)
    reader = CommandReader()
    found = None

    for at in range(0, len(stream), chunk_size):
        assert found is None
        if reader.feed(stream[at : at + chunk_size]):
            found = reader.batch(MAX_MESSAGE, 200_000)

    assert sized(*bodies) == found


@pytest.mark.parametrize(
    "body, error",
    [
        (struct.pack(">i", 0), b"E_BAD_BODY MPUB invalid body size 0"),
        (struct.pack(">i", -5), b"E_BAD_BODY MPUB invalid body size -5"),
        (struct.pack(">i", MAX_BODY + 1), b"E_BAD_BODY MPUB body too big 5001 > 5000"),
        (struct.pack(">ii", 100, 0), b"E_BAD_BODY MPUB invalid message count 0"),
        (struct.pack(">ii", 100, -1), b"E_BAD_BODY MPUB invalid message count -1"),
        (struct.pack(">ii", 100, 1000), b"E_BAD_BODY MPUB invalid message count 1000"),
        (struct.pack(">iii", 100, 1, 0), b"E_BAD_MESSAGE MPUB invalid message(0) body size 0"),
        (struct.pack(">iii", 100, 1, -7), b"E_BAD_MESSAGE MPUB invalid message(0) body size -7"),
        (struct.pack(">iii", 100, 1, 1001), b"E_BAD_MESSAGE MPUB message too big 1001 > 1000"),
        (
            struct.pack(">ii", 100, 3) + sized(b"a", b"b", b""),
            b"E_BAD_MESSAGE MPUB invalid message(2) body size 0",
        ),
    ],
)
def test_bad_batch(chunks, body, error):
    """A rule that is broken is named as soon as the bytes that break it are there."""
    found, _ = read(chunks(body), read_batch)

    assert error == found


def test_batch_is_limited_whatever_size_it_claims():
    """A batch that is longer than max-body-size is refused, also when it claims to be short."""
    reader = CommandReader()
    reader.feed(batch(*[b"x" * MAX_MESSAGE] * 6, size=100))

    with pytest.raises(BadBody, match=r"MPUB body too big 5024 > 5000"):
        reader.batch(MAX_MESSAGE, MAX_BODY)


@pytest.mark.parametrize(
    "part, fault",
    [
        (b"", "E_BAD_BODY MPUB failed to read body size"),
        (b"\0\0\0", "E_BAD_BODY MPUB failed to read body size"),
        (b"\0\0\0\x20", "E_BAD_BODY MPUB failed to read message count"),
        (b"\0\0\0\x20\0\0\0\x02", "E_BAD_MESSAGE MPUB failed to read message(0) body size"),
        (b"\0\0\0\x20\0\0\0\x02\0\0\0", "E_BAD_MESSAGE MPUB failed to read message(0) body size"),
        (b"\0\0\0\x20\0\0\0\x02\0\0\0\x03ab", "E_BAD_MESSAGE MPUB failed to read message body"),
        (b"\0\0\0\x20\0\0\0\x02\0\0\0\x03abc\0", "E_BAD_MESSAGE MPUB failed to read message(1) body size"),
    ],
)
def test_batch_cut_short(part, fault):
    """What a batch lacks at the end of the input is named as NSQ does."""
    reader = CommandReader()
    reader.feed(part)
    assert reader.batch(MAX_MESSAGE, MAX_BODY) is None

    assert fault == reader.batch_fault()


@given(st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=8), st.data())
def test_any_split_of_a_batch(bodies, data):
    """However a batch is cut, the same messages come out."""
    stream = batch(*bodies)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))

    found, left = read(
        [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)], read_batch
    )

    assert ((sized(*bodies), len(bodies)), b"") == (found, left)


@given(st.binary(max_size=100), st.data())
def test_any_split_of_garbage(garbage, data):
    """Bytes that are no batch give the same error in whatever pieces they come."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(garbage)))))

    whole, _ = read([garbage], read_batch)
    split, _ = read(
        [garbage[a:b] for a, b in zip([0, *cuts], [*cuts, len(garbage)], strict=True)], read_batch
    )

    assert whole == split


def test_several_batches():
    """One batch after the other is read, and nothing of the first is left in the second."""
    reader = CommandReader()
    stream = batch(b"a", b"bb") + batch(b"ccc")
    found = []

    for index in range(len(stream)):
        reader.feed(stream[index : index + 1])
        messages = reader.batch(MAX_MESSAGE, MAX_BODY)
        if messages is not None:
            found.append((messages, int(reader.batch_count)))

    assert [(sized(b"a", b"bb"), 2), (sized(b"ccc"), 1)] == found


def test_message_limit():
    """A message in a batch may be as long as allowed, and not a byte longer."""
    reader = CommandReader()
    reader.feed(batch(b"x" * MAX_MESSAGE, b"x" * (MAX_MESSAGE + 1)))

    with pytest.raises(BadMessage, match="MPUB message too big 1001 > 1000"):
        reader.batch(MAX_MESSAGE, MAX_BODY)


# -- numbers


@pytest.mark.parametrize(
    "digits, number",
    [
        (b"", 0),
        (b"0", 0),
        (b"007", 7),
        (b"3600000", 3_600_000),
        (b"0" * 30 + b"1", 1),
        (b"9000000000000000000", 9_000_000_000_000_000_000),
        (b"9223372036854775807", 2**63 - 1),
        (b"9223372036854775808", 2**63 - 1),
        (b"99999999999999999999999", 2**63 - 1),
    ],
)
def test_numbers(digits, number):
    """Digits make a number, no digits make 0, and there is a greatest number."""
    assert number == parse_number(digits)


@pytest.mark.parametrize(
    "text",
    [b"-1", b"+1", b" 1", b"1 ", b"1.0", b"1e3", b"0x1", b"1_0", b"\xb2", b":", b"/", b"9" * 30 + b"x"],
)
def test_no_numbers(text):
    """Signs, spaces and anything else but ASCII digits are refused."""
    assert -1 == parse_number(text)


@given(st.integers(0, 9 * 10**18))
def test_any_number(number):
    """Numbers up to 9 * 10^18 are exact."""
    assert number == parse_number(b"%d" % number)
