"""A broker for taskiq: tasks are messages of one topic, and the worker processes share one channel of it.

    broker = NsqBroker("127.0.0.1:4150")

    @broker.task
    async def send_mail(to: str) -> None: ...

A task is finished (FIN) when taskiq acknowledges it, and touched until then; what a dead worker leaves comes again.
taskiq can't give a task back: its retries are new messages, which are delayed by DPUB if there is a delay.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from functools import partial
from typing import Any, Final, Unpack

from taskiq import AckableMessage, AsyncBroker, BrokerMessage

from nsqkit.client.consumer import Consumer
from nsqkit.client.message import Message
from nsqkit.client.producer import Producer
from nsqkit.contrib.options import BrokerKeywords, split
from nsqkit.errors import BadDelay, NotSent
from nsqkit.options.duration import Duration

MAX_ASYNC_TASKS: Final = 100  # tasks that a worker of taskiq runs at a time unless it is told otherwise
_FOREVER_S: Final = 365 * 86_400.0  # taskiq decides how long it waits for tasks


class NsqBroker(AsyncBroker):
    """taskiq's broker on NSQ.

    `nsqd` and `lookupd` are addresses as for `Producer` and `Consumer`. Tasks are published to `topic`, and workers
    consume its `channel`. All other arguments are options of the producer, of the consumer, or of both; a worker takes
    `max_in_flight` tasks (100, as many as taskiq runs at a time) and no more. OptionError.

    The label `delay`, in seconds or text like "1m30s", delays a task, up to the producer's option `max_delay`.
    """

    def __init__(
        self,
        *nsqd: str,
        lookupd: str | Sequence[str] = (),
        topic: str = "taskiq",
        channel: str = "taskiq",
        **options: Unpack[BrokerKeywords],
    ) -> None:
        super().__init__()
        options.setdefault("max_in_flight", MAX_ASYNC_TASKS)
        self.topic = topic
        self.channel = channel
        self._nsqd = nsqd
        self._lookupd = lookupd
        self._producer_options, self._consumer_options = split(options)
        self._producer: Producer | None = None
        self._consumers: list[Consumer] = []
        self._stops: set[asyncio.Task[None]] = set()
        self._taken: dict[Message, None] = {}  # not acknowledged, the oldest first
        self._new_producer()  # a wrong option is an error here, not later
        self._new_consumer()

    async def startup(self) -> None:
        """Begin to connect for publishing. Does not wait for a connection: the first task does."""
        if self._producer is None:
            self._producer = self._new_producer()
            await self._producer.start()
        await super().startup()

    async def shutdown(self) -> None:
        """Give back what was not acknowledged, and close all connections."""
        await super().shutdown()
        for message in self._taken:
            if not message.answered:
                message.requeue(0, backoff=False)
        self._taken.clear()
        for consumer in self._consumers:
            await consumer.stop(0)
        self._consumers.clear()
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.close()

    async def kick(self, message: BrokerMessage) -> None:
        """Publish a task; return when nsqd has it. PublishError, which taskiq raises as SendTaskError."""
        if self._producer is None:
            raise NotSent("the broker was not started: await broker.startup()")
        delay = _delay(message.labels.get("delay"))
        await self._producer.publish(self.topic, message.message, delay=delay)

    async def listen(self) -> AsyncGenerator[AckableMessage, None]:
        """The tasks, as they come. ConsumerFailed if it gives up (`give_up_after`).

        When it is closed, no more come, and what was not handed out goes back at once; what was may be acknowledged
        until `shutdown`.
        """
        consumer = self._new_consumer()
        self._consumers.append(consumer)
        await consumer.start()
        try:
            while (message := await consumer.get()) is not None:
                message.begin()  # it is touched from here on
                self._take(message)
                yield AckableMessage(data=message.body, ack=partial(self._finish, message))
        finally:
            stop = asyncio.get_running_loop().create_task(consumer.stop(_FOREVER_S))
            self._stops.add(stop)
            stop.add_done_callback(self._stops.discard)

    def _take(self, message: Message) -> None:
        """It is handed out. What taskiq never acknowledges is forgotten when nsqd has given it to somebody else."""
        taken = self._taken
        while taken and next(iter(taken)).expired:
            del taken[next(iter(taken))]
        taken[message] = None

    def _finish(self, message: Message) -> None:
        self._taken.pop(message, None)
        message.settle(None)

    def _new_producer(self) -> Producer:
        return Producer(*self._nsqd, lookupd=self._lookupd, **self._producer_options)

    def _new_consumer(self) -> Consumer:
        return Consumer(
            self.topic,
            self.channel,
            nsqd=self._nsqd,
            lookupd=self._lookupd,
            **self._consumer_options,
        )


def _delay(label: Any) -> float:
    """A delay in seconds; labels arrive as text. BadDelay."""
    if label is None:
        return 0
    try:
        return float(label)
    except ValueError:
        pass
    try:
        return Duration.of(label).seconds
    except ValueError as reason:
        raise BadDelay(f"a delay of {label!r}: {reason}") from None
