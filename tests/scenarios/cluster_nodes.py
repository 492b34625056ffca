"""The cluster that test_cluster.py plays with: processes, what is done to them, and whether the picture is right.

Ports are fixed before the first start, and below those that the kernel gives to outgoing connections: a port must be
free again when its daemon comes back.
"""

import asyncio
import json
import random
import re
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.scenarios.conftest import Daemon

HOST: Final = "127.0.0.1"
PORTS: Final = range(15_000, 32_000)
REQUEST_S: Final = 2.0  # for an HTTP request
FAILURES: Final = (
    OSError,
    EOFError,
)  # what may happen to a client when daemons are killed; timeouts are OSErrors

FAULT_PAUSE_S: Final = (0.3, 2.0)
DOWN_S: Final = (0.0, 3.0)
FROZEN_S: Final = (1.0, 7.0)  # an nsqd waits 5 s for a reply
BOTH_LOOKUPDS: Final = 0.1  # share of the faults
FREEZE: Final = 0.15


class Node(Daemon):
    """An nsqd or nsqlookupd on ports that it keeps."""

    def __init__(self, directory: Path, *flags: str):
        super().__init__(directory, *flags, http=True)
        self.name = directory.name
        self.tcp_port, self.http_port = free_port(), free_port()
        self.address, self.http_address = (HOST, self.tcp_port), (HOST, self.http_port)

    def whole_log(self) -> str:
        """What all its lives have logged."""
        return (self.directory / "log").read_text(errors="replace")

    def has_died(self) -> bool:
        """Has it ended without being told to?"""
        return self._process is not None and self._process.poll() is not None

    def __repr__(self) -> str:
        return self.name


class Lookupd(Node):
    """An nsqlookupd."""

    def arguments(self) -> list[str]:
        """The command line."""
        addresses = [f"--tcp-address={HOST}:{self.tcp_port}", f"--http-address={HOST}:{self.http_port}"]
        program = [sys.executable, "-m", "nsqkit.nsqlookupd.cli"]
        return [*program, *addresses, f"--broadcast-address={HOST}", *self.flags]


class Nsqd(Node):
    """An nsqd that announces itself to nsqlookupds."""

    def __init__(self, directory: Path, lookupd_ports: Sequence[int], *flags: str):
        addresses = [f"--lookupd-tcp-address={HOST}:{port}" for port in lookupd_ports]
        super().__init__(directory, f"--broadcast-address={HOST}", *addresses, *flags)


