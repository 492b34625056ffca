"""Limits of the registrations, and work in portions."""

import gc

import pytest

from nsqkit.nsqlookupd.registrations import (
    FREEZE_EVERY,
    PORTION,
    Peer,
    Registrations,
    TooMany,
)
from tests.nsqlookupd.conftest import INACTIVE_AFTER, MOST_OF_PEER, NOW, TOMBSTONE_LIFETIME
from tests.nsqlookupd.views import channels, check, find, found, nodes, topics_of


def test_registrations_of_one_peer_are_limited(join):
    """A peer that has as much as it may have gets no more, until it gives something back; others do."""
    registrations = Registrations(INACTIVE_AFTER, TOMBSTONE_LIFETIME, 100, 3)
    greedy, other = (Peer(f"{name}:1", name, 4151, b"{}", NOW) for name in "ab")
    registrations.register(greedy, "t", "a")
    registrations.register(greedy, "t", "b")

    with pytest.raises(TooMany, match="--max-registrations-per-nsqd=3"):
        registrations.register(greedy, "t", "c")

    registrations.register(other, "t", "c")
    registrations.unregister(greedy, "t", "b")
    registrations.register(greedy, "t", "c")
    assert ["a", "b", "c"] == sorted(registrations.topics(NOW)["t"].channels)


def test_registrations_of_all_are_limited():
    """So many entries of who has what are kept, and whoever leaves makes room."""
    registrations = Registrations(INACTIVE_AFTER, TOMBSTONE_LIFETIME, 3, 100)
    one, two = (Peer(f"{name}:1", name, 4151, b"{}", NOW) for name in "ab")
    registrations.register(one, "t", "a")
    registrations.register(two, "t", "")

    with pytest.raises(TooMany, match="more than --max-registrations=3"):
        registrations.register(two, "t", "a")

    registrations.leave(one, NOW)
    registrations.register(two, "t", "a")


def test_names_are_limited():
    """Topics and channels outlive their producers, but there may be so many only; what is deleted makes room."""
    registrations = Registrations(INACTIVE_AFTER, TOMBSTONE_LIFETIME, 3, 100)
    registrations.create_channel("t", "a")
    registrations.create_topic("u")

    for make in (lambda: registrations.create_topic("v"), lambda: registrations.create_channel("t", "b")):
        with pytest.raises(TooMany, match="more topics and channels than --max-registrations=3"):
            make()

    registrations.create_topic("u")
    registrations.delete_channel("t", "a")
    registrations.create_topic("v")
    registrations.delete_topic("t")
    registrations.create_topic("w")
    assert ["u", "v", "w"] == sorted(registrations.topics(NOW))


def test_garbage_collector_is_spared(registrations, join):
    """What is registered is not looked at again and again, however much it is."""
    peer = join("a")
    gc.unfreeze()
    gc.collect()
    try:
        for number in range(MOST_OF_PEER // 2):
            registrations.register(peer, f"t{number}", "c")

        assert gc.get_freeze_count() > FREEZE_EVERY
    finally:
        gc.unfreeze()


def portions(registrations: Registrations, now: int = NOW) -> int:
    """Take back everything; in how many portions."""
    count = 1
    while registrations.take_back(now):
        count += 1
    return count


def test_peer_with_much_leaves_in_portions(registrations, join, later):
    """It is seen no more at once, and what it had is taken back bit by bit."""
    peer, other = join("a"), join("b")
    for number in range(2 * PORTION):
        registrations.register(peer, "t", f"c{number}#ephemeral")
    registrations.register(other, "t", "mine")
    topic = registrations.topics(NOW)["t"]

    registrations.leave(peer, NOW)

    assert [None] == later
    assert [other] == find(registrations, topic, NOW) == nodes(registrations, NOW)
    assert 2 == portions(registrations)
    assert [other] == [producer.peer for producer in topic.producers]
    check(registrations)
    portions(registrations, NOW + INACTIVE_AFTER)
    assert ["mine"] == [*topic.channels]
    check(registrations)


def test_topic_with_much_is_unregistered_in_portions(registrations, join, later):
    """Its producer is seen no more at once and may register again; what it had is taken back bit by bit."""
    peer = join("a")
    for number in range(2 * PORTION):
        registrations.register(peer, "t", f"c{number}#ephemeral")
    registrations.create_channel("t", "made")

    registrations.unregister(peer, "t", "")

    assert [None] == later
    assert (0, [], []) == (peer.entries, found(registrations, "t"), topics_of(registrations, peer, NOW)[0])
    registrations.register(peer, "t", "c7#ephemeral")
    portions(registrations)
    assert ["c7#ephemeral", "made"] == channels(registrations, "t")
    check(registrations)


def test_topic_with_much_is_deleted_in_portions(registrations, join, later):
    """It is known no more at once and may be made again; what was known of it is taken apart bit by bit."""
    peers = [join(name) for name in "abcd"]
    for peer in peers:
        for number in range(PORTION):
            registrations.register(peer, "t", f"c{number}#ephemeral")
    registrations.leave(peers.pop(), NOW)

    registrations.delete_topic("t")

    assert later
    assert [0, 0, 0] == [peer.entries for peer in peers]
    assert found(registrations, "t") is None
    registrations.register(peers[0], "t", "c7#ephemeral")
    portions(registrations)
    assert (["a:50000"], ["c7#ephemeral"]) == (found(registrations, "t"), channels(registrations, "t"))
    check(registrations)


def test_what_is_forgotten_is_not_abandoned(registrations, join):
    """A name that was abandoned and goes in another way is kept nowhere: who makes and drops names gathers nothing."""
    for number in range(3):
        lost, back = join("a"), join("b")
        registrations.register(lost, f"t{number}#ephemeral", "c#ephemeral")
        registrations.leave(lost, NOW)
        registrations.register(back, f"t{number}#ephemeral", "c#ephemeral")
        registrations.unregister(back, f"t{number}#ephemeral", "")

    assert {} == registrations._abandoned
    assert {} == registrations.topics(NOW)
