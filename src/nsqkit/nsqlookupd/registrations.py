"""Which nsqd has which topics and channels (spec/nsqlookupd.md, section 2). No I/O; times are ns since the epoch.

    topics   name -> Topic      -> channels: name -> Channel, which counts its producers
                                -> producers: one Producer for each peer that registered the topic
    peers    id   -> Peer       -> producers: topic's name -> the same Producer
                                -> channels: the same Channels

Rules: what a connected nsqd does costs in proportion to what it does, whatever else is registered, and there are limits
for what one and all of them may register. Who has a channel
has its topic. Names of topics and channels outlive their producers; only ephemeral ones go: with the last UNREGISTER,
or, when the last connection that had them broke, after the time in which nsqds come back.
"""

import gc
from collections import OrderedDict, deque
from collections.abc import Mapping
from typing import Final

from nsqkit.address import join_address
from nsqkit.names import is_ephemeral

NEVER: Final = -(2**64)
"""`tombstoned_at` of a producer that never was: longer ago than any lifetime."""

PORTION: Final = 1000
"""Registrations of a peer that has gone that are taken back in one step."""

FREEZE_EVERY: Final = 10_000
"""Names and entries after which the garbage collector is told to look at what there is no more.

It finds nothing there: what is forgotten is taken apart. But a million of them would keep it, and everybody, for a
second each time that it looks.
"""


class TooMany(Exception):
    """There is no room for another registration. The text says which limit is reached."""


class Peer:
    """A connected nsqd that has identified itself."""

    __slots__ = ("channels", "document", "gone", "id", "last_update", "nodes", "producers")

    def __init__(self, id: str, broadcast_address: str, http_port: int, document: bytes, now: int) -> None:
        """`document` is what /lookup says of it, as JSON."""
        self.id = id  # host:port of the connection
        self.document = document
        self.gone = False  # it has left, and its registrations are being taken back
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

    def drop(self, producer: Producer) -> None:
        """Take a producer out of the list, in the time that one takes: the last one fills the gap."""
        last = self.producers.pop()
        if last is not producer:
            self.producers[producer.index] = last
            last.index = producer.index


