"""Settings of the whole suite, and a client of HTTP applications without a server."""

import asyncio
import json
import os
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, settings

from tests.certificates import Certificates

settings.register_profile(
    "nsqkit",
    deadline=None,  # a busy machine is no failure; pytest-timeout has the last word
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("nsqkit")


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # So a shell starts what it has in the background, and programs that tests interrupt would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The suite runs in an empty directory: what a test writes without saying where does not end up in the project."""
    os.chdir(tmp_path_factory.mktemp("elsewhere"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None]:
    """No test leaves a file in the current directory."""
    yield
    assert [] == os.listdir(), "the test left this in the current directory"


DISCONNECT: dict[str, Any] = {"type": "http.disconnect"}


class Reply(NamedTuple):
    """What a client gets to see. Header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class HttpClient:
    """Makes requests of an ASGI application. `unread` counts pieces of the last body nobody asked for."""

    def __init__(self, app: Any, runner: asyncio.Runner) -> None:
        self.app = app
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


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """An event loop."""
    with asyncio.Runner() as one:
        yield one


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Throw-away certificates, the same for all tests."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def http_client(runner: asyncio.Runner) -> Callable[[Any], HttpClient]:
    """Makes a client of an application."""
    return lambda app: HttpClient(app, runner)
