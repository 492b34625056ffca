"""The endpoints of nsqd 0.1 and 0.2 (2012 and 2013), for scripts that still call them: any method, and an envelope.

Errors have status 500 and their text in the envelope, as from 0.2.5 to 0.3. Who sends exactly the header
`Accept: application/vnd.nsq; version=1.0` gets answers in the style of today. /stats, /info and /ping are today's.
"""

import os
from collections.abc import Callable, Iterator
from functools import wraps
from heapq import heappop, merge
from inspect import isawaitable
from operator import itemgetter
from typing import Any, Final

from nsqkit.nsqd.core.channel import Channel
from nsqkit.nsqd.core.guid import id_text
from nsqkit.nsqd.web import topics
from nsqkit.nsqd.web.daemon import Daemon
from nsqkit.nsqd.web.publishing import BATCH, MESSAGE, due_time, publish, publish_batch
from nsqkit.options.duration import SECOND
from nsqkit.tokens import Role
from nsqkit.web import pprof
from nsqkit.web.answers import Answer, Style
from nsqkit.web.call import Call
from nsqkit.web.errors import BadRequest, Internal, NotFound, Unavailable
from nsqkit.web.long_answer import long_text
from nsqkit.web.routes import Routes
from nsqkit.wire.message import Message

HEAP_FILE: Final = "nsqd.mprof"

_NOT_FOUND: Final = {"TOPIC_NOT_FOUND": "INVALID_TOPIC", "CHANNEL_NOT_FOUND": "INVALID_CHANNEL"}

routes: Final = Routes[Daemon]("Endpoints of NSQ 0.1 and 0.2", Role.ADMIN, Style.ENVELOPE)


@routes.any("/put", params="topic, [defer]", role=Role.PUBLISH, body=MESSAGE, hot=True)
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


@routes.any("/mput", params="topic, [binary], [defer]", role=Role.PUBLISH, body=BATCH, hot=True)
async def mput(nsqd: Daemon, call: Call) -> str:
    """Publish each line of the body, as /mpub does."""
    topic = call.topic("INVALID_ARG_TOPIC")
    try:
        await publish_batch(nsqd, call, topic)
    except Unavailable:
        raise Unavailable("NOK") from None
    return "OK"


def _as_of_old(endpoint: Callable[[Daemon, Call], Any]) -> Callable[[Daemon, Call], Any]:
    """An endpoint with the texts of those days for what is not there."""

    @wraps(endpoint)
    async def old(nsqd: Daemon, call: Call) -> Any:
        try:
            value = endpoint(nsqd, call)
            return await value if isawaitable(value) else value
        except NotFound as error:
            raise NotFound(_NOT_FOUND[error.text]) from None

    return old


for _row in topics.routes:
    _noun, _verb = _row.path[1:].split("/")
    if _row.path != "/channel/empty":
        routes.any(f"/{_verb}_{_noun}", params=_row.params)(_as_of_old(_row.endpoint))


@routes.any("/empty_channel", params="topic, channel")
@_as_of_old
def empty_channel(nsqd: Daemon, call: Call) -> str:
    """Drop a channel's messages."""
    topics.empty_channel(nsqd, call)
    return "OK"


@routes.any("/empty", params="topic, channel")
async def empty(nsqd: Daemon, call: Call) -> str:
    """Drop a channel's messages; topic and channel are made if they are not there."""
    topic, channel = call.topic_and_channel()
    topics.make_channel(nsqd, topics.topic_of(nsqd, topic), channel).empty()
    await nsqd.keep()
    return "OK"


@routes.any("/dump_inflight", params="topic, channel", role=Role.READ)
@_as_of_old
async def dump_inflight(nsqd: Daemon, call: Call) -> Answer:
    """List what is in flight and what is deferred, as text. Times are unix seconds."""
    return await long_text(nsqd.slices, _dump(topics.channel_of(nsqd, call)))


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
    owed, calendar = channel.owed(), channel.broker.calendar
    ahead = int(calendar.ahead)
    yield b"inFlightMessages: %d\n" % len(owed.flying)
    for message in owed.flying:
        yield _line(message.id, message.attempts, int(message.deadline) + ahead)
    bulk = sorted((int(calendar.due(batch)), int(batch.first_id), int(batch.count)) for batch in owed.early)
    yield b"deferredMessages: %d\n" % (len(owed.deferred) + sum(count for _, _, count in bulk))
    for due, message_id, attempts in merge(_one_by_one(owed.deferred), _of_bulk(bulk), key=itemgetter(0)):
        yield _line(message_id, attempts, due + ahead)


def _one_by_one(deferred: list[tuple[int, int, Message]]) -> Iterator[tuple[int, bytes, int]]:
    """What is deferred, by time: due, id, attempts. Uses up the heap."""
    while deferred:
        due, _, message = heappop(deferred)
        yield due, message.id, message.attempts


def _of_bulk(bulk: list[tuple[int, int, int]]) -> Iterator[tuple[int, bytes, int]]:
    """What came deferred in bulk and is not taken apart yet, likewise."""
    for due, first_id, count in bulk:
        for number in range(count):
            yield due, id_text(first_id + number), 0


def _line(message_id: bytes, attempts: int, until: int) -> bytes:
    return f"  {message_id.decode()} attempts {attempts} until {until / SECOND:.3f}\n".encode()
