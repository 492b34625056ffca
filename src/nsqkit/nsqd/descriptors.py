"""How the file descriptors that the system allows are shared out: storage has its part, clients get the rest.

A client that is refused tries again; a log that can't be written or synced fails those who are connected already.
"""

from typing import Final

OTHERS: Final = (
    40  # for what is neither a client nor a log: the loop, listeners, nsqlookupds, one file in each thread
)
FEWEST_CLIENTS: Final = 8


class Shares:
    """Of `limit` descriptors."""

    def __init__(self, limit: int) -> None:
        self.logs = max(limit // 8, 1)  # logs that may keep files open, two each
        self.clients = max(limit - 2 * self.logs - OTHERS, FEWEST_CLIENTS)
