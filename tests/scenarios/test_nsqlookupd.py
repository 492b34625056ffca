"""nsqlookupd with real sockets: as its operators meet it, as its worst clients do, and inside another program."""

import asyncio
import json
import signal
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

import pytest
import uvloop

from nsqkit.door import Door, Guest
from nsqkit.errors import StartError
from nsqkit.log import Log
from nsqkit.nsqlookupd.connection import Connection
from nsqkit.nsqlookupd.daemon import Nsqlookupd
from nsqkit.nsqlookupd.options import NsqlookupdOptions
from nsqkit.nsqlookupd.registrations import Registrations
from nsqkit.wire.registration import MAGIC, ReplyReader, encode_identify
from tests.nsqlookupd.views import nodes
from tests.scenarios.conftest import WAIT_S, Closed, Daemon

IDENTITY = {
    "broadcast_address": "b",
    "hostname": "h",
    "tcp_port": 4150,
    "http_port": 4151,
    "version": "1.3.0",
}
HELLO = MAGIC + encode_identify(json.dumps(IDENTITY).encode())

linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux's names of socket options")


class Lookupd(Daemon):
    """An nsqlookupd as a process of its own."""

    def arguments(self) -> list[str]:
        """The command line."""
        installed = Path(sys.executable).with_name("nsqlookupd")
        module = [sys.executable, "-m", "nsqkit.nsqlookupd.cli"]
        assert self.http_address is not None
        tcp, http = (f"{address[0]}:{address[1]}" for address in (self.address, self.http_address))
        addresses = [f"--tcp-address={tcp}", f"--http-address={http}"]
        return [*([str(installed)] if installed.exists() else module), *addresses, *self.flags]

    def producers(self, topic: str) -> list[str]:
        """Who has a topic."""
        status, body = self.request("GET", f"/lookup?topic={topic}")
        return [one["remote_address"] for one in json.loads(body)["producers"]] if status == 200 else []


class Client:
    """An nsqd's end of a connection, which blocks."""

    def __init__(self, address: tuple[str, int] | str, hello: bytes = HELLO) -> None:
        assert not isinstance(address, str)
        self.socket = socket.create_connection(address, WAIT_S)
        self.name = "{}:{}".format(*self.socket.getsockname())
        self._reader = ReplyReader(65_536)
        self._replies: deque[bytes] = deque()
        self.socket.sendall(hello)

    def close(self) -> None:
        """Hang up."""
        self.socket.close()

    def ask(self, command: bytes) -> bytes:
        """Send a command; its reply."""
        self.socket.sendall(command)
        return self.reply()

    def reply(self) -> bytes:
        """The next reply. Closed."""
        while not self._replies:
            try:
                chunk = self.socket.recv(65_536)
            except ConnectionResetError as error:
                raise Closed(str(error)) from None
            if not chunk:
                raise Closed
            self._replies += self._reader.feed(chunk)
        return self._replies.popleft()

    def closed(self) -> bool:
        """True when the peer hangs up without another word."""
        with suppress(Closed):
            raise AssertionError(f"the end was expected, not {self.reply()!r}")
        return True


