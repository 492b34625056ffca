"""The document of /stats: what the broker has counted, as JSON (field order as declared) and as text.

Fields that NSQ leaves out while they are empty are UNSET then.
"""

from collections.abc import Iterator
from datetime import datetime

import msgspec
from msgspec import UNSET, UnsetType

from nsqkit.nsqd.core.broker import Broker
from nsqkit.nsqd.core.channel import Channel
from nsqkit.nsqd.core.quantile import LatencyResult, merged_result
from nsqkit.nsqd.core.session import Session
from nsqkit.nsqd.core.subscriber import Subscriber
from nsqkit.nsqd.core.topic import Topic
from nsqkit.nsqd.memory import GcPauses, Memory, read_memory
from nsqkit.options.duration import MICROSECOND, MILLISECOND, SECOND, Duration
from nsqkit.version import NSQ_VERSION, built_with


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


class Filter(msgspec.Struct, kw_only=True):
    """What to leave out: all but one topic, all but channels of one name, clients."""

    topic: str = ""
    channel: str = ""
    clients: bool = True


def health_text(broker: Broker) -> str:
    """`OK`, or what is wrong."""
    reason = broker.health.text()
    return f"NOK - {reason}" if reason else "OK"


def collect(broker: Broker, started_at: int, wanted: Filter, pauses: GcPauses | None, now: int) -> Stats:
    """Look at everything. Without `pauses` there is no memory block."""
    return Stats(
        version=NSQ_VERSION,
        health=health_text(broker),
        start_time=started_at // SECOND,
        topics=_topics(broker, wanted, now),
        memory=UNSET if pauses is None else read_memory(pauses),
        producers=_producers(broker, wanted.topic) if wanted.clients else None,
    )


def _topics(broker: Broker, wanted: Filter, now: int) -> list[TopicStats] | None:
    if not wanted.topic:
        topics = sorted(broker.topics.values(), key=lambda topic: topic.name)
    elif wanted.topic in broker.topics:
        topics = [broker.topics[wanted.topic]]
    else:
        return None
    if wanted.channel:
        topics = [topic for topic in topics if wanted.channel in topic.channels]
    return [_topic(topic, wanted, now) for topic in topics]


def _topic(topic: Topic, wanted: Filter, now: int) -> TopicStats:
    channels = sorted(topic.channels.values(), key=lambda channel: channel.name)
    windows = [channel.latency for channel in channels if channel.latency is not None]
    latency = _latency(merged_result(windows[0].percentiles, windows, now) if windows else None)
    if wanted.channel:
        channels = [topic.channels[wanted.channel]]
    return TopicStats(
        topic_name=topic.name,
        channels=[_channel(channel, wanted, now) for channel in channels],
        depth=topic.depth(),
        backend_depth=topic.waiting.backend_depth(),
        message_count=topic.message_count,
        message_bytes=topic.message_bytes,
        paused=topic.paused,
        e2e_processing_latency=latency,
    )


def _channel(channel: Channel, wanted: Filter, now: int) -> ChannelStats:
    clients = None
    if wanted.clients:
        clients = [_client(s.session, s, wanted.topic) for s in channel.subscribers]
    return ChannelStats(
        channel_name=channel.name,
        depth=channel.queue.depth(),
        backend_depth=channel.queue.backend_depth(),
        in_flight_count=channel.in_flight_count,
        deferred_count=len(channel.deferred),
        message_count=channel.message_count,
        requeue_count=channel.requeue_count,
        timeout_count=channel.timeout_count,
        client_count=len(channel.subscribers),
        clients=clients,
        paused=channel.paused,
        e2e_processing_latency=_latency(None if channel.latency is None else channel.latency.result(now)),
    )


def _producers(broker: Broker, topic: str) -> list[ClientStats] | None:
    """Whoever has published, or has published to this topic."""
    sessions = (s for s in broker.sessions.values() if (topic in s.pub_counts if topic else s.pub_counts))
    return [_client(session, session.subscriber, topic) for session in sessions] or None


def _client(session: Session, subscriber: Subscriber | None, topic: str) -> ClientStats:
    identity = session.identity
    counts = sorted(session.pub_counts.items())
    pub_counts = [PubCount(name, count) for name, count in counts if not topic or name == topic]
    return ClientStats(
        client_id=_clean(identity.client_id),
        hostname=_clean(identity.hostname),
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
        user_agent=_clean(identity.user_agent),
        topology_zone=_clean(identity.topology_zone),
        topology_region=_clean(identity.topology_region),
        pub_counts=pub_counts or UNSET,
        tls=identity.tls,
    )


