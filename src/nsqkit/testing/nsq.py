"""One nsqd and one nsqlookupd for a test, in its own event loop."""

import asyncio
import logging
import time
from collections.abc import Callable
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Final, Self, Unpack

from nsqkit.client.consumer import Consumer
from nsqkit.client.handlers import Handler
from nsqkit.client.options import ConsumerKeywords, ProducerKeywords
from nsqkit.client.producer import Producer
from nsqkit.clock import Clock
from nsqkit.cluster import Cluster
from nsqkit.errors import StartError
from nsqkit.log import Level
from nsqkit.logger import LoggerLog
from nsqkit.nsqd.daemon import Nsqd
from nsqkit.nsqd.http import http_app
from nsqkit.nsqd.options import NsqdOptions
from nsqkit.nsqlookupd import http as lookupd_http
from nsqkit.nsqlookupd.daemon import Nsqlookupd
from nsqkit.nsqlookupd.options import NsqlookupdOptions
from nsqkit.testing.machine import TestMachine
from nsqkit.testing.record import KEEP, ChannelView, NotDrained, Record
from nsqkit.testing.virtual_time import LOOK_S, SECOND, VirtualTime
from nsqkit.web.server import HttpServer

HERE: Final = "127.0.0.1"
FREE: Final = f"{HERE}:0"
START_S: Final = 5.0  # within which nsqd has to know its nsqlookupd
LOADED: Final = (Cluster, HttpServer, http_app, lookupd_http)  # by importing this, not by the first start


class TopicView:
    """What a test sees of a topic, whether it is there yet or not."""

    def __init__(self, nsq: "Nsq", name: str) -> None:
        self.name = name
        self._nsq = nsq

    @property
    def published(self) -> list[bytes]:
        """The bodies of all messages so far, by whoever and by whatever way. TooMuchPublished."""
        return self._nsq.record.bodies(self.name)

    @property
    def channels(self) -> list[str]:
        """The names of its channels."""
        topic = self._nsq.nsqd.broker.topics.get(self.name)
        return sorted(topic.channels) if topic is not None else []

    @property
    def depth(self) -> int:
        """Messages that wait for the first channel, or for the end of a pause."""
        topic = self._nsq.nsqd.broker.topics.get(self.name)
        return int(topic.depth()) if topic is not None else 0

    def channel(self, name: str) -> ChannelView:
        """A channel as it is now. LookupError if there is none of this name."""
        topic = self._nsq.nsqd.broker.topics.get(self.name)
        if topic is None:
            raise LookupError(f"there is no topic {self.name}, only {sorted(self._nsq.nsqd.broker.topics)}")
        if name not in topic.channels:
            raise LookupError(f"topic {self.name} has no channel {name}, only {self.channels}")
        return ChannelView.of(topic.channels[name])


class _Place:
    """The nsqd of one `Nsq`, as time sees it: None while it is dead."""

    def __init__(self) -> None:
        self.nsqd: Nsqd | None = None
        self._turned_at = 0

    def wait(self) -> int | None:
        """Nanoseconds until it has something to do."""
        if self.nsqd is None:
            return None
        when = int(self.nsqd.broker.deadlines.next())
        return when - self.nsqd.now() if when else None

    def turn(self) -> None:
        """Let it do what is due."""
        if self.nsqd is not None:
            self._turned_at = self.nsqd.now()
            self.nsqd.clock_moved()

    def busy(self) -> bool:
        """Whether it waits for its disk or for nsqlookupd, or for a client to answer a heartbeat of the last turn."""
        if self.nsqd is None:
            return False
        broker = self.nsqd.broker
        return (
            broker.changes.pending()
            or any(topic.opening or topic.awaits_channels for topic in broker.topics.values())
            or any(
                session.heartbeat is not None
                and session.heartbeat.sent_at > max(session.heard_at, self._turned_at - 1)
                for session in broker.sessions.values()
            )
        )


