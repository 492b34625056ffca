"""The daemon: a broker with sockets, a clock, a disk and HTTP around it.

    async with Nsqd(NsqdOptions(data_path=path, tcp_address="127.0.0.1:0")) as nsqd:
        await nsqd.wait()

The `nsqd` program takes the same path. Everything happens in one event loop; threads only sync files and write
checkpoints.
"""

import asyncio
import os
import socket
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from nsqkit.accept import Acceptor
from nsqkit.door import Door, Guest, door_of
from nsqkit.errors import NotKept, StartError
from nsqkit.gojson import encode_json
from nsqkit.listen import Listener
from nsqkit.log import Log
from nsqkit.nsqd.auth.servers import AuthServers
from nsqkit.nsqd.connection import Connection, make_layer
from nsqkit.nsqd.core.broker import Broker
from nsqkit.nsqd.core.changes import promise
from nsqkit.nsqd.core.health import Health
from nsqkit.nsqd.core.store import StoreError
from nsqkit.nsqd.datapath import topic_directory
from nsqkit.nsqd.descriptors import Shares
from nsqkit.nsqd.discovery.lookup import Lookup
from nsqkit.nsqd.drain import Drain
from nsqkit.nsqd.events import LoggedEvents
from nsqkit.nsqd.handover import moving
from nsqkit.nsqd.handover.diskqueue import queues_among
from nsqkit.nsqd.housekeeping import Housekeeping
from nsqkit.nsqd.live import Live
from nsqkit.nsqd.machine import Lock, Machine
from nsqkit.nsqd.memory import GcPauses
from nsqkit.nsqd.metadata import MetadataError
from nsqkit.nsqd.options import NsqdOptions, Sigterm, TlsRequired
from nsqkit.nsqd.publishing import Body, Waiter, delay_of, framed
from nsqkit.nsqd.recovery import recover, restore
from nsqkit.nsqd.saver import Saver
from nsqkit.nsqd.settings import limit, reserve_of, settings_of
from nsqkit.nsqd.statsd import Figures, Statsd, prefix_of
from nsqkit.nsqd.storage.files import FileStorage
from nsqkit.nsqd.tls import Certificates, Tls
from nsqkit.nsqd.traffic import Traffic
from nsqkit.nsqd.turns import Turns
from nsqkit.nsqd.web.daemon import LongestPass
from nsqkit.options.daemon import log_of
from nsqkit.options.duration import SECOND, Duration
from nsqkit.tokens import OwnToken
from nsqkit.version import NSQ_VERSION, compiled, version_line
from nsqkit.web.access import Access
from nsqkit.web.long_answer import Slices
from nsqkit.web.profiler import Profiler
from nsqkit.wire.errors import PublishFailed
from nsqkit.wire.identify import Identity
from nsqkit.wire.layer import Layer

if TYPE_CHECKING:
    from nsqkit.web.server import HttpServer


