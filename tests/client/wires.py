"""A transport that only remembers, and frames as nsqd sends them, for tests of what is above and below."""

import asyncio
import struct


class Wire(asyncio.Transport):
    """A transport: what was written, and whether it was closed."""

    def __init__(self):
        super().__init__()
        self.written = b""
        self.closed = False
        self.reading = True
        self.size = 0

    def write(self, data):
        """Take it."""
        assert not self.closed
        self.written += data

    def take(self):
        """What was written since it was asked last."""
        written, self.written = self.written, b""
        return written

    def set_write_buffer_limits(self, high=None, low=None):
        """Take it."""
        assert low < high

    def get_write_buffer_size(self):
        """What a test says."""
        return self.size

    def pause_reading(self):
        """Remember."""
        self.reading = False

    def resume_reading(self):
        """Remember."""
        self.reading = True

    def close(self):
        """Remember."""
        self.closed = True

    def abort(self):
        """Remember."""
        self.closed = True


def frame(kind, payload):
    """One frame."""
    return struct.pack(">ii", len(payload) + 4, kind) + payload


def message_frame(number, body=b"body", attempts=1):
    """A frame with a message whose id ends in a number."""
    return frame(
        2, struct.pack(">qH", 1_700_000_000_000_000_000 + number, attempts) + b"%016x" % number + body
    )


OK = frame(0, b"OK")
HEARTBEAT = frame(0, b"_heartbeat_")
CLOSE_WAIT = frame(0, b"CLOSE_WAIT")


def error(text):
    """An error frame."""
    return frame(1, text.encode())
