"""Does a client that asks for too much disturb one that doesn't? A table with a line for each thing that can be asked.

    python bench/hostile.py [--seconds 10] [--topics 10000] [--nsqd "nsqd"] [--json FILE] [name ...]

An innocent publisher sends a message over TCP every 5 ms and waits for its OK, while another process asks for the same
thing again and again, at least once. The table has the publisher's times, and the resident memory before, at most, and
some seconds after. `bench/stall.py` asks the same of what is no attack.
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import socket
import ssl
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Final

import cramjam
import trustme
from metadata import write_metadata

from nsqkit.bench import frames, process
from nsqkit.bench.clients import BenchError
from nsqkit.bench.server import spawned

EVERY_S: Final = 0.005  # between two messages of the innocent one
SETTLE_S: Final = 5.0  # between the end of an attack and the last look at the memory
PATIENCE_S: Final = 30.0  # of an attacker that sends or reads
READ: Final = 1 << 20
LARGE: Final = 1 << 20  # bytes of the largest message that nsqd takes unless it is told otherwise
HOLD_S: Final = 3.0  # how long connections that do nothing stay

Attack = Callable[[int, int], None]
"""Asks once, given the ports for TCP and HTTP."""


@dataclass
class Figures:
    """One line of the table; times in ms, memory in MB."""

    beside: str
    publishes: int
    p50: float
    p99: float
    worst: float
    rss_before: float
    rss_peak: float
    rss_after: float


def _ask(port: int, head: str, body: bytes = b"") -> None:
    """One request, and all of its answer."""
    with socket.create_connection(("127.0.0.1", port)) as one:
        one.sendall(
            f"{head} HTTP/1.1\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        )
        while one.recv(READ):
            pass


def nothing(_: int, __: int) -> None:
    """Nobody asks for anything."""
    time.sleep(0.1)


def stats_json(_: int, http: int) -> None:
    """GET /stats?format=json."""
    _ask(http, "GET /stats?format=json")


def stats_text(_: int, http: int) -> None:
    """GET /stats."""
    _ask(http, "GET /stats")


def stats_at_once(_: int, http: int) -> None:
    """Twenty times GET /stats, at once."""
    ones = [socket.create_connection(("127.0.0.1", http)) for _ in range(20)]
    for one in ones:
        one.sendall(b"GET /stats?format=json HTTP/1.1\r\nConnection: close\r\n\r\n")
    for one in ones:
        while one.recv(READ):
            pass
        one.close()


def stats_unread(_: int, http: int) -> None:
    """Twenty times GET /stats, of which nobody reads the answers."""
    ones = [socket.create_connection(("127.0.0.1", http)) for _ in range(20)]
    for one in ones:
        one.sendall(b"GET /stats?format=json HTTP/1.1\r\n\r\n")
    time.sleep(1)
    for one in ones:
        one.close()


def lines(_: int, http: int) -> None:
    """POST /mpub of a million lines."""
    _ask(http, "POST /mpub?topic=lines%23ephemeral", b"x\n" * 1_000_000)


def binary(_: int, http: int) -> None:
    """POST /mpub?binary=true of a million messages."""
    count = 1_000_000
    _ask(
        http,
        "POST /mpub?topic=lines%23ephemeral&binary=true",
        count.to_bytes(4, "big") + b"\0\0\0\1x" * count,
    )


def pipelined(_: int, http: int) -> None:
    """13 MB of requests on one connection, sent as fast as they are taken, and no answer read."""
    with socket.create_connection(("127.0.0.1", http)) as one:
        one.settimeout(2)
        with contextlib.suppress(OSError):
            one.sendall(b"GET /info HTTP/1.1\r\nHost: x\r\n\r\n" * 420_000)


def pipelined_and_read(_: int, http: int) -> None:
    """20,000 requests on one connection, sent at once, and every answer read."""
    with socket.create_connection(("127.0.0.1", http)) as one:
        request = b"GET /ping HTTP/1.1\r\n\r\n"
        one.sendall(request * 20_000 + b"GET /ping HTTP/1.1\r\nConnection: close\r\n\r\n")
        while one.recv(READ):
            pass


def addresses(_: int, http: int) -> None:
    """PUT /config/nsqlookupd_tcp_addresses with 20,000 addresses."""
    body = json.dumps([f"127.0.0.1:{port}" for port in range(1, 20_001)]).encode()
    _ask(http, "PUT /config/nsqlookupd_tcp_addresses", body)


@contextlib.contextmanager
def _connections(port: int, count: int) -> Iterator[list[socket.socket]]:
    """So many; some may be refused or closed, which is the server's right."""
    ones: list[socket.socket] = []
    with contextlib.suppress(OSError):
        for _ in range(count):
            ones.append(socket.create_connection(("127.0.0.1", port), PATIENCE_S))
    try:
        yield ones
    finally:
        for one in ones:
            one.close()


