"""/metrics for Prometheus, in pieces: each costs little, however many topics and channels there are.

A family's samples must stand together, so the topics and channels are walked through once for each: each sample is of
the moment its piece was made. Which are shown is decided at first, for `--metrics-max-series` limits how many.

prometheus_client writes the text. Loading it takes a while, so whoever wants this module loads it in a thread.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from nsqkit.nsqd.core.broker import Broker
from nsqkit.nsqd.core.channel import Channel
from nsqkit.nsqd.core.topic import Topic
from nsqkit.nsqd.web.daemon import Daemon
from nsqkit.version import NSQ_VERSION, build
from nsqkit.web.long_answer import in_order

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4

PORTION: Final = 50  # samples in one piece


class Figure(NamedTuple):
    """A family of samples: one of each topic, or of each channel."""

    kind: type[CounterMetricFamily] | type[GaugeMetricFamily]
    name: str
    meaning: str


def _log_bytes(topic: Topic) -> int:
    return 0 if topic.store is None else topic.store.size_bytes()


OF_TOPICS: Final[Sequence[tuple[Figure, Callable[[Topic], int]]]] = (
    (
        Figure(GaugeMetricFamily, "nsqd_topic_depth", "Messages that no channel has got yet."),
        lambda topic: topic.depth(),
    ),
    (
        Figure(CounterMetricFamily, "nsqd_topic_messages", "Messages published."),
        lambda topic: topic.message_count,
    ),
    (
        Figure(CounterMetricFamily, "nsqd_topic_bytes", "Bytes of the bodies published."),
        lambda topic: topic.message_bytes,
    ),
    (
        Figure(GaugeMetricFamily, "nsqd_topic_paused", "1 if it is paused."),
        lambda topic: int(topic.paused),
    ),
    (
        Figure(GaugeMetricFamily, "nsqd_topic_log_bytes", "Bytes that its log takes on the disk."),
        _log_bytes,
    ),
)

OF_CHANNELS: Final[Sequence[tuple[Figure, Callable[[Channel], int]]]] = (
    (
        Figure(GaugeMetricFamily, "nsqd_channel_depth", "Messages that wait for a consumer."),
        lambda channel: channel.queue.depth(),
    ),
    (
        Figure(GaugeMetricFamily, "nsqd_channel_in_flight", "Messages sent and not finished."),
        lambda channel: channel.in_flight_count,
    ),
    (
        Figure(GaugeMetricFamily, "nsqd_channel_deferred", "Messages that wait for their time."),
        lambda channel: int(channel.deferred_count()),
    ),
    (
        Figure(CounterMetricFamily, "nsqd_channel_messages", "Messages put here."),
        lambda channel: channel.message_count,
    ),
    (
        Figure(CounterMetricFamily, "nsqd_channel_requeued", "Messages that consumers gave back."),
        lambda channel: channel.requeue_count,
    ),
    (
        Figure(CounterMetricFamily, "nsqd_channel_timed_out", "Messages not finished in time."),
        lambda channel: channel.timeout_count,
    ),
    (
        Figure(GaugeMetricFamily, "nsqd_channel_clients", "Consumers."),
        lambda channel: len(channel.subscribers),
    ),
    (
        Figure(GaugeMetricFamily, "nsqd_channel_paused", "1 if it is paused."),
        lambda channel: int(channel.paused),
    ),
)


class Shown(NamedTuple):
    """The topics and channels on one page, by name and in order."""

    topics: list[str]
    channels: list[tuple[str, str]]
    left_out: int  # topics and channels that are not shown


def metrics_page(nsqd: Daemon) -> Iterator[bytes]:
    """The page. What is deleted while it is made is missing."""
    broker = nsqd.broker
    shown = yield from _shown(broker, nsqd.options.metrics_max_series)
    yield generate_latest(_Families(_of_daemon(nsqd, shown)))
    process = CollectorRegistry()
    ProcessCollector(registry=process)
    GCCollector(registry=process)
    yield generate_latest(process)
    for figure, of_topic in OF_TOPICS:
        topics = (broker.topics.get(name) for name in shown.topics)
        values = (([t.name], of_topic(t)) if t is not None else None for t in topics)
        yield from _family(figure, ["topic"], values)
    for figure, of_channel in OF_CHANNELS:
        channels = (_channel(broker, *names) for names in shown.channels)
        values = (([c.topic.name, c.name], of_channel(c)) if c is not None else None for c in channels)
        yield from _family(figure, ["topic", "channel"], values)


def _shown(broker: Broker, most: int) -> Generator[bytes, None, Shown]:
    """As many as give `most` series: topics first, so that one with many channels hides no other."""
    names = yield from in_order(broker.topics)
    shown = Shown(list(islice(names, most // len(OF_TOPICS))), [], 0)
    left_out = max(len(broker.topics) - len(shown.topics), 0)
    room = (most - len(shown.topics) * len(OF_TOPICS)) // len(OF_CHANNELS)
    for name in shown.topics:
        topic = broker.topics.get(name)
        if topic is not None:
            channels = yield from in_order(topic.channels)
            before = len(shown.channels)
            shown.channels.extend((name, channel) for channel in islice(channels, room - before))
            left_out += len(topic.channels) - (len(shown.channels) - before)
        yield b""
    return shown._replace(left_out=left_out)


def _channel(broker: Broker, topic: str, name: str) -> Channel | None:
    found = broker.topics.get(topic)
    return None if found is None else found.channels.get(name)


def _of_daemon(nsqd: Daemon, shown: Shown) -> Iterator[Metric]:
    longest = nsqd.longest_pass()
    yield InfoMetricFamily("nsqd", "Versions.", value={"version": NSQ_VERSION, "build": build()})
    yield GaugeMetricFamily(
        "nsqd_healthy",
        "0 while something fails that messages depend on.",
        value=not nsqd.broker.health.reasons,
    )
    yield GaugeMetricFamily("nsqd_topics", "Topics there are.", value=len(nsqd.broker.topics))
    yield GaugeMetricFamily("nsqd_clients", "TCP connections.", value=len(nsqd.broker.sessions))
    yield GaugeMetricFamily(
        "nsqd_longest_pass_seconds",
        "Most CPU time that one pass of the event loop used, since the start or POST /debug/longest_pass.",
        value=longest.pass_cpu_us / 1e6,
    )
    yield GaugeMetricFamily(
        "nsqd_longest_turn_seconds", "Longest turn of the broker, likewise.", value=longest.turn_us / 1e6
    )
    yield GaugeMetricFamily(
        "nsqd_metrics_left_out",
        "Topics, and channels of the topics shown, that --metrics-max-series leaves out.",
        value=shown.left_out,
    )


def _family(
    figure: Figure, labels: Sequence[str], values: Iterator[tuple[Sequence[str], int] | None]
) -> Iterator[bytes]:
    """A family in portions, of which only the first has a head. None is what is no more."""
    head = b""
    while portion := list(islice(values, PORTION)):
        family = figure.kind(figure.name, figure.meaning, labels=labels)
        for sample in portion:
            if sample is not None:
                family.add_metric(*sample)
        text = generate_latest(_Families([family]))
        if not head:
            head = text[: text.index(b"\n", text.index(b"\n") + 1) + 1]
            yield text
        else:
            yield text.removeprefix(head)


class _Families(Collector):
    """What prometheus_client takes for a registry."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """The families."""
        return self._families
