"""What do others do to an innocent publisher? Its p99, and the longest pass of nsqd's loop, while each of them goes on.

    python bench/stall.py [--only NAME] [--count 200000] [--topics 10000] [--nsqd "nsqd"] [--json FILE]

The publisher, a process of its own, sends a message of 200 bytes each 5 ms to a topic of its own and waits for the OK;
each publish is timed from when it was due. The longest pass is nsqd's own figure (GET /debug/longest_pass), the CPU of
one pass of its loop. Each question has an nsqd of its own.
"""

import argparse
import asyncio
import json
import struct
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any

from nsqkit.bench import process
from nsqkit.bench.clients import BenchError
from nsqkit.bench.server import Target, spawned

EVERY_S = 0.005
SCRAPES = 5
BODY = b"x" * 200
LINE = b"01234567\n"


@dataclass
class Figures:
    """One line of the table; times in ms."""

    question: str
    seconds: float
    publishes: int
    p50: float
    p99: float
    worst: float
    pass_cpu: float
    turn: float
    server_cpu_s: float
    note: str = ""


class Publisher:
    """The innocent one, in a process that nothing but nsqd keeps waiting."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, port: int) -> "Publisher":
        """Return when it publishes."""
        here = await asyncio.create_subprocess_exec(
            sys.executable,
            __file__,
            f"--innocent={port}",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 26,
        )
        publisher = cls(here)
        await publisher._line()
        return publisher

    async def begin(self) -> None:
        """What it measured so far does not count."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"begin\n")
        await self._line()

    async def end(self) -> list[float]:
        """The milliseconds that each publish took, sorted."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        took: list[float] = json.loads(await self._line())
        await self._process.wait()
        return sorted(took)

    async def _line(self) -> bytes:
        assert self._process.stdout is not None
        return await self._process.stdout.readline()


async def be_innocent(port: int) -> None:
    """What the publisher's process does, until its input ends."""
    loop = asyncio.get_running_loop()
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    connection = await Client.connect(port)
    await connection.publish("innocent", BODY)
    print("ready", flush=True)
    took: list[float] = []
    order = asyncio.create_task(orders.readline())
    due = time.perf_counter()
    while True:
        due += EVERY_S
        wait = due - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        await connection.publish("innocent", BODY)
        took.append((time.perf_counter() - due) * 1e3)
        if order.done():
            if not order.result():
                print(json.dumps(took), flush=True)
                return
            took.clear()
            order = asyncio.create_task(orders.readline())
            print("begun", flush=True)


class Client:
    """A connection, one command at a time unless the caller pipelines."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, port: int) -> "Client":
        """Say the magic."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"  V2")
        return cls(reader, writer)

    async def reply(self) -> bytes:
        """The next frame that is no heartbeat."""
        while True:
            size, _ = struct.unpack(">ii", await self.reader.readexactly(8))
            payload = await self.reader.readexactly(size - 4)
            if payload != b"_heartbeat_":
                return payload
            self.writer.write(b"NOP\n")

    async def command(self, line: str, body: bytes | None = None) -> None:
        """One command, answered OK."""
        self.writer.write(
            line.encode() + b"\n" + (b"" if body is None else len(body).to_bytes(4, "big") + body)
        )
        answer = await self.reply()
        if answer != b"OK":
            raise BenchError(f"{line}: {answer!r}")

    async def publish(self, topic: str, body: bytes) -> None:
        """PUB."""
        await self.command(f"PUB {topic}", body)


async def http(target: Target, method: str, path: str, body: bytes = b"") -> bytes:
    """One request on a connection of its own; the answer's body."""
    assert target.http is not None
    reader, writer = await asyncio.open_connection(target.http.host, target.http.port)
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    answer = await reader.read(-1)
    writer.close()
    headers, _, content = answer.partition(b"\r\n\r\n")
    if b" 200 " not in headers.partition(b"\r\n")[0]:
        raise BenchError(f"{method} {path}: {headers[:200]!r}")
    return content


async def longest(target: Target, method: str) -> dict[str, Any]:
    """nsqd's own figure; POST begins anew."""
    content: dict[str, Any] = json.loads(await http(target, method, "/debug/longest_pass"))
    return content


