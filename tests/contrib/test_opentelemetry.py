"""The spans that publishing and handling make, with OpenTelemetry's own SDK and a real nsqd."""

import asyncio
import json
import threading
from contextlib import nullcontext

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import messaging_attributes
from opentelemetry.trace import SpanKind, StatusCode, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from nsqkit import Consumer, EmptyMessage, RequeueMessage
from nsqkit.contrib.opentelemetry import TracedProducer, processing, traced

WITHIN_S = 20
CONTEXTS = TraceContextTextMapPropagator()


class Traces:
    """A tracer, and the spans that ended."""

    def __init__(self):
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = provider.get_tracer("test")

    def ended(self):
        """The spans, the oldest end first."""
        return list(self._exporter.get_finished_spans())


@pytest.fixture
def traces():
    """No spans so far."""
    return Traces()


def publish(nsqd, traces, *bodies):
    """Publish messages to orders, each by itself."""

    async def play():
        async with TracedProducer(nsqd.address, tracer=traces.tracer) as producer:
            for body in bodies:
                await producer.publish("orders", body)

    asyncio.run(play())


def handle(nsqd, handler, count=1):
    """Have a handler called so many times."""

    async def play():
        left = count

        async def after(message):
            nonlocal left
            try:
                await handler(message)
            finally:
                left -= 1
                if not left:
                    done.set()

        done = asyncio.Event()
        async with Consumer("orders", "billing", nsqd=nsqd.address, handler=after):
            async with asyncio.timeout(WITHIN_S):
                await done.wait()

    asyncio.run(play())


def test_a_publish_is_a_span(nsqd, traces):
    """A publish is a client's span with the topic in its name, and the attributes of the conventions."""
    publish(nsqd, traces, b"one book")

    (span,) = traces.ended()
    assert ("publish orders", SpanKind.CLIENT, StatusCode.UNSET) == (
        span.name,
        span.kind,
        span.status.status_code,
    )
    assert {
        "messaging.system": "nsq",
        "messaging.destination.name": "orders",
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
        "messaging.message.body.size": 8,
    } == dict(span.attributes)


def test_many_published_at_once_are_one_span(nsqd, traces):
    """publish_many is one span that has the number of messages, whatever gives them."""

    async def play():
        async with TracedProducer(nsqd.address, tracer=traces.tracer) as producer:
            await producer.publish_many("orders", (b"x" for _ in range(3)))

    asyncio.run(play())

    (span,) = traces.ended()
    assert ("publish orders", 3) == (span.name, span.attributes["messaging.batch.message_count"])
    assert 3 == nsqd.topic("orders")["message_count"]


def test_a_publish_that_fails_is_an_error(nsqd, traces):
    """Its span has the class of the error, and its text."""
    with pytest.raises(EmptyMessage):
        publish(nsqd, traces, b"")

    (span,) = traces.ended()
    assert (StatusCode.ERROR, "message 1 is empty") == (span.status.status_code, span.status.description)
    assert "EmptyMessage" == span.attributes["error.type"]
    assert ["exception"] == [event.name for event in span.events]


def test_a_handled_message_is_a_span(nsqd, traces):
    """A call of the handler is a consumer's span in a trace of its own, with id, channel, attempts and nsqd."""
    publish(nsqd, traces, b"one book")
    seen = []

    async def remember(message):
        seen.append(message.id)

    handle(nsqd, traced(remember, tracer=traces.tracer))

    published, span = traces.ended()
    assert ("process orders", SpanKind.CONSUMER, StatusCode.UNSET) == (
        span.name,
        span.kind,
        span.status.status_code,
    )
    assert span.parent is None
    assert published.context.trace_id != span.context.trace_id
    host, port = nsqd.address.split(":")
    assert {
        "messaging.system": "nsq",
        "messaging.destination.name": "orders",
        "messaging.destination.subscription.name": "billing",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.message.id": seen[0],
        "messaging.message.body.size": 8,
        "nsq.message.attempts": 1,
        "server.address": host,
        "server.port": int(port),
    } == dict(span.attributes)


