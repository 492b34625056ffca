"""A disk that is only a model: a page cache before a platter, directories whose changes wait, and faults.

What a program sees is the cache. A kill leaves it as it is. A power cut leaves the platter: for each file any subset of
the sectors written since its last sync and any of the sizes it had, for each directory any subset of the changes since
its last sync, or the first few of them. What was synced is there. A sync that fails writes some of the sectors, and
marks them all as clean, as Linux does: the next sync, which succeeds, proves nothing about them.

`alter` is called before whatever changes or syncs something, so that a process can die between any two of these.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Final

from nsqkit.nsqd.storage.disk import Disk, Permit
from nsqkit.nsqd.storage.segment import is_renewed

ROOT: Final = "/data"
FIRST_FILE: Final = 3  # descriptor
PLENTY: Final = 1 << 40  # bytes free on a disk that is not to get full


class File:
    """An inode of a file: what is in the cache, what is on the platter, and which sectors differ."""

    def __init__(self) -> None:
        self.content = bytearray()
        self.dirty: set[int] = set()
        self.platter = bytearray()
        self.platter_size = 0

    def write(self, data: bytes, offset: int, sector: int) -> None:
        """Into the cache."""
        content = self.content
        if offset > len(content):
            content.extend(bytes(offset - len(content)))
        content[offset : offset + len(data)] = data
        self.dirty.update(range(offset // sector, (offset + len(data) - 1) // sector + 1))

    def truncate(self, size: int, sector: int) -> None:
        """In the cache."""
        if size < len(self.content):
            self.dirty.update(range(size // sector, (len(self.content) - 1) // sector + 1))
            del self.content[size:]
        else:
            self.write(bytes(size - len(self.content)), len(self.content), sector)

    def write_back(self, sectors: list[int], sector: int) -> None:
        """To the platter, without the size."""
        for number in sectors:
            begin = number * sector
            piece = self.content[begin : begin + sector]
            if len(self.platter) < begin:
                self.platter.extend(bytes(begin - len(self.platter)))
            self.platter[begin : begin + len(piece)] = piece

    def sync(self, sector: int) -> None:
        """Everything that is marked as dirty is on the platter, and the size."""
        self.write_back(sorted(self.dirty), sector)
        self.dirty.clear()
        self.platter_size = len(self.content)

    def clean(self) -> bool:
        """Is the platter as the cache, as far as is known?"""
        return not self.dirty and self.platter_size == len(self.content)

    def lose_power(self, chance: Random, sector: int) -> None:
        """What is left becomes the content."""
        dirty = sorted(self.dirty)
        low, high = sorted((self.platter_size, len(self.content)))
        luck = chance.random()
        if luck < 0.25:
            dirty, size = [], self.platter_size
        elif luck < 0.6:
            size = len(self.content)
        else:
            dirty = [number for number in dirty if chance.random() < 0.5]
            size = chance.choice([low, high, chance.randint(low, high)])
        self.write_back(dirty, sector)
        left = self.platter[:size]
        left.extend(bytes(size - len(left)))
        self.content, self.platter, self.platter_size = left, bytearray(left), size
        self.dirty.clear()


class Directory:
    """Names as the cache has them, names as the platter has them, and the changes in between."""

    def __init__(self) -> None:
        self.entries: dict[str, File | Directory] = {}
        self.safe: dict[str, File | Directory] = {}
        self.changes: list[tuple[str, str, File | Directory | None]] = []  # name gone, name there, what it is

    def change(self, gone: str, there: str, what: File | Directory | None) -> None:
        """One atomic change: a name goes, a name comes (in its place, if it was there), or both."""
        self.changes.append((gone, there, what))
        _apply(self.entries, self.changes[-1])

    def sync(self, count: int | None = None) -> None:
        """All changes, or the first few, are on the platter."""
        done = self.changes[:count]
        self.changes = [] if count is None else self.changes[count:]
        for change in done:
            _apply(self.safe, change)

    def lose_power(self, chance: Random, sector: int) -> None:
        """What is left becomes the content, all the way down."""
        luck = chance.random()
        if luck < 0.2:
            left = []
        elif luck < 0.6:
            left = self.changes
        elif luck < 0.8:
            left = self.changes[: chance.randint(0, len(self.changes))]
        else:
            left = [change for change in self.changes if chance.random() < 0.5]
        self.changes = left
        self.sync()
        self.entries = dict(self.safe)
        for name in sorted(self.entries):
            self.entries[name].lose_power(chance, sector)


def _apply(entries: dict[str, File | Directory], change: tuple[str, str, File | Directory | None]) -> None:
    gone, there, what = change
    if gone:
        entries.pop(gone, None)
    if there and what is not None:
        entries[there] = what


class SimulatedDisk(Disk):
    """The disk of one machine. `sector` is how many bytes reach the platter together."""

    def __init__(self, sector: int) -> None:
        self.sector = sector
        self.root = Directory()
        self.free = PLENTY
        self.counts: Counter[str] = Counter()
        self.trouble: Callable[[str], None] = lambda _: None  # called when a call fails
        self.removed: Callable[[str], None] = lambda _: None  # called when a file is gone
        self.chance = Random(0)  # replaced with each step
        self.most = PLENTY  # bytes that one write takes
        self._faults: dict[str, list[int]] = {}  # by name of the call: what each of the next ones does
        self._where: dict[str, str] = {}  # by name of the call: what must be in the path
        self._deadly = -1  # changes until the process dies; -1: it doesn't
        self._open: dict[int, tuple[str, File | Directory]] = {}

    # -- orders

    def fail(self, call: str, error: int, after: int, times: int, where: str = "") -> None:
        """Let a call fail with this errno, `times` times, after some that succeed, where `where` is in the path."""
        self._faults[call] = [0] * after + [error] * times
        self._where[call] = where

    def content(self, path: str) -> bytes:
        """What is in a file, whatever fails."""
        file = self._find(path)
        assert isinstance(file, File), path
        return bytes(file.content)

    def rot(self, path: str, offset: int) -> None:
        """One bit of a file turns over."""
        file = self._find(path)
        assert isinstance(file, File), path
        for content in (file.content, file.platter):
            if offset < len(content):
                content[offset] ^= 1 << self.chance.randrange(8)

    def heal(self) -> None:
        """Nothing fails any more."""
        self._faults = {}
        self.free = self.most = PLENTY

    def die(self, changes: int) -> None:
        """Let the process die before a change of the disk, after so many others."""
        self._deadly = changes

    def kill(self) -> None:
        """The process is dead; the cache is as it was."""
        self._deadly = -1
        self._open = {}

    def cut(self, chance: Random) -> None:
        """The power is cut."""
        self.kill()
        self.root.lose_power(chance, self.sector)

    def write_back(self, chance: Random) -> None:
        """The system writes some of what waits, in its own time."""
        for directory in self._directories():
            if chance.random() < 0.5:
                directory.sync(
                    chance.choice((len(directory.changes), chance.randint(0, len(directory.changes))))
                )
            for _, entry in sorted(directory.entries.items()):
                if isinstance(entry, File) and entry.dirty and chance.random() < 0.5:
                    share = chance.choice((0.5, 0.9, 1.0))
                    some = [number for number in sorted(entry.dirty) if chance.random() < share]
                    entry.write_back(some, self.sector)
                    if len(some) == len(entry.dirty):
                        entry.sync(self.sector)
                    else:
                        entry.dirty.difference_update(some)

    def well(self) -> bool:
        """Will nothing fail that is not ordered anew?"""
        return not any(self._faults.values()) and self.free == PLENTY

    def unsynced(self) -> bool:
        """Would a power cut lose something?"""
        return any(
            directory.changes
            or any(isinstance(entry, File) and not entry.clean() for entry in directory.entries.values())
            for directory in self._directories()
        )

    def opened(self) -> list[str]:
        """Paths of what is open."""
        return [path for path, _ in self._open.values()]

    def _directories(self) -> list[Directory]:
        below = [entry for _, entry in sorted(self.root.entries.items()) if isinstance(entry, Directory)]
        return [self.root, *below]

    # -- the calls

    def clock(self) -> float:
        """Nothing takes time here."""
        return 0.0

    def create(self, path: str) -> int:
        """A new file."""
        self.alter("create", path)
        directory, name = self._place(path)
        if name in directory.entries:
            raise _error(errno.EEXIST)
        file = File()
        directory.change("", name, file)
        return self.take(path, file)

    def open(self, path: str) -> int:
        """An existing file."""
        self._step("open", path)
        return self.take(path, self._find(path))

    def close(self, file: int) -> None:
        """Forget the descriptor."""
        del self._open[file]

    def size(self, file: int) -> int:
        """As the cache has it."""
        return len(self._file(file).content)

    def size_of(self, path: str) -> int:
        """As the cache has it."""
        try:
            self._step("open", path)
            return _size(self._find(path))
        except FileNotFoundError:
            return -1

    def links(self, file: int) -> int:  # noqa: ARG002
        """Nobody else removes anything."""
        return 1

    def read(self, file: int, length: int, offset: int) -> bytes:
        """As the cache has it."""
        self._step("read", self._open[file][0])
        return bytes(self._file(file).content[offset : offset + length])

    def write(self, file: int, pieces: list[bytes], offset: int) -> int:
        """Into the cache; a part of it if the disk gets full, if writes are short, or if the process dies."""
        data = b"".join(pieces)
        self.counts["log given up"] += is_renewed(data)
        path = self._open[file][0]
        if self._deadly == 0:
            self._put(file, data[: self.chance.randint(0, len(data))], offset)
        try:
            self.alter("write", path)
        except OSError:
            if self.chance.random() < 0.6:
                self._put(file, data[: self.chance.randint(0, len(data))], offset)
            raise
        if self.most < len(data):
            data = data[: self.most]
        grown = offset + len(data) - len(self._file(file).content)
        if grown > self.free:
            data = data[: max(len(data) - grown + self.free, 0)]
            if not data:
                self.trouble("the disk is full")
                self.counts["disk full"] += 1
                raise _error(errno.ENOSPC)
        return self._put(file, data, offset)

    def truncate(self, file: int, size: int) -> None:
        """In the cache."""
        self.alter("truncate", self._open[file][0])
        inode = self._file(file)
        self._give_back(len(inode.content) - size)
        inode.truncate(size, self.sector)

    def sync(self, file: int) -> None:
        """To the platter; when it fails, only some of it, and nobody knows."""
        path, inode = self._open[file]
        if isinstance(inode, Directory):
            self.alter("sync_directory", path)
            inode.sync()
            return
        try:
            self.alter("sync", path)
        except OSError:
            inode.write_back([n for n in sorted(inode.dirty) if self.chance.random() < 0.5], self.sector)
            inode.dirty.clear()
            raise
        inode.sync(self.sector)

    def sync_directory(self, path: str) -> None:
        """The names to the platter."""
        directory = self._find(path)
        assert isinstance(directory, Directory), path
        self.alter("sync_directory", path)
        directory.sync()

    def replace(self, path: str, content: bytes, *, sync: bool = False, permit: Permit | None = None) -> None:
        """Make a file of another name and rename it, as the real one does."""
        with permit or Permit():
            self.alter("replace", path)
        temporary = path + ".tmp"
        directory, name = self._place(temporary)
        if name in directory.entries:
            directory.change(name, "", None)
        inode = File()
        directory.change("", name, inode)
        file = self.take(temporary, inode)
        try:
            try:
                written = 0
                while written < len(content):
                    written += self.write(file, [content[written:]], written)
                if sync:
                    self.sync(file)
            finally:
                self.close(file)
            self.rename(temporary, path)
        except OSError:
            self._give_back(_size(inode))
            directory.change(name, "", None)
            raise
        if sync:
            self.sync_directory(os.path.dirname(path))

    def load(self, path: str) -> bytes | None:
        """As the cache has it."""
        self._step("load", path)
        try:
            file = self._find(path)
        except FileNotFoundError:
            return None
        assert isinstance(file, File), path
        return bytes(file.content)

    def names(self, path: str) -> list[str]:
        """As the cache has them."""
        try:
            directory = self._find(path)
        except FileNotFoundError:
            return []
        return sorted(directory.entries) if isinstance(directory, Directory) else []

    def make_directory(self, path: str) -> bool:
        """Not synced."""
        directory, name = self._place(path)
        if name in directory.entries:
            return False
        self.alter("make_directory", path)
        directory.change("", name, Directory())
        return True

    def remove(self, path: str) -> None:
        """Not synced."""
        self.alter("remove", path)
        try:
            directory, name = self._place(path)
        except FileNotFoundError:
            return
        if name in directory.entries:
            self._give_back(_size(directory.entries[name]))
            directory.change(name, "", None)
            self.removed(path)

    def rename(self, path: str, target: str) -> None:
        """Not synced, but whole."""
        self.alter("rename", path)
        directory, name = self._place(path)
        there = self._place(target)[1]
        self._give_back(_size(directory.entries.get(there)))
        directory.change(name, there, self._find(path))

    def remove_directory(self, path: str) -> None:
        """Not synced."""
        self.alter("remove_directory", path)
        directory, name = self._place(path)
        if self.names(path):
            raise _error(errno.ENOTEMPTY)
        directory.change(name, "", None)

    def total_bytes(self, path: str) -> int:  # noqa: ARG002
        """A large one."""
        return 1 << 40

    def free_bytes(self, path: str) -> int:
        """What there is."""
        self._step("free_bytes", path)
        return self.free

    # -- inside

    def alter(self, call: str, path: str) -> None:
        """The disk is about to be changed by this call, or to be synced."""
        if self._deadly >= 0:
            self._deadly -= 1
            if self._deadly < 0:
                self.counts["died before " + call] += 1
                raise Died(f"before {call} {path}")
        self._step(call, path)
        self.counts[call] += 1

    def take(self, path: str, inode: File | Directory) -> int:
        """The lowest descriptor that is free, as a real one does: what uses one that was closed gets another file."""
        file = FIRST_FILE
        while file in self._open:
            file += 1
        self._open[file] = (path, inode)
        return file

    def is_directory(self, path: str) -> bool:
        """Is there one of this name?"""
        try:
            return isinstance(self._find(path), Directory)
        except FileNotFoundError:
            return False

    def _step(self, call: str, path: str) -> None:
        faults = self._faults.get(call)
        error = faults.pop(0) if faults and self._where[call] in path else 0
        if error:
            self.counts[f"{call} failed"] += 1
            self.trouble(f"{call} {path}: {os.strerror(error)}")
            raise _error(error)

    def _put(self, file: int, data: bytes, offset: int) -> int:
        if data:
            inode = self._file(file)
            before = len(inode.content)
            inode.write(data, offset, self.sector)
            if self.free != PLENTY:
                self.free -= len(inode.content) - before
        return len(data)

    def _give_back(self, size: int) -> None:
        if self.free != PLENTY:
            self.free += size

    def _file(self, file: int) -> File:
        inode = self._open[file][1]
        assert isinstance(inode, File)
        return inode

    def _place(self, path: str) -> tuple[Directory, str]:
        head, _, name = path.rpartition("/")
        directory = self._find(head)
        assert isinstance(directory, Directory), path
        return directory, name

    def _find(self, path: str) -> File | Directory:
        assert path.startswith(ROOT), path
        entry: File | Directory = self.root
        for name in path[len(ROOT) :].split("/")[1:]:
            if not isinstance(entry, Directory) or name not in entry.entries:
                raise _error(errno.ENOENT)
            entry = entry.entries[name]
        return entry


class Died(BaseException):
    """The process dies here."""


def _size(entry: File | Directory | None) -> int:
    return len(entry.content) if isinstance(entry, File) else 0


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
