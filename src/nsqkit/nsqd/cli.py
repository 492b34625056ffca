"""The `nsqd` program: a thin shell over the daemon. It reads options and turns failures into messages and exit codes.

0   stopped as asked, or --help, --version
1   an option's value, the config file or the machine does not allow a start
2   the command line cannot be understood
"""

import sys
from collections.abc import Sequence

from nsqkit.errors import ConfigFileError, FlagError, OptionError, StartError
from nsqkit.log import Log, keep_standard_descriptors_open
from nsqkit.nsqd.options import NsqdOptions
from nsqkit.options.command_line import load, parse, usage
from nsqkit.version import version_line


def main(argv: Sequence[str] | None = None) -> int:
    """Run nsqd until it is told to stop; return its exit code."""
    keep_standard_descriptors_open()
    try:
        line = parse(NsqdOptions, sys.argv[1:] if argv is None else argv)
    except FlagError as error:
        print(f"nsqd: {error}\n{usage('nsqd', NsqdOptions)}", file=sys.stderr)
        return 2
    if line.help:
        print(usage("nsqd", NsqdOptions))
        return 0
    if line.version:
        print(version_line("nsqd"))
        return 0
    log = Log("[nsqd] ")
    try:
        options = load(NsqdOptions, line)
        log = Log(options.log_prefix, options.log_level)
        for warning in line.warnings:
            log.warning(warning)
        return _run(options, log)
    except FlagError as error:
        print(f"nsqd: {error}", file=sys.stderr)
        return 2
    except ConfigFileError as error:
        log.fatal(str(error))
    except (OptionError, StartError) as error:
        log.fatal(f"failed to instantiate nsqd - {error}")
    return 1


def _run(options: NsqdOptions, log: Log) -> int:
    """Load the daemon only when it is needed: --version and errors are answered without it."""
    from nsqkit.nsqd.daemon import run  # noqa: PLC0415

    return run(options, log)


if __name__ == "__main__":
    sys.exit(main())
