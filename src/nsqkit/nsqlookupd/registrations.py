"""Which nsqd has which topics and channels (spec/nsqlookupd.md, section 2). No I/O; times are ns since the epoch.

    topics   name -> Topic      -> channels: name -> Channel, which counts its producers
                                -> producers: one Producer for each peer that registered the topic
    peers    id   -> Peer       -> producers: topic's name -> the same Producer
                                -> channels: the same Channels

Rules: what a connected nsqd does costs in proportion to what it does, whatever else is registered. Who has a channel
has its topic. Names of topics and channels outlive their producers; only ephemeral ones go: with the last UNREGISTER,
or, when the last connection that had them broke, after the time in which nsqds come back.
"""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

from nsqkit.address import join_address
from nsqkit.names import is_ephemeral

NEVER: Final = -(2**64)
"""`tombstoned_at` of a producer that never was: longer ago than any lifetime."""


class Peer:
    """A connected nsqd that has identified itself."""

    __slots__ = ("channels", "document", "id", "last_update", "nodes", "producers")

    def __init__(self, id: str, broadcast_address: str, http_port: int, document: bytes, now: int) -> None:
        """`document` is what /lookup says of it, as JSON."""
        self.id = id  # host:port of the connection
        self.document = document
        self.last_update = now  # when it identified itself or last pinged
        self.producers: dict[str, Producer] = {}  # by topic
        self.channels: set[Channel] = set()
        # How /topic/tombstone may name it: with an IPv6 address as NSQ compares it, or as its nsqadmin sends it.
        self.nodes = (f"{broadcast_address}:{http_port}", join_address(broadcast_address, http_port))


class Channel:
    """A channel that some nsqd has or had, or that was made over HTTP."""

    __slots__ = ("name", "producers", "topic")

    def __init__(self, topic: "Topic", name: str) -> None:
        self.topic = topic
        self.name = name
        self.producers = 0  # how many


class Producer:
    """One peer in one topic."""

    __slots__ = ("index", "peer", "tombstoned_at", "topic")

    def __init__(self, peer: Peer, topic: "Topic") -> None:
        self.peer = peer
        self.topic = topic
        self.index = len(topic.producers)  # in the topic's list
        self.tombstoned_at = NEVER


class Topic:
    """A topic that some nsqd has or had, or that was made over HTTP."""

    __slots__ = ("channels", "name", "producers")

    def __init__(self, name: str) -> None:
        self.name = name
        self.channels: dict[str, Channel] = {}
        self.producers: list[Producer] = []

    def channel(self, name: str) -> Channel:
        """The channel of this name, made if it is not known."""
        channel = self.channels.get(name)
        if channel is None:
            channel = self.channels[name] = Channel(self, name)
        return channel

    def drop(self, producer: Producer) -> None:
        """Take a producer out of the list, in the time that one takes: the last one fills the gap."""
        last = self.producers.pop()
        if last is not producer:
            self.producers[producer.index] = last
            last.index = producer.index


