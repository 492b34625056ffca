"""The HTTP server: uvicorn's protocol on sockets that listen already, without its server around it.

That server would install signal handlers, configure logging and wake up ten times a second. What the protocol leaves
open is added here: one write for each answer, clients that half-close, a lazy Date header, complaints in our own log,
and limits (they are options) for clients that send too much, too slowly, or do not take their answers.
"""

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from email.utils import formatdate
from http import HTTPStatus
from typing import Final
from urllib.parse import quote_from_bytes

from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from nsqkit.accept import Acceptor, Tls
from nsqkit.door import Door, Guest
from nsqkit.log import Log
from nsqkit.options.daemon import DaemonOptions
from nsqkit.options.duration import SECOND
from nsqkit.web.host import Host
from nsqkit.web.long_answer import CONNECTION

MEAL: Final = 4096  # bytes that the parser gets at once: what they hold is queued, however much it is
LINE_S: Final = 10.0  # between two lines about connections that were turned away
MAX_UNREAD_BODY: Final = 65_536  # bytes of a body that are taken in before somebody wants them
GRACE: Final = 2.0  # seconds that running requests have to finish when the server stops

_ASCII: Final = "".join(map(chr, range(128)))


class HttpServer:
    """Serves one daemon's application in the running event loop. It has its limits in common with those `beside` it."""

    def __init__(
        self,
        daemon: Host,
        app: ASGIApp,
        door: Door,
        tls: Tls | None = None,
        beside: Sequence["HttpServer"] = (),
    ) -> None:
        self._log = daemon.log
        self._door = door
        self._tls = tls
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
        )
        self._config.load()
        self.shared: SharedState = (
            beside[0].shared if beside else SharedState(_complaints(daemon.log), daemon.options)
        )
        self._acceptors: list[Acceptor] = []

    def start(self, sockets: Iterable[socket.socket]) -> None:
        """Serve on sockets, TCP or unix, that listen already."""
        self._acceptors += [
            Acceptor(one, self._protocol, self._door, self._log, self._tls) for one in sockets
        ]

    def _protocol(self, guest: Guest) -> asyncio.Protocol:
        return HttpProtocol(self._config, self.shared, {}, guest)

    @property
    def connection_count(self) -> int:
        """Connections that are open."""
        return len(self.shared.connections)

    @property
    def request_count(self) -> int:
        """Requests that were answered."""
        return self.shared.total_requests

    @property
    def refused_count(self) -> int:
        """Connections that were one too many."""
        return self.shared.refused_count

    def configure(self, options: DaemonOptions) -> None:
        """Have the limits of these options from now on."""
        self.shared.configure(options)

    async def stop(self) -> None:
        """Stop accepting, close idle connections, give running requests GRACE seconds, close the rest."""
        for acceptor in self._acceptors:
            acceptor.close()
        for connection in list(self.shared.connections):
            connection.shutdown()
        self._profiler.stop()
        if self.shared.tasks:
            _, late = await asyncio.wait(self.shared.tasks, timeout=GRACE)
            for task in late:
                task.cancel()
        for connection in list(self.shared.connections):
            connection.transport.close()


class SharedState(ServerState):
    """What the connections share."""

    def __init__(self, complaints: logging.Logger, options: DaemonOptions) -> None:
        super().__init__()
        self.complaints = complaints
        self.refused_count = 0  # connections that were turned away
        self._turned_away = 0  # those since the last line about them
        self._line_at = 0.0
        self._second = 0
        self.configure(options)

    def configure(self, options: DaemonOptions) -> None:
        """Have these limits. Timers that run go on."""
        self.max_connections = options.http_max_connections
        self.max_header_size = options.http_max_header_size
        self.max_pipelined = options.http_max_pipelined
        self.idle_timeout_s = int(options.http_idle_timeout) / SECOND
        self.read_timeout_s = int(options.http_read_timeout) / SECOND
        self.write_timeout_s = int(options.http_write_timeout) / SECOND

    def turn_away(self, now: float) -> None:
        """Count a connection that is one too many; there is a line for the first, then one every LINE_S at most."""
        self._turned_away += 1
        self.refused_count += 1
        if now >= self._line_at:
            most = self.max_connections
            self.complaints.error(f"{self._turned_away} turned away: more than --http-max-connections={most}")
            self._turned_away = 0
            self._line_at = now + LINE_S

    def refresh(self) -> None:
        """Bring the Date header up to date."""
        second = int(time.time())
        if second != self._second:
            self._second = second
            self.default_headers = [(b"date", formatdate(second, usegmt=True).encode())]