def free_port() -> int:
    """A port that nobody has, and that nobody gets by chance."""
    for port in random.SystemRandom().sample(PORTS, 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise AssertionError("a hundred ports were tried, and none is free")


@contextmanager
def running(nodes: Sequence[Node]) -> Iterator[None]:
    """Start them all, and end them all."""
    try:
        for node in nodes:
            node.spawn()
        for node in nodes:
            node._wait_for_lines(2)
        yield
    finally:
        for node in nodes:
            node.close()


async def request(node: Node, method: str, target: str, body: bytes = b"") -> tuple[int, bytes]:
    """Make one HTTP request: status and body. FAILURES."""
    async with asyncio.timeout(REQUEST_S):
        reader, writer = await asyncio.open_connection(HOST, node.http_port)
        try:
            head = f"{method} {target} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n"
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", answer)
            assert length, answer
            return int(answer.split(b" ", 2)[1]), await reader.readexactly(int(length[1]))
        finally:
            writer.transport.abort()


async def get(node: Node, target: str) -> Any:
    """The JSON of an answer with status 200; None for 404. FAILURES."""
    status, body = await request(node, "GET", target)
    assert status in {200, 404}, f"{node} answers {target}: {status} {body!r}"
    return json.loads(body) if status == 200 else None


# -- what is done to them


class Faults:
    """Kills daemons and starts them again; freezes nsqlookupds."""

    def __init__(self, nsqds: Sequence[Node], lookupds: Sequence[Node], chance: random.Random):
        self.counts: Counter[str] = Counter()
        self.last_repair_at = 0.0  # monotonic: the last start or thaw
        self._nsqds = nsqds
        self._lookupds = lookupds
        self._chance = chance
        self._hurt: set[Node] = set()

    async def strike(self, seconds: float) -> None:
        """Strike for so long. All daemons run at the end; the last ones may still be starting."""
        end = time.monotonic() + seconds
        async with asyncio.TaskGroup() as repairs:
            while time.monotonic() < end:
                await asyncio.sleep(self._chance.uniform(*FAULT_PAUSE_S))
                for node, work in self._choose():
                    self._hurt.add(node)
                    repairs.create_task(work)

    def _choose(self) -> list[tuple[Node, Any]]:
        kind = self._chance.random()
        nsqds, lookupds = self._healthy(self._nsqds), self._healthy(self._lookupds)
        if kind < BOTH_LOOKUPDS and len(lookupds) == len(self._lookupds):
            self.counts["all nsqlookupds killed"] += 1
            return [(node, self._kill(node)) for node in lookupds]
        if kind < BOTH_LOOKUPDS + FREEZE and lookupds:
            self.counts["nsqlookupd frozen"] += 1
            node = self._chance.choice(lookupds)
            return [(node, self._freeze(node))]
        if not nsqds + lookupds:
            return []
        node = self._chance.choice(nsqds + lookupds)
        self.counts["nsqd killed" if node in nsqds else "nsqlookupd killed"] += 1
        return [(node, self._kill(node))]

    def _healthy(self, nodes: Sequence[Node]) -> list[Node]:
        return [node for node in nodes if node not in self._hurt]

    async def _kill(self, node: Node) -> None:
        """Maybe in the middle of its start."""
        assert not node.has_died(), f"{node} ended by itself:\n{node.log()[-4000:]}"
        node.kill()
        await asyncio.sleep(self._chance.uniform(*DOWN_S))
        node.spawn()
        self._repaired(node)

    async def _freeze(self, node: Node) -> None:
        node.send_signal(signal.SIGSTOP)
        await asyncio.sleep(self._chance.uniform(*FROZEN_S))
        node.send_signal(signal.SIGCONT)
        self._repaired(node)

    def _repaired(self, node: Node) -> None:
        self._hurt.discard(node)
        self.last_repair_at = time.monotonic()


# -- the picture


async def picture_is_right(nsqds: Sequence[Node], lookupds: Sequence[Node], give_up_at: float) -> str:
    """Wait until the nsqlookupds know exactly what there is: nothing, or what is still wrong at `give_up_at`."""
    while True:
        try:
            wrong = await _wrong(nsqds, lookupds)
        except FAILURES as error:
            wrong = f"someone does not answer: {error!r}"
        if not wrong or time.monotonic() > give_up_at:
            return wrong
        await asyncio.sleep(0.1)


async def _wrong(nsqds: Sequence[Node], lookupds: Sequence[Node]) -> str:
    """Where the picture in the nsqlookupds differs from what the nsqds say of themselves."""
    there: dict[int, dict[str, set[str]]] = {}  # by port and topic, the channels
    for nsqd in nsqds:
        stats = await get(nsqd, "/stats?format=json&include_clients=false&include_mem=false")
        there[nsqd.tcp_port] = {
            topic["topic_name"]: {channel["channel_name"] for channel in topic["channels"]}
            for topic in stats["topics"]
        }
    nodes = sorted((port, sorted(topics)) for port, topics in there.items())
    for lookupd in lookupds:
        producers = (await get(lookupd, "/nodes"))["producers"]
        listed = sorted((node["tcp_port"], sorted(node["topics"])) for node in producers)
        if listed != nodes:
            return f"{lookupd} lists {_brief(listed)} in place of {_brief(nodes)}"
    for topic in sorted({topic for topics in there.values() for topic in topics}):
        having = sorted(port for port, topics in there.items() if topic in topics)
        channels = sorted({channel for port in having for channel in there[port][topic]})
        for lookupd in lookupds:
            answer = await get(lookupd, f"/lookup?topic={topic}")
            if answer is None:
                return f"{lookupd} does not know {topic}"
            found = sorted(producer["tcp_port"] for producer in answer["producers"])
            if (found, sorted(answer["channels"])) != (having, channels):
                return f"{lookupd} has {topic} at {found} {answer['channels']}, not at {having} {channels}"
    return ""


def _brief(nodes: list[tuple[int, list[str]]]) -> str:
    return ", ".join(f"{port} with {len(topics)} topics" for port, topics in nodes) or "nobody"
