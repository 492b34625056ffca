"""What does nsqlookupd cost with many nsqds? One table, once with the same names on every nsqd, once with all unique.

    python bench/lookupd.py [--connections 2000] [--registrations 50] [--nsqlookupd "nsqlookupd"] [--json <file>]

Each connection does what an nsqd does: IDENTIFY, then one REGISTER after the other, each after the reply to the one
before. CPU time and memory are the kernel's accounting of nsqlookupd's process. A request over HTTP is measured as the
mean of many on one connection that stays open.
"""

import argparse
import asyncio
import contextlib
import http.client
import json
import os
import platform
import re
import resource
import shlex
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Final

import uvloop

from nsqkit.bench import process
from nsqkit.wire.registration import MAGIC, OK, PING, ReplyReader, encode_identify, encode_register

AT_ONCE: Final = 100  # connections being opened
WAIT_S: Final = 60.0
LISTENING: Final = re.compile(r"(TCP|HTTP): listening on 127\.0\.0\.1:(\d+)")
QUIET_S: Final = 1.0  # before memory is read

Name = Callable[[int], tuple[str, str]]  # number of a registration -> topic and channel


@dataclass(frozen=True, slots=True)
class Server:
    """The nsqlookupd that is measured."""

    pid: int
    tcp_port: int
    http_port: int

    def memory(self) -> int:
        """Resident bytes."""
        return process.resident_bytes(self.pid) or 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One column of the table. None: not measured here."""

    connect_s: float
    register_s: float
    register_cpu_us: float  # of the server, for each registration
    client_cpu_us: float  # of this process, for each registration
    bytes_per_registration: float  # growth of memory, with the connections
    bytes_per_registration_alone: float  # without them
    bytes_per_connection: float
    lookup_producers: int  # of the topic that was looked up
    lookup_cpu_ms: float
    lookup_ms: float
    nodes_cpu_ms: float
    topics_cpu_ms: float
    debug_cpu_ms: float
    ping_cpu_us: float  # each
    drop_s: float  # from closing all connections until no producer is left
    drop_cpu_ms: float


ROWS: Final[tuple[tuple[str, str, str], ...]] = (
    ("connect and IDENTIFY", "connect_s", "s"),
    ("register everything", "register_s", "s"),
    ("  server CPU, each registration", "register_cpu_us", "µs"),
    ("  bench CPU, each registration", "client_cpu_us", "µs"),
    ("memory of a registration, with its share of the connection", "bytes_per_registration", "B"),
    ("  without", "bytes_per_registration_alone", "B"),
    ("memory of a connection", "bytes_per_connection", "B"),
    ("/lookup: producers of the topic", "lookup_producers", ""),
    ("  CPU", "lookup_cpu_ms", "ms"),
    ("  time", "lookup_ms", "ms"),
    ("/nodes, CPU", "nodes_cpu_ms", "ms"),
    ("/topics, CPU", "topics_cpu_ms", "ms"),
    ("/debug, CPU", "debug_cpu_ms", "ms"),
    ("PING of all, CPU each", "ping_cpu_us", "µs"),
    ("all connections lost", "drop_s", "s"),
    ("  CPU", "drop_cpu_ms", "ms"),
)


class Nsqd(asyncio.Protocol):
    """One nsqd as nsqlookupd sees it."""

    def __init__(self) -> None:
        self._reader = ReplyReader(65536)
        self._reply: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Remember the connection."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Give a reply to who waits for it."""
        for reply in self._reader.feed(data):
            assert self._reply is not None
            self._reply.set_result(reply)

    async def ask(self, command: bytes) -> bytes:
        """Send a command; its reply."""
        self._reply = asyncio.get_running_loop().create_future()
        self.transport.write(command)
        return await self._reply

    async def identify(self, number: int) -> None:
        """Say hello as the nsqd of this number."""
        document = {
            "broadcast_address": f"nsqd-{number:04d}.example.com",
            "hostname": f"nsqd-{number:04d}",
            "http_port": 4151,
            "tcp_port": 4150,
            "version": "1.3.0",
        }
        reply = await self.ask(MAGIC + encode_identify(json.dumps(document).encode()))
        assert reply.startswith(b"{"), reply

    async def register(self, name: Name, count: int) -> None:
        """Register so many, one after the other."""
        for number in range(count):
            topic, channel = name(number)
            reply = await self.ask(encode_register(topic, channel))
            assert reply == OK, reply

    async def ping(self) -> None:
        """PING."""
        assert await self.ask(PING) == OK


