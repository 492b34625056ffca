"""The HTTP server: uvicorn's protocol on sockets that listen already, without its server around it.

That server would install signal handlers, configure logging and wake up ten times a second. What the protocol leaves
open is added here: one write for each answer, a limit on request heads, clients that half-close, a lazy Date header,
complaints in our own log.
"""

import asyncio
import logging
import socket
import time
from collections.abc import Iterable
from email.utils import formatdate
from typing import Final

from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from nsqkit.log import Log
from nsqkit.web.host import Host
from nsqkit.web.long_answer import CONNECTION

BACKLOG: Final = 4096  # connections waiting to be accepted
KEEP_ALIVE: Final = 300  # seconds for which an idle connection stays open
MAX_HEAD: Final = 65_536  # bytes that may come in without being part of a body: line, headers, chunk framing
GRACE: Final = 2.0  # seconds that running requests have to finish when the server stops


class HttpServer:
    """Serves one daemon's application in the running event loop."""

    def __init__(self, daemon: Host, app: ASGIApp) -> None:
        self._profiler = daemon.profiler
        self._config = Config(
            app,
            http=HttpProtocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE,
        )
        self._config.load()
        self._shared = SharedState(_complaints(daemon.log))
        self._servers: list[asyncio.Server] = []

    async def start(self, sockets: Iterable[socket.socket]) -> None:
        """Serve on sockets, TCP or unix, that listen already."""
        loop = asyncio.get_running_loop()
        for one in sockets:
            unix = one.family == socket.AF_UNIX
            create = loop.create_unix_server if unix else loop.create_server
            self._servers.append(await create(self._protocol, sock=one, backlog=BACKLOG))

    def _protocol(self) -> asyncio.Protocol:
        return HttpProtocol(self._config, self._shared, {})

    async def stop(self) -> None:
        """Stop accepting, close idle connections, give running requests GRACE seconds, close the rest."""
        for server in self._servers:
            server.close()
        for connection in list(self._shared.connections):
            connection.shutdown()
        self._profiler.stop()
        if self._shared.tasks:
            _, late = await asyncio.wait(self._shared.tasks, timeout=GRACE)
            for task in late:
                task.cancel()
        for connection in list(self._shared.connections):
            connection.transport.close()


class SharedState(ServerState):
    """What the connections share."""

    def __init__(self, complaints: logging.Logger) -> None:
        super().__init__()
        self.complaints = complaints
        self._second = 0

    def refresh(self) -> None:
        """Bring the Date header up to date."""
        second = int(time.time())
        if second != self._second:
            self._second = second
            self.default_headers = [(b"date", formatdate(second, usegmt=True).encode())]


class HttpProtocol(HttpToolsProtocol):
    """One HTTP connection."""

    server_state: SharedState

    def __init__(self, config: Config, server_state: SharedState, app_state: dict[str, object]) -> None:
        super().__init__(config, server_state, app_state)
        self.logger = server_state.complaints
        self.access_log = False
        self._head_size = 0  # bytes since there was progress: a head ended, or a piece of a body came

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        self._output = self.transport = OneWrite(transport)

    def on_response_complete(self) -> None:
        """An answer is complete."""
        self._output.flush()  # the answer to HEAD is a head alone
        super().on_response_complete()

    def data_received(self, data: bytes) -> None:
        """Take bytes; hang up when they lead to nothing."""
        self._head_size += len(data)
        super().data_received(data)
        if self._head_size > MAX_HEAD and not self.transport.is_closing():
            self.send_400_response("Request header too large.")

    def on_headers_complete(self) -> None:
        """The request's line and headers are there."""
        self._head_size = 0
        self.server_state.refresh()
        super().on_headers_complete()
        # As in Go, `#` is no fragment here: names end in `#ephemeral`.
        self.scope["query_string"] = self.url.partition(b"?")[2]
        self.scope[CONNECTION] = self.transport  # type: ignore[typeddict-unknown-key]

    def on_body(self, body: bytes) -> None:
        """A piece of the body is there."""
        self._head_size = 0
        super().on_body(body)

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Answer a client that will send no more, as `nc` does, if all of its request is there."""
        cycle: RequestResponseCycle | None = getattr(
            self, "cycle", None
        )  # uvicorn hides that there may be none
        if cycle is None or cycle.response_complete or cycle.more_body or self.scheme == "https":
            return False
        cycle.keep_alive = False
        return True

    def _unsupported_upgrade_warning(self) -> None:
        """Serve a request that offers another protocol as if it didn't."""


class OneWrite(asyncio.Transport):
    """The transport under a protocol that writes head and body apart: it sends them in one system call and packet."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self._transport = transport
        self._head = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send, but keep the head of an answer until something follows."""
        if self._head:
            self._transport.writelines([self._head, data])  # joined, a long answer would be copied
            self._head = b""
        elif bytes(data[:9]) == b"HTTP/1.1 " and data[9:10] != b"1" and bytes(data[-4:]) == b"\r\n\r\n":
            self._head = bytes(data)
        else:
            self._transport.write(data)

    def flush(self) -> None:
        """Send what was kept."""
        if self._head:
            self._transport.write(self._head)
            self._head = b""

    def close(self) -> None:
        """Close behind what was written."""
        self.flush()
        self._transport.close()

    def is_closing(self) -> bool:
        """Is it closed, or about to be?"""
        return self._transport.is_closing()


class _Complaints(logging.Handler):
    """Writes the protocol's complaints to our log: about clients at debug level, about us as errors."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        text = f"HTTP: {self.format(record).strip()}"
        if record.levelno >= logging.ERROR:
            self._log.error(text)
        else:
            self._log.debug(text)


def _complaints(log: Log) -> logging.Logger:
    """A logger that stands outside of logging's tree, which belongs to whoever embeds us."""
    logger = logging.Logger("nsqkit.http")  # noqa: LOG001
    logger.addHandler(_Complaints(log))
    return logger
