"""nsqd with a disk that can be slowed down and a calendar that can be set: what a machine without root can't do to it.

    python -m faults.launcher CONTROLS [nsqd's own flags]

It is the real program on a machine that differs in two things: `Disk`, whose writes and syncs first sleep as long as
the controls say, and the calendar that `Clock` reads, which they shift.
"""

import sys
import time
from pathlib import Path

from faults.controls import Controls
from nsqkit import program
from nsqkit.clock import Clock
from nsqkit.log import Log
from nsqkit.nsqd.daemon import Nsqd
from nsqkit.nsqd.machine import Machine
from nsqkit.nsqd.options import NsqdOptions
from nsqkit.nsqd.storage.disk import Disk


class SlowDisk(Disk):
    """The operating system's files, behind a brake."""

    def __init__(self, controls: Controls) -> None:
        self.controls = controls

    def write(self, file: int, pieces: list[bytes], offset: int) -> int:
        """Write, late."""
        time.sleep(self.controls.write_ns / 1e9)
        return super().write(file, pieces, offset)

    def sync(self, file: int) -> None:
        """Sync, late."""
        time.sleep(self.controls.sync_ns / 1e9)
        super().sync(file)


class SlowMachine(Machine):
    """The real machine but for its disk and its calendar."""

    def __init__(self, controls: Controls) -> None:
        super().__init__()
        self.disk = SlowDisk(controls)
        self.clock = Clock(calendar=lambda: time.time_ns() + controls.shift_ns)


def main() -> int:
    """Run nsqd under the controls that the first argument names."""
    controls = Controls(Path(sys.argv[1]))

    def serve(options: NsqdOptions, log: Log, _: object) -> int:
        return program.run(lambda: Nsqd(options, log, SlowMachine(controls)), log)

    return program.main("nsqd", NsqdOptions, serve, sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
