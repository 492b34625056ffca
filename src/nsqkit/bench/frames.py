"""Just enough of the wire protocol V2 to make load: commands out, frames in. No I/O.

    frame     [4 size][4 type][payload]                    size = 4 + length of the payload
    message   [8 timestamp][2 attempts][16 id][body]       the payload of a frame of type 2
    stamp     the first 8 bytes of a body, when we measure latency: ns on this machine's monotonic clock

Commands are built once and sent many times. The reader does as little per message as Python allows: two reads and an
append. It has to keep up with a server that spends less than a microsecond on each message.
"""

import json
import struct
from collections.abc import Sequence
from typing import Final

MAGIC: Final = b"  V2"
NOP: Final = b"NOP\n"
CLS: Final = b"CLS\n"

RESPONSE: Final = 0
ERROR: Final = 1
MESSAGE: Final = 2

OK: Final = b"OK"
OK_FRAME: Final = b"\x00\x00\x00\x06\x00\x00\x00\x00OK"
CLOSE_WAIT: Final = b"CLOSE_WAIT"
HEARTBEAT: Final = b"_heartbeat_"

STAMP_BYTES: Final = 8

SMALL_BUFFER_BYTES: Final = 4096

_SIZE: Final = struct.Struct(">I")
_HEADER: Final = struct.Struct(">ii")
_MESSAGE_HEAD: Final = struct.Struct(">ii8xH16s")
_STAMP: Final = struct.Struct(">Q")
_HEADER_BYTES: Final = _HEADER.size
_BODY_AT: Final = _MESSAGE_HEAD.size
_LEAST_MESSAGE: Final = _BODY_AT - 4  # as the size field counts, for an empty body
_LEAST_REPLY: Final = 4


class NotNsqd(Exception):
    """The peer sends something that is not a frame."""


def identify(fields: dict[str, object]) -> bytes:
    """IDENTIFY with these fields as JSON."""
    body = json.dumps(fields).encode()
    return b"IDENTIFY\n" + _SIZE.pack(len(body)) + body


def subscribe(topic: str, channel: str) -> bytes:
    """SUB to a channel, which creates both names."""
    return f"SUB {topic} {channel}\n".encode()


def ready(count: int) -> bytes:
    """RDY: how many messages may be in flight."""
    return b"RDY %d\n" % count


def publish(topic: str, body: bytes) -> bytes:
    """PUB one message."""
    return f"PUB {topic}\n".encode() + _SIZE.pack(len(body)) + body


def publish_many(topic: str, bodies: Sequence[bytes]) -> bytes:
    """MPUB a batch."""
    sized = b"".join([_SIZE.pack(len(body)) + body for body in bodies])
    return f"MPUB {topic}\n".encode() + _SIZE.pack(len(sized) + 4) + _SIZE.pack(len(bodies)) + sized


def publish_command(topic: str, size: int, batch: int, filling: bytes = b"x") -> bytes:
    """The command a publisher sends over and over: PUB for a batch of one, else MPUB. `size` is in bytes.

    The bodies are pieces of `filling`, which begins anew when it ends.
    """
    text = filling * (size * batch // len(filling) + 1)
    bodies = [text[at * size : (at + 1) * size] for at in range(batch)]
    return publish(topic, bodies[0]) if batch == 1 else publish_many(topic, bodies)


def stamped(stamp_ns: int, padding: bytes) -> bytes:
    """A body that says when it was meant to be sent."""
    return _STAMP.pack(stamp_ns) + padding


def finish_all(message_ids: list[bytes]) -> bytes:
    """One buffer with a FIN for each message."""
    return b"FIN " + b"\nFIN ".join(message_ids) + b"\n"


def cut_first(data: bytes) -> tuple[bytes, bytes]:
    """The first frame and what follows it; no frame when it is not complete."""
    if len(data) < _SIZE.size:
        return b"", data
    end = _SIZE.size + _SIZE.unpack_from(data)[0]
    return (data[:end], data[end:]) if len(data) >= end else (b"", data)


class FrameReader:
    """Cuts a stream of bytes, received into a buffer of its own, into frames.

    A loop of `received(socket.recv_into(room()))`. After it `message_ids` (and `stamps`, if asked for) hold what
    arrived since they were last cleared, and `replies` the type and payload of every other frame. Their owner
    clears them.
    """

    __slots__ = ("_buffer", "_filled", "_stamped", "_view", "message_ids", "redelivered", "replies", "stamps")

    def __init__(self, *, stamped: bool = False, buffer_bytes: int = SMALL_BUFFER_BYTES) -> None:
        self.message_ids: list[bytes] = []
        self.stamps: list[int] = []
        self.replies: list[tuple[int, bytes]] = []
        self.redelivered = 0
        self._stamped = stamped
        self._buffer = bytearray(buffer_bytes)
        self._view = memoryview(self._buffer)
        self._filled = 0

    def room(self) -> memoryview:
        """Where the next bytes go; never empty."""
        if self._filled == len(self._buffer):
            self._buffer = self._buffer + bytes(self._filled)
            self._view = memoryview(self._buffer)
        return self._view[self._filled :]

    def received_only_ok(self, count: int) -> bool:
        """Whether the `count` bytes in the room are one OK and nothing else; then they are dealt with."""
        return count == len(OK_FRAME) and self._filled == 0 and self._buffer.startswith(OK_FRAME)

    def received(self, count: int) -> None:
        """Read the frames that are complete with `count` more bytes in the room; raises NotNsqd."""
        buffer, end, at = self._buffer, self._filled + count, 0
        header, message_head = _HEADER.unpack_from, _MESSAGE_HEAD.unpack_from
        add, attempts, message_id = self.message_ids.append, 1, b""
        while end - at >= _HEADER_BYTES:
            if end - at >= _BODY_AT:
                size, kind, attempts, message_id = message_head(buffer, at)
            else:  # too short for a message: a reply, or the beginning of something
                size, kind = header(buffer, at)
            stop = at + 4 + size
            if kind == MESSAGE and size >= _LEAST_MESSAGE:
                if stop > end:
                    break
                add(message_id)
                if attempts != 1:
                    self.redelivered += 1
                if self._stamped and size >= _LEAST_MESSAGE + STAMP_BYTES:
                    self.stamps.append(_STAMP.unpack_from(buffer, at + _BODY_AT)[0])
            else:
                if size < _LEAST_REPLY or kind not in (RESPONSE, ERROR):
                    raise NotNsqd(f"not a frame: {bytes(buffer[at : at + _BODY_AT])!r}")
                if stop > end:
                    break
                self.replies.append((kind, bytes(buffer[at + _HEADER_BYTES : stop])))
            at = stop
        self._filled = end - at
        if at:
            self._view[: self._filled] = self._view[at:end]
