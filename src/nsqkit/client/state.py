"""What a consumer is doing, and what it has done."""

import enum
from dataclasses import dataclass
from typing import Final


class ConsumerState(enum.Enum):
    """What a consumer is doing."""

    NEW = "new"  # not started
    CONNECTING = "connecting"  # there is no connection, and some are tried
    CONSUMING = "consuming"
    BACKOFF = "back-off"  # handlers fail, so it takes a break, or tries one message
    PAUSED = "paused"  # max_in_flight is 0
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"  # it has given up; `error` says why


ENDING: Final = (ConsumerState.STOPPING, ConsumerState.STOPPED)


@dataclass(frozen=True, slots=True)
class ConnectionStats:
    """One connection: the last RDY, and how many messages are not answered."""

    nsqd: str
    ready: int
    in_flight: int


@dataclass(frozen=True, slots=True)
class ConsumerStats:
    """What a consumer has done and holds, since its start.

    `waiting` were received and not handed out; `expired` waited for too long, so nsqd has given them to others; `late`
    were answered after their connection was gone.
    """

    state: ConsumerState
    connections: list[ConnectionStats]
    received: int
    finished: int
    requeued: int
    touched: int
    waiting: int
    expired: int
    late: int
    given_up: int
    backoff_level: int
    failures: dict[str, str]  # why there is no connection, by address of nsqd
