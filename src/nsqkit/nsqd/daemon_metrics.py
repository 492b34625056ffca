"""The figures of /metrics that are of the whole nsqd: there are as many of them whatever clients do."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Final

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from nsqkit.nsqd.storage.durations import BOUNDS, Durations
from nsqkit.nsqd.web.daemon import Daemon
from nsqkit.web.exposition import Buckets, denied, refused, versions

NSQLOOKUPDS: Final = 100  # that are shown


def daemon_families(nsqd: Daemon) -> Iterator[Metric]:
    """All of them."""
    yield versions("nsqd")
    yield from _health(nsqd)
    yield from _clients(nsqd)
    yield from _disk(nsqd)
    yield from _logs(nsqd)
    yield from _loop(nsqd)


def _health(nsqd: Daemon) -> Iterator[Metric]:
    broker = nsqd.broker
    yield _gauge(
        "nsqd_healthy", "0 while something fails that messages depend on.", not broker.health.reasons
    )
    yield _gauge("nsqd_failing", "Things that fail now; /ping names the first.", len(broker.health.reasons))
    yield _gauge(
        "nsqd_draining", "1 while publishes are refused and it ends when all is finished.", broker.draining
    )
    yield _gauge("nsqd_topics", "Topics there are.", len(broker.topics))
    yield _gauge("nsqd_held_bytes", "Bytes of messages that wait in memory.", int(broker.held.bytes))
    yield _gauge(
        "nsqd_held_limit_bytes", "Bytes above which what waits is left in the logs.", int(broker.held.limit)
    )
    yield _counter(
        "nsqd_log_lines_dropped", "Log lines that nobody took from stderr in time.", nsqd.log.dropped_count
    )
    connected = GaugeMetricFamily(
        "nsqd_lookupd_connected", "1 if there is a connection to this nsqlookupd.", labels=["address"]
    )
    for address, stands in islice(sorted(nsqd.traffic.nsqlookupds().items()), NSQLOOKUPDS):
        connected.add_metric([address], stands)
    yield connected


def _clients(nsqd: Daemon) -> Iterator[Metric]:
    traffic = nsqd.traffic
    servers = traffic.servers
    yield _gauge("nsqd_clients", "TCP connections.", len(nsqd.broker.sessions))
    yield _gauge(
        "nsqd_http_connections", "HTTP and HTTPS connections.", sum(one.connection_count for one in servers)
    )
    yield _counter("nsqd_http_requests", "HTTP requests answered.", sum(one.request_count for one in servers))
    yield denied("nsqd", nsqd.access.denied)
    yield refused("nsqd", traffic.refused)
    errors = CounterMetricFamily(
        "nsqd_client_errors", "Errors that TCP clients were answered, by code.", labels=["code"]
    )
    for code, count in sorted(_always(traffic.errors).items()):
        errors.add_metric([code], count)
    yield errors
    yield _counter("nsqd_clients_dropped", "TCP clients hung up on without an answer.", traffic.dropped)
    yield _counter(
        "nsqd_tls_handshake_failures", "TLS handshakes over TCP that failed.", traffic.handshake_failures
    )


def _always(errors: Mapping[str, int]) -> Mapping[str, int]:
    """With the codes that an alert may look for, also before there was one."""
    return {"E_AUTH_FAILED": 0, "E_UNAUTHORIZED": 0, "E_PUB_FAILED": 0, **errors}


def _disk(nsqd: Daemon) -> Iterator[Metric]:
    shared = nsqd.storage.shared
    try:
        free, total = (
            measure(nsqd.data_path) for measure in (shared.disk.free_bytes, shared.disk.total_bytes)
        )
    except OSError:  # which is in its health
        return
    yield _gauge("nsqd_disk_free_bytes", "Bytes free on the disk of the data path.", free)
    yield _gauge("nsqd_disk_bytes", "Bytes of that disk.", total)
    yield _gauge(
        "nsqd_disk_reserve_bytes",
        "Free bytes below which publishes are refused (--min-free-space); 0: they are not.",
        int(shared.min_free_bytes),
    )


def _logs(nsqd: Daemon) -> Iterator[Metric]:
    storage = nsqd.storage
    shared, journal = storage.shared, storage.journal
    yield _counter("nsqd_log_damage", "Damaged or missing places found in logs.", int(shared.damaged_count))
    yield _counter(
        "nsqd_log_torn", "Logs whose incomplete end was cut off at the start.", int(shared.torn_count)
    )
    syncs = HistogramMetricFamily(
        "nsqd_sync_seconds", "How long fdatasync took, of logs and of the journal.", labels=["file"]
    )
    for name, durations in (("log", shared.sync_durations), ("journal", journal.sync_durations)):
        buckets = _buckets(durations)
        syncs.add_metric([name], buckets.cumulated(), buckets.sum)
    yield syncs
    yield _counter(
        "nsqd_sync_failures", "Syncs of logs that failed, and are done again.", int(shared.sync_failures)
    )
    yield _gauge("nsqd_journal_bytes", "Bytes of the journal (--durability=fsync).", journal.size_bytes)
    yield _counter("nsqd_checkpoints", "Checkpoints written, of any topic.", int(shared.checkpoint_count))
    age = shared.disk.clock() - shared.checkpointed_at if shared.checkpointed_at >= 0 else 0.0
    yield _gauge(
        "nsqd_checkpoint_age_seconds", "Time since the last checkpoint; 0 before the first.", max(age, 0.0)
    )
    yield _gauge("nsqd_checkpoints_due", "Topics whose checkpoint is behind.", len(nsqd.broker.dirty))


def _loop(nsqd: Daemon) -> Iterator[Metric]:
    longest = nsqd.longest_pass()
    yield _gauge(
        "nsqd_longest_pass_seconds",
        "Most CPU time that one pass of the event loop used, since the start or POST /debug/longest_pass.",
        longest.pass_cpu_us / 1e6,
    )
    yield _gauge("nsqd_longest_turn_seconds", "Longest turn of the broker, likewise.", longest.turn_us / 1e6)


def _buckets(durations: Durations) -> Buckets:
    return Buckets(BOUNDS, durations.counts, durations.seconds)


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(name, meaning, value=value)


def _counter(name: str, meaning: str, value: float) -> Metric:
    return CounterMetricFamily(name, meaning, value=value)
