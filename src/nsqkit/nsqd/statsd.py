"""Pushes what /stats shows to a statsd, over UDP, each --statsd-interval (spec/nsqd-semantics.md, 11).

A push is made while it is sent, a slice at a time, and spread over the interval: nothing waits for it, and no more of
it is held than one packet, however many topics there are. What a failed push did not get to is in the next one.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any, Final, Protocol, Self

from nsqkit.address import join_address, split_address
from nsqkit.log import Log
from nsqkit.nsqd.core.broker import Broker
from nsqkit.nsqd.core.channel import Channel
from nsqkit.nsqd.core.quantile import LatencyResult, ranked
from nsqkit.nsqd.core.topic import Topic
from nsqkit.nsqd.memory import GcPauses, read_memory
from nsqkit.nsqd.options import NsqdOptions
from nsqkit.options.duration import SECOND
from nsqkit.web.long_answer import SLICE, Slices, in_order

RESOLVE_TIMEOUT_S: Final = 10.0
IDLE_S: Final = 1.0  # at the end of an interval, in which no packets are sent
AHEAD_S: Final = 0.01  # a push that is less ahead of its time does not wait

GAUGE: Final = "g"
COUNTER: Final = "c"  # its value is what was added since the last push


def prefix_of(options: NsqdOptions, http_port: int) -> str:
    """What each name begins with: --statsd-prefix with this host at `%s`, and a dot at its end."""
    port = options.broadcast_http_port or max(http_port, 0)
    host = join_address(options.broadcast_address, port).replace(".", "_").replace(":", "_")
    prefix = options.statsd_prefix.replace("%s", host)
    return prefix if not prefix or prefix.endswith(".") else prefix + "."


class Figures:
    """The lines of each push, and what the counters were at the last one."""

    def __init__(self, broker: Broker, options: NsqdOptions, prefix: str, pauses: GcPauses) -> None:
        self.done = 0.0  # the share of the topics and channels that is in the lines up to now
        self._broker = broker
        self._gc_pauses = pauses
        self.configure(options, prefix)
        self._told: dict[
            tuple[str, str], tuple[int, ...]
        ] = {}  # by topic and channel; "" for the topic itself
        self._gc_runs = 0  # likewise

    def configure(self, options: NsqdOptions, prefix: str) -> None:
        """Give lines as these options say, from now on."""
        self._prefix = prefix
        self._exclude_ephemeral = options.statsd_exclude_ephemeral
        self._pauses = self._gc_pauses if options.statsd_mem_stats else None

    def lines(self, now: int) -> Iterator[bytes]:
        """One push. Some lines are empty: each step does little."""
        yield from self._forget()
        topics = self._broker.topics
        self.done = 0.0
        share = 1 / max(len(topics), 1)
        names = yield from in_order(topics)
        for number, name in enumerate(names):
            topic = topics.get(name)
            if topic is not None and not (topic.ephemeral and self._exclude_ephemeral):
                yield from self._topic(topic, number * share, share, now)
            else:
                yield b""
        self.done = 1.0
        if self._pauses is not None:
            yield from self._memory(self._pauses)

    def _forget(self) -> Iterator[bytes]:
        """Drop the counters of what was deleted."""
        for key in list(self._told):
            topic = self._broker.topics.get(key[0])
            if topic is None or (key[1] and key[1] not in topic.channels):
                del self._told[key]
            yield b""

    def _topic(self, topic: Topic, done: float, share: float, now: int) -> Iterator[bytes]:
        prefix = f"{self._prefix}topic.{topic.name}."
        samples: dict[int, int] = {}
        for channel in list(topic.channels.values()) if self._broker.settings.latency_quantiles else ():
            if channel.latency is not None:
                channel.latency.add_to(samples, now)
            yield b""
        messages, size = self._since((topic.name, ""), topic.made, topic.message_count, topic.message_bytes)
        yield _line(prefix, "message_count", messages, COUNTER)
        yield _line(prefix, "message_bytes", size, COUNTER)
        yield _line(prefix, "depth", topic.depth(), GAUGE)
        yield _line(prefix, "backend_depth", topic.waiting.backend_depth(), GAUGE)
        if topic.channels:
            yield from _latency(prefix, ranked(self._broker.settings.latency_quantiles, samples))
        names = yield from in_order(topic.channels)
        share /= max(len(topic.channels), 1)
        for number, name in enumerate(names):
            self.done = done + number * share
            found = topic.channels.get(name)
            if found is not None and not (found.ephemeral and self._exclude_ephemeral):
                yield from self._channel(f"{prefix}channel.{name}.", topic, found, now)
            else:
                yield b""

    def _channel(self, prefix: str, topic: Topic, channel: Channel, now: int) -> Iterator[bytes]:
        messages, requeued, timed_out = self._since(
            (topic.name, channel.name),
            channel.made,
            channel.message_count,
            channel.requeue_count,
            channel.timeout_count,
        )
        yield _line(prefix, "message_count", messages, COUNTER)
        yield _line(prefix, "depth", channel.queue.depth(), GAUGE)
        yield _line(prefix, "backend_depth", channel.queue.backend_depth(), GAUGE)
        yield _line(prefix, "in_flight_count", channel.in_flight_count, GAUGE)
        yield _line(prefix, "deferred_count", int(channel.deferred_count()), GAUGE)
        yield _line(prefix, "requeue_count", requeued, COUNTER)
        yield _line(prefix, "timeout_count", timed_out, COUNTER)
        yield _line(prefix, "clients", len(channel.subscribers), GAUGE)
        if channel.latency is not None:
            yield from _latency(prefix, channel.latency.result(now))

    def _memory(self, pauses: GcPauses) -> Iterator[bytes]:
        memory = read_memory(pauses)
        prefix = self._prefix + "mem."
        for name in (
            "heap_objects",
            "heap_idle_bytes",
            "heap_in_use_bytes",
            "heap_released_bytes",
            "gc_pause_usec_100",
            "gc_pause_usec_99",
            "gc_pause_usec_95",
            "next_gc_bytes",
        ):
            yield _line(prefix, name, getattr(memory, name), GAUGE)
        yield _line(prefix, "gc_runs", memory.gc_total_runs - self._gc_runs, COUNTER)
        self._gc_runs = memory.gc_total_runs

    def _since(self, key: tuple[str, str], made: int, *counts: int) -> tuple[int, ...]:
        """By how much counts have grown since the last push; all of them for what is new, or was made anew."""
        before = self._told.get(key)
        self._told[key] = (made, *counts)
        if before is None or before[0] != made or any(map(int.__lt__, counts, before[1:])):
            return counts
        return tuple(map(int.__sub__, counts, before[1:]))


def _latency(prefix: str, result: LatencyResult) -> Iterator[bytes]:
    """Names end in the percentage, as NSQ's do; 99.9 is written 99_9, where NSQ's rounds it to 100."""
    for quantile, value in result[1]:
        percentage = f"{quantile * 100:.10g}".replace(".", "_")
        yield _line(prefix, f"e2e_processing_latency_{percentage}", value, GAUGE)


def _line(prefix: str, name: str, value: int, kind: str) -> bytes:
    return f"{prefix}{name}:{value}|{kind}\n".encode("utf-8", "replace")


class Datagrams(Protocol):
    """A connected UDP socket that never waits; it is closed by `with`."""

    def send(self, data: bytearray, /) -> int:
        """Send a packet. OSError, also for what became of earlier ones."""

    def getsockopt(self, level: int, option: int, /) -> int:
        """Asked for what became of the last packet."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...


