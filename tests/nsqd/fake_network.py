"""A network for statsd: sockets that take packets, or do not; and a broker whose figures go there."""

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable
from typing import Self

from nsqkit.log import Log
from nsqkit.nsqd.core.broker import Broker
from nsqkit.nsqd.core.settings import SECOND, Settings
from nsqkit.nsqd.memory import GcPauses
from nsqkit.nsqd.options import NsqdOptions
from nsqkit.nsqd.statsd import Figures, Network, Statsd
from nsqkit.web.long_answer import Slices

NOW = 1_700_000_000 * SECOND


class Socket:
    """Keeps what is sent. `fails` counts the packets that go out before one does not."""

    def __init__(self, network: "FakeNetwork") -> None:
        self._network = network

    def send(self, data: bytearray) -> int:
        """A packet."""
        network = self._network
        if network.fails == 0:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
        network.fails -= 1
        network.packets.append((network.now, bytes(data)))
        return len(data)

    def getsockopt(self, level: int, option: int) -> int:
        """What became of the last packet."""
        assert (socket.SOL_SOCKET, socket.SO_ERROR) == (level, option)
        return self._network.late_error

    def __enter__(self) -> Self:
        self._network.open += 1
        return self

    def __exit__(self, *error: object) -> None:
        self._network.open -= 1


class FakeNetwork(Network):
    """Time passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.packets: list[tuple[float, bytes]] = []
        self.fails = -1
        self.late_error = 0
        self.unknown = ""
        self.asked: list[tuple[str, int]] = []
        self.open = 0
        self._until = self.now
        self._reached = asyncio.Event()
        self._goes_on = asyncio.Event()

    def time(self) -> float:
        """As the test says."""
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Wait for the test."""
        wanted = self.now + seconds
        while wanted > self._until:
            self._goes_on.clear()
            self._reached.set()
            await self._goes_on.wait()
        self.now = max(self.now, wanted)

    async def connect(self, host: str, port: int) -> Socket:
        """A socket, unless there is no such host."""
        self.asked.append((host, port))
        if self.unknown:
            raise socket.gaierror(socket.EAI_NONAME, self.unknown)
        return Socket(self)

    def let_go(self, seconds: float) -> None:
        """Let time pass."""
        self._until += seconds
        self._reached.clear()
        self._goes_on.set()

    async def advance(self, seconds: float) -> list[bytes]:
        """Let time pass; the packets sent meanwhile."""
        before = len(self.packets)
        self.let_go(seconds)
        await asyncio.wait_for(self._reached.wait(), 10)
        return [packet for _, packet in self.packets[before:]]


class House:
    """A broker whose figures are pushed each minute."""

    def __init__(self, **options: object) -> None:
        self.options = NsqdOptions(
            statsd_address="stats:8125",
            statsd_prefix="p",
            statsd_mem_stats=False,
            **options,  # type: ignore[arg-type]
        )
        self.broker = Broker(Settings(), None)
        self.network = FakeNetwork()
        self.lines: list[str] = []
        self.figures = Figures(self.broker, self.options, "p.", GcPauses())
        log = Log("", write=self.lines.append)
        self.statsd = Statsd(self.options, self.figures, log, Slices(), lambda: NOW, self.network)

    def said(self) -> list[str]:
        """What was logged, without time stamps."""
        return [line.partition("STATSD(stats:8125): ")[2].rstrip() for line in self.lines]


Scenario = Callable[[House], Awaitable[None]]


def run(scenario: Scenario, **options: object) -> None:
    """Start pushing, do this, and stop."""

    async def main() -> None:
        house = House(**options)
        house.statsd.start()
        await asyncio.sleep(0)
        await scenario(house)
        await house.statsd.stop()
        assert 0 == house.network.open

    asyncio.run(main())


def publish(broker: Broker, topic: str, *bodies: bytes) -> None:
    """Publish these, at once."""
    data = b"".join(len(body).to_bytes(4, "big") + body for body in bodies)
    broker.topic(topic).publish(data, len(bodies), 0, None, NOW)
    broker.work(NOW)
