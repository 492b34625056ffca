r"""The format of a topic's log, and reading it.

A segment file, named by the first position in it (20 digits, `.log`), is a header and batches; integers are big-endian:

    0           8          12         16                24
    | NSQKLOG\n | version  | before   | first position  | batch | batch | ...

    batch: 0       4         8        12      16      20          28         36           44      52
           | NSQb  | length  | crc32c | count | flags | position  | first id | timestamp  | due   | data (length bytes)

`before` is how many positions further in front the file before this one begins, 0 if there was none: so a start sees
that a file is missing. The checksum covers everything after it. `data` is what the publish
command brought: `[4 size][body]` per message.
Flag 1: a carried copy (see `Batch.carried`).

Version 2 of the header is written over another one (jobs.py, `GiveUp`): whatever came before its first position, in
this file or in those before, was given up. The position may be after the one in the file's name, and the place of
`before` has the crc32c of the rest of the header.
"""

import re
from bisect import bisect
from typing import Final

from google_crc32c import extend, value
from librt.strings import BytesWriter, read_i32_be, read_i64_be, write_i32_be, write_i64_be
from mypy_extensions import i32, i64

from nsqkit.nsqd.core.batch import KEPT, Batch

FILE_MAGIC: Final = b"NSQKLOG\n"
FILE_VERSION: Final = 1
RENEWED: Final = 2  # the version of a header that gives up what was before
FILE_HEADER: Final = 24
BATCH_MAGIC: Final = b"NSQb"
BATCH_HEADER: Final = 52
CARRIED: Final = 1

SUFFIX: Final = ".log"
CHECKPOINT: Final = "checkpoint"
PROBE: Final = "probe"  # a file that comes and goes, to see whether writing works again

_TOO_FAR: Final = f"{1 << 62:020d}"  # from here on a number is no position of ours
_SEGMENT: Final = re.compile(r"0[0-9]{19}\.log")
_OURS: Final = re.compile(
    r"(0[0-9]{19}\.log(\.damaged|\.torn-[0-9]+|\.damaged-[0-9]+)?|checkpoint|probe)(\.tmp)?"
)

_MAGIC_NUMBER: Final = 0x4E535162  # BATCH_MAGIC as an integer
_MAX_DATA: Final = 1 << 30  # more than any configured body size: a larger length is damage


def is_segment(name: str) -> bool:
    """Whether a file is a segment by its name. Only a directory with such files is a topic's log."""
    return _SEGMENT.fullmatch(name) is not None and name < _TOO_FAR


def is_ours(name: str) -> bool:
    """Whether a log makes files of this name. What else is in its directory is somebody else's and stays untouched."""
    return _OURS.fullmatch(name) is not None


def file_header(first_position: i64, before: i64 = 0) -> bytes:
    """The bytes that begin a segment; what is too far for `before` is not said."""
    out = BytesWriter()
    out.write(FILE_MAGIC)
    write_i32_be(out, FILE_VERSION)
    write_i32_be(out, i32(before) if before < 1 << 31 else 0)
    write_i64_be(out, first_position)
    return out.getvalue()


def renewed_header(first_position: i64) -> bytes:
    """The bytes to be written over a segment's header to give up whatever came before this position."""
    out = BytesWriter()
    write_i64_be(out, first_position)
    position = out.getvalue()
    covered = FILE_MAGIC + RENEWED.to_bytes(4, "big")
    checksum: int = value(covered + position)
    return covered + checksum.to_bytes(4, "big") + position


def header_position(raw: bytes) -> i64:
    """The first position that a segment's header names, -1 if it is no header of ours."""
    if is_renewed(raw):
        return read_i64_be(raw, 16)
    if len(raw) < FILE_HEADER or not raw.startswith(FILE_MAGIC) or read_i32_be(raw, 8) != FILE_VERSION:
        return -1
    return read_i64_be(raw, 16)


def is_renewed(raw: bytes) -> bool:
    """Whether a segment's header is one of `renewed_header`."""
    return len(raw) >= FILE_HEADER and raw[:FILE_HEADER] == renewed_header(read_i64_be(raw, 16))


