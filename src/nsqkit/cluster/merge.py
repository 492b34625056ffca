"""Make one result of what several nodes said. No I/O, and what the nodes said is left as it is.

Sums keep the figures of each node beside them. Minima and maxima are true ones: nodes without samples have no say.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, TypeVar

import msgspec

from nsqkit.address import is_unix, join_address, split_address
from nsqkit.cluster.documents import (
    Channel,
    Info,
    Latency,
    NodeStats,
    Percentile,
    Registration,
    Registrations,
    Topic,
)

ALL_NODES: Final = "*"
"""The `node` of a sum."""

T = TypeVar("T")
K = TypeVar("K")

_TOPIC_SUMS: Final = ("depth", "backend_depth", "message_count", "message_bytes")
_CHANNEL_SUMS: Final = (
    "depth",
    "backend_depth",
    "in_flight_count",
    "deferred_count",
    "message_count",
    "requeue_count",
    "timeout_count",
    "client_count",
    "zone_local_msg_count",
    "region_local_msg_count",
    "global_msg_count",
)

_SEMVER: Final = re.compile(
    r"(0|[1-9][0-9]{,9})\.(0|[1-9][0-9]{,9})\.(0|[1-9][0-9]{,9})(?:-([0-9A-Za-z.-]+))?(?:\+.*)?"
)
_OLDEST: Final = "0.0.0"


class ProducerTopic(msgspec.Struct, kw_only=True):
    """A topic of an nsqd. Tombstoned: some nsqlookupd hides the nsqd from who looks for the topic."""

    topic: str
    tombstoned: bool = False


class Producer(msgspec.Struct, kw_only=True):
    """An nsqd.

    `node` is where to ask it: its broadcast address and HTTP port, or the address it was asked at itself.
    `remote_addresses` are `nsqlookupd/remote address`, one for each connection that an nsqlookupd lists.
    `out_of_date` says that another nsqd of the same result has a newer version.
    """

    node: str
    broadcast_address: str
    tcp_port: int
    http_port: int
    hostname: str = ""
    version: str = ""
    topology_zone: str = ""
    topology_region: str = ""
    remote_addresses: list[str] = []
    topics: list[ProducerTopic] = []
    out_of_date: bool = False


class Lookup(msgspec.Struct, kw_only=True):
    """Where a topic is. `known` says whether any nsqlookupd has heard of it, be it without a producer."""

    known: bool
    channels: list[str]
    producers: list[Producer]


class Stats(msgspec.Struct, kw_only=True):
    """What each nsqd said, by address, and its topics summed up over all of them, by name."""

    nodes: dict[str, NodeStats]
    topics: list[Topic]

    def topic(self, name: str) -> Topic | None:
        """The sum of the topic of this name."""
        return next((topic for topic in self.topics if topic.topic_name == name), None)


def merge_names(lists: Iterable[Iterable[str]]) -> list[str]:
    """Every name once, sorted."""
    return sorted({name for names in lists for name in names})


# -- nodes


def merge_lookups(answers: Mapping[str, Registrations | None]) -> Lookup:
    """What nsqlookupds say about one topic. None is from one that has never heard of it."""
    known = {lookupd: answer for lookupd, answer in answers.items() if answer is not None}
    return Lookup(
        known=bool(known),
        channels=merge_names(answer.channels for answer in known.values()),
        producers=_merge_registrations(known, lambda one: join_address(one.broadcast_address, one.http_port)),
    )


def merge_nodes(answers: Mapping[str, Registrations]) -> list[Producer]:
    """The nsqds that nsqlookupds list."""
    return _merge_registrations(answers, lambda one: join_address(one.broadcast_address, one.tcp_port))


def merge_infos(answers: Mapping[str, tuple[Info, NodeStats]]) -> list[Producer]:
    """The nsqds that were asked for themselves."""
    return _finish([_producer_by_info(node, info, stats) for node, (info, stats) in answers.items()])


def _merge_registrations(
    answers: Mapping[str, Registrations], key: Callable[[Registration], str]
) -> list[Producer]:
    """One producer for each key."""
    listed = [(lookupd, one) for lookupd, answer in answers.items() for one in answer.producers]
    return _finish(
        [_producer_by_registrations(same) for same in _grouped(listed, lambda pair: key(pair[1])).values()]
    )


def _producer_by_registrations(listed: Sequence[tuple[str, Registration]]) -> Producer:
    """One nsqd that one or more nsqlookupds list. It has the topics that any of them knows."""
    tombstoned: dict[str, bool] = {}
    for _, one in listed:
        for index, topic in enumerate(one.topics):
            hidden = index < len(one.tombstones) and one.tombstones[index]
            tombstoned[topic] = tombstoned.get(topic, False) or hidden
    first = listed[0][1]
    return Producer(
        node=join_address(first.broadcast_address, first.http_port),
        broadcast_address=first.broadcast_address,
        tcp_port=first.tcp_port,
        http_port=first.http_port,
        hostname=first.hostname,
        version=first.version,
        topology_zone=first.topology_zone,
        topology_region=first.topology_region,
        remote_addresses=[f"{lookupd}/{one.remote_address}" for lookupd, one in listed],
        topics=[ProducerTopic(topic=topic, tombstoned=tombstoned[topic]) for topic in sorted(tombstoned)],
    )


def _producer_by_info(node: str, info: Info, stats: NodeStats) -> Producer:
    """An old nsqd says nothing but its version: then the rest is where it was asked."""
    host, port = ("", 0) if is_unix(node) else split_address(node)
    return Producer(
        node=node,
        broadcast_address=info.broadcast_address or host,
        tcp_port=info.tcp_port,
        http_port=info.http_port or port,
        hostname=info.hostname,
        version=info.version,
        topology_zone=info.topology_zone,
        topology_region=info.topology_region,
        topics=[
            ProducerTopic(topic=name) for name in merge_names([[topic.topic_name for topic in stats.topics]])
        ],
    )


def _finish(producers: list[Producer]) -> list[Producer]:
    """Sort by host name, and mark those that are behind the newest."""
    newest = max((_precedence(producer.version) for producer in producers), default=_precedence(_OLDEST))
    for producer in producers:
        producer.out_of_date = _precedence(producer.version) < newest
    return sorted(producers, key=lambda producer: (producer.hostname, producer.node))


def _precedence(version: str) -> tuple[object, ...]:
    """What versions are ordered by (semver.org, section 11). What is no such version is as old as can be."""
    match = _SEMVER.fullmatch(version) or _SEMVER.fullmatch(_OLDEST)
    assert match is not None
    *numbers, pre_release = match.groups()
    words = pre_release.split(".") if pre_release else []
    # A number is before a word; no pre-release at all is after every one.
    parts = [(0, len(word), word) if word.isdigit() else (1, 0, word) for word in words]
    return (*map(int, numbers), not words, parts)


# -- figures


def merge_stats(nodes: Mapping[str, NodeStats]) -> Stats:
    """The topics of all nodes, summed up by name."""
    topics = _grouped(
        (topic for stats in nodes.values() for topic in stats.topics), lambda topic: topic.topic_name
    )
    return Stats(nodes=dict(nodes), topics=[_sum_of_topics(name, topics[name]) for name in sorted(topics)])


def _sum_of_topics(name: str, nodes: list[Topic]) -> Topic:
    channels = _grouped(
        (channel for topic in nodes for channel in topic.channels), lambda one: one.channel_name
    )
    return Topic(
        node=ALL_NODES,
        topic_name=name,
        paused=any(topic.paused for topic in nodes),
        e2e_processing_latency=_sum_of_latencies([topic.e2e_processing_latency for topic in nodes]),
        channels=[_sum_of_channels(channel, channels[channel]) for channel in sorted(channels)],
        nodes=nodes,
        **_sums(_TOPIC_SUMS, nodes),
    )


def _sum_of_channels(name: str, nodes: list[Channel]) -> Channel:
    return Channel(
        node=ALL_NODES,
        channel_name=name,
        paused=any(channel.paused for channel in nodes),
        e2e_processing_latency=_sum_of_latencies([channel.e2e_processing_latency for channel in nodes]),
        clients=[client for channel in nodes for client in channel.clients],
        nodes=nodes,
        **_sums(_CHANNEL_SUMS, nodes),
    )


def _sum_of_latencies(nodes: Sequence[Latency]) -> Latency:
    percentiles = _grouped(
        (one for latency in nodes for one in latency.percentiles), lambda one: one.quantile
    )
    return Latency(
        count=sum(latency.count for latency in nodes),
        percentiles=[
            _sum_of_percentiles(quantile, percentiles[quantile]) for quantile in sorted(percentiles)[::-1]
        ],
    )


def _sum_of_percentiles(quantile: float, nodes: Iterable[Percentile]) -> Percentile:
    sampled = [one for one in nodes if one.count > 0]
    if not sampled:
        return Percentile(quantile=quantile)
    count = sum(one.count for one in sampled)
    average = sum(one.average * one.count for one in sampled) / count
    return Percentile(
        quantile=quantile,
        value=average,
        average=average,
        min=min(one.min for one in sampled),
        max=max(one.max for one in sampled),
        count=count,
    )


def _sums(names: Iterable[str], parts: Sequence[object]) -> dict[str, int]:
    return {name: sum(getattr(part, name) for part in parts) for name in names}


def _grouped(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    groups: dict[K, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups
