"""What tests see of registrations, without the pages that show it."""

from collections import Counter
from collections.abc import Iterator

from nsqkit.nsqlookupd.registrations import NEVER, Channel, Peer, Registrations, Topic
from tests.nsqlookupd.conftest import NOW


def find(registrations: Registrations, topic: Topic, now: int) -> list[Peer]:
    """The peers to consume a topic from."""
    return [producer.peer for producer in topic.producers if registrations.is_shown(producer, now)]


def nodes(registrations: Registrations, now: int) -> list[Peer]:
    """Every active peer."""
    return [peer for peer in registrations.peers() if registrations.is_active(peer, now)]


def topics_of(registrations: Registrations, peer: Peer, now: int) -> tuple[list[str], list[bool]]:
    """A peer's topics, sorted; and for each whether the peer is tombstoned there now."""
    names = sorted(peer.producers)
    return names, [registrations.is_tombstoned(peer, name, now) for name in names]


def everything(registrations: Registrations, now: int) -> Iterator[tuple[str, list[tuple[Peer, int]]]]:
    """`category:key:subkey`, and the peers there with the times of their tombstones: as NSQ keeps it."""
    yield "client::", [(peer, NEVER) for peer in registrations.peers()]
    for topic in registrations.topics(now).values():
        yield f"topic:{topic.name}:", [(p.peer, p.tombstoned_at) for p in topic.producers]
        for channel in topic.channels.values():
            having = [(p.peer, NEVER) for p in topic.producers if channel in p.channels]
            yield f"channel:{topic.name}:{channel.name}", having


def found(registrations: Registrations, topic: str, now: int = NOW) -> list[str] | None:
    """The nsqds that /lookup shows, or None for an unknown topic."""
    home = registrations.topics(now).get(topic)
    return None if home is None else sorted(peer.id for peer in find(registrations, home, now))


def channels(registrations: Registrations, topic: str, now: int = NOW) -> list[str] | None:
    """The channels of a topic, or None for an unknown one."""
    home = registrations.topics(now).get(topic)
    return None if home is None else sorted(home.channels)


def check(registrations: Registrations) -> None:
    """Look at everything that is kept twice."""
    having: Counter[Channel] = Counter()
    for address, peer in registrations._peers.items():
        assert address == peer.id
        for name, producer in peer.producers.items():
            assert (name, peer) == (producer.topic.name, producer.peer)
            assert registrations._topics[name] is producer.topic
            for channel in producer.channels:
                assert channel.topic is producer.topic
                assert producer.topic.channels[channel.name] is channel
                having[channel] += 1
        assert peer.entries == sum(1 + len(producer.channels) for producer in peer.producers.values())
    for name, topic in registrations._topics.items():
        assert name == topic.name
        for index, producer in enumerate(topic.producers):
            assert index == producer.index
            assert producer.peer.producers[name] is producer
        for key, channel in topic.channels.items():
            assert (key, topic) == (channel.name, channel.topic)
            assert having[channel] == channel.producers
    channels = [channel for topic in registrations._topics.values() for channel in topic.channels.values()]
    assert len(registrations._topics) + len(channels) == registrations._names
    assert set(registrations._abandoned) <= {*registrations._topics.values(), *channels}
    assert not registrations._parts
    had = sum(channel.producers for channel in channels)
    assert (
        had + sum(len(topic.producers) for topic in registrations._topics.values()) == registrations._entries
    )
