"""A disk that fails when told to, and forgets at a crash what was not synced."""

import os
import random
import shutil

from nsqkit.nsqd.storage.disk import Disk, Permit

PAGE = 64  # bytes that reach the disk together; small, so that small files have many


class Killed(BaseException):
    """The process dies here."""


class Inode:
    """What is known of a file: the content that a power cut leaves."""

    def __init__(self, durable: bytes = b"", *, whole: bool = False) -> None:
        self.durable = durable
        self.whole = whole  # replaced at once: what is there after a power cut is old, new or empty


class FaultyDisk(Disk):
    """Real files below `root`. Calls can be made to fail; `cut` takes away what was not synced.

    Removing and renaming are taken to be durable at once, which is the worst case for who relies on what was written
    before.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.calls: list[tuple[str, str]] = []  # name and file of each call that changes or reads something
        self.free = 1 << 40
        self.most = 1 << 40  # bytes that one write takes
        self.seconds = 0.0  # what the clock shows
        self.sync_takes = 0.0  # seconds
        self._faults: dict[str, list[int]] = {}  # by name of the call: what each of the next ones does
        self._deadly: int | None = None  # writes until the process dies
        self._open: dict[int, str] = {}
        self._inodes: dict[str, Inode] = {}  # files as they are
        self._entries: dict[str, Inode] = {}  # files whose names a power cut leaves
        self._directories = {root}  # likewise

    # -- orders

    def fail(self, call: str, error: int, *, after: int = 0, times: int = 1) -> None:
        """Let a call fail with this errno, `times` times, after some that succeed."""
        self._faults[call] = [0] * after + [error] * times

    def heal(self) -> None:
        """Nothing fails any more."""
        self._faults = {}
        self._deadly = None
        self.most = 1 << 40

    def die(self, writes: int) -> None:
        """Let the process die in the middle of a write, after so many others."""
        self._deadly = writes

    def kill(self) -> None:
        """The process is dead: its files are closed, and stay as they are."""
        for file in self._open:
            os.close(file)
        self._open = {}
        self.heal()

    def cut(self, chance: random.Random | None = None) -> None:
        """The power is cut. By chance, parts of what was not synced are there; otherwise nothing of it."""
        self.kill()
        for path in self._directories_below():
            if (
                path not in self._directories
                and os.path.isdir(path)
                and not (chance and chance.random() < 0.5)
            ):
                shutil.rmtree(path)
        for path in self.paths():
            entry = self._entries.get(path)
            inode = self._inodes.get(path, Inode())
            if entry is None and not (chance and chance.random() < 0.5):
                os.unlink(path)
                continue
            kept = entry.durable if entry is not None else b""
            if entry is not None and entry is inode and not inode.whole:
                kept = _mixed(inode.durable, self._load(path), chance)
            elif entry is None or (chance and chance.random() < 0.5):
                content = self._load(path)
                kept = (
                    chance.choice([content, b""]) if chance and inode.whole else _mixed(b"", content, chance)
                )
            with open(path, "wb") as file:
                file.write(kept)
        self._inodes = {path: Inode(self._load(path)) for path in self.paths()}
        self._entries = dict(self._inodes)
        self._directories = {self.root, *self._directories_below()}

    def paths(self) -> list[str]:
        """Every file."""
        return sorted(os.path.join(place, name) for place, _, names in os.walk(self.root) for name in names)

    def names_called(self, *wanted: str) -> list[tuple[str, str]]:
        """The recorded calls of these names, with files as their last part."""
        return [(call, os.path.basename(path)) for call, path in self.calls if call in wanted]

    def opened(self) -> int:
        """Descriptors in use."""
        return len(self._open)

    def directories_open(self) -> set[str]:
        """The directories, by their last part, in which a file is open."""
        return {os.path.basename(os.path.dirname(path)) for path in self._open.values()}

    # -- the calls

    def clock(self) -> float:
        """Goes on during syncs only."""
        return self.seconds

    def create(self, path: str) -> int:
        """Make a file that no power cut leaves."""
        self._step("create", path)
        file = super().create(path)
        self._open[file] = path
        self._inodes[path] = Inode()
        return file

    def open(self, path: str) -> int:
        """A file that is there may be on the disk."""
        self._step("open", path)
        file = super().open(path)
        self._open[file] = path
        self._known(path)
        return file

    def close(self, file: int) -> None:
        """Forget the descriptor."""
        del self._open[file]
        super().close(file)

    def read(self, file: int, length: int, offset: int) -> bytes:
        """What is there now."""
        self._step("read", self._open[file])
        return super().read(file, length, offset)

    def write(self, file: int, pieces: list[bytes], offset: int) -> int:
        """As much as the disk takes, or half of it if the process dies here."""
        path = self._open[file]
        data = b"".join(pieces)
        if self._deadly is not None:
            self._deadly -= 1
            if self._deadly < 0:
                os.pwrite(file, data[: len(data) // 2], offset)
                raise Killed
        self._step("write", path)
        return os.pwrite(file, data[: self.most], offset)

    def truncate(self, file: int, size: int) -> None:
        """Not synced."""
        self._step("truncate", self._open[file])
        super().truncate(file, size)

    def sync(self, file: int) -> None:
        """What is there now survives."""
        path = self._open[file]
        self.seconds += self.sync_takes
        self._step("sync", path)
        if path in self._inodes:  # it may have been removed
            self._inodes[path].durable = os.pread(file, os.fstat(file).st_size, 0)

    def sync_directory(self, path: str) -> None:
        """The names that are there now survive."""
        self._step("sync_directory", path)
        for name in os.listdir(path):
            entry = os.path.join(path, name)
            if os.path.isdir(entry):
                self._directories.add(entry)
            else:
                self._entries[entry] = self._known(entry)

    def replace(self, path: str, content: bytes, *, sync: bool = False, permit: Permit | None = None) -> None:
        """Old or new, and only with `sync` for sure."""
        self._step("replace", path)
        self._known(path)
        super().replace(path, content, permit=permit)
        self._inodes[path] = Inode(content if sync else b"", whole=True)
        if sync:
            self._step("sync", path)
            self._entries[path] = self._inodes[path]

    def load(self, path: str) -> bytes | None:
        """What is there now."""
        self._step("load", path)
        return super().load(path)

    def remove(self, path: str) -> None:
        """For good."""
        self._step("remove", path)
        super().remove(path)
        self._inodes.pop(path, None)
        self._entries.pop(path, None)

    def rename(self, path: str, target: str) -> None:
        """For good."""
        self._step("rename", path)
        super().rename(path, target)
        self._inodes[target] = self._inodes.pop(path, Inode())
        if path in self._entries:
            self._entries[target] = self._entries.pop(path)

    def remove_directory(self, path: str) -> None:
        """For good."""
        self._step("remove_directory", path)
        super().remove_directory(path)
        self._directories.discard(path)

    def free_bytes(self, path: str) -> int:
        """What the test says."""
        self._step("free_bytes", path)
        return self.free

    # -- inside

    def _step(self, call: str, path: str) -> None:
        self.calls.append((call, path))
        faults = self._faults.get(call)
        error = faults.pop(0) if faults else 0
        if error:
            raise OSError(error, os.strerror(error))

    def _known(self, path: str) -> Inode:
        """The inode of a file; one that was there before is on the disk already."""
        if path not in self._inodes and os.path.exists(path):
            self._entries[path] = self._inodes[path] = Inode(self._load(path))
        return self._inodes.get(path, Inode())

    def _load(self, path: str) -> bytes:
        with open(path, "rb") as file:
            return file.read()

    def _directories_below(self) -> list[str]:
        return sorted(os.path.join(place, name) for place, names, _ in os.walk(self.root) for name in names)


def _mixed(durable: bytes, current: bytes, chance: random.Random | None) -> bytes:
    """What is left of a file: by chance pages of the new content, in any order, and zeros in between."""
    if chance is None:
        return durable
    size = chance.choice([len(durable), len(current), chance.randint(*sorted((len(durable), len(current))))])
    pages = []
    for at in range(0, size, PAGE):
        source = current if chance.random() < 0.5 else durable
        pages.append(source[at : at + PAGE].ljust(PAGE, b"\x00"))
    return b"".join(pages)[:size]
