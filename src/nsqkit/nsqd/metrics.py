"""/metrics for Prometheus, in pieces: each costs little, however many topics and channels there are.

Which of them are shown is decided at first, for `--metrics-max-series` limits how many.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple

from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from nsqkit.nsqd.core.broker import Broker
from nsqkit.nsqd.core.channel import Channel
from nsqkit.nsqd.core.topic import Topic
from nsqkit.nsqd.web.daemon import Daemon
from nsqkit.web.exposition import COUNTER, GAUGE, Figure, of_process, samples, text, versions
from nsqkit.web.long_answer import in_order


def _log_bytes(topic: Topic) -> int:
    return 0 if topic.store is None else topic.store.size_bytes()


OF_TOPICS: Final[Sequence[tuple[Figure, Callable[[Topic], int]]]] = (
    (
        Figure(GAUGE, "nsqd_topic_depth", "Messages that no channel has got yet."),
        lambda topic: topic.depth(),
    ),
    (
        Figure(COUNTER, "nsqd_topic_messages", "Messages published."),
        lambda topic: topic.message_count,
    ),
    (
        Figure(COUNTER, "nsqd_topic_bytes", "Bytes of the bodies published."),
        lambda topic: topic.message_bytes,
    ),
    (
        Figure(GAUGE, "nsqd_topic_paused", "1 if it is paused."),
        lambda topic: int(topic.paused),
    ),
    (
        Figure(GAUGE, "nsqd_topic_log_bytes", "Bytes that its log takes on the disk."),
        _log_bytes,
    ),
)

OF_CHANNELS: Final[Sequence[tuple[Figure, Callable[[Channel], int]]]] = (
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
        Figure(COUNTER, "nsqd_channel_messages", "Messages put here."),
        lambda channel: channel.message_count,
    ),
    (
        Figure(COUNTER, "nsqd_channel_requeued", "Messages that consumers gave back."),
        lambda channel: channel.requeue_count,
    ),
    (
        Figure(COUNTER, "nsqd_channel_timed_out", "Messages not finished in time."),
        lambda channel: channel.timeout_count,
    ),
    (
        Figure(GAUGE, "nsqd_channel_clients", "Consumers."),
        lambda channel: len(channel.subscribers),
    ),
    (
        Figure(GAUGE, "nsqd_channel_paused", "1 if it is paused."),
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
    yield text(_of_daemon(nsqd, shown))
    yield of_process()
    for figure, of_topic in OF_TOPICS:
        topics = (([name], broker.topics.get(name)) for name in shown.topics)
        yield from samples(figure, ["topic"], topics, of_topic)
    for figure, of_channel in OF_CHANNELS:
        channels = ((names, _channel(broker, *names)) for names in shown.channels)
        yield from samples(figure, ["topic", "channel"], channels, of_channel)


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
    yield versions("nsqd")
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
