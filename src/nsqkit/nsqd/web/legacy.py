"""The endpoints of nsqd 0.1 and 0.2 (2012 and 2013), for scripts that still call them: any method, and an envelope.

Errors have status 500 and their text in the envelope, as from 0.2.5 to 0.3. Who sends exactly the header
`Accept: application/vnd.nsq; version=1.0` gets answers in the style of today. /stats, /info and /ping are today's.
"""

import os
from collections.abc import Iterator
from heapq import heappop
from typing import Final

from nsqkit.nsqd.core.channel import Channel
from nsqkit.nsqd.core.topic import Topic
from nsqkit.nsqd.web.daemon import Daemon
from nsqkit.nsqd.web.publishing import BATCH, MESSAGE, due_time, publish, publish_batch
from nsqkit.options.duration import SECOND
from nsqkit.web import pprof
from nsqkit.web.answers import Answer, Style
from nsqkit.web.call import Call
from nsqkit.web.errors import BadRequest, Internal, NotFound, Unavailable
from nsqkit.web.long_answer import long_text
from nsqkit.web.routes import Routes
from nsqkit.wire.message import Message

HEAP_FILE: Final = "nsqd.mprof"

routes: Final = Routes[Daemon]("Endpoints of NSQ 0.1 and 0.2", Style.ENVELOPE)


@routes.any("/put", params="topic, [defer]", body=MESSAGE, hot=True)
async def put(nsqd: Daemon, call: Call) -> str:
    """Publish the body as one message. Unlike before 0.2.22 it must not be empty (MSG_EMPTY)."""
    topic = call.topic("INVALID_ARG_TOPIC")
    body = call.body
    if not body:
        raise BadRequest("MSG_EMPTY")
    due = due_time(nsqd, call)
    try:
        await publish(nsqd, topic, len(body).to_bytes(4, "big") + body, 1, due)
    except Unavailable:
        raise Unavailable("NOK") from None
    return "OK"


@routes.any("/mput", params="topic, [binary], [defer]", body=BATCH, hot=True)
async def mput(nsqd: Daemon, call: Call) -> str:
    """Publish each line of the body, as /mpub does."""
    topic = call.topic("INVALID_ARG_TOPIC")
    try:
        await publish_batch(nsqd, call, topic)
    except Unavailable:
        raise Unavailable("NOK") from None
    return "OK"


@routes.any("/create_topic", params="topic")
async def create_topic(nsqd: Daemon, call: Call) -> None:
    """Make a topic."""
    nsqd.broker.topic(call.topic())
    await nsqd.keep()


@routes.any("/delete_topic", params="topic")
async def delete_topic(nsqd: Daemon, call: Call) -> None:
    """Delete a topic."""
    nsqd.broker.delete_topic(_topic(nsqd, call.required("topic")).name)
    await nsqd.keep()


@routes.any("/empty_topic", params="topic")
def empty_topic(nsqd: Daemon, call: Call) -> None:
    """Drop the messages that wait in a topic."""
    _topic(nsqd, call.required("topic")).empty()
    nsqd.turn()


@routes.any("/pause_topic", params="topic")
async def pause_topic(nsqd: Daemon, call: Call) -> None:
    """Hold messages back from a topic's channels."""
    _topic(nsqd, call.required("topic")).pause(True, nsqd.now())
    await nsqd.keep()


@routes.any("/unpause_topic", params="topic")
async def unpause_topic(nsqd: Daemon, call: Call) -> None:
    """Give a topic's channels what was held back."""
    _topic(nsqd, call.required("topic")).pause(False, nsqd.now())
    await nsqd.keep()


@routes.any("/create_channel", params="topic, channel")
async def create_channel(nsqd: Daemon, call: Call) -> None:
    """Make a channel of a topic, which must be there."""
    topic, channel = call.topic_and_channel()
    _topic(nsqd, topic).channel(channel, nsqd.now())
    await nsqd.keep()


@routes.any("/delete_channel", params="topic, channel")
async def delete_channel(nsqd: Daemon, call: Call) -> None:
    """Delete a channel."""
    channel = _channel(nsqd, call)
    channel.topic.delete_channel(channel.name)
    await nsqd.keep()


@routes.any("/empty_channel", params="topic, channel")
def empty_channel(nsqd: Daemon, call: Call) -> str:
    """Drop a channel's messages."""
    _channel(nsqd, call).empty()
    nsqd.turn()
    return "OK"


@routes.any("/empty", params="topic, channel")
async def empty(nsqd: Daemon, call: Call) -> str:
    """Drop a channel's messages; topic and channel are made if they are not there."""
    topic, channel = call.topic_and_channel()
    nsqd.broker.topic(topic).channel(channel, nsqd.now()).empty()
    await nsqd.keep()
    return "OK"


@routes.any("/pause_channel", params="topic, channel")
async def pause_channel(nsqd: Daemon, call: Call) -> None:
    """Send nothing more to a channel's consumers."""
    _channel(nsqd, call).pause(True)
    await nsqd.keep()


@routes.any("/unpause_channel", params="topic, channel")
async def unpause_channel(nsqd: Daemon, call: Call) -> None:
    """Send to a channel's consumers again."""
    _channel(nsqd, call).pause(False)
    await nsqd.keep()


@routes.any("/dump_inflight", params="topic, channel")
async def dump_inflight(nsqd: Daemon, call: Call) -> Answer:
    """List what is in flight and what is deferred, as text. Times are unix seconds."""
    return await long_text(nsqd.slices, _dump(_channel(nsqd, call)))


@routes.any("/mem_profile")
def mem_profile(nsqd: Daemon, _: Call) -> str:
    """Write what /debug/pprof/heap shows to the file `nsqd.mprof` in the data path."""
    path = os.path.join(nsqd.data_path, HEAP_FILE)
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(pprof.heap_text())
    except OSError as error:
        nsqd.log.error(f"failed to write {path} - {error}")
        raise Internal("INTERNAL_ERROR") from error
    return "OK"


@routes.any("/cpu_profile", params="[seconds]")
async def cpu_profile(nsqd: Daemon, call: Call) -> str:
    """Take a CPU profile, as /debug/pprof/profile does."""
    return await pprof.profile(nsqd, call)


def _dump(channel: Channel) -> Iterator[bytes]:
    flying = channel.flying()
    yield b"inFlightMessages: %d\n" % len(flying)
    for message in flying:
        yield _dumped(message, int(message.deadline))
    deferred = list(channel.deferred)  # a heap
    yield b"deferredMessages: %d\n" % len(deferred)
    while deferred:
        due, _, message = heappop(deferred)
        yield _dumped(message, due)


def _dumped(message: Message, until: int) -> bytes:
    return f"  {message.id.decode()} attempts {message.attempts} until {until / SECOND:.3f}\n".encode()


def _topic(nsqd: Daemon, name: str) -> Topic:
    topic = nsqd.broker.topics.get(name)
    if topic is None:
        raise NotFound("INVALID_TOPIC")
    return topic


def _channel(nsqd: Daemon, call: Call) -> Channel:
    topic, name = call.topic_and_channel()
    channel = _topic(nsqd, topic).channels.get(name)
    if channel is None:
        raise NotFound("INVALID_CHANNEL")
    return channel
