"""What happens in a broker that somebody may want to read in a log.

Connections, errors, topics and channels: none of this is on the way of a message. Only who sets `traced` is told of
each command as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mypy_extensions import mypyc_attr

if TYPE_CHECKING:
    from nsqkit.wire.identify import Identity


@mypyc_attr(allow_interpreted_subclasses=True)
class Events:
    """Is told of each event when it happens. This one says nothing. Addresses are host:port of the client."""

    traced: bool = False  # somebody wants to read every command

    def client_came(self, address: str) -> None:
        """A client connected."""

    def client_identified(self, address: str, identity: Identity) -> None:
        """IDENTIFY was agreed on."""

    def command_came(self, address: str, line: bytes) -> None:
        """A client sent a command, if commands are traced: its line, without a body."""

    def client_failed(self, address: str, error: bytes) -> None:
        """A client was answered with an error: the payload of the frame, `CODE text`."""

    def client_dropped(self, address: str, reason: str) -> None:
        """A client is hung up on without an answer."""

    def client_left(self, address: str) -> None:
        """A connection is over."""

    def topic_made(self, topic: str) -> None:
        """A new topic, or one from before a restart."""

    def topic_deleted(self, topic: str) -> None:
        """A topic is gone."""

    def channel_made(self, topic: str, channel: str) -> None:
        """A new channel, or one from before a restart."""

    def channel_deleted(self, topic: str, channel: str) -> None:
        """A channel is gone."""