class Network:
    """Names, sockets, and the time that passes between pushes."""

    def time(self) -> float:
        """Seconds."""
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    async def connect(self, host: str, port: int) -> Datagrams:
        """A socket for packets to this host. OSError, or UnicodeError for what can't be a name."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(RESOLVE_TIMEOUT_S):
            found: list[Any] = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        family, kind, protocol, _, address = found[0]
        one = socket.socket(family, kind, protocol)
        try:
            one.setblocking(False)
            one.connect(address)
        except BaseException:
            one.close()
            raise
        return one


class Statsd:
    """Pushes from `start` to `stop`, if there is an address.

    What goes wrong is said once, and tried again with the next push.
    """

    def __init__(
        self,
        options: NsqdOptions,
        figures: Figures,
        log: Log,
        slices: Slices,
        now: Callable[[], int],
        network: Network | None = None,
    ) -> None:
        self._set(options)
        self._figures = figures
        self._log = log
        self._slices = slices
        self._now = now
        self._network = network or Network()
        self._pushing = False  # packets are on their way
        self._due = 0.0  # when the next push is
        self._task: asyncio.Task[None] | None = None

    def _set(self, options: NsqdOptions) -> None:
        self._address = options.statsd_address
        self._interval_s = int(options.statsd_interval) / SECOND
        self._packet_size = options.statsd_udp_packet_size
        self._error = ""
        self._said_too_long = False

    def start(self) -> None:
        """Begin: the first push is an interval away."""
        self._due = self._network.time() + self._interval_s
        if self._address:
            self._task = asyncio.get_running_loop().create_task(self._run())
            self._task.add_done_callback(self._done)

    def configure(self, options: NsqdOptions, prefix: str) -> None:
        """Push as these options say: the next push is an interval away.

        One that is under way is finished as it began.
        """
        self._set(options)
        self._figures.configure(options, prefix)
        if self._pushing:
            self._due = self._network.time() + self._interval_s
            return
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self.start()

    async def stop(self) -> None:
        """Push no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error(f"STATSD({self._address}): a defect of ours: {error!r}")

    async def _run(self) -> None:
        while self._address:
            await self._wait_until_due()
            began = self._network.time()
            self._due = began + self._interval_s
            self._pushing = True
            try:
                with await self._network.connect(*split_address(self._address)) as datagrams:
                    await self._push(datagrams, began)
                    self._pushing = False
                    await self._wait_until_due()  # the network may take a while to say that nobody is there
                    error = datagrams.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    self._say(OSError(error, os.strerror(error)) if error else None)
            except (OSError, UnicodeError) as error:
                self._say(error)
            finally:
                self._pushing = False
        self._task = None

    async def _push(self, datagrams: Datagrams, began: float) -> None:
        """Send one, at even pace."""
        spread = max(self._interval_s - IDLE_S, 0.0)
        packet = bytearray()
        slice_end = 0.0
        for line in self._figures.lines(self._now()):
            if perf_counter() >= slice_end:
                await self._slices.turn()
                slice_end = perf_counter() + SLICE
            if len(line) > self._packet_size:
                self._leave_out(line)
                continue
            if len(packet) + len(line) > self._packet_size:
                datagrams.send(packet)
                packet.clear()
                ahead = began + spread * self._figures.done - self._network.time()
                if ahead > AHEAD_S:
                    await self._network.sleep(ahead)
                    slice_end = 0.0
            packet += line
        if packet:
            datagrams.send(packet)

    async def _wait_until_due(self) -> None:
        await self._network.sleep(max(self._due - self._network.time(), 0.0))

    def _leave_out(self, line: bytes) -> None:
        if not self._said_too_long:
            self._said_too_long = True
            self._log.warning(
                f"STATSD({self._address}): lines longer than --statsd-udp-packet-size ({self._packet_size}) "
                f"are left out, such as {line.decode().strip()}"
            )

    def _say(self, error: OSError | UnicodeError | None) -> None:
        """Tell of an error that is another than the last, and of its end."""
        text = ""
        if error is not None:
            text = getattr(error, "strerror", "") or str(error) or f"no answer within {RESOLVE_TIMEOUT_S:g} s"
        if text and text != self._error:
            self._log.error(f"STATSD({self._address}): can't push, tried again each interval - {text}")
        elif self._error and not text:
            self._log.info(f"STATSD({self._address}): packets go out again")
        self._error = text
