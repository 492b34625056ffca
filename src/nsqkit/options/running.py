"""Options of a daemon that runs: what is said when they change, and its config file, which a SIGHUP has it read again.

Only live options change. What the file says otherwise than when it was read last is taken over; so a value that
PUT /config gave stays as long as nobody edits it in the file. The rest waits for a restart, which each reading says.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Generic, Protocol, TypeVar

from nsqkit.errors import OptionError
from nsqkit.log import Log
from nsqkit.options.command_line import CommandLine, load
from nsqkit.options.declaration import Option, Options, differing

AnyOptions = TypeVar("AnyOptions", bound=Options)


class Running(Protocol[AnyOptions]):
    """A daemon that goes by options."""

    options: AnyOptions

    def configure(self, options: AnyOptions) -> None:
        """Go by these options from now on; they differ in live ones only."""


class ConfigFile(Generic[AnyOptions]):
    """The config file of one daemon, and what it said when it was read last, together with the command line."""

    def __init__(self, line: CommandLine, said: AnyOptions) -> None:
        self._line = line
        self._said = said

    def read_again(self, daemon: Running[AnyOptions], log: Log) -> None:
        """Have the daemon go by what was changed in it. If anything is wrong, nothing changes but the log."""
        line = replace(self._line, warnings=[])
        try:
            says = load(type(self._said), line)
            new = [one for one in differing(self._said, says) if one.live]
            wanted = replace(daemon.options, **{one.name: getattr(says, one.name) for one in new})
        except OptionError as error:
            log.error(f"CONFIG: {line.config} is not taken over, every option stays as it was: {error}")
            return
        log.info(f"CONFIG: {line.config} was read again")
        for warning in line.warnings:
            log.warning(warning)
        daemon.configure(wanted)
        self._said = says
        for one in differing(daemon.options, says):
            if not one.live and not one.ignored:
                log.warning(f"CONFIG: --{one.flag} was changed in {line.config}: that needs a restart")


def say_changes(log: Log, changed: Sequence[Option], before: Options, after: Options) -> None:
    """A line for each option that is another now."""
    for one in changed:
        old, new = (one.kind.show(getattr(options, one.name)) for options in (before, after))
        log.info(f"CONFIG: --{one.flag} is {new or 'empty'} from now on, and was {old or 'empty'}")
