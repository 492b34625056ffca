"""One result of several answers, without a network."""

import copy
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsqkit.cluster.documents import (
    Channel,
    Client,
    Info,
    Latency,
    NodeStats,
    Percentile,
    Registration,
    Registrations,
    Topic,
)
from nsqkit.cluster.merge import ALL_NODES, merge_infos, merge_lookups, merge_names, merge_nodes, merge_stats


def registration(**more):
    """An nsqd as an nsqlookupd lists it."""
    fields: dict[str, Any] = {
        "broadcast_address": "a",
        "tcp_port": 4150,
        "http_port": 4151,
        "hostname": "h",
        "version": "1.3.0",
    }
    return Registration(**(fields | more))


def listing(*registrations, **more):
    """The answer of an nsqlookupd."""
    return Registrations(producers=list(registrations), **more)


def test_names_are_sorted_and_said_once():
    """The union of all lists."""
    assert ["a", "b", "c"] == merge_names([["b", "a"], [], ["c", "b"]])


# -- nodes


def test_nodes_are_told_apart_by_tcp_address():
    """An nsqd that several nsqlookupds list is one, with the address that each of them sees."""
    merged = merge_nodes({
        "l1:4161": listing(registration(remote_address="10.0.0.1:1")),
        "l2:4161": listing(registration(remote_address="10.0.0.1:2"), registration(tcp_port=5150, remote_address="x")),
    })  # fmt: skip

    assert [4150, 5150] == [producer.tcp_port for producer in merged]
    assert ["l1:4161/10.0.0.1:1", "l2:4161/10.0.0.1:2"] == merged[0].remote_addresses
    assert ["l2:4161/x"] == merged[1].remote_addresses


def test_a_node_has_the_topics_of_all_lists():
    """Topics are sorted; one is tombstoned if any nsqlookupd says so, and not if that flag is missing."""
    merged = merge_nodes({
        "l1": listing(registration(topics=["c", "a"], tombstones=[False])),
        "l2": listing(registration(topics=["b", "a"], tombstones=[False, True, True])),
    })  # fmt: skip

    (producer,) = merged
    assert [("a", True), ("b", False), ("c", False)] == [
        (one.topic, one.tombstoned) for one in producer.topics
    ]


def test_nodes_are_sorted_by_host_name():
    """Then by address, so that the order does not depend on who answered first."""
    merged = merge_nodes({
        "l1": listing(
            registration(hostname="b", broadcast_address="z"),
            registration(hostname="b", broadcast_address="y"),
            registration(hostname="a", broadcast_address="::1"),
        )
    })  # fmt: skip

    assert ["[::1]:4151", "y:4151", "z:4151"] == [producer.node for producer in merged]


@pytest.mark.parametrize("older, newer", [
    ("1.2.1", "1.3.0"),
    ("1.9.0", "1.10.0"),
    ("1.3.0-alpha", "1.3.0"),
    ("1.3.0-alpha", "1.3.0-alpha.1"),
    ("1.3.0-alpha.1", "1.3.0-alpha.beta"),
    ("1.3.0-alpha.2", "1.3.0-alpha.10"),
    ("1.3.0-rc.1", "1.3.0-rc.1.1"),
    ("0.3.8", "1.0.0-compat"),
    ("", "0.0.1"),
    ("unknown", "0.2.15"),
    ("1.3", "0.1.0"),
    ("v1.3.0", "0.1.0"),
    ("01.3.0", "0.1.0"),
    ("99999999999.0.0", "0.1.0"),
])  # fmt: skip
def test_an_old_version_is_out_of_date(older, newer):
    """Versions are compared as semver says, and what is no version is 0.0.0."""
    merged = merge_nodes({
        "l": listing(registration(hostname="1", version=older), registration(hostname="2", tcp_port=1, version=newer))
    })  # fmt: skip

    assert [True, False] == [producer.out_of_date for producer in merged]


