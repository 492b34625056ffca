"""Commands: what a client sends, cut out of a stream that arrives in any pieces.

    NAME[ SP param]* LF                 a command line; one CR before the LF is dropped
    NAME[ SP param]* LF [4 size][size bytes]             with a body
    MPUB topic LF [4 size][4 count]([4 size][bytes])*    with a batch

`CommandReader` keeps what is incomplete. It never copies a chunk twice to wait for a long body, and it never
holds more than one incomplete command: lines are limited here, bodies by the caller, who checks each size
before asking for the bytes after it.
"""

from typing import Final

from librt.strings import read_i32_be
from mypy_extensions import i32, i64

from nsqkit.wire.errors import BadBody, BadMessage, LineTooLong

MAX_LINE: Final = 16384  # bytes of a line without its end; a longer one closes the connection
_CUT_OFF: Final = 65536  # bytes of an incomplete batch that are put aside, not joined with every chunk


class CommandReader:
    """Takes chunks, gives lines, sizes, bodies and batches. None (or -1 for a size) means: not yet."""

    def __init__(self) -> None:
        self._data = b""
        self._at: i64 = 0  # what has been consumed of _data
        self._parts: list[bytes] = []  # when a long body is awaited: the bytes from _at on, unjoined
        self._held: i64 = 0  # bytes in _parts
        self._need: i64 = 0  # bytes from _at on without which nothing can go on
        self._batch_at: i64 = 0  # how far an incomplete batch was checked, from _at on
        self._batch_left: i64 = 0  # messages of it that are not checked yet
        self._batch_size: i64 = 0  # bytes of it that were put aside
        self._batch_parts: list[bytes] = []  # these bytes
        self.batch_count: i64 = 0  # messages in the batch that `batch` is reading or returned

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
        self._batch_left = 0
        self._batch_parts = []

    def finish_id(self) -> bytes | None:
        """The id if the next command is a complete `FIN <16 bytes>` line: by far the most frequent command."""
        data = self._data
        at = self._at
        if at + 21 > len(data) or data[at] != 70 or data[at + 20] != 10:
            return None
        if data[at + 1] != 73 or data[at + 2] != 78 or data[at + 3] != 32:
            return None
        message_id = data[at + 4 : at + 20]
        if not message_id.isalnum():
            return None  # an end of line or a space in it: this is something else
        self._at = at + 21
        return message_id

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
        """The messages of an MPUB, each after its size; `batch_count` tells how many.

        The counts inside the body delimit it; the size before it is only checked to be in range, as in NSQ.
        BadBody and BadMessage are raised as soon as the bytes that break a rule are there.
        """
        if self._batch_left == 0 and not self._begin_batch(max_body):
            return None
        data = self._data
        start = self._at
        end: i64 = len(data)
        at: i64 = start + self._batch_at
        left = self._batch_left
        need: i64 = 4
        while left > 0 and at + 4 <= end:
            length: i64 = i64(read_i32_be(data, at))
            if length <= 0:
                raise BadMessage(f"MPUB invalid message({self.batch_count - left}) body size {length}")
            if length > max_message:
                raise BadMessage(f"MPUB message too big {length} > {max_message}")
            size = 4 + self._batch_size + at - start + 4 + length
            if size > max_body:
                raise BadBody(f"MPUB body too big {size} > {max_body}")
            if at + 4 + length > end:
                need = 4 + length
                break
            at += 4 + length
            left -= 1
        messages = b""
        if left == 0 or at - start > _CUT_OFF:
            messages = data[start:at]
            self._at = at
            self._batch_size += at - start
            start = at
            if left > 0 or self._batch_parts:
                self._batch_parts.append(messages)
        self._batch_at = at - start
        self._batch_left = left
        if left > 0:
            self._need = at - start + need
            return None
        if self._batch_parts:
            messages = b"".join(self._batch_parts)
            self._batch_parts = []
        self._need = 0
        return messages

    def _begin_batch(self, max_body: i64) -> bool:
        """Read size and count. False: they are not there yet."""
        if not self.has(4):
            return False
        size: i64 = i64(self.peek_size())
        if size <= 0:
            raise BadBody(f"MPUB invalid body size {size}")
        if size > max_body:
            raise BadBody(f"MPUB body too big {size} > {max_body}")
        if not self.has(8):
            return False
        count: i64 = i64(read_i32_be(self._data, self._at + 4))
        if count <= 0 or count > (max_body - 4) // 5:
            raise BadBody(f"MPUB invalid message count {count}")
        self._at += 8
        self._batch_at = 0
        self._batch_size = 0
        self._batch_left = self.batch_count = count
        return True

    def batch_fault(self) -> str:
        """What an MPUB body that ends too early lacks, as NSQ words it: for the error at end of input."""
        bytes_left = self.pending()
        if self._batch_left > 0:
            if bytes_left < self._batch_at + 4:
                return f"E_BAD_MESSAGE MPUB failed to read message({self.batch_count - self._batch_left}) body size"
            return "E_BAD_MESSAGE MPUB failed to read message body"
        return f"E_BAD_BODY MPUB failed to read {'body size' if bytes_left < 4 else 'message count'}"


def parse_number(digits: bytes) -> i64:
    """A non-negative decimal number as NSQ reads it: ASCII digits only, the empty string is 0.

    -1 if it is not a number. NSQ wraps at 2^64; here everything above 9 * 10^18 or so is the largest value.
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
