"""A disk in memory, which counts what is read from it; and bytes that know where they were damaged."""

import errno
from typing import Final

from nsqkit.nsqd.core.batch import Batch
from nsqkit.nsqd.storage.disk import Disk, Permit
from nsqkit.nsqd.storage.files import FileStorage
from nsqkit.nsqd.storage.log import TopicLog
from tests.fuzz.source import Source

NOW: Final = 1_700_000_000_000_000_000


class MemoryDisk(Disk):
    """Files by path; directories need no making."""

    def __init__(self) -> None:
        self.files: dict[str, bytearray] = {}
        self.bytes_read = 0
        self._open: dict[int, bytearray] = {}
        self._descriptors = 0

    def create(self, path: str) -> int:
        """Make a new file."""
        if path in self.files:
            raise FileExistsError(errno.EEXIST, "File exists")
        self.files[path] = bytearray()
        return self.open(path)

    def open(self, path: str) -> int:
        """Open a file that is there."""
        self._descriptors += 1
        self._open[self._descriptors] = self._file(path)
        return self._descriptors

    def close(self, file: int) -> None:
        """Forget the descriptor."""
        del self._open[file]

    def size(self, file: int) -> int:
        """Bytes in it."""
        return len(self._open[file])

    def links(self, file: int) -> int:  # noqa: ARG002
        """Nobody else removes anything."""
        return 1

    def read(self, file: int, length: int, offset: int) -> bytes:
        """What is there."""
        data = bytes(memoryview(self._open[file])[offset : offset + length])
        self.bytes_read += len(data)
        return data

    def write(self, file: int, pieces: list[bytes], offset: int) -> int:
        """All of it."""
        content = self._open[file]
        data = b"".join(pieces)
        content.extend(bytes(max(0, offset - len(content))))
        content[offset : offset + len(data)] = data
        return len(data)

    def truncate(self, file: int, size: int) -> None:
        """Cut."""
        del self._open[file][size:]

    def sync(self, file: int) -> None:
        """Nothing to do."""

    def sync_directory(self, path: str) -> None:
        """Nothing to do."""

    def replace(
        self,
        path: str,
        content: bytes,
        *,
        sync: bool = False,  # noqa: ARG002 - nothing is lost here
        permit: Permit | None = None,  # noqa: ARG002 - nor deleted
    ) -> None:
        """New content in a new file."""
        self.files[path] = bytearray(content)

    def load(self, path: str) -> bytes | None:
        """The content."""
        content = self.files.get(path)
        if content is None:
            return None
        self.bytes_read += len(content)
        return bytes(content)

    def names(self, path: str) -> list[str]:
        """Files of the directory."""
        prefix = f"{path}/"
        return sorted(
            {name[len(prefix) :].partition("/")[0] for name in self.files if name.startswith(prefix)}
        )

    def make_directory(self, path: str) -> bool:  # noqa: ARG002
        """Nothing to do."""
        return True

    def remove(self, path: str) -> None:
        """Forget it."""
        self.files.pop(path, None)

    def rename(self, path: str, target: str) -> None:
        """Another name."""
        self.files[target] = self._file(path)
        del self.files[path]

    def remove_directory(self, path: str) -> None:
        """Nothing to do."""

    def free_bytes(self, path: str) -> int:  # noqa: ARG002 - there is one
        """Plenty."""
        return 1 << 40

    def opened(self) -> int:
        """Descriptors in use."""
        return len(self._open)

    def _file(self, path: str) -> bytearray:
        if path not in self.files:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        return self.files[path]


class House:
    """A storage on a disk in memory; `begin` is the next process on the same disk."""

    def __init__(self, max_bytes_per_file: int = 1 << 30) -> None:
        self.disk = MemoryDisk()
        self.reports: list[str] = []
        self._max_bytes = max_bytes_per_file
        self._ids = 1000
        self.begin()

    def begin(self) -> None:
        """A process starts."""
        self.reports.clear()
        self.storage = FileStorage(
            self.disk, "d", lambda topic: f"d/{topic}", self.reports.append, self._max_bytes, 0
        )

    def batch(self, count: int, size: int, *, carried: bool = False) -> Batch:
        """A batch of `count` messages with bodies of `size` bytes, unlike any other; some look like many batches."""
        filler = b"NSQb" if size % 8 == 7 else b"...."
        bodies = [(b"%06d" % (self._ids + n) + filler * size)[: max(size, 6)] for n in range(count)]
        data = b"".join(len(body).to_bytes(4, "big") + body for body in bodies)
        batch = Batch(data, count, NOW + self._ids, 0, None)
        batch.first_id = self._ids
        batch.carried = carried
        self._ids += max(count, 1)
        return batch


