"""What the server's process used, from the kernel's own accounting. Linux only; elsewhere there are no figures.

CPU time comes from the process CPU clock (see clock_getcpuclockid(3)): nanoseconds, all threads, also those that ended
meanwhile. Where the kernel refuses it, from utime + stime in /proc/<pid>/stat, which tick every 10 ms.
"""

import os
import re
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CPU_CLOCK: Final = "process CPU clock (ns)"
CPU_TICKS: Final = "/proc/<pid>/stat (ticks of 10 ms)"

_CPUCLOCK_SCHED: Final = 2
UNIX: Final = -1
"""In place of a port: the host is the path of a unix socket."""

_LISTENING: Final = "0A"
_PROC: Final = Path("/proc")


@dataclass(frozen=True, slots=True)
class Window:
    """What happened between `Meter.start` and `Meter.stop`. None where it cannot be known."""

    seconds: float
    server_cpu_us: float | None
    generator_cpu_us: float
    server_rss_before: int | None
    server_rss_after: int | None


class Meter:
    """A stop watch for wall time and for the CPU time of the server and of this process."""

    def __init__(self, pid: int | None) -> None:
        self._pid = pid

    def start(self) -> None:
        """Begin the measured window."""
        self._rss = self._pid and resident_bytes(self._pid)
        self._own_cpu = time.process_time_ns()
        self._began = time.perf_counter_ns()
        self._cpu = self._pid and cpu_ns(self._pid)

    def stop(self) -> Window:
        """End the measured window."""
        cpu = self._pid and cpu_ns(self._pid)
        ended = time.perf_counter_ns()
        return Window(
            seconds=(ended - self._began) / 1e9,
            server_cpu_us=None if cpu is None or self._cpu is None else (cpu - self._cpu) / 1e3,
            generator_cpu_us=(time.process_time_ns() - self._own_cpu) / 1e3,
            server_rss_before=self._rss,
            server_rss_after=self._pid and resident_bytes(self._pid),
        )


def cpu_source(pid: int) -> str | None:
    """Where `cpu_ns` has its figures from; None when there are none for this process."""
    if _clock_ns(pid) is not None:
        return CPU_CLOCK
    return CPU_TICKS if _ticks_ns(pid) is not None else None


def cpu_ns(pid: int) -> int | None:
    """CPU time the process has used so far, in ns."""
    clock = _clock_ns(pid)
    return _ticks_ns(pid) if clock is None else clock


def resident_bytes(pid: int) -> int | None:
    """Memory the process has in RAM."""
    try:
        return parse_resident_bytes((_PROC / str(pid) / "status").read_text())
    except OSError:
        return None


def find_listener(host: str, port: int) -> int | None:
    """The process of this machine that listens there; None when it is not here or not ours to look at."""
    if port == UNIX:
        return _unix_listener(host)
    if not _PROC.is_dir() or not _is_local(host):
        return None
    inodes: set[int] = set()
    for table in ("tcp", "tcp6"):
        try:
            inodes.update(parse_listening_inodes((_PROC / "net" / table).read_text(), port))
        except OSError:
            continue
    wanted = {f"socket:[{inode}]" for inode in inodes}
    return min((pid for pid, link in _open_sockets() if link in wanted), default=None)


def connect(host: str, port: int, timeout_s: float) -> socket.socket:
    """A socket that is connected to this host and port, or path and UNIX. OSError."""
    if port != UNIX:
        return socket.create_connection((host, port), timeout=timeout_s)
    one = socket.socket(socket.AF_UNIX)
    try:
        one.settimeout(timeout_s)
        one.connect(host)
    except OSError:
        one.close()
        raise
    return one


def _unix_listener(path: str) -> int | None:
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    try:
        with connect(path, UNIX, 1.0) as one:
            pid, _, _ = struct.unpack("3i", one.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    except OSError:
        return None
    return pid or None


def cpu_model() -> str:
    """The name of this machine's processor."""
    try:
        names = re.findall(r"^model name\s*:\s*(.+)$", (_PROC / "cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        names = []
    return names[0] if names else "unknown"


def parse_listening_inodes(table: str, port: int) -> Iterator[int]:
    """The inodes of sockets that listen on `port`, from the text of /proc/net/tcp or tcp6."""
    for line in table.splitlines()[1:]:
        columns = line.split()
        local, state = columns[1], columns[3]
        if state == _LISTENING and int(local.rpartition(":")[2], 16) == port:
            yield int(columns[9])


def parse_cpu_ticks(stat: str) -> int:
    """utime + stime from the text of /proc/<pid>/stat. The name before them may hold spaces and parentheses."""
    fields = stat.rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def parse_resident_bytes(status: str) -> int | None:
    """VmRSS from the text of /proc/<pid>/status; a process without memory has none."""
    found = re.search(r"^VmRSS:\s*(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _clock_ns(pid: int) -> int | None:
    try:
        return time.clock_gettime_ns(~pid << 3 | _CPUCLOCK_SCHED) if _PROC.is_dir() else None
    except OSError:
        return None


def _ticks_ns(pid: int) -> int | None:
    try:
        ticks = parse_cpu_ticks((_PROC / str(pid) / "stat").read_text())
    except OSError:
        return None
    return ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def _is_local(host: str) -> bool:
    """Whether this machine has that address: then one can bind to it."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.bind(address)
    except OSError:
        return False
    return True


def _open_sockets() -> Iterator[tuple[int, str]]:
    for process in _PROC.iterdir():
        if process.name.isdigit():
            for link in _links(process / "fd"):
                yield int(process.name), link


def _links(folder: Path) -> Iterable[str]:
    try:
        names = os.listdir(folder)
    except OSError:  # it ended, or belongs to someone else
        return
    for name in names:
        try:
            yield os.readlink(folder / name)
        except OSError:
            continue
