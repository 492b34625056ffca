"""What is read of the documents of nsqlookupd and nsqd."""

import json

import msgspec
import pytest

from nsqkit.cluster.documents import ChannelNames, Info, NodeStats, Registrations, TopicNames, read_stats

NODE = "127.0.0.1:4151"


def read(document, **more):
    """The stats of a node that sends this."""
    return read_stats(NODE, json.dumps(document).encode(), **more)


def test_figures_know_their_node():
    """Topics, channels and clients get the address of who counted them, whatever the document says."""
    stats = read({"topics": [{
        "topic_name": "t", "node": "no", "nodes": [{"topic_name": "no"}],
        "channels": [{"channel_name": "c", "nodes": [{"channel_name": "no"}], "clients": [{"client_id": "x"}]}],
    }]})  # fmt: skip

    (topic,) = stats.topics
    channel = topic.channel("c")
    assert channel is not None
    assert [NODE] * 3 == [topic.node, channel.node, channel.clients[0].node]
    assert [] == topic.nodes
    assert [] == channel.nodes
    assert topic.channel("d") is None


def test_a_percentile_of_a_node_is_average_and_both_ends():
    """One node's value is all there is to know, for as many messages as it counted."""
    latency = {"count": 7, "percentiles": [{"quantile": 0.5, "value": 30, "min": 1}]}

    (topic,) = read({"topics": [{"topic_name": "t", "e2e_processing_latency": latency}]}).topics

    (one,) = topic.e2e_processing_latency.percentiles
    assert (30, 30, 30, 30, 7) == (one.value, one.average, one.min, one.max, one.count)


def test_memory_depth_is_what_is_not_on_disk():
    """The depth contains the depth of the backend."""
    (topic,) = read({"topics": [{"topic_name": "t", "depth": 10, "backend_depth": 4}]}).topics

    assert 6 == topic.memory_depth


def test_other_topics_and_channels_are_left_out():
    """A node that does not know how to select is no trouble."""
    document = {"topics": [
        {"topic_name": "a", "channels": [{"channel_name": "x"}, {"channel_name": "y"}]},
        {"topic_name": "b", "channels": [{"channel_name": "x"}]},
        {"topic_name": "c"},
    ]}  # fmt: skip

    def names(**only):
        return {t.topic_name: [c.channel_name for c in t.channels] for t in read(document, **only).topics}

    assert {"a": ["x", "y"], "b": ["x"], "c": []} == names()
    assert {"a": ["x", "y"]} == names(only_topic="a")
    assert {"a": ["x"], "b": ["x"]} == names(only_channel="x")
    assert {"b": ["x"]} == names(only_topic="b", only_channel="x")
    assert {} == names(only_topic="d")


@pytest.mark.parametrize("document, kind", [
    ({"topics": None}, TopicNames),
    ({"channels": None}, ChannelNames),
    ({"producers": None, "channels": None}, Registrations),
    ({"producers": [{"broadcast_address": "a", "tcp_port": 1, "http_port": 2, "topics": None, "tombstones": None}]},
     Registrations),
    ({"topics": None}, NodeStats),
    ({"topics": [{"topic_name": "t", "channels": None}]}, NodeStats),
    ({"topics": [{"topic_name": "t", "channels": [{"channel_name": "c", "clients": None}]}]}, NodeStats),
    ({"topics": [{"topic_name": "t", "e2e_processing_latency": {"percentiles": None}}]}, NodeStats),
])  # fmt: skip
def test_null_is_an_empty_list(document, kind):
    """Go writes null for a list that nothing was put in; nobody else has to know."""
    decoded = msgspec.json.decode(json.dumps(document), type=kind)

    assert b"null" not in msgspec.json.encode(decoded)


@pytest.mark.parametrize("document, kind", [
    ({}, TopicNames),
    ({"status_code": 200, "data": {"topics": []}}, TopicNames),
    ({"topics": [1]}, TopicNames),
    ({"topics": [None]}, TopicNames),
    ({"topics": "abc"}, TopicNames),
    ({}, ChannelNames),
    ({"channels": []}, Registrations),
    ({"producers": [{}]}, Registrations),
    ({"producers": [{"broadcast_address": "a", "tcp_port": "1", "http_port": 2}]}, Registrations),
    ({"producers": [{"broadcast_address": "a", "tcp_port": 2**63, "http_port": 2}]}, Registrations),
    ({}, Info),
    ({"version": 1}, Info),
    ({}, NodeStats),
    ({"topics": [{}]}, NodeStats),
    ({"topics": [{"topic_name": "t", "depth": "1"}]}, NodeStats),
    ({"topics": [{"topic_name": "t", "depth": 1.5}]}, NodeStats),
    ({"topics": [{"topic_name": "t", "depth": 10**30}]}, NodeStats),
    ({"topics": [{"topic_name": "t", "paused": 1}]}, NodeStats),
    ({"topics": [{"topic_name": "t", "e2e_processing_latency": {"percentiles": [{"quantile": 1, "value": 1e300}]}}]},
     NodeStats),
    ([], NodeStats),
    (None, NodeStats),
])  # fmt: skip
def test_another_shape_is_refused(document, kind):
    """A document without what it is about, or with a value of another type or beyond all limits, is none."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(json.dumps(document), type=kind)


def test_an_old_info_has_a_version():
    """Keys that came later have defaults, keys that are unknown are skipped."""
    info = msgspec.json.decode(b'{"version":"0.2.15","new":{}}', type=Info)

    assert ("0.2.15", "", 0, 0) == (info.version, info.broadcast_address, info.tcp_port, info.http_port)