@pytest.mark.parametrize("version, same", [
    ("1.3.0", "1.3.0"), ("1.3.0+go", "1.3.0+rust"), ("dev", "0.0.0"), ("dev", ""), ("1.0.0-a.1", "1.0.0-a.1")
])  # fmt: skip
def test_equal_versions_are_up_to_date(version, same):
    """What is built from the same version is as new."""
    merged = merge_nodes(
        {"l": listing(registration(version=version), registration(tcp_port=1, version=same))}
    )

    assert [False, False] == [producer.out_of_date for producer in merged]


def test_a_lookup_tells_nodes_apart_by_http_address():
    """Channels and producers are those of all nsqlookupds that know the topic."""
    merged = merge_lookups({
        "l1": listing(registration(), channels=["b"]),
        "l2": None,
        "l3": listing(registration(tcp_port=1), registration(http_port=1), channels=["a", "b"]),
    })  # fmt: skip

    assert merged.known
    assert ["a", "b"] == merged.channels
    assert ["a:1", "a:4151"] == [producer.node for producer in merged.producers]


def test_a_topic_may_be_unknown_or_without_producers():
    """That nobody knows a topic is another thing than that nobody produces it."""
    assert not merge_lookups({"l1": None}).known
    assert not merge_lookups({}).known
    assert merge_lookups({"l1": None, "l2": listing()}).known


def test_nodes_that_were_asked_keep_their_address():
    """An nsqd is asked where it was asked before, wherever it says that it is."""
    info = Info(version="1.3.0", broadcast_address="inside", hostname="h", tcp_port=1, http_port=2)
    stats = NodeStats(topics=[Topic(topic_name="b"), Topic(topic_name="a")])

    (producer,) = merge_infos({"outside:4151": (info, stats)})

    assert ("outside:4151", "inside", 1, 2, "h") == (
        producer.node, producer.broadcast_address, producer.tcp_port, producer.http_port, producer.hostname,
    )  # fmt: skip
    assert ["a", "b"] == [topic.topic for topic in producer.topics]
    assert [] == producer.remote_addresses


def test_an_old_node_is_where_it_was_asked():
    """An nsqd that says only its version has the host and port of its address, and is told to be old."""
    stats = NodeStats(topics=[])

    merged = merge_infos({
        "[::1]:4151": (Info(version="0.2.15"), stats),
        "a:1": (Info(version="1.3.0", hostname="z"), stats),
    })  # fmt: skip

    assert [("::1", 4151, True), ("a", 1, False)] == [
        (producer.broadcast_address, producer.http_port, producer.out_of_date) for producer in merged
    ]


# -- figures

counts = st.integers(-(2**63), 2**63 - 1)
figures = st.floats(-(2.0**63), 2.0**63)
latencies = st.builds(
    Latency,
    count=counts,
    percentiles=st.lists(
        st.builds(
            Percentile,
            quantile=st.sampled_from([0.5, 0.99]),
            average=st.just(3.0),
            min=st.just(1.0),
            count=counts,
        )
    ),
)
clients = st.builds(Client, client_id=st.text(max_size=3))
channels = st.builds(
    Channel,
    channel_name=st.sampled_from("cd"),
    depth=counts,
    backend_depth=counts,
    message_count=counts,
    in_flight_count=counts,
    deferred_count=counts,
    requeue_count=counts,
    timeout_count=counts,
    client_count=counts,
    zone_local_msg_count=counts,
    region_local_msg_count=counts,
    global_msg_count=counts,
    paused=st.booleans(),
    e2e_processing_latency=latencies,
    clients=st.lists(clients, max_size=2),
)
topics = st.builds(
    Topic,
    topic_name=st.sampled_from("tu"),
    depth=counts,
    backend_depth=counts,
    message_count=counts,
    message_bytes=counts,
    paused=st.booleans(),
    e2e_processing_latency=latencies,
    channels=st.lists(channels, max_size=3),
)
answers = st.dictionaries(
    st.sampled_from(["a:1", "b:1", "c:1"]), st.builds(NodeStats, topics=st.lists(topics, max_size=3))
)


