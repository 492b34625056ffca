"""Commands: what a client sends, cut out of a stream that arrives in any pieces.

    NAME[ SP param]* LF                 a command line; one CR before the LF is dropped
    NAME[ SP param]* LF [4 size][size bytes]             with a body
    MPUB topic LF [4 size][4 count]([4 size][bytes])*    with a batch

`CommandReader` keeps what is incomplete. It never copies a chunk twice to wait for a long body, and it never
holds more than one incomplete command: lines are limited here, bodies by the caller, who checks each size
before asking for the bytes behind it.
"""

from typing import Final

from librt.strings import read_i32_be
from mypy_extensions import i32, i64

from nsqkit.wire.errors import BadBody, BadMessage, LineTooLong

MAX_LINE: Final = 16384  # bytes of a line without its end; a longer one closes the connection
_SCAN_EAGERLY: Final = 65536  # bytes of an incomplete batch up to which each chunk is looked at as it comes


class CommandReader:
    """Takes chunks, gives lines, sizes, bodies and batches. None (or -1 for a size) means: not yet."""

    def __init__(self) -> None:
        self._data = b""
        self._at: i64 = 0  # what has been consumed of _data
        self._parts: list[bytes] = []  # when a long body is awaited: the bytes from _at on, unjoined
        self._held: i64 = 0  # bytes in _parts
        self._need: i64 = 0  # bytes from _at on without which nothing can go on
        self._batch_at: i64 = 0  # how far an incomplete batch was checked, from _at on
        self._batch_index: i64 = 0
        self.batch_count: i64 = 0  # messages in the batch that `batch` returned

    def feed(self, chunk: bytes) -> bool:
        """Add a chunk. False if it can't complete what is being waited for."""
        if not self._parts:
            if self._at == len(self._data):
                self._data = chunk
                self._at = 0
                return len(chunk) >= self._need
            rest = self._data[self._at :]
            self._parts.append(rest)
            self._held = len(rest)
            self._data = b""
            self._at = 0
        self._parts.append(chunk)
        self._held += len(chunk)
        if self._held < self._need:
            return False
        self._data = b"".join(self._parts)
        self._parts = []
        return True

    def pending(self) -> i64:
        """How many bytes wait for the rest of their command."""
        if self._parts:
            return self._held
        left: i64 = len(self._data)
        return left - self._at

    def discard(self) -> None:
        """Drop everything: the connection is closing, or its next bytes are of another layer."""
        self._data = b""
        self._at = 0
        self._parts = []
        self._need = 0

    def finish_id(self) -> bytes | None:
        """The id if the next command is a complete `FIN <16 bytes>` line: by far the most frequent command."""
        data = self._data
        at = self._at
        if at + 21 > len(data) or data[at] != 70 or data[at + 20] != 10 or data[at + 19] == 13:
            return None
        if data[at + 1] != 73 or data[at + 2] != 78 or data[at + 3] != 32:
            return None
        self._at = at + 21
        return data[at + 4 : at + 20]

    def line(self) -> bytes | None:
        """The next command line without its end. LineTooLong if there can't be one."""
        data = self._data
        at = self._at
        end: i64 = data.find(b"\n", at, at + MAX_LINE)
        if end < 0:
            if len(data) - at >= MAX_LINE:
                raise LineTooLong
            return None
        self._at = end + 1
        if end > at and data[end - 1] == 13:
            end -= 1
        return data[at:end]

    def take(self, length: i64) -> bytes | None:
        """The next `length` bytes."""
        at = self._at
        if at + length > len(self._data):
            self._need = length
            return None
        self._need = 0
        self._at = at + length
        return self._data[at : at + length]

    def has(self, length: i64) -> bool:
        """Are the next `length` bytes there?"""
        return self._at + length <= len(self._data)

    def peek_size(self) -> i32:
        """The signed 32-bit size at the read position; ask `has(4)` first."""
        return read_i32_be(self._data, self._at)

    def batch(self, max_message: i64, max_body: i64) -> bytes | None:
        """The messages of an MPUB, each behind its size; `batch_count` tells how many.

        The counts inside the body delimit it; the size in front is only checked to be in range, as in NSQ.
        BadBody and BadMessage are raised as soon as the bytes that break a rule are there.
        """
        data = self._data
        start = self._at
        end: i64 = len(data)
        if end - start < 4:
            return None
        size: i64 = i64(read_i32_be(data, start))
        if size <= 0:
            raise BadBody(f"MPUB invalid body size {size}")
        if size > max_body:
            raise BadBody(f"MPUB body too big {size} > {max_body}")
        if end - start < 8:
            return None
        count: i64 = i64(read_i32_be(data, start + 4))
        if count <= 0 or count > (max_body - 4) // 5:
            raise BadBody(f"MPUB invalid message count {count}")
        at: i64 = start + 8
        index: i64 = 0
        if self._batch_at:
            at = start + self._batch_at
            index = self._batch_index
        while index < count and at + 4 <= end:
            length: i64 = i64(read_i32_be(data, at))
            if length <= 0:
                raise BadMessage(f"MPUB invalid message({index}) body size {length}")
            if length > max_message:
                raise BadMessage(f"MPUB message too big {length} > {max_message}")
            if at + 4 + length > end:
                break
            at += 4 + length
            index += 1
        if index < count:
            self._batch_at = at - start
            self._batch_index = index
            whole = size + 4
            self._need = whole if end - start > _SCAN_EAGERLY and whole > end - start else 0
            return None
        self._batch_at = 0
        self._need = 0
        self._at = at
        self.batch_count = count
        return data[start + 8 : at]

    def batch_fault(self) -> str:
        """What an MPUB body that ends too early lacks, as NSQ words it: for the error at end of input."""
        left = self.pending()
        if left < 4:
            return "E_BAD_BODY MPUB failed to read body size"
        if left < 8:
            return "E_BAD_BODY MPUB failed to read message count"
        at = self._batch_at if self._batch_at else 8
        if left < at + 4:
            return f"E_BAD_MESSAGE MPUB failed to read message({self._batch_index}) body size"
        return "E_BAD_MESSAGE MPUB failed to read message body"


def parse_number(digits: bytes) -> i64:
    """A non-negative decimal number as NSQ reads it: ASCII digits only, the empty string is 0.

    -1 if it is not a number. NSQ wraps at 2^64; here everything of 19 digits or more is the largest value.
    """
    value: i64 = 0
    length: i64 = len(digits)
    index: i64 = 0
    while index < length:
        digit: i64 = i64(digits[index]) - 48
        if digit < 0 or digit > 9:
            return -1
        if value > 900_000_000_000_000_000:
            value = 9_223_372_036_854_775_807
        elif value < 9_223_372_036_854_775_807:
            value = value * 10 + digit
        index += 1
    return value
