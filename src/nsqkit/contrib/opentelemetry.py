"""Spans of OpenTelemetry for publishing and for handling messages, by its semantic conventions for messaging.

    async with TracedProducer("127.0.0.1:4150") as producer:
        await producer.publish("orders", b"one book")        # span "publish orders"

    Consumer("orders", "billing", nsqd="...", handler=traced(handle))   # span "process orders"

    async for message in consumer:
        async with message:
            with processing(message):                        # span "process orders"
                ...

NSQ's messages have no headers, and nsqd tells a producer no message id. So the two spans are in different traces,
unless bodies carry a context and `context_of` says how it is read. All deliveries of a message have the same id.
"""

import functools
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import Final, Unpack, cast

from opentelemetry.context import Context
from opentelemetry.trace import (
    INVALID_SPAN_CONTEXT,
    Link,
    Span,
    SpanKind,
    StatusCode,
    Tracer,
    get_current_span,
    get_tracer,
)
from opentelemetry.util.types import AttributeValue

from nsqkit.client.handlers import Handler, is_async
from nsqkit.client.message import Message
from nsqkit.client.options import ProducerKeywords, ProducerOptions
from nsqkit.client.producer import Body, Producer
from nsqkit.errors import RequeueMessage
from nsqkit.version import VERSION

ContextOf = Callable[[Message], Context | None]
"""Reads from a message's body the context that its producer has put there; None if there is none."""

_SIZE: Final = "messaging.message.body.size"
_SCHEMA: Final = "https://opentelemetry.io/schemas/1.37.0"


class TracedProducer(Producer):
    """A `Producer` with a span for each publish. `tracer` is by default the global provider's."""

    def __init__(
        self,
        *nsqd: str,
        lookupd: str | Sequence[str] = (),
        options: ProducerOptions | None = None,
        tracer: Tracer | None = None,
        **more: Unpack[ProducerKeywords],
    ) -> None:
        super().__init__(*nsqd, lookupd=lookupd, options=options, **more)
        self._tracer = tracer or _tracer()

    async def publish(self, topic: str, body: Body, *, delay: float | str | timedelta = 0) -> None:
        """Publish one message, as `Producer.publish` does, within a span."""
        with self._span(topic) as span:
            span.set_attribute(_SIZE, self._size(body))
            await super().publish(topic, body, delay=delay)

    async def publish_many(self, topic: str, bodies: Iterable[Body]) -> None:
        """Publish messages by one command, as `Producer.publish_many` does, within one span."""
        with self._span(topic) as span:
            bodies = list(bodies)
            span.set_attribute("messaging.batch.message_count", len(bodies))
            await super().publish_many(topic, bodies)

    def _span(self, topic: str) -> AbstractContextManager[Span]:
        # A client's span, not a producer's: its context does not go with the message.
        return _span(self._tracer, SpanKind.CLIENT, "publish", "send", topic, {})


def traced(handler: Handler, *, tracer: Tracer | None = None, context_of: ContextOf | None = None) -> Handler:
    """The handler with a span around each call: `Consumer(..., handler=traced(handle))`. See `processing`."""
    if is_async(handler):
        run = cast("Callable[[Message], Awaitable[object]]", handler)

        @functools.wraps(run)
        async def handle(message: Message) -> object:
            with processing(message, tracer=tracer, context_of=context_of):
                return await run(message)

        return handle

    @functools.wraps(handler)
    def handle_in_thread(message: Message) -> object:
        with processing(message, tracer=tracer, context_of=context_of):
            return handler(message)

    return handle_in_thread


@contextmanager
def processing(
    message: Message, *, tracer: Tracer | None = None, context_of: ContextOf | None = None
) -> Iterator[Span]:
    """A span while somebody works on a message. An exception makes it an error, but for RequeueMessage.

    `context_of` reads the context of the message's producer from its body; the span is its child if nothing else is
    under way here, and has a link to it in any case.
    """
    attributes: dict[str, AttributeValue] = {
        "messaging.destination.subscription.name": message.channel,
        "messaging.message.id": message.id,
        _SIZE: len(message.body),
        "nsq.message.attempts": message.attempts,
    }
    host, _, port = message.nsqd.rpartition(":")
    if port.isdecimal():
        attributes |= {"server.address": host.strip("[]"), "server.port": int(port)}
    theirs = context_of(message) if context_of is not None else None
    here = get_current_span().get_span_context().is_valid
    parent = None if here else theirs
    tracer = tracer or _tracer()
    with _span(
        tracer, SpanKind.CONSUMER, "process", "process", message.topic, attributes, parent, theirs
    ) as span:
        yield span


def _tracer() -> Tracer:
    return get_tracer("nsqkit", VERSION, schema_url=_SCHEMA)


@contextmanager
def _span(
    tracer: Tracer,
    kind: SpanKind,
    name: str,
    operation: str,
    topic: str,
    attributes: dict[str, AttributeValue],
    parent: Context | None = None,
    origin: Context | None = None,
) -> Iterator[Span]:
    """A span that tells of an exception. `parent` None is what is under way here."""
    attributes |= {
        "messaging.system": "nsq",
        "messaging.destination.name": topic,
        "messaging.operation.name": name,
        "messaging.operation.type": operation,
    }
    link = get_current_span(origin).get_span_context() if origin is not None else INVALID_SPAN_CONTEXT
    with tracer.start_as_current_span(
        f"{name} {topic}",
        parent,
        kind,
        attributes,
        [Link(link)] if link.is_valid else (),
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield span
        except RequeueMessage:
            raise
        except Exception as error:
            span.set_attribute("error.type", type(error).__qualname__)
            span.record_exception(error)
            span.set_status(StatusCode.ERROR, str(error))
            raise
