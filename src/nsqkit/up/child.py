"""What each program of `nsqkit up` runs in: `python -m nsqkit.up.child <parent's pid> <module> <flags>`.

It asks the kernel for a SIGTERM when the parent is gone, however that ended, and becomes the program. That is Linux
only; elsewhere the programs survive a kill -9 of `nsqkit up`. Setting it from within, rather than between fork
and exec, keeps Python code out of a forked process whose parent has threads.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final

_PR_SET_PDEATHSIG: Final = 1  # prctl(2)


def main(argv: Sequence[str]) -> int:
    """Become the program; its exit code."""
    parent, module, *flags = argv
    end_with_parent(int(parent))
    code: int = import_module(module).main(flags)
    return code


def end_with_parent(parent: int) -> None:
    """Get a SIGTERM when the process `parent` ends; exit if it has ended before that could be asked for."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        raise SystemExit(f"nsqkit up (process {parent}) is gone")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
