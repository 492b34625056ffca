"""Frames: what a server sends.

    [4 size][4 type][payload]        size = 4 + len(payload), big-endian (spec/tcp-protocol.md, section 1)

Writers append to the one `BytesWriter` that a connection owns; `FrameReader` is the other direction, for
clients and tests: it takes chunks of any size and gives whole frames.
"""

from typing import Final

from librt.strings import BytesWriter, read_i32_be, write_i32_be
from mypy_extensions import i32, i64

RESPONSE: Final = 0
ERROR: Final = 1
MESSAGE: Final = 2

HEARTBEAT: Final = b"_heartbeat_"
OK_FRAME: Final = b"\x00\x00\x00\x06\x00\x00\x00\x00OK"
HEARTBEAT_FRAME: Final = b"\x00\x00\x00\x0f\x00\x00\x00\x00_heartbeat_"


def write_frame(out: BytesWriter, kind: i32, payload: bytes) -> None:
    """Append one frame to `out`."""
    size: i64 = len(payload)
    write_i32_be(out, i32(size + 4))
    write_i32_be(out, kind)
    out.write(payload)


class FrameReader:
    """Cuts a server's byte stream into frames. A size below 4 raises ValueError: the stream is not NSQ's."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[tuple[int, bytes]]:
        """The frames that `chunk` completes, as (type, payload); an incomplete one waits for more."""
        data = self._rest + chunk if self._rest else chunk
        frames: list[tuple[int, bytes]] = []
        at: i64 = 0
        end: i64 = len(data)
        while end - at >= 8:
            size: i64 = i64(read_i32_be(data, at))
            if size < 4:
                raise ValueError(f"frame size {size} is less than 4: this is not an NSQ server")
            if end - at < 4 + size:
                break
            frames.append((int(read_i32_be(data, at + 4)), data[at + 8 : at + 4 + size]))
            at += 4 + size
        self._rest = data[at:]
        return frames
