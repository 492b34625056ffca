"""The documents of nsqlookupd and nsqd (spec/nsqlookupd.md section 3, spec/nsqd-http.md section 4), as they are read.

Lenient where versions of NSQ differ: an unknown key is skipped, a missing one has a default, a list may be null. Strict
about the rest: a value of another type, or a document without what it is about, is no answer.

Figures also have what nsqadmin shows beside them: whose they are (`node`, an address, or "*" for the sum of several
nodes) and what they are the sum of (`nodes`). A node does not say these; they are filled in here and in `merge`.
"""

from typing import TYPE_CHECKING, Annotated, Any

import msgspec

Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""An integer of Go. A limit, so that sums and means of what strangers send stay cheap."""

Nanoseconds = Annotated[float, msgspec.Meta(ge=-(2.0**63), le=2.0**63)]

if TYPE_CHECKING:
    Many = list
else:

    class Many:
        """A list that may come as null, which is how Go writes one that nothing was ever put in."""

        def __class_getitem__(cls, item: Any) -> Any:
            return list[item] | None


class Document(msgspec.Struct, kw_only=True):
    """Something with lists in it: none of them is None once it is made."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if getattr(self, name) is None:
                setattr(self, name, [])


class TopicNames(Document, kw_only=True):
    """GET /topics of nsqlookupd."""

    topics: Many[str]


class ChannelNames(Document, kw_only=True):
    """GET /channels of nsqlookupd."""

    channels: Many[str]


class Registration(Document, kw_only=True):
    """An nsqd in the lists of nsqlookupd. `tombstones[i]` belongs to `topics[i]`; only /nodes has these two."""

    broadcast_address: str
    tcp_port: Int64
    http_port: Int64
    remote_address: str = ""
    hostname: str = ""
    version: str = ""
    topology_zone: str = ""
    topology_region: str = ""
    topics: Many[str] = []
    tombstones: Many[bool] = []


class Registrations(Document, kw_only=True):
    """GET /nodes or /lookup of nsqlookupd; only the latter has channels."""

    producers: Many[Registration]
    channels: Many[str] = []


class Info(msgspec.Struct, kw_only=True):
    """GET /info of nsqd. A port is 0 if there is none, and -1 for a unix socket."""

    version: str
    broadcast_address: str = ""
    hostname: str = ""
    tcp_port: Int64 = 0
    http_port: Int64 = 0
    topology_zone: str = ""
    topology_region: str = ""


class Percentile(msgspec.Struct, kw_only=True):
    """A share of the messages, and the ns within which they were finished.

    A node says only `value`, which is then average, min and max too. A percentile of several nodes together can't be
    known; of those, `value` is the average, weighted by `count`.
    """

    quantile: float
    value: Nanoseconds = 0.0
    average: Nanoseconds = 0.0
    min: Nanoseconds = 0.0
    max: Nanoseconds = 0.0
    count: Int64 = 0


class Latency(Document, kw_only=True):
    """From publish to FIN. Where nothing is measured `percentiles` is empty; values mean nothing if `count` is 0."""

    count: Int64 = 0
    percentiles: Many[Percentile] = []


class Client(msgspec.Struct, kw_only=True):
    """A consumer's connection. `connect_ts` is in unix seconds."""

    node: str = ""
    client_id: str = ""
    hostname: str = ""
    version: str = ""
    remote_address: str = ""
    user_agent: str = ""
    connect_ts: Int64 = 0
    state: Int64 = 0
    ready_count: Int64 = 0
    in_flight_count: Int64 = 0
    message_count: Int64 = 0
    finish_count: Int64 = 0
    requeue_count: Int64 = 0
    sample_rate: Int64 = 0
    deflate: bool = False
    snappy: bool = False
    authed: bool = False
    auth_identity: str = ""
    auth_identity_url: str = ""
    topology_zone: str = ""
    topology_region: str = ""
    tls: bool = False
    tls_cipher_suite: str = ""
    tls_version: str = ""
    tls_negotiated_protocol: str = ""
    tls_negotiated_protocol_is_mutual: bool = False


class Figures(Document, kw_only=True):
    """What is counted of topics and of channels alike. `depth` contains `backend_depth`."""

    node: str = ""
    depth: Int64 = 0
    backend_depth: Int64 = 0
    message_count: Int64 = 0
    paused: bool = False
    e2e_processing_latency: Latency = msgspec.field(default_factory=Latency)

    @property
    def memory_depth(self) -> int:
        """How many of the messages are not on disk."""
        return self.depth - self.backend_depth


class Channel(Figures, kw_only=True):
    """A channel on one node, or on all. The sum has the clients of all nodes; each knows its own."""

    channel_name: str
    in_flight_count: Int64 = 0
    deferred_count: Int64 = 0
    requeue_count: Int64 = 0
    timeout_count: Int64 = 0
    client_count: Int64 = 0
    zone_local_msg_count: Int64 = 0
    region_local_msg_count: Int64 = 0
    global_msg_count: Int64 = 0
    clients: Many[Client] = []
    nodes: Many["Channel"] = []


class Topic(Figures, kw_only=True):
    """A topic on one node, or on all."""

    topic_name: str
    message_bytes: Int64 = 0
    channels: Many[Channel] = []
    nodes: Many["Topic"] = []

    def channel(self, name: str) -> Channel | None:
        """The channel of this name."""
        return next((channel for channel in self.channels if channel.channel_name == name), None)


class NodeStats(Document, kw_only=True):
    """GET /stats of nsqd. `start_time` is in unix seconds, `health` is OK or says what is wrong."""

    version: str = ""
    health: str = ""
    start_time: Int64 = 0
    topics: Many[Topic]


def read_stats(node: str, body: bytes, only_topic: str = "", only_channel: str = "") -> NodeStats:
    """The answer of a node, with its address at everything that is counted. Raises what msgspec does.

    Other topics and channels are left out, as an old nsqd does not do it.
    """
    stats = msgspec.json.decode(body, type=NodeStats)
    if only_topic:
        stats.topics = [topic for topic in stats.topics if topic.topic_name == only_topic]
    if only_channel:
        for topic in stats.topics:
            topic.channels = [channel for channel in topic.channels if channel.channel_name == only_channel]
        stats.topics = [topic for topic in stats.topics if topic.channels]
    for topic in stats.topics:
        topic.nodes = []
        for channel in topic.channels:
            channel.nodes = []
            for client in channel.clients:
                client.node = node
        for figures in (topic, *topic.channels):
            figures.node = node
            latency = figures.e2e_processing_latency
            for one in latency.percentiles:
                one.average = one.min = one.max = one.value
                one.count = latency.count
    return stats