async def nothing(_: Target, __: argparse.Namespace) -> str:
    """nothing goes on"""
    await asyncio.sleep(5)
    return ""


async def topics_http(target: Target, arguments: argparse.Namespace) -> str:
    """topics are made by one client over HTTP"""
    return await _timed(
        arguments.topics // 10, lambda number: http(target, "POST", f"/topic/create?topic=h{number}")
    )


async def topics_tcp(target: Target, arguments: argparse.Namespace) -> str:
    """topics are made by one client over TCP, each with its first message"""
    client = await Client.connect(target.tcp.port)
    return await _timed(arguments.topics // 10, lambda number: client.publish(f"t{number}", BODY))


async def topics_pipelined(target: Target, arguments: argparse.Namespace) -> str:
    """all topics are made by one client that does not wait"""
    client = await Client.connect(target.tcp.port)
    began = time.perf_counter()
    size = len(BODY).to_bytes(4, "big")
    for number in range(arguments.topics):
        client.writer.write(b"PUB p%d\n" % number + size + BODY)
    for _ in range(arguments.topics):
        await client.reply()
    return f"{arguments.topics:,} in {time.perf_counter() - began:.1f} s"


async def _timed(count: int, act: Callable[[int], Awaitable[object]]) -> str:
    took: list[float] = []
    for number in range(count):
        began = time.perf_counter()
        await act(number)
        took.append(time.perf_counter() - began)
    return f"{count:,} in {sum(took):.1f} s, each p50 {sorted(took)[count // 2] * 1e3:.1f} ms"


async def stats(target: Target, arguments: argparse.Namespace) -> str:
    """/stats of all topics, again and again"""
    for _ in range(25):
        await http(target, "GET", "/stats?format=json")
    return f"{arguments.topics:,} topics"


async def metrics(target: Target, arguments: argparse.Namespace) -> str:
    """/metrics of many channels, again and again"""
    began = time.perf_counter()
    for _ in range(SCRAPES):
        page = await http(target, "GET", "/metrics")
    took = (time.perf_counter() - began) / SCRAPES
    series = sum(not line.startswith(b"#") for line in page.splitlines())
    return f"{arguments.topics:,} channels, {series:,} series, {len(page) / 1e6:.1f} MB, {took:.2f} s each"


async def deferred(target: Target, arguments: argparse.Namespace) -> str:
    """deferred messages are there, and checkpoints written"""
    await _defer(target, arguments.count, 600_000)
    client = await Client.connect(target.tcp.port)
    for _ in range(50):
        await client.publish("later", BODY)  # so that a checkpoint is wanted
        await asyncio.sleep(0.1)
    return f"{arguments.count:,} deferred"


async def due(target: Target, arguments: argparse.Namespace) -> str:
    """deferred messages come due at one moment"""
    await _defer(target, arguments.count, 15_000)
    await asyncio.sleep(17)
    return f"{arguments.count:,} due"


async def _defer(target: Target, count: int, delay_ms: int) -> None:
    await http(target, "POST", "/topic/create?topic=later")
    await http(target, "POST", "/channel/create?topic=later&channel=ch")
    piece = 5000
    for _ in range(count // piece):
        await http(target, "POST", f"/mpub?topic=later&defer={delay_ms}", LINE * piece)


async def lines(target: Target, arguments: argparse.Namespace) -> str:
    """POST /mpub of many lines"""
    count = arguments.count * 5
    for _ in range(15):
        await http(target, "POST", "/mpub?topic=lines", b"1234\n" * count)
    return f"{count:,} lines"


async def log_unread(target: Target, _: argparse.Namespace) -> str:
    """nobody reads the log, which has a line for each command"""
    client = await Client.connect(target.tcp.port)
    for _ in range(20_000):
        await client.publish("busy", BODY)
    return "20,000 publishes"


QUESTIONS: dict[str, Callable[[Target, argparse.Namespace], Awaitable[str]]] = {
    function.__name__: function
    for function in (
        nothing,
        topics_http,
        topics_tcp,
        topics_pipelined,
        stats,
        metrics,
        deferred,
        due,
        lines,
        log_unread,
    )
}


async def _many_topics(target: Target, arguments: argparse.Namespace) -> None:
    await topics_pipelined(target, arguments)
    await asyncio.sleep(5)  # until their checkpoints are written as well


async def _many_channels(target: Target, arguments: argparse.Namespace) -> None:
    """A hundred channels of each topic, and in each of them a message is finished."""
    names = [(f"m{number // 100}", f"ch{number % 100}") for number in range(arguments.topics)]
    for topic in dict(names):
        await http(target, "POST", f"/topic/create?topic={topic}")
    for topic, channel in names:
        await http(target, "POST", f"/channel/create?topic={topic}&channel={channel}")
    for topic in dict(names):
        await http(target, "POST", f"/pub?topic={topic}", BODY)
    for at in range(0, len(names), 20):
        await asyncio.gather(*(_finish_one(target, *one) for one in names[at : at + 20]))
    await asyncio.sleep(5)  # until their checkpoints are written as well


async def _finish_one(target: Target, topic: str, channel: str) -> None:
    client = await Client.connect(target.tcp.port)
    await client.command(f"SUB {topic} {channel}")
    client.writer.write(b"RDY 1\n")
    message = await client.reply()
    client.writer.write(b"FIN " + message[10:26] + b"\nCLS\n")
    await client.reply()
    client.writer.close()


READ_THE_START = """sed -u "/HTTP: listening/q" >&2; exec sleep 30 2>/dev/null"""
COMMANDS = {"log_unread": f"""bash -c 'exec "$0" --log-level=debug "$@" 2> >({READ_THE_START})' """}
"""What is put before the command."""

BEFORE = {"stats": _many_topics, "metrics": _many_channels}
"""What is made ready for a question, and not measured."""


async def measure(name: str, arguments: argparse.Namespace) -> Figures:
    """One question, with an nsqd of its own."""
    function = QUESTIONS[name]
    async with spawned(COMMANDS.get(name, "") + arguments.nsqd) as target:
        if name in BEFORE:
            await BEFORE[name](target, arguments)
        publisher = await Publisher.start(target.tcp.port)
        await asyncio.sleep(1)
        await publisher.begin()
        await longest(target, "POST")
        meter = process.Meter(target.pid)
        meter.start()
        note = await function(target, arguments)
        window = meter.stop()
        took = await publisher.end()
        held = await longest(target, "GET")
    return Figures(
        question=(function.__doc__ or name),
        seconds=round(window.seconds, 1),
        publishes=len(took),
        p50=round(took[len(took) // 2], 2),
        p99=round(took[len(took) * 99 // 100], 2),
        worst=round(took[-1], 2),
        pass_cpu=held["pass_cpu_us"] / 1e3,
        turn=held["turn_us"] / 1e3,
        server_cpu_s=round((window.server_cpu_us or 0) / 1e6, 2),
        note=note,
    )


async def run(arguments: argparse.Namespace) -> list[Figures]:
    """Every question, a line each."""
    print(f"{'ms':<46} {'p50':>7} {'p99':>8} {'worst':>8} {'pass CPU':>9} {'turn':>8}")
    figures: list[Figures] = []
    for name in QUESTIONS:
        if arguments.only in ("", name):
            line = await measure(name, arguments)
            figures.append(line)
            print(
                f"{line.question[:46]:<46} {line.p50:7.2f} {line.p99:8.2f} {line.worst:8.2f}"
                f" {line.pass_cpu:9.2f} {line.turn:8.2f}   {line.note}",
                flush=True,
            )
    return figures


def main() -> int:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", choices=["", *QUESTIONS])
    parser.add_argument(
        "--count", type=int, default=200_000, help="messages that are deferred; lines are five times as many"
    )
    parser.add_argument("--topics", type=int, default=10_000)
    parser.add_argument(
        "--nsqd", default="nsqd --max-body-size=16777216", help="the command, of one or more words"
    )
    parser.add_argument("--json", default="")
    parser.add_argument("--innocent", type=int, default=0, help=argparse.SUPPRESS)
    try:
        arguments = parser.parse_args()
        if arguments.innocent:
            asyncio.run(be_innocent(arguments.innocent))
            return 0
        figures = asyncio.run(run(arguments))
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump([asdict(line) for line in figures], file, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
