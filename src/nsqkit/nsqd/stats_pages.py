"""/stats as JSON and as NSQ's text, in pieces: each costs little, however many topics, channels and clients there are.

A topic with up to PORTION channels and clients is one piece, and so consistent by itself; a larger one is consistent
channel by channel. What is made meanwhile may be missing, and what was deleted is.
"""

from collections.abc import Callable, Collection, Generator, Iterator
from datetime import datetime
from itertools import islice
from typing import Final

import msgspec
from msgspec import UnsetType

from nsqkit.gojson import encode_json
from nsqkit.nsqd import stats
from nsqkit.nsqd.core.broker import Broker
from nsqkit.nsqd.core.channel import Channel
from nsqkit.nsqd.core.session import Session
from nsqkit.nsqd.core.subscriber import Subscriber
from nsqkit.nsqd.core.topic import Topic
from nsqkit.nsqd.stats import ChannelStats, Latency, PubCount, Question
from nsqkit.options.duration import MICROSECOND, MILLISECOND, SECOND, Duration
from nsqkit.version import built_with
from nsqkit.web.long_answer import in_order

PORTION: Final = 100
"""Rows in one piece: a channel, a client, or so many topics that one client has published to."""

Rows = Iterator[bytes]


# -- as JSON


def json_page(broker: Broker, asked: Question) -> Rows:
    """The document as JSON."""
    document = encode_json(stats.head(broker, asked))
    start, end = _cut(document, b"topics")
    between, end = _cut(end, b"producers")
    names = yield from in_order(_names(broker, asked))
    yield start
    if asked.topic and asked.topic not in broker.topics:
        yield b"null"
    else:
        yield from _list(_topics(broker, names, asked, _json_topic))
    yield between
    sessions = stats.producers(broker, asked.topic) if asked.clients else []
    if sessions:
        yield from _list(_portions(_json_client(s, s.subscriber, asked.topic)) for s in sessions)
    else:
        yield b"null"
    yield end


def _json_topic(topic: Topic, asked: Question) -> Rows:
    channels = yield from _channels(topic)
    one = yield from stats.topic_stats(topic, channels, asked.now)
    start, end = _cut(encode_json(one), b"channels")
    yield start
    yield from _list(_json_channel(channel, asked) for channel in _wanted(channels, asked))
    yield end


def _json_channel(channel: Channel, asked: Question) -> Rows:
    document = encode_json(stats.channel_stats(channel, asked))
    if channel.latency is not None:
        yield b""  # its percentiles took a while
    if not asked.clients or not channel.subscribers:
        yield document
        return
    start, end = _cut(document, b"clients")
    yield start
    yield from _list(_json_client(s.session, s, asked.topic) for s in list(channel.subscribers) if s.session)
    yield end


def _json_client(session: Session, subscriber: Subscriber | None, topic: str) -> Rows:
    counts = stats.pub_counts(session, topic)
    document = encode_json(stats.client_stats(session, subscriber, publishes=bool(counts)))
    if not counts:
        yield document
        return
    start, end = _cut(document, b"pub_counts")
    yield start
    yield from _list(
        iter([encode_json([PubCount(*one) for one in counts[at : at + PORTION]])[1:-1]])
        for at in range(0, len(counts), PORTION)
    )
    yield end


def _cut(document: bytes, name: bytes) -> tuple[bytes, bytes]:
    """JSON, before and after the empty list of this name. (Inside of strings quotes are escaped.)"""
    start, mark, end = document.partition(b'"%b":[]' % name)
    return start + mark[:-2], end


def _list(items: Iterator[Rows]) -> Rows:
    """A JSON list of items."""
    separator = b"["
    for item in items:
        yield separator
        yield from item
        separator = b","
    yield b"]" if separator == b"," else b"[]"


# -- as text


