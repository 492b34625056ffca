"""Producer and consumer for programs without an event loop: scripts, web workers, threads.

They are the asyncio ones, in an event loop in a thread of its own, which all of them share. They may be used from any
number of threads. Errors are the same.
"""

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Self, Unpack

from nsqkit.client.consumer import Consumer
from nsqkit.client.message import Message
from nsqkit.client.options import ConsumerKeywords, ConsumerOptions, ProducerKeywords, ProducerOptions
from nsqkit.client.producer import Body, Producer, ProducerStats
from nsqkit.client.state import ConsumerState, ConsumerStats
from nsqkit.client.thread import FORKED, LoopThread, keep, the_thread
from nsqkit.errors import ConsumerFailed, NotSent, RequeueMessage


class SyncProducer:
    """Publishes messages, and blocks until nsqd has taken them.

        with SyncProducer("127.0.0.1:4150") as producer:
            producer.publish("orders", b"one book")

    It takes what `Producer` takes. Nothing is connected before the first publish. After a fork the child has
    connections of its own, by itself; what was under way in the parent stays the parent's.
    """

    def __init__(
        self,
        *nsqd: str,
        lookupd: str | Sequence[str] = (),
        options: ProducerOptions | None = None,
        **more: Unpack[ProducerKeywords],
    ) -> None:
        self._first: Producer | None = Producer(*nsqd, lookupd=lookupd, options=options, **more)
        self._nsqds, self._lookupd = nsqd, lookupd
        self.options = self._first.options
        self._lock = threading.Lock()
        self._engine: tuple[LoopThread, Producer] | None = None
        self._closed = False

    def publish(self, topic: str, body: Body, *, delay: float | str | timedelta = 0) -> None:
        """Publish one message; see `Producer.publish`, also for the errors."""
        thread, producer = self._started()
        thread.run(producer.publish(topic, body, delay=delay))

    def publish_many(self, topic: str, bodies: Iterable[Body]) -> None:
        """Publish messages by one command, all of them or none; see `Producer.publish_many`."""
        thread, producer = self._started()
        thread.run(producer.publish_many(topic, list(bodies)))

    def stats(self) -> ProducerStats:
        """What it has done and holds, in this process."""
        thread, producer = self._started()
        return thread.call(producer.stats)

    def close(self, timeout: float = 5.0) -> None:
        """Take nothing more, wait up to `timeout` seconds for answers, and close. Does nothing the second time."""
        with self._lock:
            engine, self._engine = self._engine, None
            self._closed = True
        if engine is not None:
            thread, producer = engine
            thread.run(producer.close(timeout))

    def after_fork(self) -> None:
        """This is the child: begin anew."""
        if self._engine is not None:
            keep(self._engine)
            self._engine = None
        self._first = None
        self._lock = threading.Lock()

    def _started(self) -> tuple[LoopThread, Producer]:
        with self._lock:
            if self._closed:
                raise NotSent("the producer is closed")
            if self._engine is None:
                thread = the_thread(self)
                producer = self._first or Producer(*self._nsqds, lookupd=self._lookupd, options=self.options)
                self._first = None
                thread.run(producer.start())
                self._engine = thread, producer
            return self._engine

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class SyncMessage:
    """A message. Answer it once, by `finish` or `requeue`, or let `with message:` do it, as `Message` does."""

    __slots__ = ("_message", "_thread")

    def __init__(self, message: Message, thread: LoopThread) -> None:
        self._message = message
        self._thread = thread

    @property
    def id(self) -> str:
        """16 hexadecimal digits. Each delivery of a message has the same."""
        return self._message.id

    @property
    def body(self) -> bytes:
        """What was published."""
        return self._message.body

    @property
    def timestamp(self) -> int:
        """When nsqd got it, in ns since the epoch."""
        return self._message.timestamp

    @property
    def attempts(self) -> int:
        """Deliveries so far; 1 for the first."""
        return self._message.attempts

    @property
    def nsqd(self) -> str:
        """The address of the nsqd that it came from."""
        return self._message.nsqd

    @property
    def topic(self) -> str:
        """Its topic."""
        return self._message.topic

    @property
    def channel(self) -> str:
        """Its channel."""
        return self._message.channel

    @property
    def answered(self) -> bool:
        """Whether it was finished or requeued."""
        return self._message.answered

    @property
    def expired(self) -> bool:
        """Whether nsqd has, or will have, given it to somebody else."""
        return self._message.expired

    def json(self) -> Any:
        """The body, read as JSON. ValueError if it is none."""
        return self._message.json()

    def finish(self) -> None:
        """Say that it is done with. AlreadyAnswered."""
        self._thread.call(self._message.finish)

    def requeue(self, delay: float | str | timedelta | None = None, *, backoff: bool = True) -> None:
        """Give it back, to come again after `delay`; see `Message.requeue`. AlreadyAnswered, ValueError."""
        self._thread.call(lambda: self._message.requeue(delay, backoff=backoff))

    def touch(self) -> None:
        """Ask nsqd for another `msg_timeout` from now. AlreadyAnswered."""
        self._thread.call(self._message.touch)

    def __enter__(self) -> Self:
        self._thread.call(self._message.begin)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if self._thread.here:  # in a forked child it is the parent who answers
            self._thread.call(self._message.settle, error)
        return isinstance(error, RequeueMessage)

    def __repr__(self) -> str:
        return f"<Sync{repr(self._message)[1:]}"


