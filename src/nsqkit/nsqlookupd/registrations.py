"""Which nsqd has which topics and channels (spec/nsqlookupd.md, section 2). No I/O; times are ns since the epoch.

    topics   name -> Topic      -> channels: name -> Channel, which counts its producers
                                -> producers: one Producer for each peer that registered the topic
    peers    id   -> Peer       -> producers: topic's name -> the same Producer
                                              -> channels: the Channels of its topic that it has

Rules: what a connected nsqd does costs in proportion to what it does, whatever else is registered, and there are limits
for what one and all of them may register. What is to go is seen no more at once, and taken apart in portions. Who has a
channel has its topic. Names of topics and channels outlive their producers; only ephemeral ones go: with the last
UNREGISTER, or, when the last connection that had them broke, after the time in which nsqds come back.
"""

import gc
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from nsqkit.address import join_address
from nsqkit.names import is_ephemeral

NEVER: Final = -(2**64)
"""`tombstoned_at` of a producer that never was: longer ago than any lifetime."""

PORTION: Final = 1000
"""What is taken apart or forgotten in one step: less than a millisecond's work."""

FEW: Final = 8
"""Channels of one topic that a list holds: most nsqds have one or two, and a set takes 150 bytes more."""

FREEZE_EVERY: Final = 10_000
"""New names and entries after which the garbage collector is told to look at what there is no more.

It finds nothing there: what is forgotten is taken apart. But a million of them would keep it, and everybody, for a
second each time that it looks.
"""


class TooMany(Exception):
    """There is no room for another registration. The text says which limit is reached."""


class Peer:
    """A connected nsqd that has identified itself."""

    __slots__ = ("document", "entries", "gone", "id", "last_update", "left_at", "nodes", "producers")

    def __init__(self, id: str, broadcast_address: str, http_port: int, document: bytes, now: int) -> None:
        """`document` is what /lookup says of it, as JSON."""
        self.id = id  # host:port of the connection
        self.document = document
        self.gone = False  # it has left, and its registrations are being taken back
        self.left_at = 0  # when
        self.last_update = now  # when it identified itself or last pinged
        self.producers: dict[str, Producer] = {}  # by topic
        self.entries = 0  # one for each topic and each channel that it has
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

    __slots__ = ("channels", "index", "peer", "tombstoned_at", "topic")

    def __init__(self, peer: Peer, topic: "Topic") -> None:
        self.peer = peer
        self.topic = topic
        self.index = len(topic.producers)  # in the topic's list
        self.tombstoned_at = NEVER
        self.channels: (
            list[Channel] | set[Channel]
        ) = []  # those that the peer has: few in a list, more in a set

    def add(self, channel: Channel) -> None:
        """The peer has another channel, too."""
        if isinstance(self.channels, set):
            self.channels.add(channel)
        elif len(self.channels) < FEW:
            self.channels.append(channel)
        else:
            self.channels = {*self.channels, channel}


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


class Counts(NamedTuple):
    """How much is known."""

    topics: int
    channels: int
    entries: int  # one for each topic and each channel that a peer has
    peers: int
    tombstones: int


