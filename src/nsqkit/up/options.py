"""The options of `nsqkit up`."""

from dataclasses import dataclass
from typing import Final

from nsqkit.errors import OptionError
from nsqkit.log import Format
from nsqkit.options import Options, option
from nsqkit.options.daemon import LOG_FORMATS

MAX_NSQDS: Final = 64
"""As many as anybody tries out on one machine; each is a process with some 50 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpOptions(Options):
    """Options of `nsqkit up`. Raises OptionError for values out of range."""

    nsqd: int = option(1, "number of nsqds", within=(1, MAX_NSQDS), group="What runs where")
    data_path: str = option("nsq-data", "directory in which each nsqd has one of its own; made if missing")
    host: str = option(
        "127.0.0.1", "address to listen on, and to announce; 0.0.0.0: all, and the host name is announced"
    )
    base_port: int = option(
        4150,
        "TCP port of the first nsqd; all other ports keep their distance to it; 0: free ports",
        within=(0, 65_000),
    )
    log_format: Format = option(
        Format.TEXT,
        "how log lines look: text, with a name before each, or json, an object on each line and no table",
        kind=LOG_FORMATS,
    )
    http_token_file: str = option(
        "",
        "file of tokens, one of which HTTP requests to all of them must carry, with what each is good for",
        group="HTTP access",
    )
    http_client_token_file: str = option(
        "", "file with the token, good for reading, that nsqds send to nsqlookupd"
    )

    def check(self) -> None:
        """Refuse what would only fail later, with a less clear text."""
        if not self.host:
            raise OptionError("--host must not be empty: say 127.0.0.1, or 0.0.0.0 for every address")
        if not self.data_path:
            raise OptionError("--data-path must not be empty: say . for the current directory")
        if self.http_token_file and not self.http_client_token_file:
            raise OptionError(
                "--http-token-file needs --http-client-token-file: nsqds ask nsqlookupd for the channels of new topics"
            )
