"""A broker for dramatiq: a queue is a topic, and all workers share one channel of it.

    dramatiq.set_broker(NsqBroker("127.0.0.1:4150"))

A message is finished (FIN) when dramatiq acknowledges it, and touched until then. One that dramatiq rejects goes to
the topic "<queue>.XQ". A delay is kept by nsqd (DPUB); one above nsqd's limit is kept in several steps, and the message
says when it is due (`eta`).
"""

import json
import time
from collections.abc import Iterable, Sequence
from http.client import HTTPConnection
from typing import Any, Final, Unpack

from dramatiq import Broker, Consumer, Message, MessageProxy, Middleware
from dramatiq.common import current_millis, xq_name
from dramatiq.errors import ConnectionClosed, DecodeError, QueueJoinTimeout, QueueNotFound

from nsqkit.address import split_address
from nsqkit.client.addresses import addresses_of
from nsqkit.client.sync import SyncConsumer, SyncMessage, SyncProducer
from nsqkit.contrib.options import BrokerKeywords, split
from nsqkit.errors import BadDelay, ConsumerFailed, NotSent, OptionError, OutcomeUnknown, Refused
from nsqkit.names import valid_name

_POLL_S: Final = 0.1  # between two looks at a queue that is joined
_NO_LIMIT_MS: Final = 1 << 53
_LOOKS: Final = 2  # that must find it empty: a message may be on its way from topic to channel


class NsqBroker(Broker):
    """dramatiq's broker on NSQ.

    `nsqd` and `lookupd` are addresses as for `SyncProducer` and `SyncConsumer`; the options of both are taken. Workers
    consume `channel` of each queue's topic. `max_delay` is how long one DPUB may wait, at most nsqd's
    --max-req-timeout. `http` are HTTP addresses of all nsqds, which `join` and `flush` need. OptionError.
    """

    def __init__(
        self,
        *nsqd: str,
        lookupd: str | Sequence[str] = (),
        http: str | Sequence[str] = (),
        channel: str = "dramatiq",
        middleware: list[Middleware] | None = None,
        **options: Unpack[BrokerKeywords],
    ) -> None:
        super().__init__(middleware)
        self.channel = channel
        self._nsqd = nsqd
        self._lookupd = lookupd
        self._http = addresses_of("nsqd", http)
        of_producer, self._consumer_options = split(options)
        self._producer = SyncProducer(*nsqd, lookupd=lookupd, **of_producer)
        self._max_delay_ms = self._producer.options.max_delay.milliseconds or _NO_LIMIT_MS
        self._new_consumer("default", 1)  # a wrong option is an error here, not later

    def close(self) -> None:
        """Close the connections that publish."""
        self._producer.close()

    # -- queues

    def declare_queue(self, queue_name: str) -> None:
        """Know of a queue. nsqd has it when the first message or worker comes. OptionError."""
        if queue_name in self.queues:
            return
        if not valid_name(xq_name(queue_name)):
            raise OptionError(f"{queue_name!r} is no name for a queue: 1 to 61 characters of .a-zA-Z0-9_-")
        self.emit_before("declare_queue", queue_name)
        self.queues[queue_name] = None
        self.emit_after("declare_queue", queue_name)

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 30_000) -> "NsqConsumer":
        """A consumer, which holds up to `prefetch` messages unless `max_in_flight` was given. QueueNotFound."""
        self._check(queue_name)
        return NsqConsumer(self, queue_name, self._new_consumer(queue_name, prefetch), timeout / 1000)

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        """Publish a message, to be delivered after `delay` milliseconds; return when nsqd has it.

        ConnectionClosed if there is no connection or it was lost, BadDelay if nsqd's --max-req-timeout is below
        `max_delay`, and what else is a PublishError.
        """
        received = message
        if delay is not None and delay > self._max_delay_ms:
            message = message.copy(options={"eta": current_millis() + delay})
        self.emit_before("enqueue", message, delay)
        try:
            self.publish(message.queue_name, message.encode(), delay or 0)
        except Exception:
            # dramatiq's retries acknowledge a message even if they could not enqueue it: it must come again.
            if isinstance(received, NsqMessage):
                received.is_lost = True
            raise
        self.emit_after("enqueue", message, delay)
        return message

    def publish(self, queue_name: str, body: bytes, delay_ms: int) -> None:
        """Publish a body. A delay above `max_delay` is cut to it. ConnectionClosed, PublishError."""
        try:
            self._producer.publish(queue_name, body, delay=min(max(delay_ms, 0), self._max_delay_ms) / 1000)
        except (NotSent, OutcomeUnknown) as error:
            raise ConnectionClosed(error) from error
        except Refused as error:
            if "timeout" not in error.detail:
                raise
            raise BadDelay(f"max_delay is above nsqd's --max-req-timeout: {error}") from error

    # -- for tests

    def join(self, queue_name: str, *, timeout: int | None = None) -> None:
        """Wait until each message of the queue is done with, delayed ones too. For tests; it needs `http`.

        QueueJoinTimeout after `timeout` milliseconds; QueueNotFound.
        """
        self._check(queue_name)
        end = None if timeout is None else time.monotonic() + timeout / 1000
        looks = 0
        while looks < _LOOKS:
            looks = 0 if self._count(queue_name) else looks + 1
            if end is not None and time.monotonic() >= end:
                raise QueueJoinTimeout(queue_name)
            time.sleep(_POLL_S)

    def flush(self, queue_name: str) -> None:
        """Drop all messages of the queue and of its dead letters. For tests; it needs `http`. QueueNotFound."""
        self._check(queue_name)
        for topic in (queue_name, xq_name(queue_name)):
            self._ask("POST", f"/topic/empty?topic={topic}")
            self._ask("POST", f"/channel/empty?topic={topic}&channel={self.channel}")

    def flush_all(self) -> None:
        """Drop all messages of all queues."""
        for queue_name in self.queues:
            self.flush(queue_name)

    def _count(self, queue_name: str) -> int:
        """How many messages are not done with."""
        count = 0
        for answer in self._ask("GET", f"/stats?format=json&include_clients=false&topic={queue_name}"):
            for topic in json.loads(answer)["topics"] or ():
                count += topic["depth"]
                for channel in topic["channels"]:
                    if channel["channel_name"] == self.channel:
                        count += channel["depth"] + channel["in_flight_count"] + channel["deferred_count"]
        return count

    def _ask(self, method: str, path: str) -> list[bytes]:
        """What the nsqds answer. OptionError."""
        if not self._http:
            raise OptionError('join and flush ask nsqd by HTTP: NsqBroker(..., http="127.0.0.1:4151")')
        answers = []
        for address in self._http:
            connection = HTTPConnection(*split_address(address), timeout=10)
            connection.request(method, path)
            answers.append(connection.getresponse().read())
            connection.close()
        return answers

    # -- parts

    def _check(self, queue_name: str) -> None:
        if queue_name not in self.queues:
            raise QueueNotFound(queue_name)

    def _new_consumer(self, queue_name: str, prefetch: int) -> SyncConsumer:
        options = self._consumer_options.copy()
        options.setdefault("max_in_flight", prefetch)
        return SyncConsumer(queue_name, self.channel, nsqd=self._nsqd, lookupd=self._lookupd, **options)