class Registrations:
    """Everything that is known. Durations are ns."""

    def __init__(self, inactive_after: int, tombstone_lifetime: int) -> None:
        self._inactive_after = inactive_after
        self._tombstone_lifetime = tombstone_lifetime
        self._topics: dict[str, Topic] = {}
        self._peers: dict[str, Peer] = {}
        # Ephemeral ones whose last producer's connection broke: when to forget them, the first first.
        self._abandoned: OrderedDict[Topic | Channel, int] = OrderedDict()

    # -- what an nsqd does

    def join(self, peer: Peer) -> None:
        """A peer has identified itself."""
        self._peers[peer.id] = peer

    def leave(self, peer: Peer, now: int) -> None:
        """A peer's connection is gone, and all its registrations with it. The names stay."""
        self._forget_abandoned(now)
        if self._peers.get(peer.id) is peer:  # its address may be somebody else's already
            del self._peers[peer.id]
        for channel in peer.channels:
            channel.producers -= 1
            if not channel.producers and is_ephemeral(channel.name):
                self._abandon(channel, now)
        for producer in peer.producers.values():
            producer.topic.drop(producer)
            if not producer.topic.producers and is_ephemeral(producer.topic.name):
                self._abandon(producer.topic, now)
        peer.channels.clear()
        peer.producers.clear()

    def register(self, peer: Peer, topic: str, channel: str) -> None:
        """A peer has a topic and, unless that is empty, a channel of it. Nothing happens if this is known.

        In particular a tombstone stays, and `last_update` too.
        """
        producer = peer.producers.get(topic)
        if producer is None:
            home = self.create_topic(topic)
            producer = Producer(peer, home)
            home.producers.append(producer)
            peer.producers[home.name] = producer
        if channel:
            one = producer.topic.channel(channel)
            if one not in peer.channels:
                peer.channels.add(one)
                one.producers += 1

    def unregister(self, peer: Peer, topic: str, channel: str) -> None:
        """A peer has a channel no more, or if that is empty the whole topic. An ephemeral name goes with the last."""
        home = self._topics.get(topic)
        if home is None:
            return
        if channel:
            one = home.channels.get(channel)
            if one is not None:
                self._leave_channel(peer, one)
            return
        for one in peer.channels.intersection(home.channels.values()):
            self._leave_channel(peer, one)
        producer = peer.producers.pop(topic, None)
        if producer is not None:
            home.drop(producer)
        if not home.producers and is_ephemeral(topic):
            self._forget_topic(home)

    # -- what operators do

    def create_topic(self, topic: str) -> Topic:
        """The topic of this name, made if it is not known."""
        home = self._topics.get(topic)
        if home is None:
            home = self._topics[topic] = Topic(topic)
        return home

    def create_channel(self, topic: str, channel: str) -> None:
        """Make a channel known, and its topic."""
        self.create_topic(topic).channel(channel)

    def delete_topic(self, topic: str) -> None:
        """Forget a topic with its channels and who has them. No nsqd hears of it."""
        home = self._topics.get(topic)
        if home is not None:
            self._forget_topic(home)

    def delete_channel(self, topic: str, channel: str) -> bool:
        """Forget a channel and who has it; False if it was not known."""
        home = self._topics.get(topic)
        one = home.channels.pop(channel, None) if home is not None else None
        if home is None or one is None:
            return False
        for producer in home.producers:
            producer.peer.channels.discard(one)
        return True

    def tombstone(self, topic: str, node: str, now: int) -> None:
        """Hide the producers of a topic that announce themselves as `node` from those who look the topic up."""
        home = self._topics.get(topic)
        for producer in home.producers if home is not None else ():
            if node in producer.peer.nodes:
                producer.tombstoned_at = now

    # -- what is asked

    def topics(self, now: int) -> Mapping[str, Topic]:
        """Every topic by its name."""
        self._forget_abandoned(now)
        return self._topics

    def peers(self) -> list[Peer]:
        """Every peer that is connected, inactive ones too."""
        return [*self._peers.values()]

    def is_active(self, peer: Peer, now: int) -> bool:
        """Was it heard of lately?"""
        return peer.last_update >= now - self._inactive_after

    def is_shown(self, producer: Producer, now: int) -> bool:
        """May it be consumed from: is it active, and not tombstoned for the topic?"""
        grave = now - self._tombstone_lifetime  # a tombstone set at this time or before is over
        return self.is_active(producer.peer, now) and producer.tombstoned_at <= grave

    def is_tombstoned(self, peer: Peer, topic: str, now: int) -> bool:
        """Is a peer hidden now from those who look up a topic?"""
        producer = peer.producers.get(topic)
        return producer is not None and producer.tombstoned_at > now - self._tombstone_lifetime

    # -- helpers

    def _leave_channel(self, peer: Peer, channel: Channel) -> None:
        if channel in peer.channels:
            peer.channels.remove(channel)
            channel.producers -= 1
        if not channel.producers and is_ephemeral(channel.name):
            del channel.topic.channels[channel.name]

    def _forget_topic(self, topic: Topic) -> None:
        channels = set(topic.channels.values())
        for producer in topic.producers:
            del producer.peer.producers[topic.name]
            producer.peer.channels -= channels
        del self._topics[topic.name]
        topic.channels.clear()  # they point back: no work for the garbage collector
        topic.producers.clear()

    def _abandon(self, one: Topic | Channel, now: int) -> None:
        self._abandoned[one] = now + self._inactive_after
        self._abandoned.move_to_end(one)

    def _forget_abandoned(self, now: int) -> None:
        """Drop ephemeral names that nobody has come back for."""
        while self._abandoned:
            one, when = next(iter(self._abandoned.items()))
            if when > now:
                return
            del self._abandoned[one]
            if one.producers:
                continue  # somebody has
            # An operator may have deleted it, and somebody may have made another of this name.
            if isinstance(one, Channel):
                if one.topic.channels.get(one.name) is one:
                    del one.topic.channels[one.name]
            elif self._topics.get(one.name) is one:
                self._forget_topic(one)