def _latency(result: LatencyResult | None) -> Latency:
    if result is None:
        return Latency(0, None)
    count, percentiles = result
    return Latency(count, [Percentile(_number(quantile), value) for quantile, value in percentiles])


def _number(value: float) -> float:
    """1.0 is shown as 1, as Go does."""
    return int(value) if value == int(value) else value


def _clean(text: str) -> str:
    """JSON lets clients send half a surrogate pair, which can't be encoded again."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


# -- as text


def as_text(document: Stats, started_at: int, now: int) -> str:
    """The document as NSQ prints it. `started_at` and `now` are ns since the epoch."""
    return "".join(f"{line}\n" for line in _lines(document, started_at, now))


def _lines(document: Stats, started_at: int, now: int) -> Iterator[str]:
    start = datetime.fromtimestamp(started_at // SECOND).astimezone().isoformat(timespec="seconds")
    yield f"nsqd v{document.version} (built w/{built_with()})"
    yield f"start_time {start.replace('+00:00', 'Z')}"
    yield f"uptime {Duration(now - started_at)}"
    yield from ("", f"Health: {document.health}")
    if not isinstance(document.memory, UnsetType):
        yield from ("", "Memory:")
        for key, value in msgspec.structs.asdict(document.memory).items():
            yield f"   {key:<25}\t{value}"
    yield from ("", "Topics:" if document.topics else "Topics: None")
    for index, topic in enumerate(document.topics or ()):
        if index:
            yield ""
        yield from _topic_lines(topic, now)
    yield from ("", "Producers:" if document.producers else "Producers: None")
    for producer in document.producers or ():
        yield f"   {_client_line(producer, now)}"


def _topic_lines(topic: TopicStats, now: int) -> Iterator[str]:
    yield (
        f"{'*P ' if topic.paused else '   '}[{topic.topic_name:<15}] depth: {topic.depth:<5} "
        f"be-depth: {topic.backend_depth:<5} msgs: {topic.message_count:<8} "
        f"e2e%: {_latency_list(topic.e2e_processing_latency)}"
    )
    for channel in topic.channels:
        yield (
            f"{'   *P ' if channel.paused else '      '}[{channel.channel_name:<25}] depth: {channel.depth:<5} "
            f"be-depth: {channel.backend_depth:<5} inflt: {channel.in_flight_count:<4} "
            f"def: {channel.deferred_count:<4} re-q: {channel.requeue_count:<5} "
            f"timeout: {channel.timeout_count:<5} msgs: {channel.message_count:<8} "
            f"e2e%: {_latency_list(channel.e2e_processing_latency)}"
        )
        for client in channel.clients or ():
            yield f"        {_client_line(client, now)}"


def _client_line(client: ClientStats, now: int) -> str:
    port = client.remote_address.rpartition(":")[2]
    name = f"{client.hostname}:{port} {client.user_agent}"
    connected = Duration(max(now // SECOND - client.connect_ts, 0) * SECOND)
    if not isinstance(client.pub_counts, UnsetType):
        total = sum(count.count for count in client.pub_counts)
        topics = ",".join(f"{count.topic}={count.count}" for count in client.pub_counts)
        return f"[{client.version} {name:<21}] msgs: {total:<8} topics: {topics} connected: {connected}"
    return (
        f"[{client.version} {name:<21}] state: {client.state} inflt: {client.in_flight_count:<4} "
        f"rdy: {client.ready_count:<4} fin: {client.finish_count:<8} re-q: {client.requeue_count:<8} "
        f"msgs: {client.message_count:<8} connected: {connected}"
    )


def _latency_list(latency: Latency) -> str:
    return ", ".join(_short(one.value) for one in latency.percentiles or ())


def _short(nanoseconds: int) -> str:
    """`1.5ms`: one decimal and the largest unit that the value exceeds."""
    for unit, size in (("s", SECOND), ("ms", MILLISECOND), ("us", MICROSECOND)):
        if nanoseconds > size:
            return f"{nanoseconds / size:.1f}{unit}"
    return f"{nanoseconds:.1f}ns"