def cannot_send(client: Client, data: bytes) -> bool:
    """Whether the peer takes no more."""
    try:
        client.socket.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        return True
    return False


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for something that takes milliseconds."""
    give_up = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.005)


@pytest.fixture
def make_lookupd(tmp_path: Path) -> Iterator[Callable[..., Lookupd]]:
    """Prepares an nsqlookupd without starting it: `make_lookupd(*flags)`."""
    daemons: list[Lookupd] = []

    def make(*flags: str) -> Lookupd:
        daemons.append(Lookupd(tmp_path / f"nsqlookupd-{len(daemons)}", *flags, http=True))
        return daemons[-1]

    yield make
    for daemon in daemons:
        daemon.close()


@pytest.fixture
def lookupd(make_lookupd: Callable[..., Lookupd]) -> Lookupd:
    """A running nsqlookupd."""
    daemon = make_lookupd()
    daemon.start()
    return daemon


# -- the program


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it(lookupd, number):
    """SIGTERM and SIGINT end it with 0 while clients of both kinds are connected, and they notice."""
    with (
        closing(Client(lookupd.address)) as nsqd,
        socket.create_connection(lookupd.http_address, WAIT_S) as web,
    ):
        nsqd.reply()
        assert b"OK" == nsqd.ask(b"REGISTER t c\n")

        assert 0 == lookupd.stop(number)

        assert nsqd.closed()
        assert b"" == web.recv(1)
    assert "INFO: bye\n" in lookupd.log()


def test_nothing_is_kept_over_a_restart(lookupd):
    """What nsqds registered is theirs to say again."""
    with closing(Client(lookupd.address)) as nsqd:
        nsqd.reply()
        assert b"OK" == nsqd.ask(b"REGISTER t c\n")
        assert [nsqd.name] == lookupd.producers("t")
    lookupd.stop()
    lookupd.start()

    assert (200, b'{"topics":[]}') == lookupd.request("GET", "/topics")


@pytest.mark.parametrize("flag", ["tcp", "http"])
def test_address_in_use(make_lookupd, flag):
    """An address that is taken is a FATAL line that names it, and exit code 1."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        daemon = make_lookupd(f"--{flag}-address={address}")
        daemon.spawn()

        assert 1 == daemon.wait()

    text = f"FATAL: failed to instantiate nsqlookupd - listen ({address}) failed - Address already in use\n"
    assert daemon.log().endswith(text)


def test_socket_of_somebody_else_is_left_alone(make_lookupd, tmp_path):
    """A path where an address belongs is refused before anything is done to what is there."""
    path = tmp_path / "nsqd.sock"
    with socket.socket(socket.AF_UNIX) as somebody:
        somebody.bind(str(path))
        daemon = make_lookupd(f"--tcp-address={path}")
        daemon.spawn()

        assert 2 == daemon.wait()

        assert path.is_socket()
    assert f'invalid value "{path}" for flag -tcp-address: write host:port' in daemon.log()


# -- clients that misbehave


def test_error_arrives_although_more_bytes_follow(lookupd):
    """A client in full flow reads why it is hung up on: what it still sends is taken and dropped."""
    with closing(Client(lookupd.address)) as nsqd:
        nsqd.reply()
        nsqd.socket.sendall(b"WHAT\n" + b"REGISTER t c\n" * 50_000)

        assert b"E_INVALID invalid command WHAT" == nsqd.reply()
        assert nsqd.closed()
    assert (200, b'{"topics":[]}') == lookupd.request("GET", "/topics")


def test_client_that_goes_on_sending_is_cut_off(lookupd):
    """Whoever does not hang up after an error is hung up on soon."""
    with closing(Client(lookupd.address, b"HTTP/1.1 ")) as stranger:
        assert b"E_BAD_PROTOCOL" == stranger.reply()

        wait_until(lambda: cannot_send(stranger, b"more and more "))


def test_client_that_ends_without_reading(lookupd):
    """A client that sends everything and then closes its end is answered to the last, and gone."""
    with closing(Client(lookupd.address)) as nsqd:
        nsqd.socket.sendall(b"REGISTER t c\nPING\n")
        nsqd.socket.shutdown(socket.SHUT_WR)

        assert nsqd.reply().startswith(b"{")
        assert [b"OK", b"OK"] == [nsqd.reply(), nsqd.reply()]
        assert nsqd.closed()
        wait_until(lambda: lookupd.producers("t") == [])


def test_client_that_ends_within_identify(lookupd):
    """An end in the middle of a body is answered with what was missing."""
    with closing(Client(lookupd.address, MAGIC + b"IDENTIFY\n\0\0\0\5{}")) as nsqd:
        nsqd.socket.shutdown(socket.SHUT_WR)

        assert b"E_BAD_BODY IDENTIFY failed to read body" == nsqd.reply()
        assert nsqd.closed()


def test_machine_that_loses_its_power(lookupd):
    """A connection that is reset takes its registrations along."""
    with closing(Client(lookupd.address)) as nsqd:
        nsqd.reply()
        assert b"OK" == nsqd.ask(b"REGISTER t c\n")
        assert [nsqd.name] == lookupd.producers("t")
        nsqd.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    wait_until(lambda: lookupd.producers("t") == [])