def header_before(raw: bytes) -> i64:
    """Where the file before begins, as a whole header says; -1 if there was none."""
    before = i64(read_i32_be(raw, 12))
    return read_i64_be(raw, 16) - before if before > 0 and not is_renewed(raw) else -1


def encode_header(batch: Batch) -> bytes:
    """The 52 bytes before the batch's data."""
    out = BytesWriter()
    write_i32_be(out, i32(batch.count))
    write_i32_be(out, CARRIED if batch.carried else 0)
    write_i64_be(out, batch.first_position)
    write_i64_be(out, batch.first_id)
    write_i64_be(out, batch.timestamp)
    write_i64_be(out, batch.due)
    covered = out.getvalue()
    checksum: int = extend(extend(0, covered), batch.data)
    front = BytesWriter()
    write_i32_be(front, _MAGIC_NUMBER)
    size: i64 = len(batch.data)
    write_i32_be(front, i32(size))
    front.write(checksum.to_bytes(4, "big"))
    front.write(covered)
    return front.getvalue()


def whole_length(raw: bytes, at: i64) -> i64:
    """Bytes of the batch at `at`, header included; -1 if there can't be one. Needs BATCH_HEADER bytes there."""
    if read_i32_be(raw, at) != _MAGIC_NUMBER:
        return -1
    length: i64 = i64(read_i32_be(raw, at + 4))
    count: i64 = i64(read_i32_be(raw, at + 12))
    if length < 0 or length > _MAX_DATA or count < 0 or count * 4 > length:
        return -1
    return BATCH_HEADER + length


def decode(raw: bytes, at: i64) -> Batch | None:
    """The batch at `at`, all of it there; None if its checksum does not match."""
    length = i64(read_i32_be(raw, at + 4))
    data = raw[at + BATCH_HEADER : at + BATCH_HEADER + length]
    checksum: int = extend(extend(0, raw[at + 12 : at + BATCH_HEADER]), data)
    if checksum.to_bytes(4, "big") != raw[at + 8 : at + 12]:
        return None
    batch = Batch(
        data, i64(read_i32_be(raw, at + 12)), read_i64_be(raw, at + 36), read_i64_be(raw, at + 44), None
    )
    batch.first_position = read_i64_be(raw, at + 20)
    batch.first_id = read_i64_be(raw, at + 28)
    batch.carried = (read_i32_be(raw, at + 16) & CARRIED) != 0
    batch.state = KEPT
    return batch


class Segment:
    """One file of a log, as far as it is known. Offsets of batches are remembered every INDEX_STEP bytes."""

    def __init__(self, path: str, first_position: i64, size: i64) -> None:
        self.path = path
        self.first_position = first_position
        self.size = size  # bytes that hold whole batches (and the header)
        self.harmed = False  # somebody took something of it while it was in use
        self.given_up = False  # nobody needs it, and another one takes its file over
        self.before: i64 = -1  # where the file before begins, as far as the header says
        self.stop: i64 = first_position  # after the last position, once that is known
        self._positions: list[int] = []
        self._offsets: list[int] = []

    def remember(self, position: i64, offset: i64) -> None:
        """A batch with this first position begins at `offset`."""
        offsets = self._offsets
        if not offsets or offset >= offsets[-1] + INDEX_STEP:
            self._positions.append(int(position))
            offsets.append(int(offset))
        elif offset < offsets[-1]:  # a log's end is looked at first, when it is opened
            index = bisect(offsets, int(offset))
            before = i64(offsets[index - 1]) if index > 0 else -INDEX_STEP
            if offset >= before + INDEX_STEP and offset + INDEX_STEP <= offsets[index]:
                self._positions.insert(index, int(position))
                offsets.insert(index, int(offset))

    def offset_before(self, position: i64) -> i64:
        """Where to begin looking for `position`: the last remembered batch that is not behind it."""
        low = 0
        high = len(self._positions)
        while low < high:
            middle = (low + high) // 2
            if self._positions[middle] <= position:
                low = middle + 1
            else:
                high = middle
        return i64(self._offsets[low - 1]) if low > 0 else FILE_HEADER


INDEX_STEP: Final = 65536
