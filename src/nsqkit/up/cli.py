"""The command line of `nsqkit up`.

0   stopped as asked, or --help, --version
1   something is in the way, a program would not start, or one had to be killed at the end
2   a flag or its value is wrong

A SIGHUP that comes because the terminal was closed stops; any other is ignored with a line, as the programs do.
"""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Final

from rich.console import Console

from nsqkit.errors import FlagError, OptionError, StartError
from nsqkit.lines import LineWriter
from nsqkit.log import Format, Log, keep_standard_descriptors_open
from nsqkit.options.command_line import CommandLine, load, parse, usage
from nsqkit.program import SIGHUP_IGNORED, wrong_usage
from nsqkit.up import plan
from nsqkit.up.banner import banner
from nsqkit.up.lines import Labels, Objects
from nsqkit.up.machine import prepare_data, reserved
from nsqkit.up.options import UpOptions
from nsqkit.up.supervisor import Supervisor
from nsqkit.version import version_line

PROGRAM: Final = "nsqkit up"

_ABOUT: Final = """\
Runs nsqlookupd and nsqd on this machine, starts again what dies, and shows one log until Ctrl-C.
"""

_MORE: Final = """\
Flags after -- go to every nsqd, as in: nsqkit up --nsqd 3 -- --mem-queue-size=0
"""

_US: Final = "up"  # before our own lines in the log
_STDOUT: Final = 1
_WAITING: Final = 4_194_304  # bytes of many programs that wait for a slow terminal
_FLUSH_S: Final = 2.0  # for the last words, at the end
_WIDE: Final = 200  # columns for the table where there is no terminal to fit


def main(argv: Sequence[str]) -> int:
    """Run `nsqkit up` with these arguments until it is told to stop; its exit code."""
    keep_standard_descriptors_open()
    own, nsqd_flags = split(argv)
    try:
        line = _parse(own)
        if line.help:
            print(help_text())
            return 0
        if line.version:
            print(version_line(PROGRAM))
            return 0
        options = load(UpOptions, line)
        plan.check_nsqd_flags(nsqd_flags)
        return _run(options, nsqd_flags, line.warnings)
    except OptionError as error:
        return wrong_usage(PROGRAM, str(error))
    except StartError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 1


def split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Our own words, and those after the first `--`."""
    words = list(argv)
    if "--" not in words:
        return words, []
    at = words.index("--")
    return words[:at], words[at + 1 :]


def help_text() -> str:
    """The text of --help."""
    return f"{_ABOUT}\n{usage(PROGRAM, UpOptions)}\n\n{_MORE}".rstrip()


def _parse(words: Sequence[str]) -> CommandLine:
    """Read our flags. FlagError for a word that is none, too: most likely -- is missing before it."""
    try:
        line = parse(UpOptions, words)
    except FlagError as error:
        raise FlagError(f"{error}; flags for every nsqd go after --") from None
    if line.warnings:  # of the kind "ignoring 'word' and what follows it on the command line: it is no flag"
        refused = line.warnings[0].removeprefix("ignoring ")
        raise FlagError(f"can't take {refused}; flags for every nsqd go after --")
    return line


def _run(options: UpOptions, nsqd_flags: Sequence[str], remarks: Sequence[str]) -> int:
    """Check the machine, show the table, run."""
    names = plan.names(options.nsqd)
    with reserved(options.host, names, plan.ports(options.base_port, options.nsqd)) as ports:
        programs = plan.programs(options, ports, socket.gethostname(), nsqd_flags)
        remarks = [*remarks, *prepare_data(options.data_path, programs)]

        console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE)
        json = options.log_format is Format.JSON
        colour = console.color_system is not None and not console.no_color
        labels = Objects() if json else Labels([_US, *names], colour=colour)
        terminal = LineWriter(
            _STDOUT,
            lambda n: labels.put(_US, f"{n} lines were dropped: the terminal can't keep up"),
            _WAITING,
        )
        log = Log(
            _US if json else "",
            write=lambda line: terminal.put(labels.put(_US, line.rstrip("\n"))),
            format=options.log_format,
        )
        if not json:
            terminal.put(banner(programs, console))
        for remark in remarks:
            log.warning(remark)
        try:
            return asyncio.run(
                _until_told(
                    Supervisor(programs, log, lambda name, line: terminal.put(labels.put(name, line))),
                    log,
                    terminal_watch(),
                )
            )
        finally:
            log.flush()
            terminal.flush(_FLUSH_S)


def terminal_watch() -> Callable[[], bool]:
    """What tells later whether the terminal that we run in now is gone."""
    had_one = _has_terminal()
    return lambda: had_one and not _has_terminal()


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


async def _until_told(supervisor: Supervisor, log: Log, terminal_is_gone: Callable[[], bool]) -> int:
    """Stop at the first signal, kill at a Ctrl-C after it. SIGHUP stops if it means the end of the terminal."""

    def told(number: int) -> None:
        if number == signal.SIGHUP and not terminal_is_gone():
            log.warning(SIGHUP_IGNORED)
        elif supervisor.stopping and number == signal.SIGINT:
            supervisor.kill()
        else:
            supervisor.stop()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, told, number)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as it is under nohup
        loop.add_signal_handler(signal.SIGHUP, told, signal.SIGHUP)
    return await supervisor.run()
