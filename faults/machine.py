"""What a machine may lend: a small file system that gets full, a network of its own. Both need root."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

TOOL_S = 20.0


class SmallDisk:
    """A tmpfs that is filled and emptied again."""

    def __init__(self, path: Path) -> None:
        self._ballast = path / "ballast"
        self._path = path

    def fill(self, left_bytes: int) -> None:
        """Leave about so much free."""
        about = os.statvfs(self._path)
        size = about.f_bavail * about.f_frsize - left_bytes
        with self._ballast.open("wb") as file, contextlib.suppress(OSError):
            os.posix_fallocate(file.fileno(), 0, max(1, size))

    def free(self) -> None:
        """Throw the ballast away."""
        self._ballast.unlink(missing_ok=True)

    def keep(self, target: Path) -> None:
        """Copy what is on it."""
        self.free()
        shutil.copytree(self._path, target)


@contextlib.contextmanager
def small_disk(path: Path, size_bytes: int) -> Iterator[SmallDisk | None]:
    """A file system of that size at `path`, while it lasts; None where nobody may mount one."""
    path.mkdir(parents=True, exist_ok=True)
    if not _worked("mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "nsqkit-faults", str(path)):
        yield None
        return
    try:
        yield SmallDisk(path)
    finally:
        _worked("umount", "--lazy", str(path))


class Wire:
    """A pair of network interfaces: one here, one in the namespace where nsqd listens on `host`."""

    def __init__(self, name: str, host: str) -> None:
        self.name = name
        self.host = host
        self.prefix = ("ip", "netns", "exec", name)

    def pull(self) -> None:
        """Pull the plug: packets go nowhere, and nobody is told."""
        _worked("ip", "-n", self.name, "link", "set", "wire", "down")

    def plug(self) -> None:
        """Put it in again."""
        _worked("ip", "-n", self.name, "link", "set", "wire", "up")


@contextlib.contextmanager
def namespace(number: int) -> Iterator[Wire | None]:
    """A network namespace behind a wire, while it lasts; None where nobody may make one. `number` is in [0, 4096)."""
    name = f"faults{os.getpid() % 100_000}-{number % 100}"
    net = f"198.18.{number // 16 % 256}"  # set aside for tests of networks
    here, there = f"{net}.{number % 16 * 4 + 1}", f"{net}.{number % 16 * 4 + 2}"
    if not _worked("ip", "netns", "add", name):
        yield None
        return
    try:
        worked = (
            _worked("ip", "link", "add", name, "type", "veth", "peer", "name", "wire", "netns", name)
            and _worked("ip", "addr", "add", f"{here}/30", "dev", name)
            and _worked("ip", "link", "set", name, "up")
            and _worked("ip", "-n", name, "addr", "add", f"{there}/30", "dev", "wire")
            and _worked("ip", "-n", name, "link", "set", "wire", "up")
            and _worked("ip", "-n", name, "link", "set", "lo", "up")
        )
        yield Wire(name, there) if worked else None
    finally:
        _worked("ip", "link", "del", name)
        _worked("ip", "netns", "del", name)


def _worked(*words: str) -> bool:
    try:
        done = subprocess.run(words, capture_output=True, timeout=TOOL_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
