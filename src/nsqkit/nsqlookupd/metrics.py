"""nsqlookupd's /metrics for Prometheus, in pieces: each costs little, however much is registered."""

from collections.abc import Generator, Iterator, Sequence
from itertools import islice
from typing import Final

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from nsqkit.nsqlookupd.http import Daemon
from nsqkit.nsqlookupd.registrations import PORTION, Registrations, Topic
from nsqkit.web.exposition import GAUGE, Figure, denied, of_process, refused, samples, text, versions
from nsqkit.web.long_answer import in_order

PRODUCERS: Final = Figure(GAUGE, "nsqlookupd_topic_producers", "nsqds that have the topic.")
CHANNELS: Final = Figure(GAUGE, "nsqlookupd_topic_channels", "Channels known of the topic.")

OF_TOPICS: Final = 2  # series of each topic


def metrics_page(lookupd: Daemon) -> Iterator[bytes]:
    """The page. What is forgotten while it is made is missing."""
    registrations, now = lookupd.registrations, lookupd.now()
    known = registrations.topics(now)
    names = yield from in_order(known)
    shown = list(islice(names, lookupd.options.metrics_max_series // OF_TOPICS))
    left_out = max(len(known) - len(shown), 0)
    active = yield from _active(registrations, now)
    while registrations.forget_tombstones(now):
        yield b""
    yield text(_of_daemon(lookupd, active, left_out))
    yield of_process()
    yield from samples(PRODUCERS, ["topic"], _topics(lookupd, shown), lambda topic: len(topic.producers))
    yield from samples(CHANNELS, ["topic"], _topics(lookupd, shown), lambda topic: len(topic.channels))


def _active(registrations: Registrations, now: int) -> Generator[bytes, None, int]:
    """How many nsqds gave a sign of life lately."""
    peers = iter(registrations.peers())
    active = 0
    while portion := list(islice(peers, PORTION)):
        active += sum(registrations.is_active(peer, now) for peer in portion)
        yield b""
    return active


def _topics(lookupd: Daemon, shown: Sequence[str]) -> Iterator[tuple[list[str], Topic | None]]:
    known = lookupd.registrations.topics(lookupd.now())
    return (([name], known.get(name)) for name in shown)


def _of_daemon(lookupd: Daemon, active: int, left_out: int) -> Iterator[Metric]:
    counts, registered = lookupd.counts(), lookupd.registrations.counts()
    yield versions("nsqlookupd")
    yield GaugeMetricFamily("nsqlookupd_topics", "Topics known.", value=registered.topics)
    yield GaugeMetricFamily("nsqlookupd_channels", "Channels known.", value=registered.channels)
    yield GaugeMetricFamily(
        "nsqlookupd_registrations",
        "Topics and channels that nsqds have, each counted once for each of them.",
        value=registered.entries,
    )
    yield GaugeMetricFamily(
        "nsqlookupd_max_registrations",
        "What --max-registrations says of them, and of topics and channels known.",
        value=lookupd.options.max_registrations,
    )
    producers = GaugeMetricFamily(
        "nsqlookupd_producers", "nsqds that are connected, by whether they are heard of.", labels=["state"]
    )
    producers.add_metric(["active"], active)
    producers.add_metric(["inactive"], max(registered.peers - active, 0))
    yield producers
    yield GaugeMetricFamily(
        "nsqlookupd_tombstones", "Topics of an nsqd that are hidden now.", value=registered.tombstones
    )
    yield GaugeMetricFamily("nsqlookupd_connections", "TCP connections.", value=counts.connections)
    yield GaugeMetricFamily("nsqlookupd_http_connections", "HTTP connections.", value=counts.http_connections)
    yield CounterMetricFamily(
        "nsqlookupd_http_requests", "HTTP requests answered.", value=counts.http_requests
    )
    yield denied("nsqlookupd", lookupd.access.denied)
    yield refused("nsqlookupd", counts.connections_refused)
    commands = CounterMetricFamily("nsqlookupd_commands", "Commands over TCP, by name.", labels=["command"])
    for name, count in sorted(counts.commands.items()):
        commands.add_metric([name], count)
    yield commands
    yield CounterMetricFamily(
        "nsqlookupd_refused", "TCP connections ended with an error, such as E_TOO_MANY.", value=counts.refused
    )
    yield CounterMetricFamily(
        "nsqlookupd_log_lines_dropped",
        "Log lines that nobody took from stderr in time.",
        value=lookupd.log.dropped_count,
    )
    yield GaugeMetricFamily(
        "nsqlookupd_longest_pass_seconds",
        "Most CPU time that one pass of the event loop used since the start.",
        value=counts.longest_pass_s,
    )
    yield GaugeMetricFamily(
        "nsqlookupd_metrics_left_out", "Topics that --metrics-max-series leaves out.", value=left_out
    )
