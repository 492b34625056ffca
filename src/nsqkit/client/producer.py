"""Publishing: to one nsqd, to several in turn, or to those that nsqlookupds list.

Many publishes may be under way on one connection. nsqd answers them in order, so each is matched with its answer, and
after a cut connection each says whether it was sent.
"""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic
from types import TracebackType
from typing import Any, Final, Self, Unpack, cast

from nsqkit.client.addresses import addresses_of
from nsqkit.client.clock import ClientClock, clock_of
from nsqkit.client.connection import Opener
from nsqkit.client.discovery import Discovery
from nsqkit.client.link import Link
from nsqkit.client.options import ProducerKeywords, ProducerOptions, Strategy
from nsqkit.client.pool import Pool
from nsqkit.client.seldom import Seldom
from nsqkit.errors import (
    BadDelay,
    BadTopicName,
    EmptyMessage,
    MessageTooLarge,
    NotSent,
    OptionError,
    OutcomeUnknown,
    Refused,
)
from nsqkit.names import valid_name
from nsqkit.options.duration import Duration

Body = bytes | bytearray | memoryview
_TOPICS: Final = 1024  # whose command lines are kept
_SIZE: Final = 4  # bytes, before each body
_NOT_KEPT: Final = {"E_PUB_FAILED", "E_MPUB_FAILED", "E_DPUB_FAILED"}  # nsqd could not, another one may


@dataclass(frozen=True, slots=True)
class ProducerStats:
    """What a producer has done and holds. A publish_many counts as one; `pending` are publishes without an answer."""

    connections: int
    published: int
    refused: int
    pending: int
    failures: dict[str, str]  # why there is no connection, by address of nsqd


