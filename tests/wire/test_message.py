"""Messages and their frames."""

import struct

import pytest
from librt.strings import BytesWriter

from nsqkit.wire.frames import MESSAGE, FrameReader
from nsqkit.wire.message import HEADER_SIZE, NOWHERE, Message, write_message

ID = b"0123456789abcdef"


def written(message: Message) -> bytes:
    """The message's frame."""
    out = BytesWriter()
    write_message(out, message)
    return out.getvalue()


@pytest.mark.parametrize("body", [b"x", b"", b"\x00" * 70_000])
def test_frame(body):
    """Timestamp, attempts, id and body stand in the frame as NSQ has them."""
    message = Message(ID, 1_700_000_000_000_000_000, 3, body, 7)

    ((kind, payload),) = FrameReader().feed(written(message))

    assert MESSAGE == kind
    assert (1_700_000_000_000_000_000, 3, ID) == struct.unpack_from(">qH16s", payload)
    assert body == payload[HEADER_SIZE:]


@pytest.mark.parametrize(
    "attempts, shown", [(1, 1), (255, 255), (256, 256), (65535, 65535), (65536, 0), (65537, 1)]
)
def test_attempts_wrap(attempts, shown):
    """Attempts are counted beyond the 16 bits of their field, where they begin again at 0."""
    message = Message(ID, 0, attempts, b"x", NOWHERE)

    assert shown == struct.unpack_from(">H", written(message), 16)[0]


def test_new_message():
    """A message begins loaded, and without any time but that of its publishing."""
    message = Message(ID, 5, 0, b"x", 9)

    assert (5, 0, 0, True) == (message.timestamp, message.delivered_at, message.deadline, message.loaded)
