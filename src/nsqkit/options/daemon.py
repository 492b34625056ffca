"""The options that every daemon has."""

from dataclasses import dataclass
from typing import ClassVar

from nsqkit.log import Level
from nsqkit.options import IgnoredFlag, Options, Words, option

LOG_LEVELS = Words(
    {
        "debug": Level.DEBUG,
        "info": Level.INFO,
        "warn": Level.WARNING,
        "error": Level.ERROR,
        "fatal": Level.FATAL,
    }
)
VERBOSE = IgnoredFlag("verbose", "use --log-level")


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonOptions(Options):
    """What a daemon needs before it is loaded."""

    ignored_flags: ClassVar[tuple[IgnoredFlag, ...]] = (VERBOSE,)

    log_level: Level = option(Level.INFO, "least severe line to log", kind=LOG_LEVELS, group="General")
    log_prefix: str = option("", "put before each log line")