def same(_: int) -> Name:
    """The names that every nsqd has."""
    return lambda number: (f"service-{number:02d}.events", "archive")


def unique(nsqd: int) -> Name:
    """Names that only this nsqd has."""
    return lambda number: (f"service-{nsqd:04d}-{number:02d}.events", f"worker-{nsqd:04d}-{number:02d}")


async def measure(
    server: Server, connections: int, registrations: int, names: Callable[[int], Name]
) -> Figures:
    """Connect, register, ask, ping, hang up."""
    count = connections * registrations
    meter = process.Meter(server.pid)
    empty = server.memory()

    meter.start()
    nsqds = await connect(server.tcp_port, connections)
    connecting = meter.stop()
    await asyncio.sleep(QUIET_S)
    connected = server.memory()

    meter.start()
    await all_of(nsqd.register(names(n), registrations) for n, nsqd in enumerate(nsqds))
    registering = meter.stop()
    await asyncio.sleep(QUIET_S)
    full = server.memory()

    topic, _ = names(connections // 2)(registrations // 2)
    web = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=WAIT_S)
    lookup = Request(server.pid, web, f"/lookup?topic={topic}", 500)
    nodes = Request(server.pid, web, "/nodes", 5)
    assert len(json.loads(nodes.body)["producers"]) == connections
    topics = Request(server.pid, web, "/topics", 20)
    debug = Request(server.pid, web, "/debug", 1)

    meter.start()
    await all_of(nsqd.ping() for nsqd in nsqds)
    pinging = meter.stop()

    meter.start()
    for nsqd in nsqds:
        nsqd.transport.abort()
    while ask(web, "/nodes") != b'{"producers":[]}':  # noqa: ASYNC110 - there is nothing else to wait for
        await asyncio.sleep(0.005)
    dropping = meter.stop()
    assert ask(web, f"/lookup?topic={topic}").endswith(b'"producers":[]}')
    web.close()

    return Figures(
        connect_s=connecting.seconds,
        register_s=registering.seconds,
        register_cpu_us=(registering.server_cpu_us or 0) / count,
        client_cpu_us=registering.generator_cpu_us / count,
        bytes_per_registration=(full - empty) / count,
        bytes_per_registration_alone=(full - connected) / count,
        bytes_per_connection=(connected - empty) / connections,
        lookup_producers=len(json.loads(lookup.body)["producers"]),
        lookup_cpu_ms=lookup.cpu_ms,
        lookup_ms=lookup.ms,
        nodes_cpu_ms=nodes.cpu_ms,
        topics_cpu_ms=topics.cpu_ms,
        debug_cpu_ms=debug.cpu_ms,
        ping_cpu_us=(pinging.server_cpu_us or 0) / connections,
        drop_s=dropping.seconds,
        drop_cpu_ms=(dropping.server_cpu_us or 0) / 1e3,
    )


async def connect(port: int, count: int) -> list[Nsqd]:
    """So many nsqds that have identified themselves."""
    nsqds: list[Nsqd] = []
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            _, nsqd = await asyncio.get_running_loop().create_connection(Nsqd, "127.0.0.1", port)
            await nsqd.identify(number)
            nsqds.append(nsqd)

    await all_of(work() for _ in range(AT_ONCE))
    return nsqds


