"""How the file descriptors that the system allows are shared out: storage has its part, clients get the rest.

A client that is refused tries again; a log that can't be written or synced fails those who are connected already.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from nsqkit.log import Log
from nsqkit.nsqd.traffic import Traffic

OTHERS: Final = (
    40  # for what is neither a client nor a log: the loop, listeners, nsqlookupds, one file in each thread
)
FEWEST_CLIENTS: Final = 8


class Shares:
    """Of `limit` descriptors."""

    def __init__(self, limit: int) -> None:
        self.logs = max(limit // 8, 1)  # logs that may keep files open, two each
        self.clients = max(limit - 2 * self.logs - OTHERS, FEWEST_CLIENTS)


class Door:
    """Lets clients in as long as there are fewer than `most`, over TCP and HTTP together."""

    def __init__(self, most: int, inside: Callable[[], int], log: Log, traffic: Traffic) -> None:
        self._traffic = traffic
        self._most = most
        self._inside = inside
        self._log = log

    def closed(self) -> bool:
        """Is the next one to be refused? That is said."""
        if self._inside() < self._most:
            return False
        self._traffic.refused += 1
        self._log.error(
            f"CLIENT: {self._most} connections are open, and more are refused:"
            " what the limit of open files leaves is kept for storage (ulimit -n)"
        )
        return True


class Refused(asyncio.Protocol):
    """A client that is not let in."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hang up."""
        transport.close()
