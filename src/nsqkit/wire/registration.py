r"""The protocol between nsqd and nsqlookupd, V1 (spec/nsqlookupd.md, section 1).

    "  V1"                                        once, from nsqd
    PING\n
    IDENTIFY\n[4-byte size][JSON]
    REGISTER <topic> [channel]\n
    UNREGISTER <topic> [channel]\n
    [4-byte size][payload]                        the reply to each of them; unlike V2's, without a frame type

Numbers are big-endian. Every reply that is an error is the last.
"""

from typing import Final

from mypy_extensions import i64

MAGIC: Final = b"  V1"
OK: Final = b"OK"
PING: Final = b"PING\n"


class BadReply(Exception):
    """What came is no reply of an nsqlookupd, or too long a one."""


def encode_reply(payload: bytes) -> bytes:
    """A reply on the wire."""
    return len(payload).to_bytes(4, "big") + payload


def encode_identify(body: bytes) -> bytes:
    """The command IDENTIFY with its JSON body."""
    return b"IDENTIFY\n" + len(body).to_bytes(4, "big") + body


def encode_register(topic: str, channel: str) -> bytes:
    """The command REGISTER; no channel if it is empty."""
    return f"REGISTER {topic} {channel}".rstrip().encode() + b"\n"


def encode_unregister(topic: str, channel: str) -> bytes:
    """The command UNREGISTER; the whole topic if there is no channel."""
    return f"UNREGISTER {topic} {channel}".rstrip().encode() + b"\n"


class ReplyReader:
    """Takes bytes, gives replies."""

    def __init__(self, max_size: i64) -> None:
        """No payload may be longer than `max_size` bytes."""
        self._max_size: i64 = max_size
        self._input = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads that are complete now. BadReply if a size makes no sense; nothing more can be read then."""
        data = self._input + data if self._input else data
        replies: list[bytes] = []
        at: i64 = 0
        end: i64 = len(data)
        while end - at >= 4:
            size: i64 = int.from_bytes(data[at : at + 4], "big")
            if size > self._max_size:
                raise BadReply(f"a reply of {size} bytes is over the limit of {self._max_size}")
            if end - at - 4 < size:
                break
            replies.append(data[at + 4 : at + 4 + size])
            at += 4 + size
        self._input = data[at:]
        return replies
