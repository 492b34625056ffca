"""/pub and /mpub. Nothing is published, and no topic made, before the whole request is known to be good."""

import re
from typing import Final

from nsqkit.nsqd.core.store import StoreError
from nsqkit.nsqd.core.topic import DRAINING, EXITING
from nsqkit.nsqd.web.daemon import Daemon
from nsqkit.tokens import Role
from nsqkit.web.call import Call
from nsqkit.web.errors import BadRequest, TooLarge, Unavailable
from nsqkit.web.long_answer import Slices
from nsqkit.web.routes import Body, Routes
from nsqkit.wire.commands import CommandReader
from nsqkit.wire.errors import BadBody, BadMessage, PublishFailed

MESSAGE: Final = Body("max_msg_size", "MSG_TOO_BIG")
BATCH: Final = Body("max_body_size", "BODY_TOO_BIG")

routes: Final = Routes[Daemon]("Publishing", Role.PUBLISH)

_ONLY_TOPIC: Final = re.compile(rb"topic=([.a-zA-Z0-9_-]{1,64})")  # nearly every query there is
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)
_MILLISECOND: Final = 1_000_000

PORTION: Final = 8192
"""Bytes of a body that are cut into lines at once: a millisecond's work if they are all of one letter."""


@routes.post("/pub", params="topic, [defer]", body=MESSAGE, hot=True)
async def pub(nsqd: Daemon, call: Call) -> str:
    """Publish the body as one message, to be delivered after `defer` milliseconds if that is given."""
    body = call.body
    if not body:
        raise BadRequest("MSG_EMPTY")
    only = _ONLY_TOPIC.fullmatch(call.raw_query)
    topic, due = (only[1].decode(), 0) if only else (call.topic(), due_time(nsqd, call))
    await publish(nsqd, topic, len(body).to_bytes(4, "big") + body, 1, due)
    return "OK"


@routes.post("/mpub", params="topic, [binary], [defer]", body=BATCH, hot=True)
async def mpub(nsqd: Daemon, call: Call) -> str:
    """Publish each line of the body, or with `binary=true` each message of a body in the format of TCP's MPUB."""
    topic = call.topic()
    await publish_batch(nsqd, call, topic)
    return "OK"


async def publish_batch(nsqd: Daemon, call: Call, topic: str) -> None:
    """Publish the many messages of a body."""
    due = due_time(nsqd, call)
    if _is_binary(nsqd, call):
        data, count = _unpack(call.body, nsqd.options.max_msg_size, nsqd.options.max_body_size)
    else:
        data, count = await _split(call.body, nsqd.options.max_msg_size, nsqd.slices)
    if len(data) > PORTION:
        await nsqd.slices.turn()  # writing it is a piece of work of its own
    await publish(nsqd, topic, data, count, due)


async def publish(nsqd: Daemon, topic: str, data: bytes, count: int, due: int) -> None:
    """Publish, or merely make the topic if there is nothing to publish. Unavailable if it isn't kept."""
    try:
        if count:
            await nsqd.publish_framed(topic, data, count, due)
        else:
            nsqd.broker.topic(topic)
            await nsqd.keep()
    except (PublishFailed, StoreError) as error:
        if str(error) == DRAINING:
            raise Unavailable("DRAINING") from None  # the log knows why
        nsqd.log.error(f"TOPIC({topic}): failed to publish over HTTP - {error}", topic=topic)
        cause = error.cause if isinstance(error, PublishFailed) else str(error)
        raise Unavailable("EXITING" if cause == EXITING else f"PUB failed {cause}") from error


def due_time(nsqd: Daemon, call: Call) -> int:
    """When to deliver, from the parameter `defer`: ns since the epoch, 0 for at once."""
    text = call.params.get("defer")
    if text is None:
        return 0
    delay = int(text) * _MILLISECOND if _INTEGER.fullmatch(text) else -1
    if not 0 <= delay <= nsqd.options.max_req_timeout:
        raise BadRequest("INVALID_DEFER")
    return nsqd.now() + delay if delay else 0


def _is_binary(nsqd: Daemon, call: Call) -> bool:
    value = call.params.get("binary")
    if value not in {None, "true", "1", "false", "0"}:
        nsqd.log.warning(f"deprecated value '{value}' used for /mpub binary param")
    return value not in {None, "false", "0"}


async def _split(body: bytes, max_message: int, slices: Slices) -> tuple[bytes, int]:
    """The lines, each after its size, and how many there are. A CR stays; empty lines don't count."""
    if len(body) <= PORTION:
        return _lines(body, max_message)
    parts: list[bytes] = []
    count = start = 0
    while start < len(body):
        await slices.turn()
        end = body.find(b"\n", start + PORTION) + 1 or len(body)
        part, lines = _lines(body[start:end], max_message)
        parts.append(part)
        count += lines
        start = end
    return b"".join(parts), count


def _lines(body: bytes, max_message: int) -> tuple[bytes, int]:
    lines = [line for line in body.split(b"\n") if line]
    if lines and max(map(len, lines)) > max_message:
        raise TooLarge("MSG_TOO_BIG")
    return b"".join([part for line in lines for part in (len(line).to_bytes(4, "big"), line)]), len(lines)


def _unpack(body: bytes, max_message: int, max_body: int) -> tuple[bytes, int]:
    """The messages of `[4 count]([4 size][bytes])*`, checked, and how many there are. Bytes after them are ignored."""
    reader = CommandReader()
    reader.feed(len(body).to_bytes(4, "big") + body)
    try:
        data = reader.batch(max_message, max_body)
    except BadBody:
        raise TooLarge("BAD_BODY") from None
    except BadMessage:
        raise TooLarge("BAD_MESSAGE") from None
    if data is None:
        raise TooLarge("BAD_BODY" if len(body) < 4 else "BAD_MESSAGE")
    return data, reader.batch_count
