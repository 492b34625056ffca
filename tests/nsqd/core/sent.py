"""What a client sends, as bytes."""

import json
import struct


def sized(*bodies: bytes) -> bytes:
    """Each body after its size."""
    return b"".join(struct.pack(">i", len(body)) + body for body in bodies)


def pub(topic: bytes, body: bytes) -> bytes:
    """A PUB."""
    return b"PUB %s\n" % topic + sized(body)


def mpub(topic: bytes, *bodies: bytes) -> bytes:
    """An MPUB."""
    data = sized(*bodies)
    return b"MPUB %s\n" % topic + struct.pack(">ii", len(data) + 4, len(bodies)) + data


def identify(**fields: object) -> bytes:
    """An IDENTIFY."""
    return b"IDENTIFY\n" + sized(json.dumps(fields).encode())


def numbers(count: int) -> list[bytes]:
    """Bodies that are their numbers."""
    return [b"%d" % n for n in range(count)]
