"""How queues and exchanges are called in NSQ.

| kombu | NSQ |
|---|---|
| a queue | a topic of its name, which all workers consume by one channel |
| a queue of replies, whose name begins with a UUID | the same, but ephemeral: it goes with who waits for the reply |
| a fanout exchange, or a topic exchange that is listened to | an ephemeral topic of its name |
| a queue bound to one of these | an ephemeral channel of that topic |

NSQ's names have 64 characters at most, of `.a-zA-Z0-9_-`. Another name is made to fit, and given a few digits of its
SHA-256, so that different names stay different.
"""

import hashlib
import re
from typing import Final

EPHEMERAL: Final = "#ephemeral"
_LONGEST: Final = 64
_DIGITS: Final = 12
_UNFIT: Final = re.compile(r"[^.a-zA-Z0-9_-]")
_REPLIES: Final = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}(?:\.|\Z)")


def is_for_replies(queue: str) -> bool:
    """Whether a queue is one that a client made to get replies, as its name begins with a UUID."""
    return _REPLIES.match(queue) is not None


def topic_of_queue(queue: str) -> str:
    """The topic that a queue's messages are published to."""
    return _fit(queue, EPHEMERAL if is_for_replies(queue) else "")


def topic_of_exchange(exchange: str) -> str:
    """The topic by which an exchange tells all who listen."""
    return _fit(exchange, EPHEMERAL)


def channel_of_listener(queue: str) -> str:
    """The channel of a queue that is bound to such an exchange."""
    return _fit(queue, EPHEMERAL)


def _fit(name: str, suffix: str) -> str:
    room = _LONGEST - len(suffix)
    fitting = _UNFIT.sub("_", name)
    if fitting != name or not 0 < len(name) <= room:
        digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGITS]
        fitting = f"{fitting[: room - _DIGITS - 1]}-{digest}"
    return fitting + suffix