class Producer:
    """Publishes messages.

        async with Producer("127.0.0.1:4150") as producer:
            await producer.publish("orders", b"one book")

    `nsqd` are addresses, host:port, of which one is taken after the other (`strategy`); those that can't be reached are
    left out. `lookupd` are HTTP addresses of nsqlookupds, whose nsqds are published to. All other arguments are the
    options of `ProducerOptions`. OptionError for an option that makes no sense, or if there is no address at all.

    It works in the event loop in which it was started, for any number of tasks.
    """

    def __init__(
        self,
        *nsqd: str,
        lookupd: str | Sequence[str] = (),
        options: ProducerOptions | None = None,
        **more: Unpack[ProducerKeywords],
    ) -> None:
        if options is not None and more:
            raise OptionError(f"say {', '.join(sorted(more))} in the options, not beside them")
        self.options = options or ProducerOptions(**cast("dict[str, Any]", more))
        self._nsqds = addresses_of("nsqd", nsqd)
        self._lookupds = addresses_of("lookupd", lookupd)
        if not self._nsqds and not self._lookupds:
            raise OptionError('say where nsqd is: Producer("host:4150") or Producer(lookupd="host:4161")')
        self._log = logging.getLogger("nsqkit.producer")
        self._seldom = Seldom(self._log, monotonic)
        self._pool: Pool | None = None
        self._discovery: Discovery | None = None
        self._closed = False
        self._closing: asyncio.Task[None] | None = None
        self._next = 0
        self._lines: dict[str, bytes] = {}
        self._up = asyncio.Event()  # there is a connection, or the producer was closed
        self._published = 0
        self._refused = 0

    # -- start and close

    async def start(self) -> None:
        """Begin to connect. It does not wait for a connection: the first publish does. Does nothing the second time.

        NotSent if it was closed before: make another one then.
        """
        if self._closed:
            raise NotSent("the producer was closed, and can't be started again: make another one")
        if self._pool is not None:
            return
        clock = clock_of(asyncio.get_running_loop())
        opener = self._opener(clock)
        self._pool = Pool(
            self.options, clock, self._log, opener.open, self._connected, self._lost, lambda: None
        )
        self._pool.add(self._nsqds, self.options.connections_per_nsqd)
        if self._lookupds:
            self._discovery = Discovery(self._lookupds, None, self.options, clock, self._found, self._log)
            self._discovery.start()

    def _opener(self, clock: ClientClock) -> Opener:
        """What opens connections; tests have another."""
        return Opener(self.options, clock.now, self._log)

    async def close(self, timeout: float = 5.0) -> None:
        """Take nothing more, wait up to `timeout` seconds for answers, and close.

        What was not answered then fails by OutcomeUnknown or NotSent. A second call waits for the first one; who is
        cancelled leaves it to go on.
        """
        if self._closing is None:
            self._closed = True
            self._up.set()
            self._closing = asyncio.get_running_loop().create_task(self._close(timeout))
        await asyncio.shield(self._closing)

    async def _close(self, timeout: float) -> None:
        pool, discovery = self._pool, self._discovery
        if discovery is not None:
            await discovery.stop()
        if pool is None:
            return
        pool.stop_trying()
        waiting = [future for link in pool.links for future in link.unanswered()]
        if waiting:
            await asyncio.wait(waiting, timeout=timeout)
        await pool.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def stats(self) -> ProducerStats:
        """What it has done and holds."""
        pool = self._pool
        links = pool.links if pool is not None else []
        return ProducerStats(
            connections=len(links),
            published=self._published + sum(link.published for link in links),
            refused=self._refused + sum(link.refused for link in links),
            pending=sum(link.pending for link in links),
            failures={nsqd: error.reason for nsqd, error in pool.failures.items()}
            if pool is not None
            else {},
        )

    # -- publishing

    async def publish(self, topic: str, body: Body, *, delay: float | str | timedelta = 0) -> None:
        """Publish one message; return when nsqd has taken it as its durability demands.

        `delay` in seconds, or text like "1m30s": it is delivered no sooner (DPUB). `max_delay` (1 h, as nsqd's
        --max-req-timeout) limits it. A `str` is no body: encode it.

        Raises BadTopicName, EmptyMessage, MessageTooLarge or BadDelay before anything is sent; NotSent if there is no
        connection, or no room, within `send_timeout`; Refused if nsqd says no; OutcomeUnknown if the connection is lost
        before the answer. What was not sent is tried again `retries` times, on another nsqd if there is one.
        """
        line = self._lines.get(topic)
        if line is None:
            line = self._line(topic)
        if delay:
            line = b"D%b %d\n" % (line[:-1], self._delay_ms(delay))
        size = self._size(body)
        if size > self.options.max_msg_size > 0:
            raise MessageTooLarge(
                f"a message of {size} bytes is above max_msg_size ({self.options.max_msg_size})"
            )
        await self._send(line, body)

    async def publish_many(self, topic: str, bodies: Iterable[Body]) -> None:
        """Publish messages by one command (MPUB): all of them or none. As `publish`, but they can't be delayed."""
        line = b"M" + (self._lines.get(topic) or self._line(topic))
        parts: list[Body] = []
        total = _SIZE
        most = self.options.max_msg_size
        for number, body in enumerate(bodies, 1):
            size = self._size(body, number)
            if size > most > 0:
                raise MessageTooLarge(f"message {number} has {size} bytes, above max_msg_size ({most})")
            total += _SIZE + size
            if total > self.options.max_body_size > 0:
                raise MessageTooLarge(
                    f"{number} messages are together above max_body_size ({self.options.max_body_size} bytes)"
                )
            parts += (size.to_bytes(_SIZE, "big"), body)
        if not parts:
            raise EmptyMessage("there is no message to publish")
        await self._send(line, b"".join(((len(parts) // 2).to_bytes(_SIZE, "big"), *parts)))

    async def _send(self, line: bytes, body: Body) -> None:
        """Send a command, again and again as the options allow. PublishError."""
        options = self.options
        for left in range(options.retries, -1, -1):
            link = self._link()
            if link is None:
                link = await self._wait_for_link()
            try:
                await link.publish(line, body)
                return
            except NotSent as error:
                if not left or self._closed:
                    raise
                self._seldom.warn("again", "%s; trying another time", error)
            except Refused as error:
                if not left or self._closed or error.code not in _NOT_KEPT or not self._has_others:
                    raise
                self._seldom.warn("refused", "%s; trying another nsqd", error)
            except OutcomeUnknown as error:
                if not left or self._closed or not options.retry_unknown:
                    raise
                self._seldom.warn(
                    "unknown", "%s; sending it again (retry_unknown), which may make a copy", error
                )

    def _link(self) -> Link | None:
        """A connection with room: the next one, or the first one, as the strategy is."""
        pool = self._pool
        if pool is None or self._closed:
            raise NotSent("the producer is closed" if self._closed else "the producer was not started")
        links = pool.links
        count = len(links)
        start = 0
        if count > 1 and self._in_turn:
            start = self._next = (self._next + 1) % count
        for number in range(count):
            link = links[(start + number) % count]
            if link.has_room():
                return link
        return None

    async def _wait_for_link(self) -> Link:
        """A connection with room. NotSent if there is none in time."""
        limit = self.options.send_timeout.seconds
        try:
            async with asyncio.timeout(limit):
                while (link := self._link()) is None:
                    pool = self._pool
                    assert pool is not None
                    if pool.links:
                        await _room(pool.links)
                    else:
                        self._up.clear()
                        pool.hurry()
                        await self._up.wait()
                return link
        except TimeoutError:
            raise NotSent(f"it was not sent: {self._why_not()} within {limit:g} s (send_timeout)") from None

    def _why_not(self) -> str:
        pool = self._pool
        assert pool is not None
        if pool.links:
            return (
                f"{sum(link.pending for link in pool.links)} publishes wait for their answers, and none came"
            )
        reasons = "; ".join(str(error) for error in pool.failures.values())
        return f"no connection to an nsqd ({reasons or 'none is known'})"

    # -- what is checked before

    def _line(self, topic: str) -> bytes:
        if not valid_name(topic):
            raise BadTopicName(f"{topic!r} is no name for a topic: 1 to 64 characters of .a-zA-Z0-9_-")
        if len(self._lines) >= _TOPICS:
            self._lines.clear()
        line = self._lines[topic] = f"PUB {topic}\n".encode()
        return line

    @staticmethod
    def _size(body: Body, number: int = 1) -> int:
        if isinstance(body, bytes):
            size = len(body)
        elif isinstance(body, Body):
            size = memoryview(body).nbytes
        else:
            raise TypeError(f"message {number} is {type(body).__name__}, not bytes")
        if not size:
            raise EmptyMessage(f"message {number} is empty")
        return size

    def _delay_ms(self, delay: float | str | timedelta) -> int:
        limit = self.options.max_delay
        try:
            wanted = Duration.of(delay)
        except ValueError as reason:
            raise BadDelay(f"a delay of {delay!r}: {reason}") from None
        if wanted < 0 or wanted > limit > 0:
            raise BadDelay(
                f"a delay of {wanted} is not within 0 and max_delay ({limit}); nsqd's limit is --max-req-timeout"
            )
        return wanted.milliseconds

    # -- connections

    @property
    def _has_others(self) -> bool:
        return self._pool is not None and len(self._pool.addresses) > 1

    @property
    def _in_turn(self) -> bool:
        return self.options.strategy is Strategy.ROUND_ROBIN

    def _connected(self, link: Link) -> None:
        link.max_pending = self.options.max_pending
        link.max_pending_bytes = self.options.max_pending_bytes
        self._log.info("nsqd %s: connected", link.nsqd)
        self._up.set()

    def _lost(self, link: Link) -> None:
        self._published += link.published
        self._refused += link.refused
        if not self._closed:
            self._log.warning("nsqd %s: connection lost: %s", link.nsqd, link.reason)
            if self._discovery is not None:
                self._discovery.poll_soon()

    def _found(self, addresses: list[str]) -> None:
        if self._pool is not None:
            self._pool.found(addresses, self.options.connections_per_nsqd)


async def _room(links: Sequence[Link]) -> None:
    """Return when one of them may have room."""
    waiting = [(link, link.room()) for link in links]
    try:
        await asyncio.wait([waiter for _, waiter in waiting], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for link, waiter in waiting:
            link.forget(waiter)  # whoever got room at two of them lets somebody else look
