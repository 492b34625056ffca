"""The parts of /stats: what the broker has counted, in the order of the fields of the JSON.

Fields that NSQ leaves out while they are empty are UNSET then. Lists are left empty here: `stats_pages` fills them,
for they may be long.
"""

from collections.abc import Generator
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from nsqkit.nsqd.core.broker import Broker
from nsqkit.nsqd.core.channel import Channel
from nsqkit.nsqd.core.quantile import LatencyResult, ranked
from nsqkit.nsqd.core.session import Session
from nsqkit.nsqd.core.subscriber import Subscriber
from nsqkit.nsqd.core.topic import Topic
from nsqkit.nsqd.memory import GcPauses, Memory, read_memory
from nsqkit.options.duration import SECOND
from nsqkit.version import NSQ_VERSION

MERGED: Final = 10  # windows of latencies that are merged in one step: some tenths of a millisecond


class Percentile(msgspec.Struct):
    """A share of the messages, and the ns within which they were finished."""

    quantile: float
    value: int


class Latency(msgspec.Struct):
    """From publish to FIN, over the last window. Percentiles are null when nobody asked for any."""

    count: int
    percentiles: list[Percentile] | None


class PubCount(msgspec.Struct):
    """Messages that one client published to one topic."""

    topic: str
    count: int


class ClientStats(msgspec.Struct, kw_only=True):
    """One TCP connection, as a consumer or as a producer."""

    client_id: str
    hostname: str
    version: str = "V2"
    remote_address: str
    state: int
    ready_count: int
    in_flight_count: int
    message_count: int
    finish_count: int
    requeue_count: int
    connect_ts: int  # unix seconds
    sample_rate: int
    deflate: bool
    snappy: bool
    user_agent: str
    authed: bool | UnsetType = UNSET
    auth_identity: str | UnsetType = UNSET
    auth_identity_url: str | UnsetType = UNSET
    topology_zone: str
    topology_region: str
    pub_counts: list[PubCount] | UnsetType = UNSET
    tls: bool
    tls_cipher_suite: str = ""
    tls_version: str = ""
    tls_negotiated_protocol: str = ""
    tls_negotiated_protocol_is_mutual: bool = False


class ChannelStats(msgspec.Struct, kw_only=True):
    """One channel. The depth is what is ready; in flight and deferred are counted apart."""

    channel_name: str
    depth: int
    backend_depth: int
    in_flight_count: int
    deferred_count: int
    message_count: int
    zone_local_msg_count: int | UnsetType = UNSET
    region_local_msg_count: int | UnsetType = UNSET
    global_msg_count: int | UnsetType = UNSET
    requeue_count: int
    timeout_count: int
    client_count: int
    clients: list[ClientStats] | None
    paused: bool
    e2e_processing_latency: Latency


class TopicStats(msgspec.Struct, kw_only=True):
    """One topic. The depth is what no channel has got yet."""

    topic_name: str
    channels: list[ChannelStats]
    depth: int
    backend_depth: int
    message_count: int
    message_bytes: int
    paused: bool
    e2e_processing_latency: Latency


class Stats(msgspec.Struct, kw_only=True):
    """The whole document."""

    version: str
    health: str
    start_time: int  # unix seconds
    topics: list[TopicStats] | None
    memory: Memory | UnsetType
    producers: list[ClientStats] | None


class Question(msgspec.Struct, kw_only=True):
    """What is asked: of one topic or all, of channels of one name or all, with clients or without, and when.

    Times are ns since the epoch. Without `pauses` there is no memory block.
    """

    topic: str = ""
    channel: str = ""
    clients: bool = True
    started_at: int
    now: int
    pauses: GcPauses | None = None


def health_text(broker: Broker) -> str:
    """`OK`, or what is wrong."""
    reason = broker.health.text()
    return f"NOK - {reason}" if reason else "OK"


def head(broker: Broker, asked: Question) -> Stats:
    """The document itself."""
    return Stats(
        version=NSQ_VERSION,
        health=health_text(broker),
        start_time=asked.started_at // SECOND,
        topics=[],
        memory=UNSET if asked.pauses is None else read_memory(asked.pauses),
        producers=[],
    )