class Nsqd:
    """One nsqd. Start it with `start` or `async with`; StartError says why it can't."""

    def __init__(
        self, options: NsqdOptions | None = None, log: Log | None = None, machine: Machine | None = None
    ) -> None:
        self.options = options or NsqdOptions()
        self.log = log or log_of(self.options)
        self.machine = machine or Machine()
        self.started_at = self.now()
        self.tcp_port = -1
        self.http_port = 0
        self.https_port = 0
        self.data_path = self.options.data_path or os.getcwd()
        self.profiler = Profiler()
        self.slices = Slices(self.schedule)
        self.gc_pauses = GcPauses()
        self.health = Health()
        self.access: Access
        self._token: OwnToken  # for nsqlookupds
        self.broker: Broker
        self.storage: FileStorage
        self._lock: Lock | None = None
        self._loop: asyncio.AbstractEventLoop
        self._connections: set[Connection] = set()
        self._turns: Turns
        self._acceptor: Acceptor | None = None
        self._listeners: list[Listener] = []
        self._http: list[HttpServer] = []
        self.traffic = Traffic()
        self._certificates: Certificates | None = None
        self._stopped = asyncio.Event()
        self._door: Door
        self._keeper: Housekeeping
        self._saver: Saver
        self._lookup: Lookup
        self._statsd: Statsd
        self._live: Live
        self._drain: Drain
        self._terminated = False
        self._auth: AuthServers | None = None

    # -- start and stop

    async def start(self) -> None:
        """Lock the data path, take over what is there, and serve."""
        self._loop = asyncio.get_running_loop()
        self._lock = self.machine.lock(self.options.data_path)
        self.machine.disk.misplaced = self._lock.misplaced
        try:
            self.gc_pauses.start()
            self.log.info(version_line("nsqd"))
            if not compiled():
                self.log.warning(
                    "BUILD: nsqd is not compiled, and so much slower; README says how it is installed"
                )
            self._introduce()
            certificates = self._load_certificates()
            self.access = Access(self.options.http_token_file, self.log)
            self._token = OwnToken("--http-client-token-file", self.options.http_client_token_file, self.log)
            tcp = self._listen(self.options.tcp_address)
            http = self._listen(self.options.http_address) if self.options.http_address else None
            wanted = certificates and self.options.https_address
            https = self._listen(self.options.https_address) if wanted else None
            self.tcp_port = tcp.port
            self.http_port = http.port if http else 0
            self.https_port = https.port if https else 0
            self._load()
            self._acceptor = Acceptor(tcp.socket, self._connect, self._door, self.log)
            self.log.info(f"TCP: listening on {tcp.address}")
            if http is not None or https is not None:
                self._serve_http(http, https)
            self._announce()
            self._start_statsd()
            self._live = self._live_parts()
            self._drain = Drain(self.broker, self.log, self.slices, self.now, self._stopped.set)
        except BaseException:
            await self._abandon()
            raise
        self.turn()
        self._keeper.start()

    def _introduce(self) -> None:
        """Say what a reader of the log asks first."""
        options = self.options
        self.log.info(f"ID: {options.node_id}")
        self.log.info(f"data path: {os.path.abspath(self.data_path)}, durability: {options.durability.value}")

    def _load_certificates(self) -> Certificates | None:
        if self.options.tls_cert:
            self._certificates = Certificates(self.options, self.traffic)
            self._certificates.introduce(self.log)
        return self._certificates

    def reload(self) -> bool:
        """Read the files of tokens and of TLS again, for what is to come. False: there are none."""
        found = [self.access.reload(), self._token.reload()]
        if self._certificates is not None:
            self._certificates.renew(self.log)
            return True
        return any(found)

    def _listen(self, address: str) -> Listener:
        listener = self.machine.listen(address)
        self._listeners.append(listener)
        return listener

    def _load(self) -> None:
        """Bring back what was there before: metadata, journal, logs, and what an NSQ left."""
        options = self.options
        disk = self.machine.disk
        try:
            reserve = reserve_of(options, disk, self.data_path)
        except OSError as error:
            raise StartError(f"data-path {self.data_path}: {error.strerror}") from error
        shares = Shares(self.machine.descriptors())
        self._door = door_of(options, shares.clients, self.log)
        self.traffic.door = self._door
        storage = FileStorage(
            disk,
            self.data_path,
            lambda topic: topic_directory(self.data_path, topic),
            self.log.warning,
            options.max_bytes_per_file,
            reserve,
            health=self.health,
            max_open_logs=shares.logs,
            alarm=self.log.error,
        )
        storage.shared.look()
        if reserve:
            self.log.info(
                f"STORAGE: {storage.shared.free_bytes} bytes are free; below {reserve} publishes are refused"
            )
        self.storage = storage
        self.broker = Broker(settings_of(options), storage, self.health)
        self.broker.settings.random = self.machine.random
        self._events = LoggedEvents(self.log, self.traffic)
        self.broker.events = self._events
        self._keeper = Housekeeping(self.broker, storage, options, self.log, self.turn, self.machine)
        self._saver = Saver(self.broker, self.data_path, self.log, self.turn, self.machine)
        self._lookup = Lookup(
            self.broker,
            self.log,
            self.turn,
            self.now,
            connect_timeout=Duration(options.http_client_connect_timeout),
            request_timeout=Duration(options.http_client_request_timeout),
            resolve_interval=Duration(options.lookupd_resolve_interval),
            token=self._token.get,
        )
        self.traffic.nsqlookupds = self._lookup.connected
        if options.auth_http_addresses:
            self._auth = self.broker.authority = self._auth_servers()
        self._turns = Turns(
            self.broker,
            self.machine.clock,
            self._saver.after_turn,
            self._keeper.after_turn,
            self.machine.cpu_time,
        )
        self.machine.clock.on_step = self._follow_calendar
        try:
            for grave in storage.find_graves():
                self._keeper.clear_away(grave)
            found = recover(self.data_path, disk, storage, self.log.warning)
            if found.replayed:
                self.log.info(f"JOURNAL: {found.replayed} messages that the logs had lost are back")
            for topic in found.topics:
                restore(self.broker, topic, self.now())
            queues = queues_among(disk.names(self.data_path))
            moving.import_queues(self.data_path, queues, self.broker, storage, self.log, self.now())
            self._saver.save_now()
            storage.opens_later = True
            limit(self.broker.settings, options)
        except (MetadataError, StoreError, OSError) as error:
            raise StartError(str(error)) from error

    def _auth_servers(self) -> AuthServers:
        options = self.options
        try:
            return AuthServers(
                options.auth_http_addresses,
                self.log,
                self.turn,
                self.now,
                method=options.auth_http_request_method,
                connect_timeout=Duration(options.http_client_connect_timeout),
                request_timeout=Duration(options.http_client_request_timeout),
                root_ca=options.tls_root_ca_file,
            )
        except OSError as error:
            raise StartError(f"--tls-root-ca-file={options.tls_root_ca_file}: {error}") from error

    def _connect(self, guest: Guest) -> asyncio.BaseProtocol:
        self._turns.schedule()  # which measures this pass
        connection: object = Connection(self._turns, self._connections, self._layer, guest)
        return connection  # type: ignore[return-value] # it quacks like one; compiled classes can't inherit it

    def _layer(self, name: str, identity: Identity, stir: Callable[[], None]) -> Layer:
        if name == "tls" and self._certificates is not None:
            return Tls(self._certificates, identity)
        return make_layer(name, identity, stir)

    def _serve_http(self, plain: Listener | None, secure: Listener | None) -> None:
        from nsqkit.nsqd import http  # noqa: PLC0415 - loaded while clients may already connect
        from nsqkit.web.server import HttpServer  # noqa: PLC0415

        app = http.http_app(self)
        if plain is not None:
            closed = self.options.tls_required is TlsRequired.YES
            refusing = http.TlsRequired(max(self.https_port, 0)) if closed else app
            self._http.append(HttpServer(self, refusing, self._door))
            self._http[-1].start([plain.socket])
            self.log.info(f"HTTP: listening on {plain.address}")
        if secure is not None and self._certificates is not None:
            tls = http.tls(self._certificates.context, self.options)
            self._http.append(HttpServer(self, app, self._door, tls, beside=self._http[-1:]))
            self._http[-1].start([secure.socket])
            self.log.info(f"HTTPS: listening on {secure.address}")
        self.traffic.servers = self._http[:1]  # they count together

    def _start_statsd(self) -> None:
        options = self.options
        figures = Figures(self.broker, options, prefix_of(options, self.http_port), self.gc_pauses)
        self._statsd = Statsd(options, figures, self.log, self.slices, self.now)
        self._statsd.start()

    def _live_parts(self) -> Live:
        return Live(
            log=self.log,
            events=self._events,
            broker=self.broker,
            shared=self.storage.shared,
            reserve=lambda options: reserve_of(options, self.machine.disk, self.data_path),
            keeper=self._keeper,
            lookup=self._lookup,
            auth=self._auth,
            statsd=self._statsd,
            http_port=self.http_port,
            http=self._http,
            slices=self.slices,
        )

    def _announce(self) -> None:
        """Tell nsqlookupds of this nsqd (spec/lookup-peers.md). Ports of unix sockets are 0."""
        options = self.options
        tcp_port = options.broadcast_tcp_port or max(self.tcp_port, 0)
        http_port = options.broadcast_http_port or max(self.http_port, 0)
        self.log.info(f"announced: {options.broadcast_address}, TCP port {tcp_port}, HTTP port {http_port}")
        if options.nsqlookupd_tcp_addresses and not (tcp_port and http_port):
            self.log.warning(
                "LOOKUPD: port 0 is refused there: say --broadcast-tcp-port and --broadcast-http-port"
            )
        identity = {
            "broadcast_address": options.broadcast_address,
            "hostname": socket.gethostname(),
            "http_port": http_port,
            "tcp_port": tcp_port,
            "topology_region": options.topology_region,
            "topology_zone": options.topology_zone,
            "version": NSQ_VERSION,
        }
        self._lookup.start(encode_json(identity), options.nsqlookupd_tcp_addresses)

    async def stop(self) -> None:
        """Stop accepting, hang up, write down everything, let go of the data path. The second call does nothing."""
        if self._lock is None:
            return
        self.log.info("NSQ: stopping subsystems")
        if self._acceptor is not None:
            self._acceptor.close()
        self.broker.hang_up_all()
        self.turn()
        await self._lookup.stop()
        await self._statsd.stop()
        self._live.stop()
        self._drain.stop()
        if self._auth is not None:
            await self._auth.stop()
        for http in self._http:
            await http.stop()
        await self._keeper.stop()
        await self._saver.stop()
        self.turn()  # the last answers
        self._turns.stop()
        for connection in list(self._connections):
            connection.abort()
        self._keeper.close_logs()
        await self._abandon()
        self.log.info("NSQ: bye")
        self._stopped.set()

    async def _abandon(self) -> None:
        """Close what is open: the last step of a stop, or of a start that failed."""
        self.gc_pauses.stop()
        if self._acceptor is not None:
            self._acceptor.close()
        for listener in self._listeners:
            listener.close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    async def wait(self) -> None:
        """Return when the daemon was stopped, or is to be: it has drained."""
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

    # -- the turn

    def now(self) -> int:
        """Nanoseconds since the epoch, as everything in this daemon sees them."""
        return self.machine.clock.now()

    def turn(self) -> None:
        """Do what is due, and answer: to be called after a change made from outside a session."""
        self._turns.run()

    def clock_moved(self) -> None:
        """The machine's clock was moved forward: do what is due by it."""
        self._turns.clock_moved()

    # -- for the HTTP side and for those who embed it

    async def publish(self, topic: str, *bodies: Body, delay: Duration | str | float = 0) -> None:
        """Publish messages: all at once, to be delivered after `delay`, in seconds or as in `250ms`.

        Returns when they are as safe as the durability mode demands; PublishError says why they are not.
        """
        data = framed(self.options, topic, bodies)
        wait = delay_of(self.options, delay)
        if self._lock is None:
            raise NotKept("nsqd is not running")
        try:
            await self.publish_framed(topic, data, len(bodies), self.now() + wait if wait else 0)
        except PublishFailed as error:
            raise NotKept(error.cause) from error
        except StoreError as error:
            raise NotKept(str(error)) from error

    async def publish_framed(self, topic: str, data: bytes, count: int, due: int) -> None:
        """Publish `count` messages, each after its 4-byte size in `data`; `due` is ns since the epoch, 0 for at once.

        Returns when they are as safe as the durability mode demands. PublishFailed or StoreError otherwise.
        """
        waiter = Waiter(self._loop.create_future())
        self.broker.topic(topic).publish(data, count, due, waiter, self.now())
        self._turns.schedule()
        await waiter.future

    async def keep(self) -> None:
        """Finish what was changed, and return when a restart will find it. StoreError if it can't be saved."""
        changes = self.broker.changes
        if changes.pending():
            waiter = Waiter(self._loop.create_future())
            changes.settle_when_saved(promise(waiter), changes.count)
            self.turn()
            try:
                await waiter.future
            except PublishFailed as error:
                raise StoreError(error.cause) from error
        else:
            self.turn()

    def schedule(self) -> None:
        """Have a turn at the end of this pass of the loop."""
        self._turns.schedule()

    def longest_pass(self) -> LongestPass:
        """What held up the loop most since the start, or since `forget_longest_pass`."""
        turns = self._turns
        return LongestPass(
            pass_cpu_us=round(turns.longest_pass * 1e6), turn_us=round(int(turns.longest_turn) / 1e3)
        )

    def forget_longest_pass(self) -> None:
        """Begin anew."""
        self._turns.forget()

    async def wait_for_channels(self) -> None:
        """Return when no new topic waits for its channels any more, or after a short while."""
        await self._lookup.wait_for_channels()

    def _follow_calendar(self, ahead: int) -> None:
        self.log.info(f"the calendar was set: it is {ahead / SECOND:+.1f} s from where it was at the start")
        self.broker.follow_calendar(ahead)
        self._turns.schedule()  # something may be due now

    def look(self) -> None:
        """Look at the data path and the free space now. What is wrong is in the broker's health."""
        self.storage.shared.look()
        if self.health.reasons:
            self._keeper.after_turn()

    def drain(self) -> None:
        """Take nothing in any more; `wait` returns when every message is finished, or after --drain-timeout."""
        if not self.broker.draining:
            self._drain.begin(int(self.options.drain_timeout))

    def terminate(self) -> bool:
        """SIGTERM came: drain, if options say so and it is the first one. False: to be stopped now."""
        if self._terminated or self.options.sigterm is Sigterm.SHUTDOWN:
            return False
        self._terminated = True
        self.drain()
        return True

    def configure(self, options: NsqdOptions) -> None:
        """Go by these options from now on; they differ in live ones only."""
        before, self.options = self.options, options
        self._live.follow(before, options)