class NsqMessage(MessageProxy):
    """A message as workers have it. `is_lost`: it was to be enqueued again, and could not."""

    def __init__(self, message: Message[Any], received: SyncMessage) -> None:
        super().__init__(message)
        self.received = received
        self.is_lost = False


class NsqConsumer(Consumer):
    """The messages of a queue. May be used from any thread."""

    def __init__(self, broker: NsqBroker, queue_name: str, consumer: SyncConsumer, timeout: float) -> None:
        self._broker = broker
        self._queue_name = queue_name
        self._consumer = consumer
        self._timeout = timeout

    def __next__(self) -> NsqMessage | None:
        """The next message; None if none came in time. ConnectionClosed if there will be none (`give_up_after`)."""
        try:
            received = self._consumer.get(self._timeout)
        except ConsumerFailed as error:
            raise ConnectionClosed(error) from error
        if received is None:
            return None
        received.__enter__()  # it is touched from here on
        try:
            message = Message.decode(received.body)
        except DecodeError:
            self._broker.logger.exception("A message of queue %r can't be read.", self._queue_name)
            self._pass_on(received, xq_name(self._queue_name), 0)
            return None
        due = message.options.pop("eta", None)
        rest = int(due) - current_millis() if isinstance(due, int | float) else 0
        if rest > 0:
            self._pass_on(received, self._queue_name, rest)
            return None
        return NsqMessage(message, received)

    def ack(self, message: MessageProxy) -> None:
        """Finish it; or give it back, if it should have been enqueued again and that failed."""
        assert isinstance(message, NsqMessage)
        if message.is_lost:
            _end(message.received, RuntimeError())
        else:
            _end(message.received)

    def nack(self, message: MessageProxy) -> None:
        """Publish it to the topic of dead letters, and finish it. ConnectionClosed, and dramatiq tries again."""
        assert isinstance(message, NsqMessage)
        self._broker.publish(xq_name(message.queue_name), message.encode(), 0)
        _end(message.received)

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Give back what was not begun, at once."""
        for message in messages:
            assert isinstance(message, NsqMessage)
            if not message.received.answered:
                message.received.requeue(0, backoff=False)

    def close(self) -> None:
        """Give back what was not handed out, and close. What is still worked on comes again after `msg_timeout`."""
        self._consumer.close(0)

    def _pass_on(self, received: SyncMessage, topic: str, delay_ms: int) -> None:
        """Publish it again, and finish it; or give it back."""
        try:
            self._broker.publish(topic, received.body, delay_ms)
        except Exception as error:
            _end(received, error)
            raise
        _end(received)


def _end(received: SyncMessage, error: Exception | None = None) -> None:
    """Nobody works on it any more. With an error it comes again, later each time."""
    received.__exit__(type(error) if error is not None else None, error, None)
