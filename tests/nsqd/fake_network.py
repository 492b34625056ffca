"""A network for statsd: sockets that take packets, or do not."""

import asyncio
import errno
import socket
from typing import Self

from nsqkit.nsqd.statsd import Network


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

    async def advance(self, seconds: float) -> list[bytes]:
        """Let time pass; the packets sent meanwhile."""
        before = len(self.packets)
        self._until += seconds
        self._reached.clear()
        self._goes_on.set()
        await asyncio.wait_for(self._reached.wait(), 10)
        return [packet for _, packet in self.packets[before:]]
