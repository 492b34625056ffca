"""Does a client that asks for too much disturb one that doesn't? A table with a line for each thing that can be asked.

    python bench/hostile.py [--seconds 10] [--topics 10000] [--nsqd "nsqd"] [name ...]

An innocent publisher sends a message over TCP every 5 ms and waits for its OK, while another process asks for the same
thing again and again. The table has the publisher's times, and how much the resident memory grew meanwhile.
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Final

from nsqkit.bench import frames, process
from nsqkit.bench.clients import BenchError
from nsqkit.bench.server import spawned

EVERY_S: Final = 0.005  # between two messages of the innocent one
READ: Final = 1 << 20

Attack = Callable[[int, int], None]
"""Asks once, given the ports for TCP and HTTP."""


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
)


def attack(name: str, tcp: int, http: int, end: float) -> None:
    """Ask again and again: what the other process does."""
    one = next(one for one in ATTACKS if one.__name__ == name)
    while time.time() < end:
        one(tcp, http)


async def innocent(port: int, end: float) -> list[float]:
    """Publish, and note how long each OK took, in ms."""
    times: list[float] = []
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(frames.MAGIC + b'IDENTIFY\n\0\0\0\x19{"heartbeat_interval":-1}')
    await reader.readexactly(10)
    while time.time() < end:
        began = time.perf_counter()
        writer.write(b"PUB innocent#ephemeral\n\0\0\0\1x")
        await reader.readexactly(10)
        times.append((time.perf_counter() - began) * 1000)
        await asyncio.sleep(EVERY_S)
    writer.close()
    return sorted(times)


async def run(arguments: argparse.Namespace) -> None:
    """Measure one attack after the other on an nsqd with many topics."""
    print(f"{'p50 ms':>8} {'p99 ms':>8} {'max ms':>8} {'+MB':>6}   beside")
    for one in ATTACKS:
        if arguments.names and one.__name__ not in arguments.names:
            continue
        with tempfile.TemporaryDirectory(prefix="nsqkit-bench-") as path:
            write_metadata(f"{path}/nsqd.dat", arguments.topics)
            async with spawned(f"{arguments.nsqd} --data-path={path}") as target:
                await beside(one, target.tcp.port, target.http.port, target.pid, arguments.seconds)


def write_metadata(path: str, count: int) -> None:
    """So many topics with a channel each, as an NSQ that was stopped leaves them."""
    channels = [{"name": "ch", "paused": False}]
    topics = [{"name": f"topic-{n}", "paused": False, "channels": channels} for n in range(count)]
    with open(path, "w") as file:
        json.dump({"version": "1.3.0", "topics": topics}, file)


async def beside(one: Attack, tcp: int, http: int, pid: int | None, seconds: float) -> None:
    """One line of the table."""
    assert pid is not None
    await asyncio.sleep(2)  # the first checkpoints and syncs
    before = process.resident_bytes(pid) or 0
    end = time.time() + seconds
    attacker = multiprocessing.get_context("spawn").Process(
        target=attack, args=(one.__name__, tcp, http, end)
    )
    attacker.start()
    most = before

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, process.resident_bytes(pid) or 0)
            await asyncio.sleep(0.05)

    watcher = asyncio.create_task(watch())
    times = await innocent(tcp, end)
    watcher.cancel()
    attacker.join()
    p50, p99 = times[len(times) // 2], times[len(times) * 99 // 100]
    grown = (most - before) / 1e6
    print(f"{p50:8.2f} {p99:8.2f} {times[-1]:8.1f} {grown:6.0f}   {one.__doc__}", flush=True)


def main() -> int:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--topics", type=int, default=10_000)
    parser.add_argument("--nsqd", default="nsqd", help="the command, of one or more words")
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
