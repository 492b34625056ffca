"""The daemon: registrations with sockets and a clock around them. Nothing is kept over a restart; nsqds come back.

async with Nsqlookupd(NsqlookupdOptions(tcp_address="127.0.0.1:0", http_address="127.0.0.1:0")) as lookupd:
    await lookupd.wait()
"""

import asyncio
import socket
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from nsqkit.accept import BACKLOG, Acceptor
from nsqkit.clock import Clock
from nsqkit.door import Door, descriptors, door_of
from nsqkit.gojson import encode_json
from nsqkit.listen import Listener, listen
from nsqkit.log import Log
from nsqkit.nsqlookupd.connection import Connection
from nsqkit.nsqlookupd.options import NsqlookupdOptions
from nsqkit.nsqlookupd.passes import Passes
from nsqkit.nsqlookupd.registrations import Registrations
from nsqkit.nsqlookupd.session import Traffic
from nsqkit.options import differing
from nsqkit.options.daemon import log_of
from nsqkit.options.running import say_changes
from nsqkit.version import NSQ_VERSION, version_line
from nsqkit.web.access import Access
from nsqkit.web.long_answer import Slices
from nsqkit.web.profiler import Profiler

if TYPE_CHECKING:
    from nsqkit.nsqlookupd.http import Counts
    from nsqkit.web.server import HttpServer

OTHERS: Final = 40  # descriptors for what is no connection


class Nsqlookupd:
    """One nsqlookupd. Start it with `start` or `async with`; StartError says why it can't."""

    def __init__(self, options: NsqlookupdOptions | None = None, log: Log | None = None) -> None:
        self.options = options or NsqlookupdOptions()
        self.log = log or log_of(self.options)
        self.clock = Clock()
        self.profiler = Profiler()
        self._passes = Passes()
        self.slices = Slices(self._passes.note)
        self._traffic = Traffic()
        self._door: Door | None = None
        self.access: Access
        self.registrations = Registrations(
            int(self.options.inactive_producer_timeout),
            int(self.options.tombstone_lifetime),
            self.options.max_registrations,
            self.options.max_registrations_per_nsqd,
            self._take_back_soon,
        )
        self._taking_back: asyncio.Handle | None = None
        self.tcp_port = 0
        self.http_port = 0
        self._connections: set[Connection] = set()
        self._listeners: list[Listener] = []
        self._acceptor: Acceptor | None = None
        self._http: HttpServer | None = None
        self._stopped = asyncio.Event()

    async def start(self) -> None:
        """Bind and serve."""
        try:
            self.log.info(version_line("nsqlookupd"))
            self.access = Access(self.options.http_token_file, self.log)
            http = self._listen(self.options.http_address)
            self.http_port = http.port
            door = self._door = door_of(self.options, descriptors() - OTHERS, self.log)
            self._serve_http(http, door)
            # HTTP comes first: an nsqd that waits for this port may ask there at once.
            tcp = self._listen(self.options.tcp_address)
            self.tcp_port = tcp.port
            introduction = self._introduction()
            self._acceptor = Acceptor(
                tcp.socket,
                lambda guest: Connection(
                    self.registrations,
                    introduction,
                    self.log,
                    self.now,
                    self._connections,
                    guest,
                    traffic=self._traffic,
                    note=self._passes.note,
                ),
                door,
                self.log,
            )
            self.log.info(f"TCP: listening on {tcp.address}")
        except BaseException:
            if self._http is not None:
                await self._http.stop()
            self._close()
            raise

    def _listen(self, address: str) -> Listener:
        listener = listen(address, BACKLOG)
        self._listeners.append(listener)
        return listener

    def _introduction(self) -> bytes:
        """The reply to IDENTIFY."""
        return encode_json(
            {
                "broadcast_address": self.options.broadcast_address,
                "hostname": socket.gethostname(),
                "http_port": self.http_port,
                "tcp_port": self.tcp_port,
                "version": NSQ_VERSION,
            }
        )

    def _serve_http(self, listener: Listener, door: Door) -> None:
        from nsqkit.nsqlookupd.http import MeasuredApp  # noqa: PLC0415 - not for addresses that are in use
        from nsqkit.web.server import HttpServer  # noqa: PLC0415

        self._http = HttpServer(self, MeasuredApp(self), door)
        self._http.start([listener.socket])
        self.log.info(f"HTTP: listening on {listener.address}")

    def reload(self) -> bool:
        """Read the file of tokens again. False: there is none."""
        return self.access.reload()

    async def stop(self) -> None:
        """Close everything. The second call does nothing."""
        if self._stopped.is_set():
            return
        if self._acceptor is not None:
            self._acceptor.close()
        for connection in list(self._connections):
            connection.abort()
        if self._http is not None:
            await self._http.stop()
        self._close()
        self.log.info("bye")
        self._stopped.set()

    def _close(self) -> None:
        """Close what is open: the last step of a stop, or of a start that failed."""
        if self._acceptor is not None:
            self._acceptor.close()
        for listener in self._listeners:  # after the servers: asyncio's want them open to be closed
            listener.close()

    def _take_back_soon(self) -> None:
        """Take back another portion of what is to go, after the others had their turn."""
        if self._taking_back is None:
            self._taking_back = asyncio.get_running_loop().call_soon(self._take_back)

    def _take_back(self) -> None:
        self._taking_back = None
        self._passes.note()
        self.registrations.take_back(self.now())

    def counts(self) -> "Counts":
        """What was counted so far, beside registrations."""
        from nsqkit.nsqlookupd.http import Counts  # noqa: PLC0415 - who asks has loaded it

        http = self._http
        return Counts(
            connections=len(self._connections),
            http_connections=http.connection_count if http else 0,
            http_requests=http.request_count if http else 0,
            commands=self._traffic.commands,
            refused=self._traffic.refused,
            connections_refused=(dict(self._door.refused) if self._door else {})
            | {"http_max_connections": http.refused_count if http else 0},
            longest_pass_s=self._passes.longest,
        )

    def note_pass(self) -> None:
        """Something happens in this pass of the event loop, so it is to be measured."""
        self._passes.note()

    def configure(self, options: NsqlookupdOptions) -> None:
        """Go by these options from now on; they differ in live ones only."""
        before, self.options = self.options, options
        changed = differing(before, options)
        if "log_level" in {one.name for one in changed}:
            self.log.level = options.log_level
        say_changes(self.log, changed, before, options)
        self.registrations.configure(
            int(options.inactive_producer_timeout),
            int(options.tombstone_lifetime),
            options.max_registrations,
            options.max_registrations_per_nsqd,
        )
        if self._http is not None:
            self._http.configure(options)

    async def wait(self) -> None:
        """Return when the daemon was stopped."""
        await self._stopped.wait()

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        await self.stop()

    def now(self) -> int:
        """Nanoseconds since the epoch, as everything in this daemon sees them.

        The clock never follows the calendar: setting that must not make every nsqd inactive.
        """
        return self.clock.now()
