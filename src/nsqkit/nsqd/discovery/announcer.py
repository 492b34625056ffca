"""What one nsqlookupd was told, and what it has to be told next. No I/O.

Nothing is queued but the names of topics that changed: what to say of them is worked out from what there is when it is
said. So a slow nsqlookupd costs no more memory than the topics themselves, and it misses nothing that counts. That a
channel or topic was deleted is said even if it is there again: it ends a tombstone.
"""

from collections.abc import Callable, Collection
from typing import Final

from nsqkit.wire.registration import encode_register, encode_unregister

TOPIC: Final = ""  # in place of a channel's name

Channels = Callable[[str], Collection[str] | None]
"""Tells the channels that a topic has now; None if there is no such topic."""


class Announcer:
    """One nsqlookupd's view of this nsqd."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._told: dict[str, set[str]] = {}  # by topic, its channels
        self._changed: dict[str, set[str]] = {}  # by topic, what of it was deleted since; in order of change

    def begin(self, topics: Collection[str]) -> None:
        """A new connection knows nothing: everything is to be told."""
        self._told = {}
        self._changed = {topic: set() for topic in topics}

    def made(self, topic: str) -> None:
        """A topic or one of its channels was made."""
        self._changed.setdefault(topic, set())

    def deleted(self, topic: str, channel: str) -> None:
        """A channel was deleted, or with TOPIC the topic."""
        told = self._told.get(topic)
        if told is not None and (channel in told or channel == TOPIC):
            self._changed.setdefault(topic, set()).add(channel)
        elif channel == TOPIC:
            self._changed.pop(topic, None)  # it was never heard of

    def take(self, limit: int) -> list[bytes]:
        """Some `limit` commands, or those for one topic more; nothing when all is told."""
        commands: list[bytes] = []
        while self._changed and len(commands) < limit:
            topic = next(iter(self._changed))
            commands += self._catch_up(topic, self._changed.pop(topic))
        return commands

    def _catch_up(self, topic: str, deleted: set[str]) -> list[bytes]:
        """What to say of one topic: first what is gone, then what is there."""
        commands: list[bytes] = []
        there = self._channels(topic)
        told = self._told.pop(topic, None)
        if told is not None:
            gone = {channel for channel in told if there is None or channel not in there}
            for channel in sorted((deleted - {TOPIC}) | gone):
                commands.append(encode_unregister(topic, channel))
                told.discard(channel)
            if there is None or TOPIC in deleted:
                commands.append(encode_unregister(topic, TOPIC))
                told = None
        if there is not None:
            new = [channel for channel in there if told is None or channel not in told]
            commands += [encode_register(topic, channel) for channel in new]
            if told is None and not new:
                commands.append(encode_register(topic, TOPIC))
            self._told[topic] = (told or set()).union(new)
        return commands