def _give_back(message: Message | None) -> None:
    """Nobody is there to take it."""
    if message is not None and not message.answered:
        message.requeue(0, backoff=False)


class SyncConsumer:
    """Consumes a channel of a topic, and blocks while there is nothing.

        with SyncConsumer("orders", "billing", nsqd="127.0.0.1:4150") as consumer:
            for message in consumer:
                with message:
                    print(message.body)

    It takes what `Consumer` takes, but for a handler. Iteration ends when another thread closes it, and raises
    ConsumerFailed when it has given up. After a fork it is the parent's: the child makes its own.

    `on_giving_up(message)` is called in a thread, `on_state(state)` in that of the event loop: it must not wait.
    """

    def __init__(
        self,
        topic: str,
        channel: str,
        *,
        nsqd: str | Sequence[str] = (),
        lookupd: str | Sequence[str] = (),
        on_giving_up: Callable[[SyncMessage], object] | None = None,
        on_state: Callable[[ConsumerState], None] | None = None,
        options: ConsumerOptions | None = None,
        **more: Unpack[ConsumerKeywords],
    ) -> None:
        self._on_giving_up = on_giving_up
        self._consumer = Consumer(
            topic,
            channel,
            nsqd=nsqd,
            lookupd=lookupd,
            on_giving_up=None if on_giving_up is None else self._give_up_on,
            on_state=on_state,
            options=options,
            **more,
        )
        self.options = self._consumer.options
        self._lock = threading.Lock()
        self._thread: LoopThread | None = None
        self._forked = False
        self._closed = False

    async def _give_up_on(self, message: Message) -> None:
        assert self._on_giving_up is not None
        assert self._thread is not None
        await asyncio.to_thread(self._on_giving_up, SyncMessage(message, self._thread))

    def get(self, timeout: float | None = None) -> SyncMessage | None:
        """The next message; None if none came within `timeout` seconds (default: no limit), or when it is closed.

        ConsumerFailed if the consumer has given up.
        """
        if self._closed:
            return None
        thread = self._started()
        message = thread.run(self._consumer.get(timeout), _give_back)
        return SyncMessage(message, thread) if message is not None else None

    def __iter__(self) -> Iterator[SyncMessage]:
        while (message := self.get()) is not None:
            yield message

    @property
    def state(self) -> ConsumerState:
        """What it is doing."""
        return self._consumer.state

    @property
    def max_in_flight(self) -> int:
        """How many messages may be under way. It may be set at any time; 0 pauses."""
        return self._consumer.max_in_flight

    @max_in_flight.setter
    def max_in_flight(self, count: int) -> None:
        self._started().call(setattr, self._consumer, "max_in_flight", count)

    def stats(self) -> ConsumerStats:
        """What it has done and holds."""
        return self._started().call(self._consumer.stats)

    def close(self, timeout: float | None = None) -> None:
        """Take no more, give back what was not handed out, and close. Does nothing the second time.

        What is worked on in a `with` block of another thread has `timeout` seconds (`shutdown_timeout`) to end.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            thread = self._thread
        if thread is not None and not self._forked:
            thread.run(self._consumer.stop(timeout))

    def after_fork(self) -> None:
        """This is the child: the consumer is the parent's."""
        keep(self._consumer)
        self._forked = True
        self._lock = threading.Lock()

    def _started(self) -> LoopThread:
        with self._lock:
            if self._forked:
                raise ConsumerFailed(FORKED)
            if self._thread is None:
                thread = the_thread(self)
                thread.run(self._consumer.start())
                self._thread = thread
            return self._thread

    def __enter__(self) -> Self:
        self._started()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
