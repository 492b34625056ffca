"""What does a message cost in its client? CPU of the client's process, for nsqkit and for the other Python clients.

    python bench/clients.py --envs DIR [--only nsqkit,pynsq] [--count 100000] [--rounds 5] [--nsqd "nsqd"]
                            [--json FILE]

Publishing: PUBs of 200 bytes, 100 of them unanswered at each moment. Consuming: max_in_flight 1,000, each message
finished. Each figure is the median of fresh processes (`bench/client_worker.py`), which take only their own CPU time,
from when the connection is warm; nsqd runs in a process of its own and does not count. nsqkit is the one beside this
interpreter, the others come from PyPI in the versions below, each in an environment that is made in DIR with this
interpreter when it is not there. Every client runs on asyncio's own loop and on uvloop, and in each way that its
documents show.
"""

import argparse
import asyncio
import contextlib
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from nsqkit.bench import frames, process
from nsqkit.bench.clients import BenchError
from nsqkit.bench.server import Target, spawned

WORKER: Final = Path(__file__).with_name("client_worker.py")
UVLOOP: Final = "uvloop==0.23.0"
LOOPS: Final = ("asyncio", "uvloop")
BATCH: Final = 200
BODY: Final = bytes(200)
ROUND_S: Final = 300.0  # a client that takes longer hangs
SETTLE_S: Final = 5.0  # for the last FINs to arrive


@dataclass(frozen=True, slots=True)
class Client:
    """A package, and the ways of `client_worker.py` that use it."""

    name: str
    packages: tuple[str, ...]  # none: it is in this environment
    ways: tuple[str, ...]
    least_python: tuple[int, int] = (3, 11)


CLIENTS: Final = (
    Client("nsqkit", (), ("publish", "iterate", "handler")),
    Client("pynsq", ("pynsq==0.9.1", "tornado==6.6.1"), ("publish", "handler")),
    Client(
        "asyncnsq",
        ("asyncnsq==2.0.1", "httpx==0.28.1", "python-snappy==0.7.3"),
        ("publish", "iterate", "handler", "direct"),
        least_python=(3, 12),
    ),
    Client("ansq", ("ansq==0.3.0", "aiohttp==3.14.5", "attrs==26.1.0"), ("publish", "iterate")),
)


@dataclass(frozen=True, slots=True)
class Figures:
    """One line of the table: medians."""

    client: str
    way: str
    loop: str
    cpu_us: float  # of the client's process, for each message
    per_second: float
    rounds: tuple[float, ...]  # the µs of each


def environment(client: Client, directory: Path) -> Path:
    """The interpreter that has the client; made if it is not there. BenchError."""
    if not client.packages:
        return Path(sys.executable)
    home = directory / f"{client.name}-{sys.version_info.major}.{sys.version_info.minor}"
    python = home / "bin" / "python"
    if not python.exists():
        print(f"making {home}", file=sys.stderr)
        try:
            subprocess.run([sys.executable, "-m", "venv", home], check=True)
            pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*pip, UVLOOP, *client.packages], check=True)
        except subprocess.CalledProcessError as error:
            raise BenchError(f"{home} is not complete: remove it ({error})") from None
    return python


