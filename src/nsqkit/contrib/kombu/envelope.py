"""A kombu message as the body of an NSQ message, and when it is due.

The body is JSON: what kombu's own virtual transports write, with `body`, `headers` and `properties`. A task that is due
later is held back by nsqd (DPUB). Its header `eta` is emptied, so that no worker, whose clock may be slow, waits again.
"""

import sys
from datetime import UTC, datetime, tzinfo
from time import time
from typing import Any

from kombu.utils.json import dumps, loads

from nsqkit.errors import BadDelay

Payload = dict[str, Any]


def delay_of(message: Payload, longest: float) -> float:
    """Seconds until it is due, 0 if it is. BadDelay if that is above `longest`."""
    eta = (message.get("headers") or {}).get("eta")
    if not eta:
        return 0.0
    due = eta if isinstance(eta, datetime) else datetime.fromisoformat(eta)
    if due.tzinfo is None:
        due = due.replace(tzinfo=_zone())
    delay = due.timestamp() - time()
    if delay > longest:
        raise BadDelay(
            f"a task that is due in {delay:.0f} s ({due.isoformat()}): nsqd holds a message for at most"
            f" {longest:g} s. Raise its --max-req-timeout, and max_delay in broker_transport_options with it"
        )
    return max(delay, 0.0)


def encode(message: Payload, *, delayed: bool) -> bytes:
    """The bytes to publish."""
    if delayed:
        message = {**message, "headers": {**message["headers"], "eta": None}}
    text: str = dumps(message)
    return text.encode()


def decode(body: bytes) -> Payload:
    """What was published. ValueError for anything else."""
    payload = loads(body)
    if not isinstance(payload, dict) or not isinstance(payload.get("properties"), dict):
        raise ValueError("it has no properties")
    payload["properties"].setdefault("delivery_info", {})
    return payload


def _zone() -> tzinfo:
    """What an `eta` without a time zone is in: as Celery reads it, its app's."""
    celery = sys.modules.get("celery")
    zone: tzinfo = celery.current_app.timezone if celery is not None else UTC
    return zone