def test_a_handler_that_fails_is_an_error_and_a_requeue_is_none(nsqd, traces):
    """An exception makes the span an error, RequeueMessage does not; deliveries of one message have one id."""
    publish(nsqd, traces, b"one book")

    async def fail(message):
        if message.attempts == 1:
            raise RequeueMessage(0, backoff=False)
        raise LookupError("no such book")

    handle(nsqd, traced(fail, tracer=traces.tracer), count=2)

    first, second = traces.ended()[1:]
    assert (StatusCode.UNSET, ()) == (first.status.status_code, first.events)
    assert (StatusCode.ERROR, "no such book") == (second.status.status_code, second.status.description)
    assert ("LookupError", 2) == (second.attributes["error.type"], second.attributes["nsq.message.attempts"])
    assert first.attributes["messaging.message.id"] == second.attributes["messaging.message.id"]


def test_a_plain_function_stays_one(nsqd, traces):
    """A traced handler that is no coroutine runs in a thread as before, and keeps its name."""
    publish(nsqd, traces, b"one book")
    threads = []
    done = threading.Event()

    def compute(_):
        threads.append(threading.current_thread())
        done.set()

    async def play():
        handler = traced(compute, tracer=traces.tracer)
        assert "compute" == handler.__name__
        async with Consumer("orders", "billing", nsqd=nsqd.address, handler=handler):
            assert await asyncio.to_thread(done.wait, WITHIN_S)

    asyncio.run(play())
    assert threading.main_thread() not in threads
    assert ["publish orders", "process orders"] == [span.name for span in traces.ended()]


def test_a_body_may_carry_the_context(nsqd, traces):
    """With context_of a span is the child of the one that the body names, and has a link to it.

    Within another span it is that one's child, and has the link. A body without a context makes neither.
    """
    with traces.tracer.start_as_current_span("order") as order:
        body: dict[str, str] = {}
        CONTEXTS.inject(body)
    publish(nsqd, traces, json.dumps(body).encode(), json.dumps(body).encode(), b"{}")

    async def play():
        async with Consumer("orders", "billing", nsqd=nsqd.address) as consumer:
            for number in range(3):
                message = await consumer.get(WITHIN_S)
                assert message is not None
                async with message:
                    outer = traces.tracer.start_as_current_span("outer") if number == 1 else nullcontext()
                    with outer, processing(message, tracer=traces.tracer, context_of=context_of) as span:
                        assert span is get_current_span()

    asyncio.run(play())

    first, second, outer, third = (
        span for span in traces.ended() if span.name in ("process orders", "outer")
    )
    theirs = order.get_span_context()
    assert theirs.span_id == first.parent.span_id
    assert [theirs.span_id] == [link.context.span_id for link in first.links]
    assert outer.context.span_id == second.parent.span_id
    assert [theirs.span_id] == [link.context.span_id for link in second.links]
    assert (None, ()) == (third.parent, third.links)


def context_of(message):
    """What the body says."""
    return CONTEXTS.extract(message.json())


def test_names_are_those_of_the_conventions(nsqd, traces):
    """Every attribute under `messaging.` is one that the package of semantic conventions knows, and not deprecated."""
    publish(nsqd, traces, b"one book")

    async def accept(_):
        pass

    handle(nsqd, traced(accept, tracer=traces.tracer))

    known = {value for name, value in vars(messaging_attributes).items() if name.isupper()}
    used = {name for span in traces.ended() for name in span.attributes if name.startswith("messaging.")}
    assert set() == used - known
    assert len(used) > 5


def test_without_a_tracer_the_global_provider_is_asked(nsqd):
    """Without an SDK nothing is recorded, and everything works."""

    async def play():
        done = asyncio.Event()

        async def accept(_):
            done.set()

        async with TracedProducer(nsqd.address) as producer:
            await producer.publish("orders", b"one book")
        async with Consumer("orders", "billing", nsqd=nsqd.address, handler=traced(accept)):
            async with asyncio.timeout(WITHIN_S):
                await done.wait()

    asyncio.run(play())
    assert (1, 0) == (nsqd.topic("orders")["message_count"], nsqd.channel("orders", "billing")["depth"])
