"""Making, emptying, pausing and deleting topics and channels. Each does nothing more when it is repeated.

The two spellings of a bad topic name, INVALID_TOPIC and INVALID_ARG_TOPIC, are NSQ's.
"""

from typing import Final

from nsqkit.nsqd.core.channel import Channel
from nsqkit.nsqd.core.store import NoRoom
from nsqkit.nsqd.core.topic import Topic
from nsqkit.nsqd.web.daemon import Daemon
from nsqkit.tokens import Role
from nsqkit.web.call import Call
from nsqkit.web.errors import NotFound, Unavailable
from nsqkit.web.routes import Routes

routes: Final = Routes[Daemon]("Topics and channels", Role.ADMIN)


@routes.post("/topic/create", params="topic")
async def create_topic(nsqd: Daemon, call: Call) -> None:
    """Make a topic. 503 `DRAINING` if nsqd drains."""
    name = call.topic()
    if nsqd.broker.draining and name not in nsqd.broker.topics:
        raise Unavailable("DRAINING")
    topic_of(nsqd, name)
    await nsqd.keep()


@routes.post("/topic/delete", params="topic")
async def delete_topic(nsqd: Daemon, call: Call) -> None:
    """Delete a topic with its channels and all messages, and hang up on its consumers."""
    nsqd.broker.delete_topic(_topic(nsqd, call.required("topic")).name)
    await nsqd.keep()


@routes.post("/topic/empty", params="topic")
def empty_topic(nsqd: Daemon, call: Call) -> None:
    """Drop the messages that wait in a topic. Its channels keep what they have."""
    _topic(nsqd, call.topic()).empty()
    nsqd.turn()


@routes.post("/topic/pause", params="topic")
async def pause_topic(nsqd: Daemon, call: Call) -> None:
    """Hold messages back from a topic's channels. Publishing goes on."""
    _topic(nsqd, call.required("topic")).pause(True, nsqd.now())
    await nsqd.keep()


@routes.post("/topic/unpause", params="topic")
async def unpause_topic(nsqd: Daemon, call: Call) -> None:
    """Give a topic's channels what was held back, and what comes."""
    _topic(nsqd, call.required("topic")).pause(False, nsqd.now())
    await nsqd.keep()


@routes.post("/channel/create", params="topic, channel")
async def create_channel(nsqd: Daemon, call: Call) -> None:
    """Make a channel of a topic, which must be there."""
    topic, channel = call.topic_and_channel()
    make_channel(nsqd, _topic(nsqd, topic), channel)
    await nsqd.keep()


@routes.post("/channel/delete", params="topic, channel")
async def delete_channel(nsqd: Daemon, call: Call) -> None:
    """Delete a channel with its messages, and hang up on its consumers."""
    channel = channel_of(nsqd, call)
    channel.topic.delete_channel(channel.name)
    await nsqd.keep()


@routes.post("/channel/empty", params="topic, channel")
def empty_channel(nsqd: Daemon, call: Call) -> None:
    """Drop a channel's messages: ready, in flight and deferred."""
    channel_of(nsqd, call).empty()
    nsqd.turn()


@routes.post("/channel/pause", params="topic, channel")
async def pause_channel(nsqd: Daemon, call: Call) -> None:
    """Send nothing more to a channel's consumers."""
    channel_of(nsqd, call).pause(True)
    await nsqd.keep()


@routes.post("/channel/unpause", params="topic, channel")
async def unpause_channel(nsqd: Daemon, call: Call) -> None:
    """Send to a channel's consumers again."""
    channel_of(nsqd, call).pause(False)
    await nsqd.keep()


def topic_of(nsqd: Daemon, name: str) -> Topic:
    """The topic of this name, made if there is none. Unavailable if there are too many."""
    try:
        return nsqd.broker.topic(name)
    except NoRoom as error:
        raise Unavailable(f"TOO_MANY_TOPICS: {error}") from None


def make_channel(nsqd: Daemon, topic: Topic, name: str) -> Channel:
    """The topic's channel of this name, made if there is none. Unavailable if there are too many."""
    try:
        return topic.channel(name, nsqd.now())
    except NoRoom as error:
        raise Unavailable(f"TOO_MANY_CHANNELS: {error}") from None


def _topic(nsqd: Daemon, name: str) -> Topic:
    topic = nsqd.broker.topics.get(name)
    if topic is None:
        raise NotFound("TOPIC_NOT_FOUND")
    return topic


def channel_of(nsqd: Daemon, call: Call) -> Channel:
    """The channel that a request names; NotFound if it is not there."""
    topic, name = call.topic_and_channel()
    channel = _topic(nsqd, topic).channels.get(name)
    if channel is None:
        raise NotFound("CHANNEL_NOT_FOUND")
    return channel
