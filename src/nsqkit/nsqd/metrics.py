"""/metrics for Prometheus, in pieces: each costs little, however many topics and channels there are.

Which of them are shown is decided at first, for `--metrics-max-series` limits how many.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Final, NamedTuple

from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from nsqkit.nsqd.core.age import oldest
from nsqkit.nsqd.core.broker import Broker
from nsqkit.nsqd.core.channel import Channel
from nsqkit.nsqd.core.histogram import BOUNDS, Histogram, Latencies
from nsqkit.nsqd.core.topic import Topic
from nsqkit.nsqd.daemon_metrics import daemon_families
from nsqkit.nsqd.web.daemon import Daemon
from nsqkit.options.duration import SECOND
from nsqkit.web.exposition import (
    COUNTER,
    GAUGE,
    PORTION,
    Buckets,
    Figure,
    histograms,
    of_process,
    samples,
    text,
)
from nsqkit.web.long_answer import in_order

LABELS: Final = ("topic", "channel")
BUCKETS: Final = [bound / SECOND for bound in BOUNDS]  # of latencies, in seconds

Labels = tuple[str, str]  # topic and channel


def _log_bytes(topic: Topic) -> int:
    return 0 if topic.store is None else topic.store.size_bytes()


def _age(since: int, now: int) -> float:
    """In seconds; of nothing it is 0."""
    return max(now - since, 0) / SECOND if since else 0


def _topic_figures(now: int) -> Sequence[tuple[Figure, Callable[[Topic], float]]]:
    """What is shown of each topic; `now` is the calendar's."""
    return (
        (
            Figure(GAUGE, "nsqd_topic_depth", "Messages that no channel has got yet."),
            lambda topic: topic.depth(),
        ),
        (
            Figure(
                GAUGE,
                "nsqd_topic_oldest_seconds",
                "Time since the oldest message that no channel has got yet was published.",
            ),
            lambda topic: _age(topic.waiting.oldest(), now),
        ),
        (Figure(GAUGE, "nsqd_topic_channels", "Channels."), lambda topic: len(topic.channels)),
        (Figure(COUNTER, "nsqd_topic_messages", "Messages published."), lambda topic: topic.message_count),
        (
            Figure(COUNTER, "nsqd_topic_bytes", "Bytes of the bodies published."),
            lambda topic: topic.message_bytes,
        ),
        (Figure(GAUGE, "nsqd_topic_paused", "1 if it is paused."), lambda topic: int(topic.paused)),
        (Figure(GAUGE, "nsqd_topic_log_bytes", "Bytes that its log takes on the disk."), _log_bytes),
        (
            Figure(GAUGE, "nsqd_topic_log_segments", "Files that its log has."),
            lambda topic: 0 if topic.store is None else topic.store.segment_count(),
        ),
    )


def _channel_figures(now: int) -> Sequence[tuple[Figure, Callable[[Channel], float]]]:
    """What is shown of each channel, likewise."""
    return (
        (
            Figure(GAUGE, "nsqd_channel_depth", "Messages that wait for a consumer."),
            lambda channel: channel.queue.depth(),
        ),
        (
            Figure(GAUGE, "nsqd_channel_in_flight", "Messages sent and not finished."),
            lambda channel: channel.in_flight_count,
        ),
        (
            Figure(GAUGE, "nsqd_channel_deferred", "Messages that wait for their time."),
            lambda channel: int(channel.deferred_count()),
        ),
        (
            Figure(
                GAUGE,
                "nsqd_channel_oldest_seconds",
                "Time since the oldest message that waits or is in flight was published; 0 if there is none.",
            ),
            lambda channel: _age(oldest(channel), now),
        ),
        (
            Figure(COUNTER, "nsqd_channel_messages", "Messages put here."),
            lambda channel: channel.message_count,
        ),
        (
            Figure(COUNTER, "nsqd_channel_finished", "Messages that consumers finished."),
            lambda channel: channel.finished_count,
        ),
        (
            Figure(COUNTER, "nsqd_channel_requeued", "Messages that consumers gave back."),
            lambda channel: channel.requeue_count,
        ),
        (
            Figure(COUNTER, "nsqd_channel_timed_out", "Messages not finished in time."),
            lambda channel: channel.timeout_count,
        ),
        (Figure(GAUGE, "nsqd_channel_clients", "Consumers."), lambda channel: len(channel.subscribers)),
        (Figure(GAUGE, "nsqd_channel_paused", "1 if it is paused."), lambda channel: int(channel.paused)),
    )