def _send(one: socket.socket, data: bytes) -> bool:
    """False: the server hung up, or takes nothing any more."""
    try:
        one.sendall(data)
    except OSError:
        return False
    return True


def _until_closed(one: socket.socket) -> None:
    """Read whatever comes."""
    with contextlib.suppress(OSError):
        while one.recv(READ):
            pass


def _publish(port: int, topic: str, count: int, size: int, batch: int) -> None:
    """So many messages of so many bytes, with every OK."""
    message = size.to_bytes(4, "big") + bytes(size)
    body = batch.to_bytes(4, "big") + message * batch
    command = f"MPUB {topic}\n".encode() + len(body).to_bytes(4, "big") + body
    with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as one:
        one.sendall(frames.MAGIC)
        answers = one.makefile("rb")
        for _ in range(count // batch):
            one.sendall(command)
            answer = answers.read(10)
            while answer.endswith(b"_h"):  # a heartbeat
                answers.read(9)
                one.sendall(b"NOP\n")
                answer = answers.read(10)
            if not answer.endswith(b"OK"):
                raise SystemExit(f"MPUB: {answer!r}")


def _subscribe(ones: list[socket.socket], topic: str, ready: int) -> None:
    for one in ones:
        _send(one, frames.MAGIC + f"SUB {topic} ch\nRDY {ready}\n".encode())


def large_unready(tcp: int, _: int) -> None:
    """3,000 messages of 1 MB, and consumers with RDY 0."""
    with _connections(tcp, 10) as ones:
        _subscribe(ones, "unready", 0)
        _publish(tcp, "unready", 3000, LARGE, 1)
        time.sleep(HOLD_S)


def large_unread(tcp: int, _: int) -> None:
    """3,000 messages of 1 MB, and ten consumers that never read."""
    with _connections(tcp, 10) as ones:
        _subscribe(ones, "unread", 2500)
        _publish(tcp, "unread", 3000, LARGE, 1)
        time.sleep(HOLD_S)


def small_unread(tcp: int, _: int) -> None:
    """100,000 messages wait, and 200 consumers subscribe and never read."""
    _publish(tcp, "small", 100_000, 200, 500)
    with _connections(tcp, 200) as ones:
        _subscribe(ones, "small", 2500)
        time.sleep(HOLD_S)


def silent(tcp: int, http: int) -> None:
    """3,000 connections to each port that never send."""
    with _connections(tcp, 3000), _connections(http, 3000):
        time.sleep(HOLD_S)


def slow(tcp: int, http: int) -> None:
    """500 connections to each port that send a byte of their first line every 100 ms."""
    request = b"GET /ping HTTP/1.1\r\nHost: somebody\r\n"
    with _connections(tcp, 500) as commands, _connections(http, 500) as requests:
        for one in commands:
            _send(one, frames.MAGIC)
        for at in range(30):
            for one in commands:
                _send(one, b"PUB slow#ephemeral\n\0\0\0\x20................"[at : at + 1])
            for one in requests:
                _send(one, request[at : at + 1])
            time.sleep(0.1)


def identify(tcp: int, _: int) -> None:
    """20 times an IDENTIFY of 8 MB, at once."""
    body = b'{"client_id": "' + b"x" * (8 << 20) + b'"}'
    with _connections(tcp, 20) as ones:
        for one in ones:
            _send(one, frames.MAGIC + b"IDENTIFY\n" + len(body).to_bytes(4, "big") + body)
        for one in ones:
            _until_closed(one)


def long_line(tcp: int, _: int) -> None:
    """20 times a command line of 8 MB without an end, at once."""
    with _connections(tcp, 20) as ones:
        for one in ones:
            _send(one, frames.MAGIC + b"PUB " + b"x" * (8 << 20))
        for one in ones:
            _until_closed(one)


def content_length(_: int, http: int) -> None:
    """20 requests with a Content-Length of 5,000 digits."""
    with _connections(http, 20) as ones:
        for one in ones:
            _send(one, b"POST /pub?topic=t HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n")
        for one in ones:
            _until_closed(one)


def scanner(tcp: int, http: int) -> None:
    """What a port scanner says, 100 times to each port."""
    words = (
        b"GET / HTTP/1.0\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01\0",
        b"SSH-2.0-x\r\n",
        b"\0" * 64,
        b"HELP\r\n",
    )
    for port in (tcp, http):
        with _connections(port, 100) as ones:
            for number, one in enumerate(ones):
                _send(one, words[number % len(words)])
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_WR)
            for one in ones:
                _until_closed(one)