class Nsq:
    """A true nsqd with a true nsqlookupd. Use it by `async with`, once.

    Arguments are options of nsqd, as in `Nsq(msg_timeout="1s")`. Without a `data_path` it has a directory of its own,
    which goes away. `keep` is how many bytes of what is published are kept for `topic(...).published`.
    """

    def __init__(self, *, keep: int = KEEP, **nsqd: Any) -> None:
        self.record = Record(keep)
        self.nsqd: Nsqd
        self.lookupd: Nsqlookupd
        self._wanted = {"tcp_address": FREE, "http_address": FREE, "broadcast_address": HERE} | nsqd
        self._directory: TemporaryDirectory[str] | None = None
        self._machine: TestMachine
        self._time: VirtualTime
        self._place = _Place()

    # -- start and end

    async def start(self) -> None:
        """Start both daemons. StartError, also if this is no asyncio loop. TypeError or OptionError for options."""
        try:
            self._time = VirtualTime.enter(self._place)
        except RuntimeError as error:
            raise StartError("nsqkit.testing works in an asyncio event loop only") from error
        try:
            if "data_path" not in self._wanted:
                self._directory = TemporaryDirectory(prefix="nsq-")
                self._wanted["data_path"] = self._directory.name
            options = NsqlookupdOptions(tcp_address=FREE, http_address=FREE, broadcast_address=HERE)
            self.lookupd = Nsqlookupd(options, _log("nsqlookupd"))
            await self.lookupd.start()
            await self._start_nsqd()
        except BaseException:
            await self.stop()
            raise

    async def _start_nsqd(self) -> None:
        clock = Clock(self._time.calendar, self._time.monotonic)
        self._machine = TestMachine(clock)
        peers = (f"{HERE}:{self.lookupd.tcp_port}", *self._wanted.get("nsqlookupd_tcp_addresses", ()))
        options = NsqdOptions(**self._wanted | {"nsqlookupd_tcp_addresses": peers})
        self.nsqd = nsqd = Nsqd(options, _log("nsqd"), self._machine)
        await nsqd.start()
        nsqd.broker.probe = self.record
        self._place.nsqd = nsqd
        self._wanted["tcp_address"] = f"{HERE}:{nsqd.tcp_port}"  # the same when it starts again
        self._wanted["http_address"] = f"{HERE}:{nsqd.http_port}"
        if not await _until(lambda: nsqd.traffic.nsqlookupds()[peers[0]], START_S):
            raise StartError(f"nsqd has not reached its nsqlookupd within {START_S:g} s")

    async def stop(self) -> None:
        """Stop both, and remove the directory. Does nothing the second time, or without a start."""
        if not hasattr(self, "_time"):
            return
        await self._stop_nsqd()
        if hasattr(self, "lookupd"):
            await self.lookupd.stop()
        if self._directory is not None:
            self._directory.cleanup()
            self._directory = None
        self._time.leave(self._place)

    async def _stop_nsqd(self) -> None:
        nsqd, self._place.nsqd = self._place.nsqd, None
        if nsqd is not None:
            await nsqd.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def kill(self) -> None:
        """End nsqd as kill -9 does: connections are cut, nothing more is written. `start_again` is the only way on."""
        if self._place.nsqd is not None:
            self._machine.mortal_disk.die()
            self.nsqd.log.level = Level.FATAL  # what follows is no news
            self.disconnect_all()
            await self._stop_nsqd()

    async def start_again(self) -> None:
        """Start nsqd where it was, with the data that it left. After `kill`, or to restart it in the usual way."""
        await self._stop_nsqd()
        await self._start_nsqd()

    # -- where they are

    @property
    def tcp_address(self) -> str:
        """nsqd's, for clients: host:port."""
        return str(self._wanted["tcp_address"])

    @property
    def http_address(self) -> str:
        """nsqd's HTTP: host:port."""
        return str(self._wanted["http_address"])

    @property
    def lookupd_tcp_address(self) -> str:
        """nsqlookupd's, for further nsqds: host:port."""
        return f"{HERE}:{self.lookupd.tcp_port}"

    @property
    def lookupd_http_address(self) -> str:
        """nsqlookupd's, for consumers: host:port."""
        return f"{HERE}:{self.lookupd.http_port}"

    def producer(self, **options: Unpack[ProducerKeywords]) -> Producer:
        """A producer for this nsqd, not started yet: use `async with`."""
        return Producer(self.tcp_address, **options)

    def consumer(
        self,
        topic: str,
        channel: str,
        *,
        handler: Handler | None = None,
        concurrency: int | None = None,
        **options: Unpack[ConsumerKeywords],
    ) -> Consumer:
        """A consumer of this nsqd, not started yet: use `async with`."""
        return Consumer(
            topic, channel, nsqd=self.tcp_address, handler=handler, concurrency=concurrency, **options
        )

    # -- what happened

    def topic(self, name: str) -> TopicView:
        """A look at a topic, which need not be there yet."""
        return TopicView(self, name)

    async def drained(self, topic: str, channel: str, timeout: float = 5.0) -> None:
        """Return when the channel is there and everything published to the topic was finished in it.

        NotDrained after `timeout` real seconds; it says what is left.
        """
        if not await _until(lambda: not self._left(topic, channel), timeout):
            raise NotDrained(
                f"{topic}/{channel} was not drained in {timeout:g} s: {self._left(topic, channel)}"
            )

    def _left(self, topic: str, channel: str) -> str:
        """What is still to be done, "" if nothing is."""
        found = self.nsqd.broker.topics.get(topic)
        if found is None:
            return "there is no such topic"
        if channel not in found.channels:
            return f"the topic has no such channel, only {sorted(found.channels)}"
        view = ChannelView.of(found.channels[channel])
        parts = {
            "held back in the topic": int(found.depth()),
            "waiting for one of {view.consumers} consumers": view.depth,
            "in flight": view.in_flight,
            "deferred, so `await nsq.advance(seconds)` makes them come": view.deferred,
        }
        left = [f"{count} {what.format(view=view)}" for what, count in parts.items() if count]
        return "; ".join(left)

    # -- what is made to happen

    def disconnect_all(self) -> None:
        """Cut all TCP connections to nsqd at once."""
        for session in list(self.nsqd.broker.sessions.values()):
            session.outlet.abort()

    def fail_next(self, command: str, times: int = 1) -> None:
        """Let nsqd refuse this command the next `times` times, whichever TCP client gives it.

        PUB, MPUB and DPUB fail as when the disk is full, and SUB, IDENTIFY and AUTH as if nsqd did not want it. NSQ
        closes the connection in each case. ValueError for other commands. 0 takes it back.
        """
        self.record.fail_next(command, times)

    def now(self) -> float:
        """The time of nsqd and of the clients in this loop, in seconds since the epoch."""
        return self._time.calendar() / SECOND

    async def sleep(self, seconds: float) -> None:
        """Return when so much of that time has passed: by itself, or because somebody advances it."""
        await self._time.sleep(seconds)

    async def advance(self, seconds: float) -> None:
        """Let this much time pass in a moment, with everything that is due in it, in the order in which it is due.

        Deferred messages, timeouts, heartbeats, back-off, reconnecting. Between two of them the loop comes to rest, so
        handlers run, and clients elsewhere have up to a second to answer each heartbeat.
        """
        await self._time.advance(seconds)


def _log(daemon: str) -> LoggerLog:
    return LoggerLog(logging.getLogger(f"nsqkit.testing.{daemon}"))


async def _until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until it is so, in real time; whether it came to that."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        await asyncio.sleep(LOOK_S)
    return True