def check_sum(total, parts, name):
    """Every number of a total is the sum of the parts'."""
    assert ALL_NODES == total.node
    assert parts == total.nodes
    assert any(part.paused for part in parts) == total.paused
    assert sum(part.e2e_processing_latency.count for part in parts) == total.e2e_processing_latency.count
    summed = [
        field.name for field in msgspec.structs.fields(total) if type(getattr(total, field.name)) is int
    ]
    assert len(summed) == (4 if name == "topic_name" else 11)
    for field in summed:
        assert sum(getattr(part, field) for part in parts) == getattr(total, field)


@given(answers)
def test_a_merge_is_the_sum_of_its_nodes(said):
    """Every figure of every topic and channel is the sum over nodes, whose own figures stay what they were."""
    before = copy.deepcopy(said)

    merged = merge_stats(said)

    assert before == said == merged.nodes
    everything = [topic for stats in said.values() for topic in stats.topics]
    assert sorted({topic.topic_name for topic in everything}) == [topic.topic_name for topic in merged.topics]
    for topic in merged.topics:
        parts = [part for part in everything if part.topic_name == topic.topic_name]
        check_sum(topic, parts, "topic_name")
        below = [channel for part in parts for channel in part.channels]
        assert sorted({one.channel_name for one in below}) == [one.channel_name for one in topic.channels]
        for channel in topic.channels:
            same = [one for one in below if one.channel_name == channel.channel_name]
            check_sum(channel, same, "channel_name")
            assert [client for one in same for client in one.clients] == channel.clients


@settings(max_examples=20)
@given(answers)
def test_a_merge_can_be_written(said):
    """No figure of a merge is beyond JSON."""
    assert b"null" not in msgspec.json.encode(merge_stats(said))


def test_topics_are_found_by_name():
    """A topic that no node has is None."""
    merged = merge_stats({"a:1": NodeStats(topics=[Topic(topic_name="t")])})

    assert merged.topics[0] is merged.topic("t")
    assert merged.topic("u") is None


def latency(count, **values):
    """The latency of a node, by percentile: `p50=…`."""
    return Latency(
        count=count,
        percentiles=[
            Percentile(quantile=int(name[1:]) / 100, value=v, average=v, min=v, max=v, count=count)
            for name, v in values.items()
        ],
    )


def merged_latency(*parts):
    """The latency of a topic whose nodes have these."""
    said = {
        f"{i}:1": NodeStats(topics=[Topic(topic_name="t", e2e_processing_latency=part)])
        for i, part in enumerate(parts)
    }
    return merge_stats(said).topics[0].e2e_processing_latency


def test_latency_is_weighted_by_messages():
    """The average leans to the node with more messages; minimum and maximum are true ones, whatever the order."""
    got = merged_latency(latency(30, p50=200), latency(10, p50=1000), latency(60, p50=300))

    assert 100 == got.count
    (one,) = got.percentiles
    assert (0.5, 100, 340, 340, 200, 1000) == (
        one.quantile,
        one.count,
        one.average,
        one.value,
        one.min,
        one.max,
    )


def test_a_node_without_samples_has_no_say():
    """The zeros of a node that finished nothing are no minimum."""
    (one,) = merged_latency(latency(0, p50=0), latency(10, p50=1000)).percentiles

    assert (10, 1000, 1000, 1000) == (one.count, one.average, one.min, one.max)


def test_without_any_sample_there_is_no_latency():
    """Count 0 says that the zeros mean nothing."""
    got = merged_latency(latency(0, p50=0), latency(0, p50=0))

    assert 0 == got.count
    assert [Percentile(quantile=0.5)] == got.percentiles


def test_percentiles_are_told_apart_by_quantile():
    """Nodes may track different ones; the highest comes first."""
    got = merged_latency(latency(1, p99=9, p50=5), latency(2, p50=8, p95=9), latency(3))

    assert [(0.99, 1), (0.95, 2), (0.5, 3)] == [(one.quantile, one.count) for one in got.percentiles]