def test_long_answers_over_http(lookupd):
    """An answer far longer than the buffers of a connection comes in one piece, to a slow reader too."""
    names = [f"{number:060}" for number in range(5000)]
    with closing(Client(lookupd.address)) as nsqd:
        nsqd.socket.sendall(b"".join([b"REGISTER t %s\n" % name.encode() for name in names]))
        nsqd.reply()
        assert {b"OK"} == {nsqd.reply() for _ in names}

        status, body = lookupd.request("GET", "/lookup?topic=t")

    assert (200, names) == (status, json.loads(body)["channels"])


# -- inside another program


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request) -> Iterator[Callable[..., object]]:
    """Runs a coroutine, in each kind of event loop."""
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield runner.run


def options(host: str = "127.0.0.1") -> NsqlookupdOptions:
    """Free ports."""
    return NsqlookupdOptions(tcp_address=f"{host}:0", http_address="127.0.0.1:0", broadcast_address="b")


def silent() -> Log:
    """A log for nobody."""
    return Log(write=lambda _: None)


class Stream:
    """An nsqd's end of a connection, which awaits."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, command: bytes) -> bytes:
        """Send a command; its reply."""
        self.writer.write(command)
        return await self.reply()

    async def reply(self) -> bytes:
        """The next reply."""
        async with asyncio.timeout(WAIT_S):
            (size,) = struct.unpack(">i", await self.reader.readexactly(4))
            return await self.reader.readexactly(size)

    async def closed(self) -> bool:
        """True when the peer hangs up without another word."""
        async with asyncio.timeout(WAIT_S):
            try:
                return await self.reader.read() == b""
            except ConnectionResetError:
                return True


@asynccontextmanager
async def connected(port: int, host: str = "127.0.0.1") -> AsyncIterator[Stream]:
    """A connection."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        yield Stream(reader, writer)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def test_embedded(run):
    """It runs inside another program's loop, tells where it is, and can be stopped more than once."""

    async def scenario() -> None:
        async with Nsqlookupd(options(), silent()) as lookupd:
            waiting = asyncio.create_task(lookupd.wait())
            async with connected(lookupd.tcp_port) as nsqd:
                introduction = json.loads(await nsqd.ask(HELLO))
                assert b"OK" == await nsqd.ask(b"REGISTER t c\n")
                await lookupd.stop()
                await waiting
                assert await nsqd.closed()
        expected = {"broadcast_address": "b", "hostname": socket.gethostname(), "http_port": lookupd.http_port,
                    "tcp_port": lookupd.tcp_port, "version": "1.3.0"}  # fmt: skip
        assert list(expected.items()) == list(introduction.items())
        assert [] == nodes(lookupd.registrations, lookupd.now())
        assert set() == lookupd._connections

    run(scenario())


def test_failed_start_leaves_nothing(run):
    """When one of the addresses is taken, the other is free again."""

    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            lookupd = Nsqlookupd(NsqlookupdOptions(tcp_address=address, http_address="127.0.0.1:0"), silent())
            with pytest.raises(StartError, match=f"^listen \\({address}\\) failed - Address already in use$"):
                await lookupd.start()
            assert {-1} == {one.socket.fileno() for one in lookupd._listeners}

    run(scenario())


