"""The decoders of snappy and deflate: garbage, bombs, and streams cut anywhere.

Input: a byte for the codec (bit 0) and for what follows (bit 1: compress the rest first; bit 2: compress it many times
over; bit 3: change a byte of that), a byte for the way to cut, then the rest.
"""

import zlib
from typing import Final

from nsqkit.wire.compression import Deflate, Snappy
from nsqkit.wire.layer import PIECE, Layer, LayerError
from tests.fuzz.source import Source, ways

CHUNK: Final = 65536 + 4  # the longest of snappy, but for its head
MOST: Final = 3 << 20  # bytes after which we have seen enough of a bomb


def check(data: bytes) -> None:
    """Pieces are bounded, every way to cut gives the same bytes, and what was encoded comes back."""
    source = Source(data)
    mode = source.byte()
    seed = source.byte()
    change = source.number() if mode & 8 else 0
    plain = source.rest()
    stream = plain
    if mode & 2:
        plain *= 1 + (mode & 4) * 500
        stream = _encoded(_layer(mode), plain, seed)
        if mode & 8 and stream:
            damaged = bytearray(stream)
            damaged[change % len(stream)] ^= 1 + change % 255
            stream = bytes(damaged)
    results = [_decoded(_layer(mode), chunks) for chunks in ways(stream[:5000], seed)]
    whole, whole_error = results[0]
    for decoded, error in results[1:]:
        assert error == whole_error
        shorter, longer = sorted((decoded, whole), key=len)
        assert decoded == whole or (error and longer.startswith(shorter))
    if mode & 10 == 2:
        decoded, error = _decoded(_layer(mode), [stream])
        assert not error
        assert plain == decoded or (len(decoded) > MOST and plain.startswith(decoded))


def _layer(mode: int) -> Layer:
    return Deflate(1 + mode % 9) if mode & 1 else Snappy()


def _encoded(layer: Layer, plain: bytes, seed: int) -> bytes:
    """In one flush, or in two."""
    middle = len(plain) * (seed % 4) // 4
    return b"".join(_sent(layer, part) for part in (plain[:middle], plain[middle:]) if part)


def _sent(layer: Layer, data: bytes) -> bytes:
    layer.send(data)
    return layer.output()


def _decoded(layer: Layer, chunks: list[bytes]) -> tuple[bytes, bool]:
    """What comes out, and whether it ended in an error."""
    pieces: list[bytes] = []
    size = 0
    for chunk in chunks:
        layer.received(chunk)
        while True:
            try:
                piece = layer.take()
            except LayerError:
                return b"".join(pieces), True
            if not piece:
                break
            assert len(piece) <= PIECE, "a piece without a limit"
            pieces.append(piece)
            size += len(piece)
            if size > MOST:
                return b"".join(pieces), False
        layer.received(b"")
        assert len(getattr(layer, "_input", b"")) <= 4 + 2 * CHUNK
    return b"".join(pieces), False


def bomb(level: int = 9, size: int = 64 << 20) -> bytes:
    """A deflate stream that stands for a thousand times its size."""
    packer = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(bytes(size)) + packer.flush(zlib.Z_SYNC_FLUSH)