class Registrations:
    """Everything that is known."""

    def __init__(
        self,
        inactive_after: int,
        tombstone_lifetime: int,
        most: int,
        most_of_peer: int,
        later: Callable[[], None] = lambda: None,
    ) -> None:
        """Durations are ns. There may be `most` names, and as many entries of who has them; so many of one peer.

        `later` is called while there is something left to `take_back` soon.
        """
        self.configure(inactive_after, tombstone_lifetime, most, most_of_peer)
        self._names = 0  # topics and channels
        self._entries = 0  # one for each topic and each channel that a peer has
        self._fresh = 0  # names and entries made since the garbage collector was told
        self._later = later
        self._parts: deque[Peer | Producer | Topic] = deque()  # seen no more; to be taken apart
        self._topics: dict[str, Topic] = {}
        self._peers: dict[str, Peer] = {}
        # When each was tombstoned, the longest ago first; some may be over.
        self._tombstoned: OrderedDict[Producer, int] = OrderedDict()
        # Ephemeral ones whose last producer's connection broke: when to forget them, the first first.
        self._abandoned: OrderedDict[Topic | Channel, int] = OrderedDict()

    def configure(self, inactive_after: int, tombstone_lifetime: int, most: int, most_of_peer: int) -> None:
        """Go by these from now on. What is there stays, even if it is more than may be."""
        self._inactive_after = inactive_after
        self._tombstone_lifetime = tombstone_lifetime
        self._most = most
        self._most_of_peer = most_of_peer

    # -- what an nsqd does

    def join(self, peer: Peer) -> None:
        """A peer has identified itself."""
        self._peers[peer.id] = peer

    def leave(self, peer: Peer, now: int) -> None:
        """A peer's connection is gone, and all its registrations with it. The names stay."""
        if self._peers.get(peer.id) is peer:  # its address may be somebody else's already
            del self._peers[peer.id]
        peer.gone = True
        peer.left_at = now
        self._parts.appendleft(peer)
        self.take_back(now)

    def take_back(self, now: int) -> bool:
        """Take apart and forget a portion of what is to go; True if there is more."""
        more = self._forget_abandoned(now)
        return self._take_apart() or more

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
            self._add_entry(peer)
            peer.producers[home.name] = producer
        if channel:
            one = self._channel(producer.topic, channel)
            if one not in producer.channels:
                producer.add(one)
                one.producers += 1
                self._add_entry(peer)

    def unregister(self, peer: Peer, topic: str, channel: str) -> None:
        """A peer has a channel no more, or if that is empty the whole topic. An ephemeral name goes with the last."""
        home = self._topics.get(topic)
        if home is None:
            return
        if channel:
            self._unregister_channel(peer, home, channel)
            return
        producer = peer.producers.pop(topic, None)
        if producer is not None:
            self._leave_topic(producer)
        elif not home.producers and is_ephemeral(topic):
            self._forget_topic(home)
        self._take_apart()

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
            self._take_apart()

    def delete_channel(self, topic: str, channel: str) -> bool:
        """Forget a channel and who has it; False if it was not known."""
        home = self._topics.get(topic)
        one = home.channels.get(channel) if home is not None else None
        if home is None or one is None:
            return False
        self._forget_channel(one)
        for producer in home.producers:
            if one in producer.channels:
                producer.channels.remove(one)
                self._drop_entries(producer.peer, 1)
        return True

    def tombstone(self, topic: str, node: str, now: int) -> None:
        """Hide the producers of a topic that announce themselves as `node` from those who look the topic up."""
        home = self._topics.get(topic)
        for producer in home.producers if home is not None else ():
            if node in producer.peer.nodes:
                producer.tombstoned_at = now
                self._tombstoned[producer] = now
                self._tombstoned.move_to_end(producer)

    # -- what is asked

    def topics(self, now: int) -> Mapping[str, Topic]:
        """Every topic by its name."""
        self.take_back(now)
        return self._topics

    def peers(self) -> list[Peer]:
        """Every peer that is connected, inactive ones too."""
        return [*self._peers.values()]

    def counts(self) -> Counts:
        """How much is known. Tombstones count until `forget_tombstones`."""
        topics = len(self._topics)
        return Counts(topics, self._names - topics, self._entries, len(self._peers), len(self._tombstoned))

    def forget_tombstones(self, now: int) -> bool:
        """Count a portion of tombstones that are over no more; True if there may be others."""
        for _ in range(PORTION):
            producer, when = next(iter(self._tombstoned.items()), (None, 0))
            if producer is None or when > now - self._tombstone_lifetime:
                return False
            del self._tombstoned[producer]
        return True

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
        if peer.entries >= self._most_of_peer:
            raise TooMany(f"more than --max-registrations-per-nsqd={self._most_of_peer}")
        if self._entries >= self._most:
            raise TooMany(f"more than --max-registrations={self._most}")

    def _add_name(self) -> None:
        if self._names >= self._most:
            raise TooMany(f"more topics and channels than --max-registrations={self._most}")
        self._names += 1
        self._made()

    def _made(self) -> None:
        self._fresh += 1
        if self._fresh >= FREEZE_EVERY:
            self._fresh = 0
            gc.collect(1)  # what is garbage by now must not stay
            gc.freeze()

    def _channel(self, topic: Topic, name: str) -> Channel:
        """The channel of this name, made if it is not known."""
        channel = topic.channels.get(name)
        if channel is None:
            self._add_name()
            channel = topic.channels[name] = Channel(topic, name)
        return channel

    def _add_entry(self, peer: Peer) -> None:
        peer.entries += 1
        self._entries += 1
        self._made()

    def _drop_entries(self, peer: Peer, count: int) -> None:
        peer.entries -= count
        self._entries -= count

    def _unregister_channel(self, peer: Peer, topic: Topic, name: str) -> None:
        channel = topic.channels.get(name)
        producer = peer.producers.get(topic.name)
        if channel is None:
            return
        if producer is not None and channel in producer.channels:
            producer.channels.remove(channel)
            self._drop_entries(peer, 1)
            self._leave_channel(peer, channel)
        elif not channel.producers and is_ephemeral(name):
            self._forget_channel(channel)

    def _take_apart(self) -> bool:
        """Take apart a portion of what is to go, the latest first; True if there is more."""
        parts, left = self._parts, PORTION
        while parts and left:
            if not self._take_off(parts[0]):
                parts.popleft()
            left -= 1
        if parts:
            self._later()
        return bool(parts)

    def _take_off(self, one: Peer | Producer | Topic) -> bool:
        """Take the next thing off it; False if there is none."""
        if isinstance(one, Peer):
            if one.producers:
                self._leave_topic(one.producers.popitem()[1])
                return True
        elif one.channels:
            if isinstance(one, Producer):
                self._leave_channel(one.peer, one.channels.pop())
            else:
                self._forget_channel(next(reversed(one.channels.values())))
            return True
        return False

    def _leave_topic(self, producer: Producer) -> None:
        """A peer, which does not list it any more, has a topic no more."""
        topic, peer = producer.topic, producer.peer
        topic.drop(producer)
        self._tombstoned.pop(producer, None)
        self._drop_entries(peer, 1 + len(producer.channels))
        if not topic.producers and is_ephemeral(topic.name):
            if peer.gone:
                self._abandon(topic, peer.left_at)
            else:
                self._forget_topic(topic)
        self._parts.appendleft(producer)

    def _leave_channel(self, peer: Peer, channel: Channel) -> None:
        """A peer, which does not list it any more, has a channel no more."""
        channel.producers -= 1
        known = channel.topic.channels.get(channel.name) is channel
        if known and not channel.producers and is_ephemeral(channel.name):
            if peer.gone:
                self._abandon(channel, peer.left_at)
            else:
                self._forget_channel(channel)

    def _forget_channel(self, channel: Channel) -> None:
        del channel.topic.channels[channel.name]
        self._names -= 1
        self._abandoned.pop(channel, None)

    def _forget_topic(self, topic: Topic) -> None:
        del self._topics[topic.name]
        self._names -= 1
        self._abandoned.pop(topic, None)
        for producer in topic.producers:
            del producer.peer.producers[topic.name]
            self._tombstoned.pop(producer, None)
            self._drop_entries(producer.peer, 1 + len(producer.channels))
        self._parts.extendleft(topic.producers)
        self._parts.appendleft(topic)
        topic.producers = []

    def _abandon(self, one: Topic | Channel, left_at: int) -> None:
        self._abandoned[one] = left_at
        self._abandoned.move_to_end(one)

    def _forget_abandoned(self, now: int) -> bool:
        """Drop a portion of the ephemeral names that nobody has come back for; True if there may be more."""
        for _ in range(PORTION):
            one, left_at = next(iter(self._abandoned.items()), (None, 0))
            if one is None or left_at + self._inactive_after > now:
                return False
            del self._abandoned[one]
            if one.producers:
                continue  # somebody has
            if isinstance(one, Channel):
                self._forget_channel(one)
            else:
                self._forget_topic(one)
        self._later()
        return True
