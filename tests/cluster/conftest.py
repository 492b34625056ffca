"""Nodes that are real HTTP servers on the loopback, in the event loop of the test, well-behaved or not."""

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import uvloop

from nsqkit.cluster import Cluster

PEM = str(Path(__file__).with_name("localhost.pem"))
"""A certificate for localhost that nobody trusts, and its key. Valid until 2120."""

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter
Handler = Callable[[Reader, Writer], Awaitable[None]]


class Node:
    """A server. `asked` are the requests, as `GET /path?query`; `heads` the same with their headers."""

    def __init__(self, handler: Handler, *, speaks_first: bool) -> None:
        self.address = ""
        self.asked: list[str] = []
        self.heads: list[str] = []
        self.got_request = asyncio.Event()
        self.lost_client = asyncio.Event()
        self._handler = handler
        self._speaks_first = speaks_first

    @property
    def port(self) -> int:
        """The port of its address."""
        return int(self.address.rpartition(":")[2])

    async def connected(self, reader: Reader, writer: Writer) -> None:
        """Serve one connection. Each has one request."""
        try:
            if not self._speaks_first:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.heads.append(head)
                self.asked.append(head.partition(" HTTP/")[0])
                self.got_request.set()
            await self._handler(reader, writer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.lost_client.set()
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


class Nodes:
    """Starts nodes."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner
        self._servers: list[asyncio.Server] = []
        self._sockets: list[socket.socket] = []

    def handled_by(
        self,
        handler: Handler,
        *,
        host: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
        speaks_first: bool = False,
    ) -> Node:
        """A node that does what the function does once a request, or at least the client, has come."""

        async def start() -> Node:
            node = Node(handler, speaks_first=speaks_first)
            server = await asyncio.start_server(node.connected, host, 0, ssl=tls)
            self._servers.append(server)
            port = server.sockets[0].getsockname()[1]
            node.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            return node

        return self._runner.run(start())

    def sending(self, raw: bytes, **more: Any) -> Node:
        """A node that answers every request with these bytes, and hangs up."""

        async def handler(reader: Reader, writer: Writer) -> None:
            writer.write(raw)

        return self.handled_by(handler, **more)

    def answering(self, document: object, status: str = "200 OK", **more: Any) -> Node:
        """A node that answers every request with this document."""
        return self.sending(self.reply(document, status), **more)

    def serving(self, documents: Mapping[str, object]) -> Node:
        """A node that answers with the document of the path, and otherwise 404."""

        async def handler(reader: Reader, writer: Writer) -> None:
            path = node.asked[-1].split(" ")[1].partition("?")[0]
            found = path in documents
            writer.write(
                self.reply(documents[path])
                if found
                else self.reply({"message": "NOT_FOUND"}, "404 Not Found")
            )

        node = self.handled_by(handler)
        return node

    def silent(self) -> Node:
        """A node that takes requests and never says a word."""

        async def handler(reader: Reader, writer: Writer) -> None:
            await reader.read()

        return self.handled_by(handler)

    def refusing(self) -> str:
        """An address where nobody listens, and nobody will."""
        bound = socket.socket()
        self._sockets.append(bound)
        bound.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{bound.getsockname()[1]}"

    def reply(self, document: object, status: str = "200 OK") -> bytes:
        """A whole answer."""
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body

    async def stop(self) -> None:
        """Stop all, after the last client has gone."""
        for server in self._servers:
            server.close()
        connections = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*connections)
        for bound in self._sockets:
            bound.close()


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def runner(request) -> Iterator[asyncio.Runner]:
    """An event loop of each kind that the programs run in."""
    with asyncio.Runner(loop_factory=request.param) as one:
        yield one


@pytest.fixture
def run(runner):
    """Runs a coroutine to its end."""
    return runner.run


@pytest.fixture
def nodes(runner):
    """Starts nodes."""
    starter = Nodes(runner)
    yield starter
    runner.run(starter.stop())


@pytest.fixture
def make_cluster(runner, nodes):
    """Makes what is tested, with other settings than the usual ones."""
    made: list[Cluster] = []

    def make(**settings: Any) -> Cluster:
        made.append(Cluster(**{"connect_timeout": 20, "request_timeout": 20} | settings))
        return made[-1]

    yield make
    for cluster in made:
        runner.run(cluster.close())


@pytest.fixture
def cluster(make_cluster):
    """What is tested, and patient: a busy machine is no failure."""
    return make_cluster()


@pytest.fixture
def server_tls():
    """What a server needs for TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(PEM)
    return context


@pytest.fixture
def trusting_tls():
    """What a client needs to trust such a server."""
    return ssl.create_default_context(cafile=PEM)
