"""Snappy and deflate between socket and session."""

import zlib
from contextlib import suppress

import cramjam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsqkit.wire.compression import Deflate, Snappy
from nsqkit.wire.layer import PIECE, Layer, LayerError

IDENTIFIER = b"\xff\x06\x00\x00sNaPpY"

writes = st.lists(st.binary(max_size=2000) | st.integers(0, 200_000).map(bytes), max_size=6)


def deflate() -> Layer:
    """The layer at its default level."""
    return Deflate(6)


def everything(layer: Layer, chunk: bytes) -> bytes:
    """All that a chunk decodes to."""
    layer.received(chunk)
    pieces = []
    while piece := layer.take():
        assert len(piece) <= PIECE
        pieces.append(piece)
    return b"".join(pieces)


def encoded(layer: Layer, text: bytes) -> bytes:
    """What goes out for a text."""
    layer.send(text)
    return layer.output()


@pytest.mark.parametrize("make", [deflate, Snappy])
@given(writes=writes, data=st.data())
def test_round_trip_of_any_split(make, writes, data):
    """What one side encodes comes out of the other side complete, however the stream is cut."""
    sender, receiver = make(), make()
    stream = b"".join(encoded(sender, text) for text in writes)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))

    decoded = [
        everything(receiver, stream[a:b]) for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)
    ]

    assert b"".join(writes) == b"".join(decoded)


@pytest.mark.parametrize("make", [deflate, Snappy])
@given(writes=writes)
def test_every_write_arrives_at_once(make, writes):
    """Each write can be decoded without waiting for the next one."""
    sender, receiver = make(), make()

    for text in writes:
        assert text == everything(receiver, encoded(sender, text))


@pytest.mark.parametrize("make", [deflate, Snappy])
def test_bomb_comes_in_pieces(make):
    """A few bytes that stand for many are decoded a bounded piece at a time."""
    bomb = encoded(make(), bytes(5 * PIECE))

    layer = make()
    layer.received(bomb)

    assert bytes(PIECE) == layer.take()
    assert bytes(4 * PIECE) == everything(layer, b"")


def test_deflate_is_raw():
    """There is no zlib header, and each write ends with a sync flush."""
    stream = encoded(deflate(), b"hello")

    assert b"\x00\x00\xff\xff" == stream[-4:]
    assert b"hello" == zlib.decompressobj(-zlib.MAX_WBITS).decompress(stream)


@pytest.mark.parametrize("level", range(1, 10))
def test_deflate_levels(level):
    """All levels can be read by the same reader."""
    assert b"hello" * 100 == everything(deflate(), encoded(Deflate(level), b"hello" * 100))


def test_snappy_stream_begins_with_its_identifier():
    """The identifier stands before the first chunk only, and nowhere else."""
    sender = Snappy()

    first, second = encoded(sender, b"one"), encoded(sender, b"two")

    assert first.startswith(IDENTIFIER)
    assert IDENTIFIER not in second
    assert b"onetwo" == bytes(cramjam.snappy.decompress(first + second))


def test_snappy_chunks_that_can_be_skipped():
    """Padding, unknown skippable chunks and a repeated identifier are passed over."""
    hello = encoded(Snappy(), b"hello")
    noise = b"\xfe\x03\x00\x00abc" + b"\x80\x00\x00\x00" + IDENTIFIER

    assert b"hellohello" == everything(Snappy(), noise + hello + noise + hello.removeprefix(IDENTIFIER))


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_skipped_chunk_in_pieces(size):
    """A chunk that says nothing is passed over as it comes, and what follows it is read."""
    stream = (
        IDENTIFIER + b"\xfe\x00\x10\x00" + bytes(4096) + encoded(Snappy(), b"hello").removeprefix(IDENTIFIER)
    )
    codec = Snappy()

    pieces = [everything(codec, stream[at : at + size]) for at in range(0, len(stream), size)]

    assert b"hello" == b"".join(pieces)


def test_snappy_stored_chunk():
    """Data that does not shrink comes uncompressed."""
    data = bytes(range(256))
    stream = encoded(Snappy(), data)

    assert b"\x01" == stream[10:11]
    assert data == everything(Snappy(), stream)


@pytest.mark.parametrize(
    "stream",
    [
        b"\x02\x04\x00\x00abcd",  # reserved, can't be skipped
        b"\x7f\x00\x00\x00",
        b"\x00\xff\xff\xff",  # far too long
        b"\x01\x05\x00\x00\x00\x00\x00\x00x",  # wrong checksum
        b"\x00\x05\x00\x00\x00\x00\x00\x00\xff",  # not compressed data
        b"\x00\x00\x00\x00",  # too short for a checksum
        b"\x01\x03\x00\x00abc",
    ],
)
def test_damaged_snappy(stream):
    """What is no snappy stream raises LayerError."""
    with pytest.raises(LayerError, match="snappy: "):
        everything(Snappy(), IDENTIFIER + stream)


def test_damaged_deflate():
    """What is no deflate stream raises LayerError."""
    with pytest.raises(LayerError, match="deflate: "):
        everything(deflate(), b"\xff\xff\xff\xff")


def test_deflate_stream_that_ended():
    """After the end of a deflate stream there can be nothing more: LayerError."""
    packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    codec = deflate()
    assert b"last" == everything(codec, packer.compress(b"last") + packer.flush(zlib.Z_FINISH))

    with pytest.raises(LayerError, match="ended"):
        everything(codec, b"more")


@pytest.mark.parametrize("make", [deflate, Snappy])
@given(garbage=st.binary(max_size=300))
def test_garbage(make, garbage):
    """Any bytes either decode to something or raise LayerError."""
    with suppress(LayerError):
        everything(make(), garbage)


@given(kind=st.sampled_from([0, 1]), body=st.binary(max_size=300))
def test_garbage_in_a_snappy_chunk(kind, body):
    """The same holds inside a chunk."""
    with suppress(LayerError):
        everything(Snappy(), IDENTIFIER + bytes([kind]) + len(body).to_bytes(3, "little") + body)
