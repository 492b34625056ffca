"""What every daemon's program does around the daemon: options, messages, exit codes, signals.

0   stopped as asked, or --help, --version
1   the machine does not allow a start now: an address in use, a data path that is locked, missing or damaged
2   a flag or a value on the command line or in the config file is wrong, and stays wrong

SIGINT stops, and so does SIGTERM, unless the daemon has something to do first; SIGHUP has the config file and
certificates read again, and is ignored with a line where there are none.
"""

import argparse
import asyncio
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, Final, NoReturn, TypeVar

from nsqkit.errors import ConfigFileError, FlagError, OptionError, StartError
from nsqkit.garbage import Garbage
from nsqkit.log import Format, Log, keep_standard_descriptors_open
from nsqkit.options.command_line import CommandLine, load, parse, usage
from nsqkit.options.daemon import DaemonOptions, log_of
from nsqkit.options.running import ConfigFile
from nsqkit.version import version_line

SIGHUP_IGNORED: Final = "SIGHUP: ignored, there is nothing to reload"

AnyOptions = TypeVar("AnyOptions", bound=DaemonOptions)
AnyDaemon = TypeVar("AnyDaemon", bound=AbstractAsyncContextManager[Any])


def main(
    program: str,
    options: type[AnyOptions],
    serve: Callable[[AnyOptions, Log, ConfigFile[AnyOptions] | None], int],
    argv: Sequence[str] | None = None,
) -> int:
    """Read the options and `serve`, which gets the config file too, if one was named; the program's exit code.

    `serve` is expected to load the daemon when it is called: --version and errors are answered without it.
    """
    keep_standard_descriptors_open()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # it must not kill before there is a loop, either
    try:
        line = parse(options, sys.argv[1:] if argv is None else argv)
    except FlagError as error:
        return wrong_usage(program, str(error))
    if line.help:
        print(usage(program, options))
        return 0
    if line.version:
        print(version_line(program))
        return 0
    return _start(program, options, line, serve)


def _start(
    program: str,
    options: type[AnyOptions],
    line: CommandLine,
    serve: Callable[[AnyOptions, Log, ConfigFile[AnyOptions] | None], int],
) -> int:
    log = Log(
        f"[{program}] ", format=line.values.get("log_format", Format.TEXT)
    )  # until all options are known
    try:
        loaded = load(options, line)
        log = log_of(loaded)
        for warning in line.warnings:
            log.warning(warning)
        return serve(loaded, log, ConfigFile(line, loaded) if line.config else None)
    except FlagError as error:
        print(f"{program}: {error}", file=sys.stderr)
    except ConfigFileError as error:
        log.fatal(str(error))
    except OptionError as error:
        log.fatal(f"failed to instantiate {program} - {error}")
    except StartError as error:
        log.fatal(f"failed to instantiate {program} - {error}")
        return 1
    except Exception as error:
        if log.format is not Format.JSON:  # Python's own words have many lines
            raise
        log.fatal(f"a defect of ours: {_trace(error)}")
        return 1
    finally:
        log.flush()
    return 2


def wrong_usage(program: str, text: str) -> int:
    """Say what is wrong with a command line, and where to look; the exit code."""
    print(f"{program}: {text}\n{program} --help tells more", file=sys.stderr)
    return 2


class Parser(argparse.ArgumentParser):
    """One that does not print its whole usage before what is wrong."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and exit."""
        sys.exit(wrong_usage(self.prog, message))


def run(
    daemon: Callable[[], AnyDaemon],
    log: Log,
    reload: Callable[[AnyDaemon], bool] = lambda _: False,
    file: ConfigFile[Any] | None = None,
    terminate: Callable[[AnyDaemon], bool] = lambda _: False,
) -> int:
    """Run what `daemon` makes until SIGTERM or SIGINT; the program's exit code. StartError if it can't start.

    On SIGHUP its config file is read again, and it is to `reload`; False means that there is nothing to reload. On
    SIGTERM it is to `terminate`: True means that its `wait` will return when it may be stopped.
    """
    import uvloop  # noqa: PLC0415 - embedding works with any loop

    _raise_file_limit()
    return uvloop.run(_until_told(daemon, log, reload, file, terminate))


async def _until_told(
    daemon: Callable[[], AnyDaemon],
    log: Log,
    reload: Callable[[AnyDaemon], bool],
    file: ConfigFile[Any] | None,
    terminate: Callable[[AnyDaemon], bool],
) -> int:
    running: Any = daemon()
    ready = told_early = False

    def hung_up() -> None:
        nonlocal told_early
        told_early = not ready
        if told_early:
            return  # until it can do something
        if file is not None:
            file.read_again(running, log)
        if not reload(running) and file is None:
            log.warning(SIGHUP_IGNORED)

    def terminated() -> None:
        if not (ready and terminate(running)):
            wanted.set()

    loop = asyncio.get_running_loop()
    wanted = asyncio.Event()
    if log.format is Format.JSON:  # asyncio's own words have many lines
        loop.set_exception_handler(lambda _, context: log.error(f"a defect of ours: {_defect(context)}"))
    loop.add_signal_handler(signal.SIGINT, wanted.set)
    loop.add_signal_handler(signal.SIGTERM, terminated)
    loop.add_signal_handler(signal.SIGHUP, hung_up)
    async with running:
        ready = True
        if told_early:
            hung_up()
        with Garbage(loop):
            waits = [loop.create_task(wanted.wait()), loop.create_task(running.wait())]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for one in waits:
                one.cancel()
    return 0


def _defect(context: Mapping[str, Any]) -> str:
    """What asyncio complains about: an exception that nobody took."""
    error = context.get("exception")
    if not isinstance(error, BaseException):
        return str(context.get("message"))
    return f"{context.get('message')}: {_trace(error)}"


def _trace(error: BaseException) -> str:
    """What it is, before where it comes from: a long text is cut."""
    return f"{error!r}\n{''.join(traceback.format_exception(error))}"


def _raise_file_limit() -> None:
    """A connection is a file; the system's soft limit is for programs that use select."""
    import resource  # noqa: PLC0415

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
