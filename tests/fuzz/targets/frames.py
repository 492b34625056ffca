"""`FrameReader`, `write_frame` and `write_message`. Input: a byte for the way to cut, then a server's stream."""

from librt.strings import BytesWriter

from nsqkit.wire.frames import MESSAGE, FrameReader, write_frame
from nsqkit.wire.message import HEADER_SIZE, NOWHERE, Message, write_message
from tests.fuzz.source import Source, ways


def check(data: bytes) -> None:
    """Every way to cut gives the same frames; written again, they are the stream."""
    source = Source(data)
    seed = source.byte()
    stream = source.rest()
    frames, error = _reference(stream)
    for chunks in ways(stream, seed):
        found: list[tuple[int, bytes]] = []
        raised = False
        reader = FrameReader()
        for chunk in chunks:
            try:
                found += reader.feed(chunk)
            except ValueError:
                raised = True
                break
        assert error == raised
        assert found == frames or (raised and found == frames[: len(found)])
    out = BytesWriter()
    for kind, payload in frames:
        write_frame(out, kind, payload)
        if kind == MESSAGE and len(payload) >= HEADER_SIZE:
            _check_message(payload)
    assert stream.startswith(out.getvalue())


def _reference(stream: bytes) -> tuple[list[tuple[int, bytes]], bool]:
    """The frames, and whether something that is no frame follows them."""
    frames: list[tuple[int, bytes]] = []
    while len(stream) >= 8:
        size = int.from_bytes(stream[:4], "big", signed=True)
        if size < 4:
            return frames, True
        if len(stream) < 4 + size:
            break
        frames.append((int.from_bytes(stream[4:8], "big", signed=True), stream[8 : 4 + size]))
        stream = stream[4 + size :]
    return frames, False


def _check_message(payload: bytes) -> None:
    timestamp = int.from_bytes(payload[:8], "big", signed=True)
    attempts = int.from_bytes(payload[8:10], "big")
    out = BytesWriter()
    write_message(out, Message(payload[10:26], timestamp, attempts + 65536, payload[26:], NOWHERE))
    assert [(MESSAGE, payload)] == FrameReader().feed(out.getvalue())
