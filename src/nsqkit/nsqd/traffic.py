"""What nsqd counts of clients and peers beside what the broker knows: figures of /metrics."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from nsqkit.door import Door

CODES: Final = 100  # of errors, that are told apart: there are fewer


class HttpCounts(Protocol):
    """What an HTTP server counts; `HttpServer` does."""

    @property
    def connection_count(self) -> int:
        """Connections that are open."""

    @property
    def request_count(self) -> int:
        """Requests that were answered."""

    @property
    def refused_count(self) -> int:
        """Connections that were one too many."""


class Traffic:
    """Counters, each changed by whoever it happens to."""

    def __init__(self) -> None:
        self.door: Door | None = None
        self.dropped = 0  # clients that were hung up on without an answer
        self.errors: Counter[str] = Counter()  # that clients were answered over TCP, by code
        self.handshake_failures = 0  # of TLS, over TCP
        self.servers: Sequence[HttpCounts] = ()
        self.nsqlookupds: Callable[[], Mapping[str, bool]] = dict  # by address: is there a connection?

    @property
    def refused(self) -> Mapping[str, int]:
        """Connections that were not let in, or were hung up on for others, by limit."""
        found = dict(self.door.refused) if self.door is not None else {}
        return found | {"http_max_connections": sum(one.refused_count for one in self.servers)}

    def count_error(self, code: str) -> None:
        """A client was answered with an error."""
        if code in self.errors or len(self.errors) < CODES:
            self.errors[code] += 1