def text_page(broker: Broker, asked: Question) -> Rows:
    """The document as NSQ prints it."""
    document = stats.head(broker, asked)
    start = datetime.fromtimestamp(asked.started_at // SECOND).astimezone().isoformat(timespec="seconds")
    yield _line(f"nsqd v{document.version} (built w/{built_with()})")
    yield _line(f"start_time {start.replace('+00:00', 'Z')}")
    yield _line(f"uptime {Duration(asked.now - asked.started_at)}")
    yield _line(f"\nHealth: {document.health}")
    if not isinstance(document.memory, UnsetType):
        yield _line("\nMemory:")
        for key, value in msgspec.structs.asdict(document.memory).items():
            yield _line(f"   {key:<25}\t{value}")
    names = yield from in_order(_names(broker, asked))
    separator = b"\nTopics:\n"
    for topic in _topics(broker, names, asked, _topic_lines):
        yield separator
        yield from topic
        separator = b"\n"
    if separator != b"\n":
        yield b"\nTopics: None\n"
    sessions = stats.producers(broker, asked.topic) if asked.clients else []
    yield b"\nProducers:\n" if sessions else b"\nProducers: None\n"
    for session in sessions:
        yield b"   " + _client_line(session, session.subscriber, asked)


def _topic_lines(topic: Topic, asked: Question) -> Rows:
    channels = yield from _channels(topic)
    one = yield from stats.topic_stats(topic, channels, asked.now)
    yield _line(
        f"{'*P ' if one.paused else '   '}[{one.topic_name:<15}] depth: {one.depth:<5} "
        f"be-depth: {one.backend_depth:<5} msgs: {one.message_count:<8} "
        f"e2e%: {_latency_list(one.e2e_processing_latency)}"
    )
    for channel in _wanted(channels, asked):
        yield _channel_line(stats.channel_stats(channel, asked))
        if channel.latency is not None:
            yield b""
        for subscriber in list(channel.subscribers) if asked.clients else ():
            if subscriber.session is not None:
                yield b"        " + _client_line(subscriber.session, subscriber, asked)


def _channel_line(channel: ChannelStats) -> bytes:
    return _line(
        f"{'   *P ' if channel.paused else '      '}[{channel.channel_name:<25}] depth: {channel.depth:<5} "
        f"be-depth: {channel.backend_depth:<5} inflt: {channel.in_flight_count:<4} "
        f"def: {channel.deferred_count:<4} re-q: {channel.requeue_count:<5} "
        f"timeout: {channel.timeout_count:<5} msgs: {channel.message_count:<8} "
        f"e2e%: {_latency_list(channel.e2e_processing_latency)}"
    )


def _client_line(session: Session, subscriber: Subscriber | None, asked: Question) -> bytes:
    counts = stats.pub_counts(session, asked.topic)
    client = stats.client_stats(session, subscriber, publishes=bool(counts))
    port = client.remote_address.rpartition(":")[2]
    name = f"{client.hostname}:{port} {client.user_agent}"
    connected = Duration(max(asked.now // SECOND - client.connect_ts, 0) * SECOND)
    if counts:
        total = sum(count for _, count in counts)
        topics = ",".join(f"{topic}={count}" for topic, count in counts)
        return _line(
            f"[{client.version} {name:<21}] msgs: {total:<8} topics: {topics} connected: {connected}"
        )
    return _line(
        f"[{client.version} {name:<21}] state: {client.state} inflt: {client.in_flight_count:<4} "
        f"rdy: {client.ready_count:<4} fin: {client.finish_count:<8} re-q: {client.requeue_count:<8} "
        f"msgs: {client.message_count:<8} connected: {connected}"
    )


def _line(text: str) -> bytes:
    return text.encode("utf-8", "replace") + b"\n"


def _latency_list(latency: Latency) -> str:
    return ", ".join(_short(one.value) for one in latency.percentiles or ())


def _short(nanoseconds: int) -> str:
    """`1.5ms`: one decimal and the largest unit that the value exceeds."""
    for unit, size in (("s", SECOND), ("ms", MILLISECOND), ("us", MICROSECOND)):
        if nanoseconds > size:
            return f"{nanoseconds / size:.1f}{unit}"
    return f"{nanoseconds:.1f}ns"


# -- what is shown


def _names(broker: Broker, asked: Question) -> Collection[str]:
    return [asked.topic] if asked.topic else broker.topics


def _topics(
    broker: Broker, names: Iterator[str], asked: Question, show: Callable[[Topic, Question], Rows]
) -> Iterator[Rows]:
    """What `show` makes of each topic that is still there and has the channel that is asked for."""
    for name in names:
        topic = broker.topics.get(name)
        if topic is not None and (not asked.channel or asked.channel in topic.channels):
            yield _portions(show(topic, asked))


def _channels(topic: Topic) -> Generator[bytes, None, list[Channel]]:
    """The channels of a topic by name."""
    names = yield from in_order(topic.channels)
    channels: list[Channel] = []
    while portion := list(islice(names, PORTION)):
        found = (topic.channels.get(name) for name in portion)
        channels.extend(channel for channel in found if channel is not None)
        yield b""
    return channels


def _wanted(channels: list[Channel], asked: Question) -> Iterator[Channel]:
    return (channel for channel in channels if asked.channel in {"", channel.name})


def _portions(rows: Rows) -> Rows:
    """The rows, put together to pieces. An empty one ends a piece: it says that something took a while."""
    parts: list[bytes] = []
    for row in rows:
        parts.append(row)
        if not row or len(parts) == PORTION:
            yield b"".join(parts)
            parts = []
    if parts:
        yield b"".join(parts)
