"""Consumers in the client's thread, and the mailbox from which kombu's thread takes their messages.

kombu blocks, or has an event loop of its own that watches descriptors. So a mailbox has a pipe: a byte in it says that
there may be something to take. What lies in the mailbox, and what was taken and not yet answered, is touched. A
consumer's `max_in_flight` bounds both.
"""

import asyncio
import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic, time_ns
from typing import Any, NamedTuple

from nsqkit.client.consumer import Consumer
from nsqkit.client.message import Message
from nsqkit.client.state import ConsumerState
from nsqkit.client.thread import LoopThread, keep, the_thread
from nsqkit.errors import ConsumerFailed, RequeueMessage


class Delivery(NamedTuple):
    """A message, and the feed that it came by."""

    feed: "Feed"
    message: Message

    def finish(self) -> None:
        """It is done with. In the client's thread."""
        self.message.settle(None)

    def give_back(self) -> None:
        """It comes again, at once. In the client's thread."""
        self.message.settle(RequeueMessage(0, backoff=False))


class Feed:
    """What a kombu channel consumes of one queue: one consumer, or several if the queue listens to exchanges."""

    def __init__(self, mailbox: "Mailbox", channel: Any, queue: str, consumers: list[Consumer]) -> None:
        self.channel = channel
        self.queue = queue
        self.unanswered: set[str] = set()  # delivery tags of what kombu has; its threads answer, too
        self.share = 0  # how many it may have
        self.cancelled = False  # what comes goes back
        self.began_ns = time_ns()
        self._mailbox = mailbox
        self._consumers = consumers
        self._pumps: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to connect. In the client's thread, as all that follows."""
        for consumer in self._consumers:
            await consumer.start()
            self._pumps.append(asyncio.ensure_future(self._pump(consumer)))

    def limit(self, count: int) -> None:
        """How many messages may be under way, by each consumer."""
        for consumer in self._consumers:
            if consumer.max_in_flight != count:
                consumer.max_in_flight = count

    async def stop(self, seconds: float) -> None:
        """Give back what was not taken, and close."""
        self.cancelled = True
        self._mailbox.give_back(self)
        await asyncio.gather(*(consumer.stop(seconds) for consumer in self._consumers))
        await asyncio.gather(*self._pumps)

    async def _pump(self, consumer: Consumer) -> None:
        try:
            async for message in consumer:
                delivery = Delivery(self, message)
                if self.cancelled or not self.share:  # it was on its way when that was decided
                    delivery.give_back()
                else:
                    message.begin()
                    self._mailbox.put(delivery)
        except ConsumerFailed as error:
            self._mailbox.fail(error)


class QueueConsumer(Consumer):
    """One whose limit is 0 for a moment whenever kombu has enough, which is no news."""

    def _set_state(self) -> None:
        if self.max_in_flight or self.state is not ConsumerState.CONSUMING or not self._pool.links:
            super()._set_state()


class Mailbox:
    """All feeds of one kombu connection."""

    STOP_S = 2.0  # that a feed may take to stop

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._ready: deque[Delivery] = deque()
        self._error: ConsumerFailed | None = None
        self._rung = False  # since somebody looked
        self._some = threading.Condition()
        self._feeds: list[Feed] = []
        self._thread: LoopThread | None = None
        self._closed = False
        self._pipe: tuple[int, int] | None = None  # for who asks for `fd`

    # -- kombu's side

    @property
    def fd(self) -> int:
        """What is readable when there may be something to take."""
        if self._pipe is None:
            self._pipe = os.pipe()
            for end in self._pipe:
                os.set_blocking(end, False)
            self.ring()
        return self._pipe[0]

    def open(self, channel: Any, queue: str, consumers: list[Consumer]) -> Feed:
        """Begin to consume."""
        self._thread = the_thread(self)
        feed = Feed(self, channel, queue, consumers)
        self._thread.run(feed.start())
        self._feeds.append(feed)
        return feed

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Do it in the client's thread, unless all is over."""
        if self._thread is not None and not self._closed:
            self._thread.call(function, *arguments)

    def stop(self, feed: Feed) -> None:
        """End a feed."""
        if feed in self._feeds:
            self._feeds.remove(feed)
            if self._thread is not None:
                self._thread.run(feed.stop(self.STOP_S))

    def take(self, may: Callable[[Feed], bool]) -> Delivery | None:
        """The first message that may be taken; None if there is none. ConsumerFailed."""
        with self._some:
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            for number, delivery in enumerate(self._ready):
                if may(delivery.feed):
                    del self._ready[number]
                    return delivery
        return None

    def wait(self, timeout: float | None, may: Callable[[Feed], bool]) -> Delivery | None:
        """The same, when there is one; None after `timeout` seconds."""
        end = None if timeout is None else monotonic() + timeout
        while (delivery := self.take(may)) is None:
            with self._some:
                if self._rung:
                    self._rung = False
                    continue
                left = None if end is None else end - monotonic()
                if left is not None and left <= 0:
                    return None
                self._some.wait(left)
        return delivery

    def silence(self) -> None:
        """Take the bytes from the pipe, before looking into the mailbox."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.fd, 4096)

    def ring(self) -> None:
        """Say that there may be something to take."""
        with self._some:
            self._rung = True
            self._some.notify_all()
            if self._pipe is not None:
                with contextlib.suppress(BlockingIOError):  # it is full of bytes that say so
                    os.write(self._pipe[1], b"\0")

    def close(self) -> None:
        """End all feeds. Does nothing the second time."""
        if self._closed:
            return
        try:
            for feed in list(self._feeds):
                self.stop(feed)
        finally:
            with self._some:
                self._closed = True
                pipe, self._pipe = self._pipe, None
            for end in pipe or ():
                os.close(end)

    def after_fork(self) -> None:
        """This is the child: what there is belongs to the parent."""
        keep(dict(self.__dict__))
        self._begin()

    # -- the client's side, in its thread

    def put(self, delivery: Delivery) -> None:
        """One came."""
        with self._some:
            self._ready.append(delivery)
        self.ring()

    def fail(self, error: ConsumerFailed) -> None:
        """A consumer has given up."""
        with self._some:
            self._error = error
        self.ring()

    def give_back(self, feed: Feed) -> None:
        """What a feed brought and nobody took goes back to nsqd."""
        with self._some:
            mine = [delivery for delivery in self._ready if delivery.feed is feed]
            for delivery in mine:
                self._ready.remove(delivery)
        for delivery in mine:
            delivery.give_back()
