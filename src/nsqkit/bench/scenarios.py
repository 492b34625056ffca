"""One function per question. Each connects, lets the clock run over exactly the work it asks about, and cleans up.

A case is run several times: first unmeasured, so that the server has touched as much memory and disk as a round needs
(the first touch of a page costs microseconds on a virtual machine), then once per round.
"""

import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter_ns
from typing import Final, TypeVar

from nsqkit.bench import frames, report
from nsqkit.bench.clients import BenchError, Connection, Consumer, Publisher, Run, open_connection
from nsqkit.bench.http_publisher import open_http, post_request
from nsqkit.bench.pace import PacedPublisher, Schedule
from nsqkit.bench.process import Meter
from nsqkit.bench.server import Target

FILL_BATCH: Final = 200
FILL_WINDOW: Final = 4
LATENCY_WARM_UP_S: Final = 1.0
START_DELAY_NS: Final = 5_000_000

C = TypeVar("C", bound=Connection)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One scenario with its numbers. A round ends at `messages` or after `duration_s`, whichever comes first."""

    scenario: str
    batch: int = 1
    connections: int = 1
    consumers: int = 1
    channels: int = 1
    size: int = 200
    window: int = 1
    rdy: int = 2500
    rate: float = 1000.0
    messages: int | None = None
    duration_s: float | None = None
    topic_each: bool = False
    topic: str | None = None
    channel: str = "bench"
    timeout_s: float = 15.0
    layers: tuple[str, ...] = ()
    body: str | None = None

    @property
    def label(self) -> str:
        """What to call it in one short line."""
        parts = {
            "pub": f"pub {self._sending}{' topic-each' if self.topic_each else ''}",
            "pubsub": f"pubsub {self._sending} consumers={self.consumers}",
            "consume": f"consume rdy={self.rdy} consumers={self.consumers}",
            "latency": f"latency {self.rate:,.0f}/s",
            "http": f"http connections={self.connections}",
        }
        return " ".join([parts[self.scenario], *(layer.removesuffix("_v1") for layer in self.layers)])

    @property
    def _sending(self) -> str:
        window = f" window={self.window}" if self.window > 1 else ""
        return f"batch={self.batch}{window} connections={self.connections}"


class Bench:
    """One round of one case: its run, its topics, and every connection it opened."""

    def __init__(self, target: Target, case: Case, on_progress: Callable[[int], None]) -> None:
        self.target = target
        self.case = case
        self.run = Run(on_progress, case.timeout_s, case.layers)
        self.meter = Meter(target.pid)
        self._filling = b"x" if case.body is None else Path(case.body).read_bytes()
        base = case.topic or f"bench-{case.scenario}-{os.getpid():x}-{time.time_ns():x}"
        self.topics = [f"{base}-{index}" for index in range(case.connections)] if case.topic_each else [base]
        self._connections: list[Connection] = []

    async def create_channels(self) -> None:
        """Subscribe once to every channel, so that messages go where they do in real use."""
        for topic in self.topics:
            for index in range(self.case.channels):
                channel = self.case.channel if index == 0 else f"{self.case.channel}-{index}"
                (await self._open(partial(Consumer, self.run, topic, channel))).abort()

    async def publishers(self) -> list[Publisher]:
        """The case's publishers, connected. Each has one of the topics."""
        case = self.case
        commands = [self.command(topic, case.batch) for topic in self.topics]
        return [
            await self.publisher(commands[index % len(commands)], case.batch, case.window)
            for index in range(case.connections)
        ]

    def command(self, topic: str, batch: int) -> bytes:
        """What publishes a batch of the case's messages."""
        return frames.publish_command(topic, self.case.size, batch, self._filling)

    async def publisher(self, command: bytes, batch: int, window: int) -> Publisher:
        """One publisher, connected."""
        return await self._open(lambda: Publisher(self.run, command, batch=batch, window=window))

    async def consumers(self, *, stamped: bool = False) -> list[Consumer]:
        """The case's consumers, subscribed to the first channel and not ready yet."""
        topic, channel = self.topics[0], self.case.channel
        for _ in range(self.case.consumers):
            self.run.consumers.append(
                await self._open(lambda: Consumer(self.run, topic, channel, stamped=stamped))
            )
        return self.run.consumers

    async def close(self) -> None:
        """Hang up and remove the topics, unless their name was given: then they may be someone's."""
        for connection in self._connections:
            connection.abort()
        if self.case.topic is None:
            for topic in self.topics:
                with suppress(BenchError):  # left behind, but that does not spoil the figures
                    await self.target.delete_topic(topic)

    async def _open(self, make: Callable[[], C]) -> C:
        connection = await open_connection(self.target.tcp.host, self.target.tcp.port, make)
        self._connections.append(connection)
        return connection


async def publish(bench: Bench) -> report.Round:
    """Publish as fast as the answers come."""
    case, run = bench.case, bench.run
    await bench.create_channels()
    publishers = await bench.publishers()
    bench.meter.start()
    run.allow(case.messages, case.duration_s)
    for publisher in publishers:
        publisher.start()
    await run.finish(publisher.done for publisher in publishers)
    return report.summarize(bench.meter.stop(), run.acknowledged, run.latencies_ns)