LATENCIES: Final[Sequence[tuple[str, str, Callable[[Latencies], Histogram]]]] = (
    (
        "nsqd_channel_publish_to_finish_seconds",
        "Time from the publish to the FIN, of the messages finished.",
        Latencies.since_publish,
    ),
    (
        "nsqd_channel_send_to_finish_seconds",
        "Time from the last delivery to the FIN, likewise.",
        Latencies.since_send,
    ),
)

OF_A_TOPIC: Final = len(_topic_figures(0))  # series
OF_A_CHANNEL: Final = len(_channel_figures(0))
OF_LATENCIES: Final = len(LATENCIES) * (len(BUCKETS) + 3)  # of a channel


class Shown(NamedTuple):
    """The topics and channels on one page, by name and in order."""

    topics: list[str]
    channels: list[Labels]
    left_out: int  # topics and channels that are not shown
    with_latencies: list[Labels]  # of the channels, those whose latencies are shown
    without_latencies: int  # those for whose latencies there is no room


def metrics_page(nsqd: Daemon) -> Iterator[bytes]:
    """The page. What is deleted while it is made is missing."""
    broker = nsqd.broker
    shown = yield from _shown(broker, nsqd.options.metrics_max_series)
    yield text([*daemon_families(nsqd), *_left_out(shown)])
    yield of_process()
    now = nsqd.now() + int(broker.calendar.ahead)
    for figure, of_topic in _topic_figures(now):
        topics = (([name], broker.topics.get(name)) for name in shown.topics)
        yield from samples(figure, ["topic"], topics, of_topic)
    for figure, of_channel in _channel_figures(now):
        yield from samples(figure, LABELS, _channels(broker, shown.channels), of_channel)
    for name, meaning, which in LATENCIES:
        found = _channels(broker, shown.with_latencies)
        yield from histograms(name, meaning, LABELS, found, partial(_buckets, which))


def _shown(broker: Broker, most: int) -> Generator[bytes, None, Shown]:
    """As many as give `most` series: topics first, so that one with many channels hides no other; latencies last."""
    names = yield from in_order(broker.topics)
    topics = list(islice(names, most // OF_A_TOPIC))
    channels: list[Labels] = []
    left_out = max(len(broker.topics) - len(topics), 0)
    room = (most - len(topics) * OF_A_TOPIC) // OF_A_CHANNEL
    for name in topics:
        topic = broker.topics.get(name)
        if topic is not None:
            ordered = yield from in_order(topic.channels)
            before = len(channels)
            channels.extend((name, channel) for channel in islice(ordered, room - before))
            left_out += len(topic.channels) - (len(channels) - before)
        yield b""
    most -= len(topics) * OF_A_TOPIC + len(channels) * OF_A_CHANNEL
    used = yield from _used(broker, channels)
    room = most // OF_LATENCIES
    return Shown(topics, channels, left_out, used[:room], max(len(used) - room, 0))


def _used(broker: Broker, channels: Iterable[Labels]) -> Generator[bytes, None, list[Labels]]:
    """The channels of which something was finished."""
    used: list[Labels] = []
    rest = _channels(broker, channels)
    while portion := list(islice(rest, PORTION)):
        used.extend(names for names, channel in portion if channel is not None and channel.finished_count)
        yield b""
    return used


def _buckets(which: Callable[[Latencies], Histogram], channel: Channel) -> Buckets:
    histogram = which(channel.latencies)
    return Buckets(BUCKETS, histogram.counts or [0] * (len(BUCKETS) + 1), histogram.sum / SECOND)


def _channels(broker: Broker, names: Iterable[Labels]) -> Iterator[tuple[Labels, Channel | None]]:
    return ((labels, _channel(broker, *labels)) for labels in names)


def _channel(broker: Broker, topic: str, name: str) -> Channel | None:
    found = broker.topics.get(topic)
    return None if found is None else found.channels.get(name)


def _left_out(shown: Shown) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "nsqd_metrics_left_out",
        "Topics, and channels of the topics shown, that --metrics-max-series leaves out.",
        value=shown.left_out,
    )
    yield GaugeMetricFamily(
        "nsqd_metrics_latencies_left_out",
        "Channels shown whose latencies --metrics-max-series leaves out.",
        value=shown.without_latencies,
    )