def test_client_that_never_reads(run):
    """Nothing more is read from a client that does not read its replies; others are served, and no reply is lost."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        async with Nsqlookupd(options(), silent()) as lookupd, connected(lookupd.tcp_port) as other:
            await other.ask(HELLO)
            # What is accepted has the buffers of what listens.
            lookupd._listeners[0].socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
            with socket.socket() as lazy:
                lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
                lazy.setblocking(False)
                await loop.sock_connect(lazy, ("127.0.0.1", lookupd.tcp_port))
                await loop.sock_sendall(lazy, MAGIC)
                sent = 0
                while not (transport := slowest(lookupd)) or transport.is_reading():
                    with suppress(BlockingIOError):
                        sent += lazy.send((b"PING\n" * 1000)[sent % 5 :])
                    await asyncio.sleep(0)

                assert transport.get_write_buffer_size() < 1 << 20
                assert b"OK" == await other.ask(b"PING\n")
                reader = ReplyReader(100)
                replies: list[bytes] = []
                while len(replies) < sent // 5:
                    async with asyncio.timeout(WAIT_S):
                        replies += reader.feed(await loop.sock_recv(lazy, 65_536))
                assert [b"OK"] * (sent // 5) == replies
                assert transport.is_reading()

    run(scenario())


def slowest(lookupd: Nsqlookupd) -> asyncio.Transport | None:
    """The connection of whoever did not identify himself, if it was noticed."""
    transports = [one._transport for one in lookupd._connections if one._session.peer is None]
    return transports[0] if transports else None


@linux
def test_connections_are_kept_alive(run):
    """The kernel asks silent hosts whether they are still there."""

    async def scenario() -> None:
        async with Nsqlookupd(options(), silent()) as lookupd, connected(lookupd.tcp_port) as nsqd:
            await nsqd.ask(HELLO)
            (connection,) = lookupd._connections
            sock = connection._transport.get_extra_info("socket")
            names = [socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT]
            assert 1 == sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert [60, 15, 4] == [sock.getsockopt(socket.IPPROTO_TCP, name) for name in names]

    run(scenario())


def guest_of(door: Door) -> Guest:
    """One who was let in."""
    guest = door.enter("")
    assert guest is not None
    return guest


@pytest.mark.parametrize("said", [b"", MAGIC, MAGIC + b"PING\n", MAGIC + b"IDENTIFY\n\0\0\1\0{"])
def test_whoever_does_not_identify_himself(run, said):
    """A connection without IDENTIFY is closed after a while; one with it stays."""

    async def scenario() -> None:
        lines: list[str] = []
        registrations = Registrations(10**9, 0, 10, 10)
        connections: set[Connection] = set()
        log = Log(write=lines.append)
        door = Door(log, 9)
        server = await asyncio.get_running_loop().create_server(
            lambda: Connection(
                registrations,
                b"{}",
                log,
                lambda: 0,
                connections,
                guest_of(door),
                handshake_s=0.5,
            ),
            "127.0.0.1",
            0,
        )
        port = server.sockets[0].getsockname()[1]
        async with connected(port) as nsqd:
            assert b"{}" == await nsqd.ask(HELLO)
            async with connected(port) as stranger:
                stranger.writer.write(said)
                if said.endswith(b"PING\n"):
                    assert b"OK" == await stranger.reply()

                assert await stranger.closed()

                assert b"OK" == await nsqd.ask(b"PING\n")
                assert 1 == len(connections)
            assert any("no IDENTIFY within 0.5 s" in line for line in lines)
        server.close()
        await server.wait_closed()

    run(scenario())


def test_everything_at_once(run):
    """An nsqd that says thousands of things at once gets every reply, and all of it is gone soon after it is."""

    async def scenario() -> None:
        async with Nsqlookupd(options(), silent()) as lookupd:
            async with connected(lookupd.tcp_port) as nsqd:
                await nsqd.ask(HELLO)
                nsqd.writer.write(b"".join(b"REGISTER t c%d\n" % number for number in range(5000)))
                for _ in range(5000):
                    assert b"OK" == await nsqd.reply()
                topic = lookupd.registrations.topics(0)["t"]
                assert 5000 == sum(channel.producers for channel in topic.channels.values())
            while any(channel.producers for channel in topic.channels.values()):  # noqa: ASYNC110 - nothing tells when
                await asyncio.sleep(0)
            assert [] == topic.producers

    run(scenario())


def test_ipv6(run):
    """An nsqd at an IPv6 address is shown with brackets, and found by them."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")

    async def scenario() -> None:
        async with (
            Nsqlookupd(options("[::1]"), silent()) as lookupd,
            connected(lookupd.tcp_port, "::1") as nsqd,
        ):
            await nsqd.ask(HELLO)
            (peer,) = nodes(lookupd.registrations, lookupd.now())
            assert f"[::1]:{nsqd.writer.get_extra_info('sockname')[1]}" == peer.id

    run(scenario())
