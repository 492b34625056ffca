"""Is the machine ready: are the ports free, are the directories ours to write? StartError says what is in the way."""

import errno
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from nsqkit.bench.process import find_listener
from nsqkit.errors import StartError
from nsqkit.listen import bind
from nsqkit.nsqd.datapath import DataPathLock
from nsqkit.up.plan import Ports, Program


@contextmanager
def reserved(host: str, names: Sequence[str], wanted: Sequence[Ports]) -> Iterator[list[Ports]]:
    """Take all the ports at once, by binding them, and give the real ones where 0 was wanted.

    On Linux they stay bound, without listening, as long as this lasts: the programs may bind them all the same, but
    the system gives them to nobody else, also while a program is being started again. Other systems do not allow
    that, so there they are let go of at once. StartError names every port that is in use.
    """
    with ExitStack() as held:
        taken: list[Ports] = []
        in_the_way: list[str] = []
        for name, ports in zip(names, wanted, strict=True):
            bound: list[int] = []
            for port in (ports.tcp, ports.http):
                try:
                    bound.append(held.enter_context(bind(host, port)).getsockname()[1])
                except OSError as error:
                    if error.errno != errno.EADDRINUSE:
                        raise StartError(_cannot_listen(host, port, error)) from error
                    in_the_way.append(f"port {port}, for {name}, is in use{_by_whom(host, port)}")
            if len(bound) == 2:
                taken.append(Ports(*bound))
        if in_the_way:
            raise StartError(
                "\n  ".join(
                    [
                        *in_the_way,
                        "stop what uses them, or move everything with --base-port=N (0: free ports)",
                    ]
                )
            )
        if sys.platform != "linux":
            held.close()
        yield taken


def prepare_data(data_path: str, programs: Sequence[Program]) -> list[str]:
    """Make the data paths and see that they can be used. Returns remarks on what else lies there.

    StartError if a directory can't be made, written to, or is in use by another nsqd.
    """
    if os.path.exists(os.path.join(data_path, "nsqd.dat")):
        raise StartError(
            f"{data_path} is the data path of a single nsqd, for there is an nsqd.dat in it; here each nsqd has a "
            f"directory of its own below. Name another with --data-path=DIR, or move the data to DIR/nsqd-1"
        )
    ours = {program.data_path for program in programs if program.data_path}
    for path in sorted(ours):
        try:
            os.makedirs(path, exist_ok=True)
            with tempfile.TemporaryFile(dir=path):
                pass
        except OSError as error:
            raise StartError(
                f"can't write to {path}: {error.strerror or error}; name another directory with --data-path=DIR"
            ) from error
        DataPathLock(path).release()
    others = sorted(str(path.parent) for path in Path(data_path).glob("nsqd-*/nsqd.dat"))
    return [f"{path} has data too, and is not started now" for path in others if path not in ours]


def _cannot_listen(host: str, port: int, error: OSError) -> str:
    why = f"can't listen on {host}, port {port}: {error.strerror or error}"
    if error.errno == errno.EACCES:
        return f"{why}; ports below 1024 are the system's, say another --base-port"
    return f"{why}; --host must be an address of this machine, or 0.0.0.0 for all of them"


def _by_whom(host: str, port: int) -> str:
    """The process that listens there, where the system tells it (Linux, own processes)."""
    pid = find_listener(host, port)
    if pid is None:
        return ""
    name = ""
    with suppress(OSError):
        name = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    return f" by process {pid} ({name})" if name else f" by process {pid}"