def bomb(tcp: int, _: int) -> None:
    """Ten connections with deflate that send 40 KB each, which stand for 40 MB of commands."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = packer.compress(b"NOP\n" * 10_000_000) + packer.flush(zlib.Z_SYNC_FLUSH)
    body = b'{"feature_negotiation":true,"deflate":true,"heartbeat_interval":-1}'
    with _connections(tcp, 10) as ones:
        for one in ones:
            _send(one, frames.MAGIC + b"IDENTIFY\n" + len(body).to_bytes(4, "big") + body)
            one.recv(READ)
            _send(one, packed)
        time.sleep(HOLD_S)


def stalled_handshakes(tcp: int, _: int) -> None:
    """500 connections that agree to TLS and say nothing more."""
    body = b'{"feature_negotiation":true,"tls_v1":true}'
    with _connections(tcp, 500) as ones:
        for one in ones:
            _send(one, frames.MAGIC + b"IDENTIFY\n" + len(body).to_bytes(4, "big") + body)
        time.sleep(HOLD_S)


def snappy_bomb(tcp: int, _: int) -> None:
    """Ten connections with snappy that send what stands for 40 MB of commands each."""
    _bombs(tcp, "snappy", bytes(cramjam.snappy.compress(b"NOP\n" * 10_000_000)), tls=False)


def tls_bomb(tcp: int, _: int) -> None:
    """Ten connections with deflate inside TLS that send what stands for 40 MB of commands each."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = packer.compress(b"NOP\n" * 10_000_000) + packer.flush(zlib.Z_SYNC_FLUSH)
    _bombs(tcp, "deflate", packed, tls=True)


def _bombs(tcp: int, codec: str, packed: bytes, *, tls: bool) -> None:
    asked = {"feature_negotiation": True, codec: True, "tls_v1": tls, "heartbeat_interval": -1}
    body = json.dumps(asked).encode()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with _connections(tcp, 10) as ones:
        for one in ones:
            _send(one, frames.MAGIC + b"IDENTIFY\n" + len(body).to_bytes(4, "big") + body)
            one.recv(READ)
        talks = [context.wrap_socket(one) if tls else one for one in ones]
        for talk in talks:
            _send(talk, packed)
        time.sleep(HOLD_S)
        for talk in talks:
            talk.close()


ATTACKS: Final[tuple[Attack, ...]] = (
    nothing,
    stats_json,
    stats_text,
    stats_at_once,
    stats_unread,
    lines,
    binary,
    pipelined,
    pipelined_and_read,
    addresses,
    large_unready,
    large_unread,
    small_unread,
    silent,
    slow,
    identify,
    long_line,
    content_length,
    scanner,
    stalled_handshakes,
    bomb,
    snappy_bomb,
    tls_bomb,
)


def attack(name: str, tcp: int, http: int, end: float) -> None:
    """Ask again and again, at least once: what the other process does."""
    one = next(one for one in ATTACKS if one.__name__ == name)
    one(tcp, http)
    while time.time() < end:
        one(tcp, http)


