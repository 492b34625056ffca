"""Who wants to know which topics and channels there are: the interface that nsqd's lookup side implements."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mypy_extensions import mypyc_attr

if TYPE_CHECKING:
    from nsqkit.nsqd.core.topic import Topic


@mypyc_attr(allow_interpreted_subclasses=True)
class Registry:
    """Is told of every topic and channel at the moment it is made or deleted. This one does not care."""

    def topic_made(self, topic: Topic) -> None:
        """A new topic. It may be held (`Topic.hold`) until the channels are known that it should have."""

    def topic_deleted(self, topic: str) -> None:
        """A topic is gone; its channels were reported before."""

    def channel_made(self, topic: str, channel: str) -> None:
        """A new channel."""

    def channel_deleted(self, topic: str, channel: str) -> None:
        """A channel is gone."""
