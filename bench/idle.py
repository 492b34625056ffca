"""What does nsqd use when nothing happens? CPU of many idle connections, then of many idle channels.

    python bench/idle.py [--connections 10000] [--channels 10000] [--seconds 30] [--nsqd "nsqd"]

Connections are subscribed, ready, and answer heartbeats, as real consumers do: one every 30 s each. Channels have no
consumer, and come from the metadata. `--nsqd` may be any nsqd; the figures are the kernel's accounting of its
process.
"""

import argparse
import asyncio
import resource
import sys
import tempfile
from collections.abc import Iterator

from metadata import write_metadata

from nsqkit.bench import frames, process
from nsqkit.bench.clients import BenchError
from nsqkit.bench.server import spawned

AT_ONCE = 100  # connections being opened, or commands waiting for their OK


class Idler(asyncio.Protocol):
    """A consumer that gets nothing."""

    def __init__(self, hello: bytes) -> None:
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._hello = hello

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Subscribe."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self._hello)

    def data_received(self, data: bytes) -> None:
        """Take the OK; answer heartbeats."""
        if data.endswith(frames.HEARTBEAT):
            self.transport.write(frames.NOP)
        elif not self.ready.done():
            self.ready.set_result(None)


async def connect(port: int, hellos: Iterator[bytes]) -> list[Idler]:
    """Connect with each hello, some at a time."""
    idlers: list[Idler] = []

    async def work() -> None:
        for hello in hellos:
            loop = asyncio.get_running_loop()
            _, idler = await loop.create_connection(lambda hello=hello: Idler(hello), "127.0.0.1", port)  # type: ignore[misc]
            await idler.ready
            idlers.append(idler)

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return idlers


async def measure(label: str, pid: int, seconds: float) -> None:
    """Print one line of the table."""
    await asyncio.sleep(3)  # the last checkpoints, syncs and answers
    meter = process.Meter(pid)
    meter.start()
    await asyncio.sleep(seconds)
    window = meter.stop()
    assert window.server_cpu_us is not None
    share = window.server_cpu_us / 1e4 / window.seconds
    memory = (window.server_rss_after or 0) / 1e6
    print(f"{label:<42} {window.server_cpu_us / 1e3:9.1f} {share:8.3f} {memory:8.0f}", flush=True)


async def run(arguments: argparse.Namespace) -> None:
    """Measure an nsqd with nothing, with connections, and with channels."""
    subscribe = frames.MAGIC + frames.subscribe("idle", "ch") + frames.ready(1)
    async with spawned(arguments.nsqd) as target:
        assert target.pid is not None
        print(f"{'':<42} {'CPU ms':>9} {'CPU %':>8} {'MB':>8}   in {arguments.seconds:g} s")
        await measure("nothing", target.pid, arguments.seconds)
        count = arguments.connections
        idlers = await connect(target.tcp.port, iter([subscribe] * count))
        await measure(f"{count:,} idle connections, with heartbeats", target.pid, arguments.seconds)
        for idler in idlers:
            idler.transport.abort()
    count = arguments.channels
    with tempfile.TemporaryDirectory(prefix="nsqkit-bench-") as path:
        write_metadata(f"{path}/nsqd.dat", count // 10, 10)
        async with spawned(f"{arguments.nsqd} --data-path={path}") as target:
            assert target.pid is not None
            await measure(f"{count:,} idle channels, ten to a topic", target.pid, arguments.seconds)


def main() -> int:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--channels", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--nsqd", default="nsqd", help="the command, of one or more words")
    arguments = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        asyncio.run(run(arguments))
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
