"""The options that every daemon has."""

from dataclasses import dataclass
from typing import ClassVar

from nsqkit.log import Format, Level, Log
from nsqkit.options import Duration, DurationOption, IgnoredFlag, Options, Words, option

LOG_LEVELS = Words(
    {
        "debug": Level.DEBUG,
        "info": Level.INFO,
        "warn": Level.WARNING,
        "error": Level.ERROR,
        "fatal": Level.FATAL,
    }
)
LOG_FORMATS = Words({one.value: one for one in Format})
VERBOSE = IgnoredFlag("verbose", "use --log-level")


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonOptions(Options):
    """What a daemon needs before it is loaded."""

    ignored_flags: ClassVar[tuple[IgnoredFlag, ...]] = (VERBOSE,)

    log_level: Level = option(
        Level.INFO, "least severe line to log", kind=LOG_LEVELS, live=True, group="General"
    )
    log_prefix: str = option("", "put before each log line")
    log_format: Format = option(
        Format.TEXT,
        "how log lines look: text, as NSQ writes them, or json, an object on each line",
        kind=LOG_FORMATS,
    )

    max_connections: int = option(
        0,
        "connections at a time, TCP and HTTP together; more are closed at once; "
        "0: as many as the limit of open files leaves",
        within=(0, None),
        group="Connections",
    )
    max_connections_per_address: int = option(
        0, "of these from one address, or one /64 of IPv6; 0: no limit", within=(0, None)
    )
    max_handshakes: int = option(
        2000,
        "of these that have not said yet who they are: no magic, no first HTTP request, a TLS handshake that is not "
        "done; of more, the oldest are closed; 0: no limit",
        within=(0, None),
    )

    http_token_file: str = option(
        "",
        "file of tokens, one of which HTTP requests must carry, with what each is good for; read again on SIGHUP; "
        "empty: everybody may do everything",
        group="HTTP access",
    )

    http_max_connections: int = option(
        10_000,
        "HTTP connections at a time; more are answered 503 and closed",
        within=(1, None),
        group="HTTP limits",
        live=True,
    )
    http_max_header_size: int = option(
        65_536, "size of an HTTP request without its body, in bytes", within=(1024, None), live=True
    )
    http_max_pipelined: int = option(
        32, "requests read ahead on one HTTP connection while one is answered", within=(1, None), live=True
    )
    http_read_timeout: DurationOption = option(
        Duration.parse("1m"),
        "time in which an HTTP request must have come whole, and the first must have on a new connection",
        within=(Duration.parse("1ms"), None),
        live=True,
    )
    http_write_timeout: DurationOption = option(
        Duration.parse("1m"),
        "time in which an HTTP client must take something of its answer",
        within=(Duration.parse("1ms"), None),
        live=True,
    )
    http_idle_timeout: DurationOption = option(
        Duration.parse("5m"),
        "time after which an HTTP connection with nothing to do is closed",
        within=(Duration.parse("1ms"), None),
        live=True,
    )


def log_of(options: DaemonOptions) -> Log:
    """The log that these options ask for."""
    return Log(options.log_prefix, options.log_level, format=options.log_format)
