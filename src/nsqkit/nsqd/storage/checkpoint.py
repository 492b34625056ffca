r"""The checkpoint file of a topic: what its channels still owe (core/ledger.py), small and replaced as a whole.

    | NSQKCKP\n | version i32 | crc32c u32 | end | last id | needed from |
    | synced: segment, offset, position | channels |
    channel: name, ready extents, deferred extents, leftovers; each list after its i32 length

All positions are i64. `synced` tells from where on the log has to be checked when it is opened.
"""

from collections.abc import Callable
from typing import Final

from google_crc32c import value
from librt.strings import BytesWriter, read_i32_be, read_i64_be, write_i32_be, write_i64_be
from mypy_extensions import i32, i64

from nsqkit.nsqd.core.ledger import SLICE, without_pause
from nsqkit.nsqd.core.store import ChannelRecord, Extent, Leftover, TopicRecord

MAGIC: Final = b"NSQKCKP\n"
VERSION: Final = 1
_FRONT: Final = 16  # magic, version, checksum


class Synced:
    """The log up to `offset` of the segment that begins at `segment` is on the disk, and ends at `position`."""

    __slots__ = ("offset", "position", "segment")

    def __init__(self, segment: i64, offset: i64, position: i64) -> None:
        self.segment = segment
        self.offset = offset
        self.position = position


def encode(record: TopicRecord, synced: Synced, pause: Callable[[], None] = without_pause) -> bytes:
    """The file's content. It uses the record up, bit by bit: to let it go at once would take long as well."""
    out = BytesWriter()
    write_i64_be(out, record.end)
    write_i64_be(out, record.last_id)
    write_i64_be(out, record.needed_from)
    write_i64_be(out, synced.segment)
    write_i64_be(out, synced.offset)
    write_i64_be(out, synced.position)
    _write_count(out, len(record.channels))
    for channel in record.channels:
        name = channel.name.encode()
        _write_count(out, len(name))
        out.write(name)
        _write_extents(out, channel.ready, pause)
        _write_extents(out, channel.deferred, pause)
        leftovers = channel.leftovers
        leftovers.reverse()
        _write_count(out, len(leftovers))
        while leftovers:
            leftover = leftovers.pop()
            write_i64_be(out, leftover.position)
            write_i64_be(out, leftover.attempts)
            write_i64_be(out, leftover.due)
            if len(leftovers) % SLICE == 0:
                pause()
    body = out.getvalue()
    checksum: int = value(body)
    return MAGIC + VERSION.to_bytes(4, "big") + checksum.to_bytes(4, "big") + body


def decode(raw: bytes) -> tuple[TopicRecord, Synced] | None:
    """What `encode` wrote; None if these bytes are not whole or not ours."""
    if len(raw) < _FRONT or not raw.startswith(MAGIC) or read_i32_be(raw, 8) != VERSION:
        return None
    body = raw[_FRONT:]
    checksum: int = value(body)
    if checksum.to_bytes(4, "big") != raw[12:_FRONT]:
        return None
    try:
        return _Reader(body).record()
    except (IndexError, ValueError):  # a checksum that is right over what is none of ours
        return None


class _Reader:
    """Walks the body of a checkpoint whose checksum is right, so its lengths are."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at: i64 = 0

    def record(self) -> tuple[TopicRecord, Synced]:
        record = TopicRecord()
        record.end = self._long()
        record.last_id = self._long()
        record.needed_from = self._long()
        synced = Synced(self._long(), self._long(), self._long())
        for _ in range(self._count()):
            length = self._count()
            name = self._body[self._at : self._at + length].decode()
            self._at += length
            channel = ChannelRecord(name)
            channel.ready = self._extents()
            channel.deferred = self._extents()
            for _ in range(self._count()):
                channel.leftovers.append(Leftover(self._long(), self._long(), self._long()))
            record.channels.append(channel)
        if self._at != len(self._body):
            raise ValueError("more than a checkpoint")
        return record, synced

    def _extents(self) -> list[Extent]:
        return [Extent(self._long(), self._long()) for _ in range(self._count())]

    def _long(self) -> i64:
        self._at += 8
        return read_i64_be(self._body, self._at - 8)

    def _count(self) -> i64:
        self._at += 4
        count: i64 = i64(read_i32_be(self._body, self._at - 4))
        if count < 0 or count > len(self._body):
            raise ValueError("a list longer than the file")
        return count


def _write_extents(out: BytesWriter, extents: list[Extent], pause: Callable[[], None]) -> None:
    _write_count(out, len(extents))
    for number, extent in enumerate(extents):
        write_i64_be(out, extent.start)
        write_i64_be(out, extent.stop)
        if number % SLICE == SLICE - 1:
            pause()


def _write_count(out: BytesWriter, count: int) -> None:
    write_i32_be(out, i32(count))