async def all_of(work: Iterator[Awaitable[None]]) -> None:
    """Do everything at once."""
    async with asyncio.timeout(WAIT_S):
        await asyncio.gather(*work)


class Request:
    """A GET, made once to warm up and then so many times: mean CPU time of the server, mean time, and the body."""

    def __init__(self, pid: int, connection: http.client.HTTPConnection, target: str, times: int) -> None:
        self.body = ask(connection, target)
        meter = process.Meter(pid)
        meter.start()
        for _ in range(times):
            ask(connection, target)
        window = meter.stop()
        self.cpu_ms = (window.server_cpu_us or 0) / 1e3 / times
        self.ms = window.seconds * 1e3 / times


def ask(connection: http.client.HTTPConnection, target: str) -> bytes:
    """The body of a GET."""
    connection.request("GET", target)
    response = connection.getresponse()
    body = response.read()
    assert response.status == 200, body
    return body


@contextlib.asynccontextmanager
async def spawned(command: str) -> AsyncIterator[Server]:
    """Run nsqlookupd on free loopback ports; stop it at the end."""
    with tempfile.TemporaryFile() as log:
        arguments = [*shlex.split(command), "--tcp-address=127.0.0.1:0", "--http-address=127.0.0.1:0"]
        program = await asyncio.create_subprocess_exec(*arguments, stderr=log)
        try:
            ports: dict[str, str] = {}
            give_up = time.monotonic() + WAIT_S
            while len(ports) < 2:
                await asyncio.sleep(0.01)
                assert program.returncode is None, "it did not start"
                assert time.monotonic() < give_up, "it does not listen"
                ports = dict(LISTENING.findall(os.pread(log.fileno(), 65536, 0).decode()))
            tcp = int(ports["TCP"])
            # The command may be a wrapper: who listens is who is measured.
            pid = process.find_listener("127.0.0.1", tcp) or program.pid
            yield Server(pid, tcp, int(ports["HTTP"]))
        finally:
            program.terminate()
            await program.wait()


async def run(arguments: argparse.Namespace) -> dict[str, Figures]:
    """Measure both cases, each with an nsqlookupd of its own."""
    results: dict[str, Figures] = {}
    for label, names in (("same names", same), ("all unique", unique)):
        async with spawned(arguments.nsqlookupd) as server:
            results[label] = await measure(server, arguments.connections, arguments.registrations, names)
    return results


def table(results: dict[str, Figures]) -> str:
    """The figures, a row each."""
    lines = [f"{'':<60}" + "".join(f"{label:>14}" for label in results)]
    for label, name, unit in ROWS:
        cells = [
            f"{getattr(figures, name):,.{0 if unit in ('B', '') else 2}f}" for figures in results.values()
        ]
        lines.append(
            f"{label + (f' [{unit}]' if unit else ''):<60}" + "".join(f"{cell:>14}" for cell in cells)
        )
    return "\n".join(lines)


def main() -> int:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--connections", type=int, default=2000)
    parser.add_argument("--registrations", type=int, default=50, help="of each connection")
    parser.add_argument("--nsqlookupd", default="nsqlookupd", help="the command, of one or more words")
    parser.add_argument(
        "--yardstick", type=float, help="how slow this machine is beside the reference: noted down"
    )
    parser.add_argument("--json", help="write the figures there")
    arguments = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    results = uvloop.run(run(arguments))
    print(table(results))
    if arguments.json:
        facts = {
            "date": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
            "command": arguments.nsqlookupd,
            "connections": arguments.connections,
            "registrations_each": arguments.registrations,
            "yardstick": arguments.yardstick,
            "cpu_model": process.cpu_model(),
            "system": platform.platform(),
            "python": platform.python_version(),
        }
        with open(arguments.json, "w") as file:
            json.dump({"facts": facts, "results": {k: asdict(v) for k, v in results.items()}}, file, indent=2)
            file.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
