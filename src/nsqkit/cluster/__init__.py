"""Ask many nsqlookupds and nsqds at once, and merge what they say. A node that fails is a line of the answer.

`documents` is what a node answers, `request` asks one node, `merge` makes one result of many answers, and `cluster` is
the way in; `address` is how a node is named. Nothing is cached: each call asks. Importing this loads aiohttp; a program
that seldom asks imports it then.

    async with Cluster() as cluster:
        known = await cluster.channels(["lookup-1:4161", "lookup-2:4161"], "orders")
    for failure in known.failures:
        log.warning(f"no channels from {failure}")
    for name in known.value:
        ...
"""

from nsqkit.cluster.cluster import Answers, Cluster, Failure
from nsqkit.cluster.documents import Channel, Client, Latency, NodeStats, Percentile, Topic
from nsqkit.cluster.merge import ALL_NODES, Lookup, Producer, ProducerTopic, Stats

__all__ = [
    "ALL_NODES",
    "Answers",
    "Channel",
    "Client",
    "Cluster",
    "Failure",
    "Latency",
    "Lookup",
    "NodeStats",
    "Percentile",
    "Producer",
    "ProducerTopic",
    "Stats",
    "Topic",
]
