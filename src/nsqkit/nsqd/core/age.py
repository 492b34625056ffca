"""How old the oldest message of a channel is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mypy_extensions import i64

from nsqkit.nsqd.core.queue import LOOKS, older

if TYPE_CHECKING:
    from nsqkit.nsqd.core.channel import Channel


def oldest(channel: Channel) -> i64:
    """When the oldest message that waits or is in flight was published, ns since the epoch; 0 if there is none.

    Deferred ones do not count: they wait for their time. Of many in flight, some LOOKS are looked at, of each
    consumer's the first.
    """
    found = channel.queue.oldest()
    consumers = channel.subscribers + channel.departed
    share = max(LOOKS // max(len(consumers), 1), 1)
    for consumer in consumers[:LOOKS]:
        for number, message in enumerate(consumer.in_flight.values()):
            if number == share:
                break
            found = older(found, message.timestamp)
    return found
