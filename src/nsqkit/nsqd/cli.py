"""The `nsqd` program: a thin shell over the daemon."""

import sys
from collections.abc import Sequence

from nsqkit import program
from nsqkit.log import Log
from nsqkit.nsqd.options import NsqdOptions
from nsqkit.options.running import ConfigFile


def main(argv: Sequence[str] | None = None) -> int:
    """Run nsqd until it is told to stop; return its exit code."""
    return program.main("nsqd", NsqdOptions, _serve, argv)


def _serve(options: NsqdOptions, log: Log, file: ConfigFile[NsqdOptions] | None) -> int:
    from nsqkit.nsqd.daemon import Nsqd  # noqa: PLC0415 - --version does without

    return program.run(lambda: Nsqd(options, log), log, Nsqd.reload, file, Nsqd.terminate)


if __name__ == "__main__":
    sys.exit(main())