async def innocent(port: int, goes_on: Callable[[], bool]) -> list[float]:
    """Publish, and note how long each OK took, in ms."""
    times: list[float] = []
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(frames.MAGIC + b'IDENTIFY\n\0\0\0\x19{"heartbeat_interval":-1}')
    await reader.readexactly(10)
    while goes_on():
        began = time.perf_counter()
        writer.write(b"PUB innocent#ephemeral\n\0\0\0\1x")
        await reader.readexactly(10)
        times.append((time.perf_counter() - began) * 1000)
        await asyncio.sleep(EVERY_S)
    writer.close()
    return sorted(times)


async def run(arguments: argparse.Namespace) -> None:
    """Measure one attack after the other on an nsqd with many topics."""
    print(f"{'p50 ms':>8} {'p99 ms':>8} {'max ms':>8}   {'RSS MB: before, most, after':>27}   beside")
    figures: list[Figures] = []
    for one in ATTACKS:
        if arguments.names and one.__name__ not in arguments.names:
            continue
        with tempfile.TemporaryDirectory(prefix="nsqkit-bench-") as path:
            write_metadata(f"{path}/nsqd.dat", arguments.topics, 1)
            async with spawned(f"{arguments.nsqd} --data-path={path} {certificate(path)}") as target:
                assert target.http is not None
                assert target.pid is not None
                figures.append(
                    await beside(one, target.tcp.port, target.http.port, target.pid, arguments.seconds)
                )
        if arguments.json:
            write(arguments.json, figures)


def certificate(path: str) -> str:
    """Make one; the flags that name its files. HTTPS is not opened."""
    made = trustme.CA().issue_cert("127.0.0.1")
    made.cert_chain_pems[0].write_to_path(f"{path}/cert.pem")
    made.private_key_pem.write_to_path(f"{path}/key.pem")
    return f"--tls-cert={path}/cert.pem --tls-key={path}/key.pem --https-address="


def write(path: str, figures: list[Figures]) -> None:
    """What was measured so far."""
    with open(path, "w") as file:
        json.dump([asdict(line) for line in figures], file, indent=1)
        file.write("\n")


async def beside(one: Attack, tcp: int, http: int, pid: int, seconds: float) -> Figures:
    """One line of the table."""
    await asyncio.sleep(2)  # the first checkpoints and syncs
    before = most = process.resident_bytes(pid) or 0
    attacker = multiprocessing.get_context("spawn").Process(
        target=attack, args=(one.__name__, tcp, http, time.time() + seconds)
    )
    attacker.start()

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, process.resident_bytes(pid) or 0)
            await asyncio.sleep(0.05)

    watcher = asyncio.create_task(watch())
    times = await innocent(tcp, attacker.is_alive)
    attacker.join()
    if attacker.exitcode:
        raise BenchError(f"{one.__name__}: the attack failed")
    await asyncio.sleep(SETTLE_S)
    watcher.cancel()
    after = process.resident_bytes(pid) or 0
    line = Figures(
        beside=(one.__doc__ or "").strip(),
        publishes=len(times),
        p50=round(times[len(times) // 2], 2),
        p99=round(times[len(times) * 99 // 100], 2),
        worst=round(times[-1], 1),
        rss_before=round(before / 1e6),
        rss_peak=round(most / 1e6),
        rss_after=round(after / 1e6),
    )
    print(
        f"{line.p50:8.2f} {line.p99:8.2f} {line.worst:8.1f}   "
        f"{line.rss_before:>9.0f} {line.rss_peak:>8.0f} {line.rss_after:>8.0f}   {line.beside}",
        flush=True,
    )
    return line


def main() -> int:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--topics", type=int, default=10_000)
    parser.add_argument("--nsqd", default="nsqd", help="the command, of one or more words")
    parser.add_argument("--json", default="", help="leave the figures in this file")
    parser.add_argument("names", nargs="*", help="some of: " + ", ".join(one.__name__ for one in ATTACKS))
    arguments = parser.parse_args()
    try:
        asyncio.run(run(arguments))
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
