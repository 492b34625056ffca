"""Frames: what a server sends."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from librt.strings import BytesWriter

from nsqkit.wire.frames import (
    ERROR,
    HEARTBEAT,
    HEARTBEAT_FRAME,
    MESSAGE,
    OK_FRAME,
    RESPONSE,
    FrameReader,
    write_frame,
)

frames = st.lists(st.tuples(st.sampled_from([RESPONSE, ERROR, MESSAGE]), st.binary(max_size=40)), max_size=10)


def written(*frames: tuple[int, bytes]) -> bytes:
    """The bytes of some frames."""
    out = BytesWriter()
    for kind, payload in frames:
        write_frame(out, kind, payload)
    return out.getvalue()


def test_layout():
    """Size, type and payload; the size counts the type."""
    assert b"\x00\x00\x00\x07\x00\x00\x00\x01abc" == written((ERROR, b"abc"))


def test_ready_made_frames():
    """The constants are what `write_frame` writes."""
    assert OK_FRAME == written((RESPONSE, b"OK"))
    assert HEARTBEAT_FRAME == written((RESPONSE, HEARTBEAT))


@given(frames, st.data())
def test_any_split_gives_the_same_frames(frames, data):
    """However the stream is cut, the same frames come out, each as soon as it is complete."""
    stream = written(*frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    reader = FrameReader()

    found = []
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += reader.feed(stream[start:stop])
        assert found == frames[: len(found)]
        assert len(found) == len(frames) or len(written(*frames[: len(found) + 1])) > stop

    assert frames == found


def test_frame_and_tail(chunks):
    """What follows a frame is not lost."""
    reader = FrameReader()

    found = [frame for chunk in chunks(OK_FRAME, tail=HEARTBEAT_FRAME) for frame in reader.feed(chunk)]

    assert (RESPONSE, b"OK") == found[0]
    assert found[1:] in ([], [(RESPONSE, HEARTBEAT)])


@pytest.mark.parametrize("size", [3, 0, -1, -(2**31)])
def test_impossible_size(size):
    """A size below 4 means that the peer is no nsqd."""
    with pytest.raises(ValueError, match=f"frame size {size} is less than 4: this is not an NSQ server"):
        FrameReader().feed(size.to_bytes(4, "big", signed=True) + b"HTTP")