class Damage:
    """Bytes of a file, each with the place where it stood before; None for one that is new."""

    def __init__(self, content: bytes, fixed: int = 0) -> None:
        """The first `fixed` bytes may change, but nothing moves them: where a format has a front of fixed length."""
        self._fixed = fixed
        self._before = content
        self.content = bytearray(content)
        self._places: list[int | None] = list(range(len(content)))

    def apply(self, source: Source) -> None:
        """One kind of damage, as the source wants it."""
        kind = source.byte() % 8
        at = source.number() % max(len(self.content), 1)
        length = 1 + source.byte()
        if kind < 3:
            new = source.take(1 + length % 8)
        elif kind == 3:
            new = bytes(length)
        elif kind == 4:  # the end is missing
            new, length = b"", len(self.content)
        elif kind == 5:
            new = b""
        elif kind == 6:  # something was put in between
            new, length = source.take(length % 16), 0
        else:  # there is something after the end
            at, new = len(self.content), source.take(length) if length & 1 else bytes(length * 16)
        if kind < 4:
            length = len(new)
        elif kind in {5, 6}:
            at = max(at, self._fixed)
        self.replace(at, length, new)

    def replace(self, at: int, length: int, new: bytes) -> None:
        """Put new bytes in the place of others."""
        old = self.content[at : at + length]
        self.content[at : at + length] = new
        kept = self._places[at : at + length] if len(old) == len(new) else []
        self._places[at : at + length] = [
            kept[n] if kept and old[n] == byte else None for n, byte in enumerate(new)
        ]

    def touched(self) -> int:
        """How many bytes are gone or new."""
        return len(set(range(len(self._before))) - set(self._places)) + self._places.count(None)

    def keeps_size(self) -> bool:
        """Whether there are as many bytes as before."""
        return len(self.content) == len(self._before)

    def untouched_to(self) -> int:
        """Where the first change is; the length of the file if there is none."""
        pairs = enumerate(zip(self._before, self.content, strict=False))
        same = min(len(self._before), len(self.content))
        return next((at for at, (old, new) in pairs if old != new), same)

    def is_cut(self, ends: set[int]) -> bool:
        """Whether no more than the front is left, or nothing (or zeros) behind one of these places.

        It looks like a file that was being begun, or like one to which nothing was added.
        """
        content = self.content
        return len(content) <= self._fixed or any(
            content[:end] == self._before[:end] and not any(content[end:]) for end in {0, *ends}
        )

    def whole(self, start: int, stop: int) -> bool:
        """Whether what stood at [start, stop) still stands together somewhere."""
        wanted = list(range(start, stop))
        if start not in self._places:
            return False
        at = self._places.index(start)
        return self._places[at : at + len(wanted)] == wanted


def read_all(log: TopicLog, limit: int = 4096) -> list[Batch]:
    """Every batch of a log, as a channel reads it: from the front, a block at a time."""
    found: list[Batch] = []
    start = log.start()
    while start < log.end():
        batches = log.read(start, log.end(), limit)
        assert all(batch.first_position + batch.count > start for batch in batches)
        found += batches
        if not batches:
            break
        following = batches[-1].first_position + batches[-1].count
        assert following > start, "reading does not come forward"
        start = following
    return found


def identity(batch: Batch) -> tuple[int, int, int, int, int, bool, bytes]:
    """Everything that a batch says."""
    return (
        int(batch.first_position),
        int(batch.count),
        int(batch.first_id),
        int(batch.timestamp),
        int(batch.due),
        bool(batch.carried),
        bytes(batch.data),
    )


def sealed(raw: bytes, mark: bytes, checksum_at: int, covered_at: int) -> bytes:
    """The same bytes with the checksum of each batch (or of the file, without a mark) made right."""
    from google_crc32c import value

    content = bytearray(raw)
    if not mark:
        content[checksum_at:covered_at] = int(value(raw[covered_at:])).to_bytes(4, "big")
        return bytes(content)
    at = content.find(mark)
    while at >= 0:
        length = int.from_bytes(content[at + 4 : at + 8], "big")
        if at + 52 + length <= len(content):
            covered = bytes(content[at + covered_at : at + 52 + length])
            content[at + checksum_at : at + checksum_at + 4] = int(value(covered)).to_bytes(4, "big")
        at = content.find(mark, at + 1)
    return bytes(content)