async def publish_and_consume(bench: Bench) -> report.Round:
    """Publish as fast as the answers come while consumers take and finish; until everything published is finished."""
    case, run = bench.case, bench.run
    await bench.create_channels()
    publishers, consumers = await bench.publishers(), await bench.consumers()
    bench.meter.start()
    run.allow(case.messages, case.duration_s)
    for connection in consumers:
        connection.start(case.rdy)
    for publisher in publishers:
        publisher.start()
    await run.finish(publisher.done for publisher in publishers)
    run.expect(run.acknowledged)
    await run.finish(consumer.done for consumer in consumers)
    return report.summarize(bench.meter.stop(), run.received, run.latencies_ns, redelivered=run.redelivered)


async def consume(bench: Bench) -> report.Round:
    """Publish in advance; then measure only delivery and FIN."""
    case, run = bench.case, bench.run
    await bench.create_channels()
    batch = min(FILL_BATCH, case.messages or FILL_BATCH)
    command = bench.command(bench.topics[0], batch)
    filler = await bench.publisher(command, batch, FILL_WINDOW)
    run.allow(case.messages, None)
    filler.start()
    await run.finish([filler.done])
    consumers = await bench.consumers()
    bench.meter.start()
    for consumer in consumers:
        consumer.start(case.rdy)
    run.expect(run.acknowledged)
    await run.finish(consumer.done for consumer in consumers)
    return report.summarize(bench.meter.stop(), run.received, (), redelivered=run.redelivered)


async def latency(bench: Bench) -> report.Round:
    """Single messages at a fixed rate, timed from when each was due to when a consumer has it."""
    case, run, address = bench.case, bench.run, bench.target.tcp
    await bench.create_channels()
    consumers = await bench.consumers(stamped=True)
    publisher = await asyncio.to_thread(
        PacedPublisher, address.host, address.port, bench.topics[0], case.size, case.timeout_s
    )
    stop = threading.Event()
    for consumer in consumers:
        consumer.start(case.rdy)
    bench.meter.start()
    schedule = Schedule(case.rate, _paced_messages(case), perf_counter_ns() + START_DELAY_NS)

    async def send() -> None:
        await asyncio.to_thread(publisher.run, schedule, stop)
        run.expect(publisher.answered)

    try:
        await run.finish([asyncio.ensure_future(send()), *(consumer.done for consumer in consumers)])
    finally:
        stop.set()
        publisher.close()
    window = bench.meter.stop()
    return report.summarize(
        window, run.received, run.latencies_ns, redelivered=run.redelivered, late_ns=publisher.late_ns
    )


async def publish_http(bench: Bench) -> report.Round:
    """POST /pub, one message per request, over connections that stay open."""
    case, run, address = bench.case, bench.run, bench.target.http
    if address is None:
        raise BenchError("the HTTP address is not known; give --nsqd-http-address")
    await bench.create_channels()
    request = post_request(address.host, address.port, bench.topics[0], case.size, bench.target.token)
    publishers = [await open_http(address.host, address.port, run, request) for _ in range(case.connections)]
    try:
        bench.meter.start()
        run.allow(case.messages, case.duration_s)
        for publisher in publishers:
            publisher.start()
        await run.finish(publisher.done for publisher in publishers)
        return report.summarize(bench.meter.stop(), run.acknowledged, run.latencies_ns)
    finally:
        for publisher in publishers:
            publisher.abort()


SCENARIOS: Final[dict[str, tuple[Callable[[Bench], Awaitable[report.Round]], str]]] = {
    "pub": (publish, "from sending a command to its OK"),
    "pubsub": (publish_and_consume, "from sending a command to its OK"),
    "consume": (consume, ""),
    "latency": (latency, "from when a message was due to be sent to its arrival at the consumer"),
    "http": (publish_http, "from sending a request to its 200"),
}


class Interrupted(Exception):
    """The task was cancelled; `result` has what was measured before that."""

    def __init__(self, result: report.Result) -> None:
        super().__init__(result.label)
        self.result = result


async def run_case(
    target: Target, case: Case, *, rounds: int, warm_up: bool, on_progress: Callable[[str, int], None]
) -> report.Result:
    """Warm up, run the rounds, and take the medians. A BenchError becomes the result's error.

    Interrupted when the task is cancelled.
    """
    scenario, latency_of = SCENARIOS[case.scenario]
    done: list[report.Round] = []
    result = report.Result(asdict(case), case.label, latency_of, done)

    async def run_round(name: str, case: Case) -> report.Round:
        bench = Bench(target, case, lambda messages: on_progress(f"{case.label}, {name}", messages))
        try:
            return await scenario(bench)
        finally:
            await bench.close()

    try:
        if warm_up:
            await run_round("warm-up", _for_warm_up(case))
        for index in range(rounds):
            done.append(await run_round(f"round {index + 1} of {rounds}", case))
    except BenchError as error:
        return replace(result, error=str(error))
    except asyncio.CancelledError:
        median = report.median_round(done) if done else None
        text = f"interrupted after {len(done)} of {rounds} rounds"
        raise Interrupted(replace(result, error=text, median=median)) from None
    return replace(result, median=report.median_round(done))


def _for_warm_up(case: Case) -> Case:
    """A round like the others; for latency a shorter one, which needs little memory."""
    if case.scenario != "latency":
        return case
    return replace(case, messages=min(_paced_messages(case), max(1, int(case.rate * LATENCY_WARM_UP_S))))


def _paced_messages(case: Case) -> int:
    """How many messages a round at a fixed rate has; at least one."""
    by_time = None if case.duration_s is None else max(1, int(case.rate * case.duration_s))
    return min(limit for limit in (case.messages, by_time) if limit is not None)
