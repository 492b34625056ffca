"""A kombu channel: queues are bound, published to and consumed.

Bindings are known where they are declared, as in all of kombu's virtual transports: Celery's clients and workers
declare the same. What goes to nobody known is published all the same: a direct exchange's routing key then names the
queue, and a topic exchange tells all who listen.
"""

import logging
from collections.abc import Callable
from itertools import count
from time import time_ns
from typing import Any, ClassVar, Final

from amqp.protocol import queue_declare_ok_t
from kombu.transport import virtual
from kombu.transport.virtual.exchange import STANDARD_EXCHANGE_TYPES, TopicExchange

from nsqkit.client.consumer import Consumer
from nsqkit.client.message import Message
from nsqkit.contrib.kombu import names
from nsqkit.contrib.kombu.envelope import Payload, decode, delay_of, encode
from nsqkit.contrib.kombu.feeds import Delivery, Feed

UNLIMITED: Final = 200  # messages of a queue under way, where kombu has no limit
STALE_NS: Final = (
    1_000_000_000  # what was told to all so long before somebody listened is none of his business
)
FIRST_NS: Final = 5_000_000_000  # after he began: what comes later is not old, whatever nsqd's clock says

_log = logging.getLogger("nsqkit.kombu")
_tags = count(1)


class Listened(TopicExchange):  # type: ignore[misc]  # kombu has no types
    """A topic exchange. Queues that stay are published to; what matches none of them is told to all who listen."""

    def deliver(self, message: Payload, exchange: str, routing_key: str, **_: object) -> None:
        """Publish."""
        self.channel.tell(message, exchange, routing_key)


class QoS(virtual.QoS):  # type: ignore[misc]  # the same
    """What kombu has and did not answer. An answer is NSQ's."""

    def ack(self, delivery_tag: str) -> None:
        """FIN."""
        self._quick_ack(delivery_tag)
        self.channel.settle(delivery_tag, Delivery.finish)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """REQ without delay, or FIN."""
        self._quick_ack(delivery_tag)
        self.channel.settle(delivery_tag, Delivery.give_back if requeue else Delivery.finish)

    def restore_unacked(self) -> list[Any]:
        """REQ what was not answered."""
        self._flush()
        for tag in list(self._delivered):
            self.reject(tag, requeue=True)
        self._flush()
        return []


