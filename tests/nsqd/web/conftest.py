"""The HTTP API without a server: requests go straight into the ASGI application, over a broker in memory."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pytest

from nsqkit.log import Level, Log
from nsqkit.nsqd.core.batch import FAILED, Batch
from nsqkit.nsqd.core.broker import Broker
from nsqkit.nsqd.core.settings import SECOND, Settings
from nsqkit.nsqd.options import NsqdOptions
from nsqkit.nsqd.web.app import HttpApp
from nsqkit.nsqd.web.state import HttpState
from nsqkit.wire.errors import PublishFailed

NOW = 1_700_000_000 * SECOND
DISCONNECT: dict[str, Any] = {"type": "http.disconnect"}


class StandIn:
    """A daemon in name: a broker, a clock that stands still, a log in a list."""

    def __init__(self, options: NsqdOptions, data_path: str) -> None:
        self.options = options
        self.data_path = data_path
        self.lines: list[str] = []
        self.log = Log("", Level.DEBUG, write=self.lines.append)
        self.broker = Broker(Settings(), None)
        self.started_at = NOW - 65 * SECOND
        self.tcp_port = 4150
        self.http_port = 4151

    def now(self) -> int:
        """Always the same."""
        return NOW

    def turn(self) -> None:
        """A turn of the broker."""
        self.broker.work(NOW)
        self.broker.flush()

    async def publish(self, topic: str, data: bytes, count: int, due: int) -> None:
        """Publish at once."""
        batch = self.broker.topic(topic).publish(data, count, due, None, NOW)
        self.turn()
        if batch.state == FAILED:
            raise PublishFailed("PUB", batch.cause)

    def set_log_level(self, level: Level) -> None:
        """Change the log's level."""
        self.log.level = level


class Reply(NamedTuple):
    """What a client gets to see. Header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Http:
    """Makes requests. `unread` is how many pieces of the last request's body nobody asked for."""

    def __init__(self, nsqd: StandIn, runner: asyncio.Runner) -> None:
        self.nsqd = nsqd
        self.state = HttpState()
        self.app = HttpApp(nsqd, self.state)
        self.unread = 0
        self._runner = runner

    def __call__(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        *,
        headers: Sequence[tuple[bytes, bytes]] = (),
        chunks: Sequence[bytes] = (),
        breaks_off: bool = False,
    ) -> Reply:
        """Make a request with a body whose length is announced, or with one in chunks, or with one that breaks off."""
        path, _, query = target.partition("?")
        if body:
            headers = [*headers, (b"content-length", b"%d" % len(body))]
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [*headers],
            "client": ("127.0.0.1", 50000),
        }
        pieces = [*chunks] if chunks else [body]
        events: list[dict[str, Any]] = [
            {"type": "http.request", "body": piece, "more_body": True} for piece in pieces
        ]
        if breaks_off:
            events.append(DISCONNECT)
        else:
            events[-1]["more_body"] = False
        return self._runner.run(self._request(scope, events))

    async def _request(self, scope: dict[str, Any], events: list[dict[str, Any]]) -> Reply:
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return events.pop(0) if events else DISCONNECT

        async def send(message: Any) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        self.unread = len(events)
        start, *rest = sent
        headers = {name.decode(): value.decode() for name, value in start["headers"]}
        assert not rest[-1].get("more_body")
        return Reply(start["status"], headers, b"".join(message.get("body", b"") for message in rest))

    def get(self, target: str, **more: Any) -> Reply:
        """GET."""
        return self("GET", target, **more)

    def post(self, target: str, body: bytes = b"", **more: Any) -> Reply:
        """POST."""
        return self("POST", target, body, **more)

    def put(self, target: str, body: bytes = b"", **more: Any) -> Reply:
        """PUT."""
        return self("PUT", target, body, **more)

    def is_error(self, got: Reply, status: int, text: str) -> None:
        """Check every byte of an error."""
        assert (status, {"message": text}) == (got.status, got.json())
        assert "application/json; charset=utf-8" == got.headers["content-type"]
        assert "nsq; version=1.0" == got.headers["x-nsq-content-type"]

    def bodies(self, topic: str) -> list[bytes]:
        """What waits in a topic."""
        found: list[bytes] = []
        for batch in self.nsqd.broker.topics[topic].waiting.in_memory():
            assert isinstance(batch, Batch)
            found += [batch.message(i, batch.offset_of(i)).body for i in range(batch.count)]
        return found


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """An event loop."""
    with asyncio.Runner() as one:
        yield one


@pytest.fixture
def http(runner, tmp_path):
    """A client of the HTTP API, with small limits."""
    options = NsqdOptions(max_msg_size=100, max_body_size=300, broadcast_address="here")
    return Http(StandIn(options, str(tmp_path)), runner)


@pytest.fixture
def nsqd(http):
    """What the client talks to."""
    return http.nsqd
