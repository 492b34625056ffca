"""What tests see of registrations, without the pages that show it."""

from collections.abc import Iterator

from nsqkit.nsqlookupd.registrations import NEVER, Peer, Registrations, Topic


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
