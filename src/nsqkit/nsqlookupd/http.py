"""nsqlookupd's HTTP API (spec/nsqlookupd.md, section 3): which nsqds have a topic, and what operators may change.

Names are not checked where they are only looked up: one that can't be is not known. But `*`, which NSQ takes for every
topic, is refused: no script should wipe a cluster by it.
"""

import asyncio
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final, NamedTuple, Protocol

from starlette.types import Receive, Scope, Send

from nsqkit.nsqlookupd import pages
from nsqkit.nsqlookupd.options import NsqlookupdOptions
from nsqkit.nsqlookupd.registrations import Registrations, TooMany
from nsqkit.tokens import Role
from nsqkit.version import NSQ_VERSION, build
from nsqkit.web import pprof
from nsqkit.web.answers import METRICS, Answer, Style, json_answer
from nsqkit.web.app import HttpApp
from nsqkit.web.call import Call
from nsqkit.web.errors import BadRequest, NotFound, Unavailable
from nsqkit.web.host import Host
from nsqkit.web.long_answer import long_answer, long_json
from nsqkit.web.routes import Route, Routes

EVERYTHING: Final = "*"

_OURS: Final = (b"x-nsqkit-version", build().encode())


class Counts(NamedTuple):
    """What the daemon counts beside its registrations."""

    connections: int
    http_connections: int
    http_requests: int
    commands: Mapping[str, int]
    refused: int
    connections_refused: Mapping[str, int]
    longest_pass_s: float


class Daemon(Host, Protocol):
    """A running nsqlookupd; `Nsqlookupd` is one."""

    registrations: Registrations

    @property
    def options(self) -> NsqlookupdOptions:
        """Limits are options."""

    def counts(self) -> Counts:
        """What was counted so far."""

    def note_pass(self) -> None:
        """Something happens in this pass of the event loop, so it is to be measured."""

    def now(self) -> int:
        """The time in ns since the epoch."""


queries: Final = Routes[Daemon]("Queries", Role.READ)
changes: Final = Routes[Daemon]("Changes", Role.ADMIN)
legacy: Final = Routes[Daemon]("Endpoints of NSQ 0.2", Role.ADMIN, Style.ENVELOPE)


@queries.add("GET", "HEAD", path="/ping", role=Role.ANYBODY, style=Style.PLAIN)
def ping(_: Daemon, __: Call) -> str:
    """Say OK."""
    return "OK"


@queries.get("/info")
def info(_: Daemon, __: Call) -> Answer:
    """Version. The header `X-Nsqkit-Version` tells our own version and build."""
    return json_answer({"version": NSQ_VERSION}, [_OURS])


@queries.get("/lookup", params="topic")
async def lookup(lookupd: Daemon, call: Call) -> Answer:
    """List a topic's channels, and its producers but for the inactive and the tombstoned ones."""
    now = lookupd.now()
    topic = lookupd.registrations.topics(now).get(_known(call))
    if topic is None:
        raise NotFound("TOPIC_NOT_FOUND")
    return await long_json(lookupd.slices, pages.lookup_page(lookupd.registrations, topic, now))


@queries.get("/topics")
async def topics(lookupd: Daemon, _: Call) -> Answer:
    """List every topic, sorted."""
    return await long_json(
        lookupd.slices, pages.names_page(b"topics", lookupd.registrations.topics(lookupd.now()))
    )


@queries.get("/channels", params="topic")
async def channels(lookupd: Daemon, call: Call) -> Answer:
    """List a topic's channels, sorted; none if it is not known."""
    topic = lookupd.registrations.topics(lookupd.now()).get(_known(call))
    found = topic.channels if topic is not None else ()
    return await long_json(lookupd.slices, pages.names_page(b"channels", found))


@queries.get("/nodes")
async def nodes(lookupd: Daemon, _: Call) -> Answer:
    """List every active nsqd with its topics, and for which of them it is tombstoned."""
    return await long_json(lookupd.slices, pages.nodes_page(lookupd.registrations, lookupd.now()))


@queries.get("/debug")
async def debug(lookupd: Daemon, _: Call) -> Answer:
    """Show everything that is known of producers, by `category:key:subkey`."""
    return await long_json(lookupd.slices, pages.debug_page(lookupd.registrations, lookupd.now()))


@queries.get("/metrics")
async def metrics(lookupd: Daemon, _: Call) -> Answer:
    """Figures of registrations, traffic and the process for Prometheus, in its text format."""
    page: Any = await asyncio.to_thread(
        import_module, "nsqkit.nsqlookupd.metrics"
    )  # loading it takes a while
    return await long_answer(lookupd.slices, page.metrics_page(lookupd), METRICS)


@changes.post("/topic/create", params="topic")
def create_topic(lookupd: Daemon, call: Call) -> None:
    """Make a topic known."""
    topic = call.topic("INVALID_ARG_TOPIC")
    try:
        lookupd.registrations.create_topic(topic)
    except TooMany as error:
        raise Unavailable(f"TOO_MANY_REGISTRATIONS: {error}") from None


@changes.post("/topic/delete", params="topic")
def delete_topic(lookupd: Daemon, call: Call) -> None:
    """Forget a topic with its channels. An nsqd that has it brings it back when it next registers something of it."""
    lookupd.registrations.delete_topic(_known(call))


@changes.post("/topic/tombstone", params="topic, node")
def tombstone(lookupd: Daemon, call: Call) -> None:
    """Hide a node from those who look up a topic, for `--tombstone-lifetime`: to be done before deleting it there."""
    topic = _known(call)
    lookupd.registrations.tombstone(topic, call.required("node"), lookupd.now())


@changes.post("/channel/create", params="topic, channel")
def create_channel(lookupd: Daemon, call: Call) -> None:
    """Make a channel and its topic known: every nsqd that makes the topic later makes the channel with it."""
    names = call.topic_and_channel()
    try:
        lookupd.registrations.create_channel(*names)
    except TooMany as error:
        raise Unavailable(f"TOO_MANY_REGISTRATIONS: {error}") from None


@changes.post("/channel/delete", params="topic, channel")
def delete_channel(lookupd: Daemon, call: Call) -> None:
    """Forget a channel."""
    if not lookupd.registrations.delete_channel(*call.topic_and_channel()):
        raise NotFound("CHANNEL_NOT_FOUND")


for _path, _endpoint, _params in (
    ("/create_topic", create_topic, "topic"),
    ("/delete_topic", delete_topic, "topic"),
    ("/create_channel", create_channel, "topic, channel"),
    ("/delete_channel", delete_channel, "topic, channel"),
    ("/tombstone_topic_producer", tombstone, "topic, node"),
):
    legacy.any(_path, params=_params)(_endpoint)

ENDPOINTS: Final[tuple[Route[Daemon], ...]] = (*queries, *changes, *pprof.routes, *legacy)
"""Every endpoint, in the order of the docs."""


class MeasuredApp(HttpApp):
    """The application. Each pass of the loop that serves a request is measured."""

    def __init__(self, lookupd: Daemon) -> None:
        super().__init__(lookupd, ENDPOINTS)
        self._note = lookupd.note_pass

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        self._note()
        await super().__call__(scope, receive, send)


def _known(call: Call) -> str:
    topic = call.required("topic")
    if topic == EVERYTHING:
        raise BadRequest("INVALID_ARG_TOPIC")
    return topic
