"""Compression between the socket and the session, as IDENTIFY agreed on (spec/tcp-protocol.md, section 4).

snappy is its framing format: `[1 kind][3 length, little-endian]` and a chunk; deflate is one raw stream per
direction, ended at each flush by a sync flush.
"""

import zlib
from typing import Final

import cramjam
from mypy_extensions import i64

from nsqkit.wire.layer import PIECE, Layer, LayerError

_BITE: Final = 8192  # bytes that are given to zlib at once; it copies what it could not use

_SNAPPY_IDENTIFIER: Final = b"\xff\x06\x00\x00sNaPpY"
_SNAPPY_CHUNK: Final = 65536 + 4  # data and checksum: more is not snappy
_RESERVED: Final = 0x02  # chunk kinds from here to 0x7f can't be skipped


class Deflate(Layer):
    """Raw DEFLATE at a level of 1 to 9."""

    def __init__(self, level: int) -> None:
        self._compress = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
        self._decompress = zlib.decompressobj(-zlib.MAX_WBITS)
        self._input = b""
        self._at: i64 = 0  # what has been inflated of it
        self._full = False  # the last piece was, so zlib may have more of it
        self._output = b""

    def received(self, data: bytes) -> None:
        """Keep it; mostly there is nothing before it."""
        self._input = self._input[self._at :] + data
        self._at = 0

    def take(self) -> bytes:
        """Inflate. LayerError, also for what follows the stream's end."""
        inflater = self._decompress
        while self._full or self._at < len(self._input):
            if inflater.eof and self._at < len(self._input):
                raise LayerError("deflate: the stream has ended")
            bite = self._input[self._at : self._at + _BITE]
            try:
                piece = inflater.decompress(bite, PIECE)
            except zlib.error as error:
                raise LayerError(f"deflate: {error}") from None
            self._at += len(bite) - len(inflater.unconsumed_tail) - len(inflater.unused_data)
            self._full = len(piece) == PIECE
            if piece:
                return piece
        return b""

    def send(self, data: bytes) -> None:
        """Deflate, with a sync flush after it."""
        self._output += self._compress.compress(data) + self._compress.flush(zlib.Z_SYNC_FLUSH)

    def output(self) -> bytes:
        """What was sent."""
        output, self._output = self._output, b""
        return output


class Snappy(Layer):
    """Snappy's framing format."""

    def __init__(self) -> None:
        self._compress = cramjam.snappy.Compressor()
        self._input = b""
        self._at: i64 = 0  # what has been decoded of it
        self._skip: i64 = 0  # bytes still to come of a chunk that says nothing
        self._output = b""

    def received(self, data: bytes) -> None:
        """Keep it, but for what says nothing."""
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
        self._input = self._input[self._at :] + data
        self._at = 0

    def take(self) -> bytes:
        """The next chunk, if it is complete. LayerError."""
        raw = self._input
        end: i64 = len(raw)
        while self._at + 4 <= end:
            at = self._at
            kind = raw[at]
            length: i64 = raw[at + 1] | raw[at + 2] << 8 | raw[at + 3] << 16
            if _RESERVED <= kind < 0x80 or (kind < _RESERVED and length > _SNAPPY_CHUNK * 2):
                raise LayerError(f"snappy: chunk of kind {kind:#x} and {length} bytes")
            if at + 4 + length > end:
                if kind >= 0x80:  # nothing to decode: what is still to come is passed over as it comes
                    self._skip = at + 4 + length - end
                    self._at = end
                break
            self._at = at + 4 + length
            if kind < _RESERVED:
                piece = _snappy_chunk(raw[at : at + 4 + length])
                if piece:
                    return piece
        return b""

    def send(self, data: bytes) -> None:
        """Chunks of at most 64 KiB each; the stream identifier stands before the first."""
        self._compress.compress(data)
        self._output += bytes(self._compress.flush())

    def output(self) -> bytes:
        """What was sent."""
        output, self._output = self._output, b""
        return output


def _snappy_chunk(chunk: bytes) -> bytes:
    try:
        return bytes(cramjam.snappy.decompress(_SNAPPY_IDENTIFIER + chunk))
    except cramjam.DecompressionError as error:
        raise LayerError(f"snappy: {error}") from None