def fill(target: Target, topic: str, count: int) -> None:
    """Publish what will be consumed."""
    command = frames.publish_many(topic, [BODY] * BATCH)
    with socket.create_connection((target.tcp.host, target.tcp.port)) as connection:
        connection.sendall(frames.MAGIC)
        for _ in range(count // BATCH):
            connection.sendall(command)
            answer = connection.recv(len(frames.OK_FRAME), socket.MSG_WAITALL)
            if answer != frames.OK_FRAME:
                raise BenchError(f"MPUB: {answer!r}")


async def left_over(target: Target, topic: str) -> int:
    """What of the topic is neither published nor finished as it should be, when it has had time to settle."""
    assert target.http is not None
    give_up = asyncio.get_running_loop().time() + SETTLE_S
    while True:
        reader, writer = await asyncio.open_connection(target.http.host, target.http.port)
        path = f"/stats?format=json&topic={topic}"
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read(-1)
        writer.close()
        (stats,) = json.loads(answer.partition(b"\r\n\r\n")[2])["topics"]
        channels = stats["channels"]
        left = sum(one["depth"] + one["in_flight_count"] + one["requeue_count"] for one in channels)
        if not left or asyncio.get_running_loop().time() > give_up:
            return int(left)
        await asyncio.sleep(0.05)


async def one_round(
    target: Target, python: Path, case: tuple[str, str, str], warm: int, count: int
) -> tuple[float, float]:
    """A fresh process: µs of CPU for each message, and messages per second. BenchError."""
    client, way, loop = case
    topic = f"{client}-{way}-{loop}"
    if way != "publish":
        fill(target, topic, warm + count)
    worker = await asyncio.create_subprocess_exec(
        python,
        WORKER,
        f"{client}_{way}",
        loop,
        str(target.tcp.port),
        topic,
        str(warm),
        str(count),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH" or client == "nsqkit"},
    )
    try:
        async with asyncio.timeout(ROUND_S):
            output, errors = await worker.communicate()
        took = json.loads(output.decode().strip() or "null")
        if worker.returncode or not took:
            raise BenchError(f"{topic} ended with {worker.returncode}: {errors.decode()[-2000:]}")
        if left := await left_over(target, topic):
            raise BenchError(f"{topic} left {left} messages unfinished or gave them back")
    except TimeoutError:
        raise BenchError(f"{topic} hangs") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            worker.kill()
        await worker.wait()
        await target.delete_topic(topic)
    return took["cpu_s"] / count * 1e6, count / took["seconds"]


async def measure(arguments: argparse.Namespace) -> list[Figures]:
    """All lines. A client that fails has a line that says so, and the others go on."""
    cases: list[tuple[Path, tuple[str, str, str]]] = []
    for client in CLIENTS:
        if client.name not in arguments.only.split(","):
            continue
        if sys.version_info < client.least_python:
            print(f"{client.name} needs Python {'.'.join(map(str, client.least_python))}", file=sys.stderr)
            continue
        python = environment(client, arguments.envs)
        cases += [(python, (client.name, way, loop)) for way in client.ways for loop in LOOPS]
    took: dict[tuple[str, str, str], list[tuple[float, float]]] = {case: [] for _, case in cases}
    async with spawned(arguments.nsqd) as target:
        for number in range(arguments.rounds):  # round by round, so that a busy moment is everybody's
            for python, case in cases:
                print(f"round {number + 1}: {' '.join(case)}", end="\033[K\r", file=sys.stderr, flush=True)
                took[case].append(await one_round(target, python, case, arguments.warm, arguments.count))
    print(end="\033[K", file=sys.stderr)
    return [
        Figures(
            *case,
            cpu_us=round(statistics.median(cpu for cpu, _ in rounds), 2),
            per_second=round(statistics.median(rate for _, rate in rounds)),
            rounds=tuple(round(cpu, 2) for cpu, _ in rounds),
        )
        for case, rounds in took.items()
    ]


def table(lines: list[Figures]) -> str:
    """For people, with how nsqkit stands beside the best of the others in either direction."""
    text = [f"{'':<28} {'loop':<8} {'µs of CPU':>9} {'msg/s':>9}"]
    for what, ways in (
        ("publish", [one for one in lines if one.way == "publish"]),
        ("consume", [one for one in lines if one.way != "publish"]),
    ):
        for one in sorted(ways, key=lambda one: one.cpu_us):
            name = one.client if one.way == "publish" else f"{one.client}, {one.way}"
            text.append(f"{what:<9}{name:<19} {one.loop:<8} {one.cpu_us:9.2f} {one.per_second:9,.0f}")
        ours = [one.cpu_us for one in ways if one.client == "nsqkit"]
        others = [one.cpu_us for one in ways if one.client != "nsqkit"]
        if ours and others:
            text.append(
                f"{what}: the best of the others takes {min(others) / min(ours):.2f} times what nsqkit does"
            )
    return "\n".join(text)


def main() -> int:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    names = [client.name for client in CLIENTS]
    parser.add_argument("--envs", type=Path, required=True, help="where the other clients' environments are")
    parser.add_argument("--only", default=",".join(names), help="clients, with commas between them")
    parser.add_argument("--count", type=int, default=100_000, help="messages measured in each round")
    parser.add_argument("--warm", type=int, default=10_000, help="messages before them")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--nsqd", default="nsqd", help="the command, of one or more words")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if unknown := set(arguments.only.split(",")) - {*names}:
        parser.error(f"no such client: {', '.join(unknown)}")
    try:
        lines = asyncio.run(measure(arguments))
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    print(table(lines))
    if arguments.json:
        facts = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "python": platform.python_version(),
            "cpu_model": process.cpu_model(),
            "cpus": os.cpu_count(),
            "versions": {client.name: client.packages for client in CLIENTS},
            "messages": arguments.count,
        }
        content = {"facts": facts, "lines": [asdict(line) for line in lines]}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