class Registrations:
    """Everything that is known."""

    def __init__(self, inactive_after: int, tombstone_lifetime: int, most: int, most_of_peer: int) -> None:
        """Durations are ns. There may be `most` names, and as many entries of who has them; so many of one peer."""
        self._most = most
        self._most_of_peer = most_of_peer
        self._names = 0  # topics and channels
        self._entries = 0  # one for each topic and each channel that a peer has
        self._freeze_at = FREEZE_EVERY  # names and entries
        self._leaving: deque[Peer] = deque()
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

    def leave(self, peer: Peer, now: int) -> bool:
        """A peer's connection is gone, and all its registrations with it. The names stay.

        It is seen no more at once. True if there is more to be taken back: by `take_back`, until that says False.
        """
        self._forget_abandoned(now)
        if self._peers.get(peer.id) is peer:  # its address may be somebody else's already
            del self._peers[peer.id]
        peer.gone = True
        self._leaving.append(peer)
        return self.take_back(now)

    def take_back(self, now: int) -> bool:
        """Take back some of what peers had that have left; True if there is more."""
        left = PORTION
        while self._leaving and left:
            peer = self._leaving[0]
            if peer.channels:
                self._left(peer.channels.pop(), now)
            elif peer.producers:
                producer = peer.producers.popitem()[1]
                producer.topic.drop(producer)
                self._entries -= 1
                if not producer.topic.producers and is_ephemeral(producer.topic.name):
                    self._abandon(producer.topic, now)
            else:
                self._leaving.popleft()
            left -= 1
        return bool(self._leaving)

    def register(self, peer: Peer, topic: str, channel: str) -> None:
        """A peer has a topic and, unless that is empty, a channel of it. Nothing happens if this is known.

        In particular a tombstone stays, and `last_update` too. TooMany if there is no room.
        """
        self._check_room(peer)
        producer = peer.producers.get(topic)
        if producer is None:
            home = self.create_topic(topic)
            producer = Producer(peer, home)
            home.producers.append(producer)
            self._entries += 1
            peer.producers[home.name] = producer
        if channel:
            one = self._channel(producer.topic, channel)
            if one not in peer.channels:
                peer.channels.add(one)
                one.producers += 1
                self._entries += 1

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
            self._entries -= 1
        if not home.producers and is_ephemeral(topic):
            self._forget_topic(home)

    # -- what operators do

    def create_topic(self, topic: str) -> Topic:
        """The topic of this name, made if it is not known. TooMany if there is no room."""
        home = self._topics.get(topic)
        if home is None:
            self._add_name()
            home = self._topics[topic] = Topic(topic)
        return home

    def create_channel(self, topic: str, channel: str) -> None:
        """Make a channel known, and its topic. TooMany if there is no room."""
        self._channel(self.create_topic(topic), channel)

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
            if one in producer.peer.channels:
                producer.peer.channels.remove(one)
                self._entries -= 1
        self._names -= 1
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
        return not peer.gone and peer.last_update >= now - self._inactive_after

    def is_shown(self, producer: Producer, now: int) -> bool:
        """May it be consumed from: is it active, and not tombstoned for the topic?"""
        grave = now - self._tombstone_lifetime  # a tombstone set at this time or before is over
        return self.is_active(producer.peer, now) and producer.tombstoned_at <= grave

    def is_tombstoned(self, peer: Peer, topic: str, now: int) -> bool:
        """Is a peer hidden now from those who look up a topic?"""
        producer = peer.producers.get(topic)
        return producer is not None and producer.tombstoned_at > now - self._tombstone_lifetime

    # -- helpers

    def _check_room(self, peer: Peer) -> None:
        if len(peer.producers) + len(peer.channels) >= self._most_of_peer:
            raise TooMany(f"more than --max-registrations-per-nsqd={self._most_of_peer}")
        if self._entries >= self._most:
            raise TooMany(f"more than --max-registrations={self._most}")
        if self._names + self._entries >= self._freeze_at:
            self._freeze_at = self._names + self._entries + FREEZE_EVERY
            gc.freeze()

    def _add_name(self) -> None:
        if self._names >= self._most:
            raise TooMany(f"more topics and channels than --max-registrations={self._most}")
        self._names += 1

    def _channel(self, topic: Topic, name: str) -> Channel:
        """The channel of this name, made if it is not known."""
        channel = topic.channels.get(name)
        if channel is None:
            self._add_name()
            channel = topic.channels[name] = Channel(topic, name)
        return channel

    def _left(self, channel: Channel, now: int) -> None:
        """A peer that has gone had this channel."""
        channel.producers -= 1
        self._entries -= 1
        if not channel.producers and is_ephemeral(channel.name):
            self._abandon(channel, now)

    def _leave_channel(self, peer: Peer, channel: Channel) -> None:
        if channel in peer.channels:
            peer.channels.remove(channel)
            channel.producers -= 1
            self._entries -= 1
        if not channel.producers and is_ephemeral(channel.name):
            self._forget_channel(channel)

    def _forget_channel(self, channel: Channel) -> None:
        if channel.topic.channels.get(channel.name) is channel:
            del channel.topic.channels[channel.name]
            self._names -= 1

    def _forget_topic(self, topic: Topic) -> None:
        channels = set(topic.channels.values())
        for producer in topic.producers:
            peer = producer.peer
            del peer.producers[topic.name]
            had = len(peer.channels)
            peer.channels -= channels
            self._entries -= 1 + had - len(peer.channels)
        del self._topics[topic.name]
        self._names -= 1 + len(channels)
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
                self._forget_channel(one)
            elif self._topics.get(one.name) is one:
                self._forget_topic(one)
