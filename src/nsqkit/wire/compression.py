"""Compression between the socket and the session, as IDENTIFY agreed on (spec/tcp-protocol.md, section 4).

snappy is its framing format: `[1 kind][3 length, little-endian]` and a chunk; deflate is one raw stream per
direction, ended at each flush by a sync flush. A codec decodes a bounded piece at a time: a few bytes may stand for a
thousand times as many.
"""

import zlib
from typing import Final

import cramjam
from mypy_extensions import mypyc_attr

PIECE: Final = 1 << 20  # most bytes that one decode step gives

_SNAPPY_IDENTIFIER: Final = b"\xff\x06\x00\x00sNaPpY"
_SNAPPY_CHUNK: Final = 65536 + 4  # data and checksum: more is not snappy
_RESERVED: Final = 0x02  # chunk kinds from here to 0x7f can't be skipped


class CodecError(Exception):
    """The stream is not what was agreed on. The connection can't go on."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Codec:
    """One connection's compression, both directions."""

    def encode(self, data: bytes) -> bytes:
        """What to send for `data`, complete to its last byte."""
        raise NotImplementedError

    def decode(self, data: bytes) -> tuple[bytes, bytes]:
        """A piece of what was received, and the rest of `data`, to be decoded next. CodecError."""
        raise NotImplementedError


class Deflate(Codec):
    """Raw DEFLATE at a level of 1 to 9."""

    def __init__(self, level: int) -> None:
        self._compress = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
        self._decompress = zlib.decompressobj(-zlib.MAX_WBITS)

    def encode(self, data: bytes) -> bytes:
        """Deflate, with a sync flush behind it."""
        return self._compress.compress(data) + self._compress.flush(zlib.Z_SYNC_FLUSH)

    def decode(self, data: bytes) -> tuple[bytes, bytes]:
        """At most PIECE bytes of the stream. CodecError, also for what follows the stream's end."""
        if self._decompress.eof and data:
            raise CodecError("deflate: the stream has ended")
        try:
            piece = self._decompress.decompress(data, PIECE)
        except zlib.error as error:
            raise CodecError(f"deflate: {error}") from None
        return piece, self._decompress.unconsumed_tail or self._decompress.unused_data


class Snappy(Codec):
    """Snappy's framing format."""

    def __init__(self) -> None:
        self._compress = cramjam.snappy.Compressor()
        self._rest = b""
        self._skip = 0  # bytes still to come of a chunk that says nothing

    def encode(self, data: bytes) -> bytes:
        """Chunks of at most 64 KiB each; the stream identifier stands before the first."""
        self._compress.compress(data)
        return bytes(self._compress.flush())

    def decode(self, data: bytes) -> tuple[bytes, bytes]:
        """The chunks that are complete, up to PIECE bytes of them. CodecError."""
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
        raw = self._rest + data
        at = 0
        decoded: list[bytes] = []
        size = 0
        while at + 4 <= len(raw) and size < PIECE:
            kind = raw[at]
            length = int.from_bytes(raw[at + 1 : at + 4], "little")
            if _RESERVED <= kind < 0x80 or (kind < _RESERVED and length > _SNAPPY_CHUNK * 2):
                raise CodecError(f"snappy: chunk of kind {kind:#x} and {length} bytes")
            if at + 4 + length > len(raw):
                if kind >= 0x80:  # nothing to unpack: what is still to come is passed over as it comes
                    self._skip = at + 4 + length - len(raw)
                    at = len(raw)
                break
            if kind < _RESERVED:
                piece = _snappy_chunk(raw[at : at + 4 + length])
                decoded.append(piece)
                size += len(piece)
            at += 4 + length
        if size < PIECE:
            self._rest = raw[at:]
            return b"".join(decoded), b""
        self._rest = b""
        return b"".join(decoded), raw[at:]


def _snappy_chunk(chunk: bytes) -> bytes:
    try:
        return bytes(cramjam.snappy.decompress(_SNAPPY_IDENTIFIER + chunk))
    except cramjam.DecompressionError as error:
        raise CodecError(f"snappy: {error}") from None
