"""What every daemon's program does around the daemon: options, messages, exit codes, signals.

0   stopped as asked, or --help, --version
1   an option's value, the config file or the machine does not allow a start
2   the command line cannot be understood
"""

import asyncio
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, TypeVar

from nsqkit.errors import ConfigFileError, FlagError, OptionError, StartError
from nsqkit.log import Log, keep_standard_descriptors_open
from nsqkit.options.command_line import load, parse, usage
from nsqkit.options.daemon import DaemonOptions
from nsqkit.version import version_line

AnyOptions = TypeVar("AnyOptions", bound=DaemonOptions)


def main(
    program: str,
    options: type[AnyOptions],
    serve: Callable[[AnyOptions, Log], int],
    argv: Sequence[str] | None = None,
) -> int:
    """Read the options and `serve`; the program's exit code.

    `serve` is expected to load the daemon when it is called: --version and errors are answered without it.
    """
    keep_standard_descriptors_open()
    try:
        line = parse(options, sys.argv[1:] if argv is None else argv)
    except FlagError as error:
        print(f"{program}: {error}\n{usage(program, options)}", file=sys.stderr)
        return 2
    if line.help:
        print(usage(program, options))
        return 0
    if line.version:
        print(version_line(program))
        return 0
    log = Log(f"[{program}] ")
    try:
        loaded = load(options, line)
        log = Log(loaded.log_prefix, loaded.log_level)
        for warning in line.warnings:
            log.warning(warning)
        return serve(loaded, log)
    except FlagError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    except ConfigFileError as error:
        log.fatal(str(error))
    except (OptionError, StartError) as error:
        log.fatal(f"failed to instantiate {program} - {error}")
    finally:
        log.flush()
    return 1


def run(daemon: Callable[[], AbstractAsyncContextManager[Any]]) -> int:
    """Run what `daemon` makes until SIGTERM or SIGINT; the program's exit code. StartError if it can't start."""
    import uvloop  # noqa: PLC0415 - embedding works with any loop

    _raise_file_limit()
    return uvloop.run(_until_told(daemon))


async def _until_told(daemon: Callable[[], AbstractAsyncContextManager[Any]]) -> int:
    running = daemon()
    loop = asyncio.get_running_loop()
    wanted = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, wanted.set)
    async with running:
        await wanted.wait()
    return 0


def _raise_file_limit() -> None:
    """A connection is a file; the system's soft limit is for programs that use select."""
    import resource  # noqa: PLC0415

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