class Channel(virtual.Channel):  # type: ignore[misc]  # the same
    """See above."""

    QoS = QoS
    supports_fanout = True
    exchange_types: ClassVar[dict[str, Any]] = {**STANDARD_EXCHANGE_TYPES, "topic": Listened}

    def __init__(self, connection: Any, **more: Any) -> None:
        super().__init__(connection, **more)
        self._transport = connection  # `connection` is None when the channel is closed
        self._deliveries: dict[str, Delivery] = {}  # that kombu did not answer, by delivery tag
        self._feeds: dict[str, Feed] = {}
        self._without_ack: set[str] = set()
        self._full = False  # kombu has as many messages as it may have

    # -- queues

    def queue_declare(self, queue: str = "", passive: bool = False, **more: Any) -> Any:
        """Declare a queue. nsqd is asked how much it has only if `passive`, and if its HTTP address is known."""
        if passive:
            return queue_declare_ok_t(queue, self._transport.management.size(names.topic_of_queue(queue)), 0)
        return super().queue_declare(queue, **more)

    def _new_queue(
        self, queue: str, *, auto_delete: bool = False, exclusive: bool = False, **_: object
    ) -> None:
        if auto_delete or exclusive:
            self._transport.passing.add(queue)

    def _queue_bind(self, *_: object) -> None:
        """Bindings are kept by `virtual.Channel`."""

    def _purge(self, queue: str) -> int:
        size: int = self._transport.management.empty(names.topic_of_queue(queue))
        return size

    def queue_delete(self, queue: str, *_: object, **__: object) -> None:
        """Consume it no more. Its topic stays in nsqd, until somebody deletes it there."""
        feed = self._feeds.pop(queue, None)
        if feed is not None:
            self._transport.mailbox.stop(feed)
        for exchange, _key, _arguments in list(self.state.queue_bindings(queue)):
            table = self.get_table(exchange)
            table[:] = [binding for binding in table if binding[2] != queue]
        self.state.queue_bindings_delete(queue)
        self._transport.passing.discard(queue)

    # -- publishing

    def prepare_message(self, body: Any, priority: int | None = None, *more: Any, **named: Any) -> Payload:
        """As kombu does. A priority is ignored, with one warning."""
        if priority:
            self._transport.warn_of_priority()
        message: Payload = super().prepare_message(body, priority, *more, **named)
        return message

    def tell(self, message: Payload, exchange: str, routing_key: str) -> None:
        """Publish to a topic exchange."""
        queues = self.typeof(exchange).lookup(self.get_table(exchange), exchange, routing_key, None)
        staying = queues - self._transport.passing
        for queue in staying:
            self._put(queue, message)
        if not staying:
            self._put_fanout(exchange, message, routing_key)

    def _lookup(self, exchange: str, routing_key: str, default: str | None = None) -> list[str]:
        found = list(super()._lookup(exchange, routing_key, default))
        if not found and self.typeof(exchange).type == "direct":
            found = [f"{routing_key}.{exchange}" if names.is_for_replies(routing_key) else routing_key]
        return found

    def _put(self, queue: str, message: Payload, **_: object) -> None:
        self._publish(names.topic_of_queue(queue), message)

    def _put_fanout(self, exchange: str, message: Payload, _key: str, **_: object) -> None:
        self._publish(names.topic_of_exchange(exchange), message)

    def _publish(self, topic: str, message: Payload) -> None:
        transport = self._transport
        delay = delay_of(message, transport.max_delay)
        transport.producer.publish(topic, encode(message, delayed=delay > 0), delay=delay)

    # -- consuming

    def basic_consume(
        self, queue: str, no_ack: bool, callback: Callable[..., object], consumer_tag: str, **more: Any
    ) -> None:
        """Begin to consume, or go on."""
        super().basic_consume(queue, no_ack, callback, consumer_tag, **more)
        (self._without_ack.add if no_ack else self._without_ack.discard)(queue)
        mailbox = self._transport.mailbox
        feed = self._feeds.get(queue)
        if feed is None:
            feed = self._feeds[queue] = mailbox.open(self, queue, self._consumers_of(queue))
        feed.cancelled = False
        self._share()

    def basic_cancel(self, consumer_tag: str) -> None:
        """Take no more. What kombu has may be answered still: the connections end after that."""
        queue = self._tag_to_queue.get(consumer_tag)
        super().basic_cancel(consumer_tag)
        feed = self._feeds.get(queue) if queue not in self._active_queues else None
        if feed is not None:
            mailbox = self._transport.mailbox
            feed.cancelled = True
            self._limit(feed, 0)
            mailbox.call(mailbox.give_back, feed)
            self._end_if_done(feed)
            self._share()

    def basic_qos(self, prefetch_size: int = 0, prefetch_count: int = 0, apply_global: bool = False) -> None:
        """How many messages kombu may have, of all queues together; 0 is `UNLIMITED` of each."""
        super().basic_qos(prefetch_size, prefetch_count, apply_global)
        self._share()
        self._transport.mailbox.ring()

    def basic_get(self, queue: str, *_: object, **__: object) -> None:
        """NotImplementedError."""
        raise NotImplementedError(f"nsqd pushes messages and can't be asked for one: consume {queue!r}")

    def _consumers_of(self, queue: str) -> list[Consumer]:
        """Those that bring what is published to a queue."""
        transport = self._transport
        listened = {
            exchange
            for exchange, _, _ in self.state.queue_bindings(queue)
            if (kind := self.typeof(exchange).type) == "fanout"
            or (kind == "topic" and queue in transport.passing)
        }
        if listened:
            channel = names.channel_of_listener(queue)
            return [transport.consumer(names.topic_of_exchange(one), channel) for one in sorted(listened)]
        topic = names.topic_of_queue(queue)
        ephemeral = names.EPHEMERAL if names.is_for_replies(queue) else ""
        return [transport.consumer(topic, transport.channel_name + ephemeral)]

    def deliver(self, delivery: Delivery) -> bool:
        """Hand a message to kombu, and say so; or see to it, if it is nothing for kombu."""
        feed, message = delivery
        mailbox = self._transport.mailbox
        callback = self._transport.callback(feed.queue)
        if feed.cancelled or callback is None:
            mailbox.call(delivery.give_back)
            return False
        try:
            payload = decode(message.body)
        except ValueError as reason:
            _log.error(
                "%s: message %s is dropped, it is none of kombu's: %s", message.topic, message.id, reason
            )
            mailbox.call(delivery.finish)
            return False
        properties = payload["properties"]
        info = properties["delivery_info"]
        if not self._is_for(feed, message, info):
            mailbox.call(delivery.finish)
            return False
        tag = properties["delivery_tag"] = f"{message.id}-{next(_tags)}"  # it may come again while it is here
        info["redelivered"] = message.attempts > 1
        if feed.queue in self._without_ack:
            mailbox.call(delivery.finish)
        else:
            self._deliveries[tag] = delivery
            feed.unanswered.add(tag)
        callback(payload)
        if len(feed.unanswered) == 1 or self._full is self.qos.can_consume():
            self._share()
        return True

    def _is_for(self, feed: Feed, message: Message, info: dict[str, Any]) -> bool:
        """Whether what an exchange told all is for this queue: it is bound that way, and heard nothing older."""
        exchange = info.get("exchange") or ""
        if message.topic != names.topic_of_exchange(exchange):
            return True
        if message.timestamp < feed.began_ns - STALE_NS and time_ns() < feed.began_ns + FIRST_NS:
            return False
        kind = self.typeof(exchange)
        return kind.type != "topic" or feed.queue in kind.lookup(
            self.get_table(exchange), exchange, info.get("routing_key") or "", None
        )

    def settle(self, tag: str, how: Callable[[Delivery], None]) -> None:
        """Answer a message. Does nothing the second time."""
        delivery = self._deliveries.pop(tag, None)
        if delivery is None:
            return
        mailbox = self._transport.mailbox
        mailbox.call(how, delivery)
        delivery.feed.unanswered.discard(tag)
        self._end_if_done(delivery.feed)
        if self._full or (self._deliveries and not delivery.feed.unanswered):
            self._share()
        mailbox.ring()  # there is room for another one

    def _share(self) -> None:
        """Share what kombu may have among the queues that it has something of.

        Each other queue may have one beyond that, as long as kombu may have more: the one that comes too late goes
        back, to another worker, and no more is asked for until there is room.
        """
        feeds = [feed for feed in self._feeds.values() if not feed.cancelled]
        busy = [feed for feed in feeds if feed.unanswered]
        limit = self.qos.prefetch_count
        self._full = not self.qos.can_consume()
        mailbox = self._transport.mailbox
        for number, feed in enumerate(busy or feeds):
            sharers = len(busy or feeds)
            share = max(limit // sharers + (number < limit % sharers), 1)
            self._limit(feed, share if limit else UNLIMITED)
        for feed in feeds:
            if busy and not feed.unanswered:
                self._limit(feed, 0 if self._full else 1 if limit else UNLIMITED)
                if self._full:
                    mailbox.call(mailbox.give_back, feed)

    def _limit(self, feed: Feed, share: int) -> None:
        if feed.share != share:
            feed.share = share
            self._transport.mailbox.call(feed.limit, share)

    def _end_if_done(self, feed: Feed) -> None:
        if feed.cancelled and not feed.unanswered and self._feeds.get(feed.queue) is feed:
            del self._feeds[feed.queue]
            self._transport.mailbox.stop(feed)

    def close(self) -> None:
        """Give back what was not answered, and close the connections."""
        super().close()
        for feed in list(self._feeds.values()):
            self._transport.mailbox.stop(feed)
        self._feeds.clear()
