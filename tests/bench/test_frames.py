"""Commands and frames of the load generator."""

import struct

import pytest

from nsqkit.bench import frames

FIRST_ID, SECOND_ID = b"0123456789abcdef", b"fedcba9876543210"


def frame(kind: int, payload: bytes) -> bytes:
    """A frame as nsqd sends it."""
    return struct.pack(">ii", len(payload) + 4, kind) + payload


def message(message_id: bytes, body: bytes, attempts: int = 1) -> bytes:
    """A message frame as nsqd sends it."""
    return frame(frames.MESSAGE, struct.pack(">qH16s", 0, attempts, message_id) + body)


def feed(reader: frames.FrameReader, data: bytes, chunk_bytes: int) -> None:
    """Receive data in chunks of at most this size."""
    while data:
        room = reader.room()
        chunk = data[: min(chunk_bytes, len(room))]
        room[: len(chunk)] = chunk
        reader.received(len(chunk))
        data = data[len(chunk) :]


STREAM = (
    frames.OK_FRAME
    + message(FIRST_ID, b"one")
    + frame(frames.RESPONSE, frames.HEARTBEAT)
    + message(SECOND_ID, b"x" * 300, attempts=3)
    + frame(frames.ERROR, b"E_FIN_FAILED")
)


@pytest.mark.parametrize("chunk_bytes", [1, 2, 7, 33, 34, 100, 10_000])
def test_frames_are_found_however_the_bytes_arrive(chunk_bytes: int) -> None:
    """Whole, byte by byte, and cut anywhere; also when a frame is larger than the buffer."""
    reader = frames.FrameReader(buffer_bytes=64)

    feed(reader, STREAM + STREAM[:5], chunk_bytes)

    assert [FIRST_ID, SECOND_ID] == reader.message_ids
    assert [(0, b"OK"), (0, b"_heartbeat_"), (1, b"E_FIN_FAILED")] == reader.replies
    assert reader.redelivered == 1


@pytest.mark.parametrize("chunk_bytes", [1, 10_000])
def test_stamps_come_back_out_of_the_bodies(chunk_bytes: int) -> None:
    """What `stamped` put into a body is read again on arrival; shorter bodies have no stamp."""
    reader = frames.FrameReader(stamped=True)
    body = frames.stamped(123_456_789_012, b"padding")

    feed(reader, message(FIRST_ID, body) + message(SECOND_ID, b"short"), chunk_bytes)

    assert [123_456_789_012] == reader.stamps
    assert [FIRST_ID, SECOND_ID] == reader.message_ids


@pytest.mark.parametrize(
    "data", [b"HTTP/1.1 400 Bad", b"\xff\xff\xff\xff\0\0\0\0", frame(7, b"?"), frame(2, b"short")]
)
def test_anything_else_is_refused(data: bytes) -> None:
    """A peer that is no nsqd is recognised, not waited for."""
    with pytest.raises(frames.NotNsqd):
        feed(frames.FrameReader(), data, 10_000)


def test_a_lone_ok_is_recognised_at_once() -> None:
    """The usual answer to a publish needs no parsing, unless something else is still incomplete."""
    reader = frames.FrameReader()
    reader.room()[:10] = frames.OK_FRAME
    assert reader.received_only_ok(10)

    feed(reader, b"\0\0", 10)
    reader.room()[:10] = frames.OK_FRAME
    assert not reader.received_only_ok(10)


def test_commands_are_those_of_the_protocol() -> None:
    """Byte for byte as in the specification."""
    assert frames.publish_command("t", 3, 1) == b"PUB t\n\0\0\0\3xxx"
    assert frames.publish_command("t", 2, 2) == b"MPUB t\n\0\0\0\x10\0\0\0\2\0\0\0\2xx\0\0\0\2xx"
    assert frames.identify({"a": 1}) == b'IDENTIFY\n\0\0\0\x08{"a": 1}'
    assert frames.subscribe("t", "c") == b"SUB t c\n"
    assert frames.ready(25) == b"RDY 25\n"
    assert frames.finish_all([FIRST_ID, SECOND_ID]) == b"FIN " + FIRST_ID + b"\nFIN " + SECOND_ID + b"\n"


def test_the_first_frame_is_cut_off() -> None:
    """Whole or not at all."""
    frame = b"\x00\x00\x00\x06\x00\x00\x00\x00OK"

    assert (frame, b"rest") == frames.cut_first(frame + b"rest")
    assert all((b"", frame[:end]) == frames.cut_first(frame[:end]) for end in range(len(frame)))
