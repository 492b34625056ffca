"""The `nsqlookupd` program: a thin shell over the daemon."""

import sys
from collections.abc import Sequence

from nsqkit import program
from nsqkit.log import Log
from nsqkit.nsqlookupd.options import NsqlookupdOptions
from nsqkit.options.running import ConfigFile


def main(argv: Sequence[str] | None = None) -> int:
    """Run nsqlookupd until it is told to stop; return its exit code."""
    return program.main("nsqlookupd", NsqlookupdOptions, _serve, argv)


def _serve(options: NsqlookupdOptions, log: Log, file: ConfigFile[NsqlookupdOptions] | None) -> int:
    from nsqkit.nsqlookupd.daemon import Nsqlookupd  # noqa: PLC0415 - --version does without

    return program.run(lambda: Nsqlookupd(options, log), log, Nsqlookupd.reload, file)


if __name__ == "__main__":
    sys.exit(main())