class HttpProtocol(HttpToolsProtocol):
    """One HTTP connection."""

    server_state: SharedState

    def __init__(
        self, config: Config, server_state: SharedState, app_state: dict[str, object], guest: Guest
    ) -> None:
        super().__init__(config, server_state, app_state)
        self._guest = guest
        self._known = False  # there was a whole request
        self.logger = server_state.complaints
        self.access_log = False
        self.timeout_keep_alive = server_state.idle_timeout_s  # type: ignore[assignment] # any number will do
        self._head_size = 0  # bytes since there was progress: a head ended, or a piece of a body came
        self._in_request = False
        self._unparsed = b""  # what was read, and is too much for now
        self._waiting_since = (
            0.0  # when the request began that is not whole yet, in the loop's time; 0: none has
        )
        self._unsent = 0  # bytes that the transport held when it was last looked at
        self._reading: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None

    # -- the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        self._guest.arrived(transport.abort)
        self._output = self.transport = OneWrite(transport)
        self.flow = Flow(transport, self._parse)
        if len(self.connections) > self.server_state.max_connections:
            self.server_state.turn_away(self.loop.time())
            self._refuse(503, "Too many connections.")
            return
        self._waiting_since = self.loop.time()
        self._reading = self.loop.call_later(self.server_state.read_timeout_s, self._check_reading)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._guest.leave()
        self._unparsed = b""
        for timer in (self._reading, self._writing):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        if isinstance(self.flow, Flow):
            self.flow.forget()

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Answer a client that will send no more, as `nc` does, if all of its request is there."""
        cycle = self._last_cycle()
        if cycle is None or cycle.response_complete or cycle.more_body or self.scheme == "https":
            return False
        cycle.keep_alive = False
        return True

    def _last_cycle(self) -> RequestResponseCycle | None:
        """The request that came last; uvicorn hides that there may be none."""
        return getattr(self, "cycle", None)

    # -- reading

    def data_received(self, data: bytes) -> None:
        """Take bytes."""
        if not self._waiting_since:
            self._waiting_since = self.loop.time()
        if self._unparsed:
            self._unparsed += data
        elif len(data) <= MEAL and not self._is_full():
            self._feed(data)
        else:
            self._unparsed = data
            self._parse()

    def _parse(self) -> bool:
        """Parse what was read as far as it can be queued. If something is left, nothing more is read."""
        data, self._unparsed = self._unparsed, b""
        at = 0
        while at < len(data) and not self._is_full() and not self.transport.is_closing():
            self._feed(data[at : at + MEAL])
            at += MEAL
        if at < len(data) and not self.transport.is_closing():
            self._unparsed = data[at:]
            self.flow.pause_reading()
        return not self._unparsed

    def _is_full(self) -> bool:
        """Are there so many requests, or so much of a body, that nobody has looked at?"""
        if len(self.pipeline) >= self.server_state.max_pipelined:
            return True
        cycle = self._last_cycle()
        return cycle is not None and len(cycle.body) > MAX_UNREAD_BODY and not cycle.response_complete

    def _feed(self, data: bytes) -> None:
        """Give bytes to the parser; hang up when they lead to nothing."""
        self._head_size += len(data)
        if not self._in_request and not data.isascii():
            data = _escaped(data)
        super().data_received(data)
        if self._head_size > self.server_state.max_header_size and not self.transport.is_closing():
            self._refuse(431, "Request header too large.")

    def on_message_begin(self) -> None:
        """A request begins."""
        if not self._waiting_since:
            self._waiting_since = self.loop.time()
        self._in_request = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The request's line and headers are there."""
        self._head_size = 0
        self.server_state.refresh()
        query = self.url.partition(b"?")[2]  # as in Go, `#` is no fragment here: names end in `#ephemeral`
        super().on_headers_complete()
        self.scope["query_string"] = query
        self.scope[CONNECTION] = self.transport  # type: ignore[typeddict-unknown-key]

    def on_body(self, body: bytes) -> None:
        """A piece of the body is there."""
        self._head_size = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._waiting_since = 0.0
        self._in_request = False
        if not self._known:
            self._known = True
            self._guest.known()
        super().on_message_complete()

    def _check_reading(self) -> None:
        """Hang up on a client whose request is not whole in time, unless it is us who do not read."""
        timeout = self.server_state.read_timeout_s
        left = timeout
        if self._waiting_since:
            cycle = self._last_cycle()
            busy = bool(self.pipeline) or (
                cycle is not None and not cycle.response_complete and not cycle.more_body
            )
            if not busy and not self._unparsed:
                left = self._waiting_since + timeout - self.loop.time()
                if left <= 0:
                    self.logger.info("no whole request within --http-read-timeout")
                    self.transport.close()
                    return
        self._reading = self.loop.call_later(left, self._check_reading)

    # -- writing

    def on_response_complete(self) -> None:
        """An answer is complete."""
        self._output.flush()  # the answer to HEAD is a head alone
        super().on_response_complete()
        if self._unparsed:
            self.flow.resume_reading()  # there is room in the queue again

    def pause_writing(self) -> None:
        """The client does not take what is sent as fast as it is made."""
        super().pause_writing()
        self._unsent = self._output.unsent()
        if self._writing is None:
            self._writing = self.loop.call_later(self.server_state.write_timeout_s, self._check_writing)

    def resume_writing(self) -> None:
        """It has taken most of it."""
        super().resume_writing()
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None

    def _check_writing(self) -> None:
        """Hang up on a client that has taken nothing for a while."""
        unsent = self._output.unsent()
        if unsent >= self._unsent:
            self.logger.info("nothing of an answer was taken within --http-write-timeout")
            self._output.abort()
            return
        self._unsent = unsent
        self._writing = self.loop.call_later(self.server_state.write_timeout_s, self._check_writing)

    def timeout_keep_alive_handler(self) -> None:
        """Nothing came for long. What was not even taken meanwhile is not waited for."""
        if self._output.unsent():
            self._output.abort()
        else:
            super().timeout_keep_alive_handler()

    def _refuse(self, status: int, why: str) -> None:
        """Answer what is no request, and hang up."""
        head = f"{HTTPStatus(status).phrase}\r\ncontent-type: text/plain; charset=utf-8\r\n"
        self.transport.write(
            f"HTTP/1.1 {status} {head}content-length: {len(why)}\r\nconnection: close\r\n\r\n{why}".encode()
        )
        self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        """Serve a request that offers another protocol as if it didn't."""


class Flow(FlowControl):
    """Reading goes on only when what was read before is parsed."""

    def __init__(self, transport: asyncio.Transport, parse: Callable[[], bool]) -> None:
        """`parse` does that as far as it goes, and says whether nothing is left."""
        super().__init__(transport)
        self._parse = parse

    def forget(self) -> None:
        """There is nothing to parse any more: the protocol must not be part of a cycle."""
        self._parse = _nothing_left

    def resume_reading(self) -> None:
        """Go on, if nothing is left."""
        if self._parse():
            super().resume_reading()


def _nothing_left() -> bool:
    return True


def _escaped(request: bytes) -> bytes:
    """A request whose line holds bytes that are not ASCII: NSQ takes them, the parser wants them escaped."""
    line, newline, rest = request.partition(b"\n")
    return quote_from_bytes(line, safe=_ASCII).encode() + newline + rest


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
        """Close after what was written."""
        self.flush()
        self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def is_closing(self) -> bool:
        """Is it closed, or about to be?"""
        return self._transport.is_closing()

    def unsent(self) -> int:
        """Bytes that the client's system has not taken yet."""
        return self._transport.get_write_buffer_size() + len(self._head)


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