def producers(broker: Broker, topic: str) -> list[Session]:
    """Whoever has published, or has published to this topic."""
    return [s for s in broker.sessions.values() if (topic in s.pub_counts if topic else s.pub_counts)]


def topic_stats(topic: Topic, channels: list[Channel], now: int) -> Generator[bytes, None, TopicStats]:
    """One topic, of which these are the channels. Their windows are merged in steps, each an empty piece."""
    latency = None
    quantiles = topic.broker.settings.latency_quantiles
    if quantiles and channels:
        samples: dict[int, int] = {}
        for number, channel in enumerate(channels):
            if channel.latency is not None:
                channel.latency.add_to(samples, now)
            if number % MERGED == MERGED - 1:
                yield b""
        latency = ranked(quantiles, samples)
    return TopicStats(
        topic_name=topic.name,
        channels=[],
        depth=topic.depth(),
        backend_depth=topic.waiting.backend_depth(),
        message_count=topic.message_count,
        message_bytes=topic.message_bytes,
        paused=topic.paused,
        e2e_processing_latency=_latency(latency),
    )


def channel_stats(channel: Channel, asked: Question) -> ChannelStats:
    """One channel."""
    near, regional, elsewhere = channel.sent_counts
    return ChannelStats(
        channel_name=channel.name,
        depth=channel.queue.depth(),
        backend_depth=channel.queue.backend_depth(),
        in_flight_count=channel.in_flight_count,
        deferred_count=int(channel.deferred_count()),
        message_count=channel.message_count,
        zone_local_msg_count=int(near) or UNSET,
        region_local_msg_count=int(regional) or UNSET,
        global_msg_count=int(elsewhere) or UNSET,
        requeue_count=channel.requeue_count,
        timeout_count=channel.timeout_count,
        client_count=len(channel.subscribers),
        clients=[] if asked.clients else None,
        paused=channel.paused,
        e2e_processing_latency=_latency(
            None if channel.latency is None else channel.latency.result(asked.now)
        ),
    )


def pub_counts(session: Session, topic: str) -> list[tuple[str, int]]:
    """What a client has published, by topic; with a topic, to that one."""
    if topic:
        return [(topic, session.pub_counts[topic])] if topic in session.pub_counts else []
    return sorted(session.pub_counts.items())


def client_stats(session: Session, subscriber: Subscriber | None, *, publishes: bool) -> ClientStats:
    """One connection. If it publishes, its counts are to be filled in."""
    identity = session.identity
    security = identity.security
    permissions = None if session.guard is None else session.guard.permissions
    return ClientStats(
        client_id=identity.client_id,
        hostname=identity.hostname,
        remote_address=session.address,
        state=session.state,
        ready_count=subscriber.ready_count if subscriber else 0,
        in_flight_count=len(subscriber.in_flight) if subscriber else 0,
        message_count=subscriber.message_count if subscriber else 0,
        finish_count=subscriber.finish_count if subscriber else 0,
        requeue_count=subscriber.requeue_count if subscriber else 0,
        connect_ts=session.connected_at // SECOND,
        sample_rate=identity.sample_rate,
        deflate=identity.deflate,
        snappy=identity.snappy,
        user_agent=identity.user_agent,
        authed=UNSET if permissions is None else True,
        auth_identity=(permissions.identity if permissions else "") or UNSET,
        auth_identity_url=(permissions.identity_url if permissions else "") or UNSET,
        topology_zone=identity.topology_zone,
        topology_region=identity.topology_region,
        pub_counts=[] if publishes else UNSET,
        tls=security is not None,
        tls_cipher_suite=security.cipher_suite if security else "",
        tls_version=security.version if security else "",
        tls_negotiated_protocol=security.protocol if security else "",
        tls_negotiated_protocol_is_mutual=security is not None,
    )


def _latency(result: LatencyResult | None) -> Latency:
    if result is None:
        return Latency(0, None)
    count, percentiles = result
    return Latency(count, [Percentile(_number(quantile), value) for quantile, value in percentiles])


def _number(value: float) -> float:
    """1.0 is shown as 1, as Go does."""
    return int(value) if value == int(value) else value
