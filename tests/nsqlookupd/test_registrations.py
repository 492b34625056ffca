"""The database of registrations: what each operation leaves behind, and the database of the spec beside it."""

import pytest

from nsqkit.nsqlookupd.registrations import (
    NEVER,
    Peer,
    Registrations,
)
from tests.nsqlookupd.conftest import INACTIVE_AFTER, MOST, MOST_OF_PEER, NOW, TOMBSTONE_LIFETIME
from tests.nsqlookupd.views import channels, check, everything, found, nodes, topics_of

# -- what an nsqd does


def test_registered_topic(registrations, join):
    """A topic is found with its producers, and has no channels yet."""
    registrations.register(join("a"), "t", "")
    registrations.register(join("b"), "t", "")

    assert ["a:50000", "b:50000"] == found(registrations, "t")
    assert [] == channels(registrations, "t")


def test_registered_channel_brings_its_topic(registrations, join):
    """A channel is registered together with its topic; doing it again changes nothing."""
    peer = join("a")
    for _ in range(2):
        registrations.register(peer, "t", "c")

    assert ["a:50000"] == found(registrations, "t")
    assert ["c"] == channels(registrations, "t")


def test_registering_is_no_ping(registrations, join):
    """`last_update` stays as it was."""
    peer = join("a")
    registrations.register(peer, "t", "c")

    assert NOW == peer.last_update


def test_unregistered_channel_keeps_topic_and_name(registrations, join):
    """After UNREGISTER of a channel the nsqd still has the topic, and the name is still known."""
    peer = join("a")
    registrations.register(peer, "t", "c")
    registrations.unregister(peer, "t", "c")

    assert ["a:50000"] == found(registrations, "t")
    assert ["c"] == channels(registrations, "t")


def test_unregistered_topic_takes_its_channels_along(registrations, join):
    """After UNREGISTER of a topic the nsqd has none of its channels; the names are still known."""
    peer = join("a")
    registrations.register(peer, "t", "c")
    registrations.register(peer, "other", "c")
    registrations.unregister(peer, "t", "")

    assert [] == found(registrations, "t")
    assert ["c"] == channels(registrations, "t")
    assert ["a:50000"] == found(registrations, "other")
    assert {"client::": 1, "topic:t:": 0, "channel:t:c": 0, "topic:other:": 1, "channel:other:c": 1} == {
        key: len(peers) for key, peers in everything(registrations, NOW)
    }


@pytest.mark.parametrize("topic, channel", [("t", ""), ("t", "c"), ("other", ""), ("other", "c")])
def test_unregistering_what_one_has_not(registrations, join, topic, channel):
    """UNREGISTER of what is unknown, or somebody else's, changes nothing."""
    registrations.register(join("a"), "t", "c")
    registrations.unregister(join("b"), topic, channel)

    assert ["a:50000"] == found(registrations, "t")
    assert ["c"] == channels(registrations, "t")
    assert ["t"] == list(registrations.topics(NOW))


def test_ephemeral_channel_goes_with_the_last_unregister(registrations, join):
    """An ephemeral channel is known until its last producer has unregistered it."""
    one, two = join("a"), join("b")
    for peer in (one, two):
        registrations.register(peer, "t", "c#ephemeral")
    registrations.unregister(one, "t", "c#ephemeral")
    assert ["c#ephemeral"] == channels(registrations, "t")

    registrations.unregister(two, "t", "c#ephemeral")

    assert [] == channels(registrations, "t")


def test_ephemeral_topic_goes_with_the_last_unregister(registrations, join):
    """An ephemeral topic is known until its last producer has unregistered it; its channels go along."""
    one, two = join("a"), join("b")
    for peer in (one, two):
        registrations.register(peer, "t#ephemeral", "c")
    registrations.unregister(one, "t#ephemeral", "")
    assert ["b:50000"] == found(registrations, "t#ephemeral")

    registrations.unregister(two, "t#ephemeral", "")

    assert found(registrations, "t#ephemeral") is None
    registrations.register(one, "t#ephemeral", "")
    assert [] == channels(registrations, "t#ephemeral")


@pytest.mark.parametrize("first, second", [("", "c#ephemeral"), ("c#ephemeral", "")])
def test_order_of_unregistering_does_not_matter(registrations, join, first, second):
    """Of a topic that nsqd deletes no ephemeral channel is left, in whatever order nsqd tells of it."""
    peer = join("a")
    registrations.register(peer, "t", "c#ephemeral")
    registrations.register(peer, "t", "kept")
    registrations.unregister(peer, "t", first)
    registrations.unregister(peer, "t", second)

    assert ["kept"] == channels(registrations, "t")


def test_empty_ephemeral_name_can_be_unregistered_by_anyone(registrations, join):
    """An ephemeral channel that nobody has goes with any UNREGISTER, as in NSQ."""
    registrations.create_channel("t", "c#ephemeral")
    registrations.unregister(join("a"), "t", "c#ephemeral")

    assert [] == channels(registrations, "t")


def test_lost_connection(registrations, join):
    """When a connection breaks, the nsqd is gone everywhere and the names stay."""
    one, two = join("a"), join("b")
    for peer in (one, two):
        registrations.register(peer, "t", "c")
    registrations.register(one, "mine", "")
    registrations.leave(one, NOW)

    assert ["b:50000"] == found(registrations, "t")
    assert [] == found(registrations, "mine")
    assert ["c"] == channels(registrations, "t")
    assert [two] == nodes(registrations, NOW)
    assert ({}, 0) == (one.producers, one.entries)


def test_gap_in_the_middle(registrations, join):
    """Producers can leave a topic in any order."""
    peers = {name: join(name) for name in "abcde"}
    for peer in peers.values():
        registrations.register(peer, "t", "")

    for name in "cae":
        registrations.leave(peers[name], NOW)
        check(registrations)

    assert ["b:50000", "d:50000"] == found(registrations, "t")


def test_address_that_is_used_again(registrations, join):
    """A connection from the address of one that has not been noticed to be gone is not taken along by that."""
    old, new = join("a"), join("a")
    registrations.register(old, "t", "")
    registrations.register(new, "t", "")
    registrations.leave(old, NOW)

    assert [new] == nodes(registrations, NOW)
    assert ["a:50000"] == found(registrations, "t")


# -- ephemeral names whose connection broke


def test_abandoned_ephemeral_names_go_after_a_while(registrations, join):
    """After a lost connection ephemeral names stay as long as a silent nsqd would, and other names for ever."""
    peer = join("a")
    registrations.register(peer, "t#ephemeral", "c")
    registrations.register(peer, "t", "c#ephemeral")
    registrations.leave(peer, NOW)

    assert (["c"], ["c#ephemeral"]) == (
        channels(registrations, "t#ephemeral", NOW + INACTIVE_AFTER - 1),
        channels(registrations, "t", NOW + INACTIVE_AFTER - 1),
    )
    assert (None, []) == (
        channels(registrations, "t#ephemeral", NOW + INACTIVE_AFTER),
        channels(registrations, "t", NOW + INACTIVE_AFTER),
    )


def test_nsqd_that_comes_back_keeps_ephemeral_names(registrations, join):
    """Names that are registered again in time are abandoned no more."""
    peer = join("a")
    registrations.register(peer, "t#ephemeral", "c#ephemeral")
    registrations.leave(peer, NOW)
    registrations.register(join("b"), "t#ephemeral", "c#ephemeral")

    assert ["c#ephemeral"] == channels(registrations, "t#ephemeral", NOW + INACTIVE_AFTER)


def test_the_last_loss_counts(registrations, join):
    """A name that is abandoned twice is forgotten after the second time."""
    for now in (NOW, NOW + 100):
        peer = join("a")
        registrations.register(peer, "t", "c#ephemeral")
        registrations.leave(peer, now)

    assert ["c#ephemeral"] == channels(registrations, "t", NOW + INACTIVE_AFTER)
    assert [] == channels(registrations, "t", NOW + INACTIVE_AFTER + 100)


def test_a_later_loss_holds_up_nobody(registrations, join):
    """A name that is abandoned once more does not keep others from being forgotten in time."""
    for number, channel in enumerate(["a#ephemeral", "b#ephemeral", "a#ephemeral"]):
        peer = join("a")
        registrations.register(peer, "t", channel)
        registrations.leave(peer, NOW + number)

    assert ["a#ephemeral"] == channels(registrations, "t", NOW + INACTIVE_AFTER + 1)


def test_what_operators_make_anew_is_not_abandoned(registrations, join):
    """A name that was abandoned, deleted and made again stays."""
    peer = join("a")
    registrations.register(peer, "t#ephemeral", "")
    registrations.register(peer, "t", "c#ephemeral")
    registrations.leave(peer, NOW)
    registrations.delete_topic("t#ephemeral")
    registrations.delete_channel("t", "c#ephemeral")
    registrations.create_topic("t#ephemeral")
    registrations.create_channel("t", "c#ephemeral")

    assert [] == channels(registrations, "t#ephemeral", NOW + INACTIVE_AFTER)
    assert ["c#ephemeral"] == channels(registrations, "t", NOW + INACTIVE_AFTER)


def test_abandoned_names_do_not_pile_up(registrations, join):
    """Nobody has to ask for abandoned names to be forgotten: a later loss does it."""
    for number in range(10):
        peer = join("a")
        registrations.register(peer, f"t{number}#ephemeral", "")
        registrations.leave(peer, NOW + number * INACTIVE_AFTER)

    assert 1 == len(registrations._abandoned)
    assert 1 == len(registrations._topics)


# -- what operators do


def test_created_names(registrations):
    """A channel is made together with its topic; what is there already stays as it is."""
    registrations.create_topic("t")
    for _ in range(2):
        registrations.create_channel("u", "c")

    assert ([], []) == (found(registrations, "t"), channels(registrations, "t"))
    assert ([], ["c"]) == (found(registrations, "u"), channels(registrations, "u"))


def test_deleted_topic_comes_back_when_registered(registrations, join):
    """A deleted topic is forgotten with all about it until an nsqd registers something of it."""
    peer = join("a")
    registrations.register(peer, "t", "c")
    registrations.register(peer, "t", "d")
    registrations.register(peer, "u", "c")
    registrations.delete_topic("t")
    registrations.delete_topic("never made")

    assert found(registrations, "t") is None
    assert ["u"] == topics_of(registrations, peer, NOW)[0]
    registrations.register(peer, "t", "c")
    assert (["a:50000"], ["c"]) == (found(registrations, "t"), channels(registrations, "t"))


def test_deleted_channel_comes_back_when_registered(registrations, join):
    """A deleted channel is forgotten, the topic is not; REGISTER brings it back."""
    peer = join("a")
    registrations.register(peer, "t", "c")

    assert registrations.delete_channel("t", "c")
    assert (["a:50000"], []) == (found(registrations, "t"), channels(registrations, "t"))
    registrations.register(peer, "t", "c")
    assert ["c"] == channels(registrations, "t")


@pytest.mark.parametrize("topic, channel", [("t", "other"), ("other", "c")])
def test_deleting_an_unknown_channel(registrations, topic, channel):
    """It is said when there was nothing to delete."""
    registrations.create_channel("t", "c")

    assert not registrations.delete_channel(topic, channel)


def test_tombstone_hides_for_a_while(registrations, join):
    """A tombstoned producer is hidden in that topic, and only for the lifetime; /nodes goes on showing it."""
    one, two = join("a"), join("b")
    for peer in (one, two):
        registrations.register(peer, "t", "c")
        registrations.register(peer, "u", "c")
    registrations.tombstone("t", "a:4151", NOW)

    last = NOW + TOMBSTONE_LIFETIME - 1
    assert ["b:50000"] == found(registrations, "t", last)
    assert ["a:50000", "b:50000"] == found(registrations, "u", last)
    assert [one, two] == nodes(registrations, last)
    assert (["t", "u"], [True, False]) == topics_of(registrations, one, last)
    assert (["t", "u"], [False, False]) == topics_of(registrations, two, last)
    assert ["a:50000", "b:50000"] == found(registrations, "t", last + 1)
    assert (["t", "u"], [False, False]) == topics_of(registrations, one, last + 1)


def test_registering_does_not_lift_a_tombstone(registrations, join):
    """REGISTER leaves the tombstone; UNREGISTER and REGISTER lift it."""
    peer = join("a")
    registrations.register(peer, "t", "c")
    registrations.tombstone("t", "a:4151", NOW)
    registrations.register(peer, "t", "d")
    assert [] == found(registrations, "t")

    registrations.unregister(peer, "t", "")
    registrations.register(peer, "t", "")

    assert ["a:50000"] == found(registrations, "t")


@pytest.mark.parametrize("topic, node", [("t", "a"), ("t", "a:4150"), ("t", "a:50000"), ("other", "a:4151")])
def test_tombstone_of_something_else(registrations, join, topic, node):
    """A node is named by broadcast address and HTTP port; another name hides nobody."""
    registrations.register(join("a"), "t", "")
    registrations.tombstone(topic, node, NOW)

    assert ["a:50000"] == found(registrations, "t")


@pytest.mark.parametrize("node", ["fe80::1:4151", "[fe80::1]:4151"])
def test_tombstone_of_an_ipv6_address(registrations, join, node):
    """An IPv6 address may be written with or without brackets."""
    registrations.register(join("fe80::1"), "t", "")
    registrations.tombstone("t", node, NOW)

    assert [] == found(registrations, "t")


# -- what is asked


def test_inactive_nsqd_is_hidden_until_it_pings(registrations, join):
    """An nsqd is hidden when its last PING is older than the limit, and back with the next."""
    peer = join("a")
    registrations.register(peer, "t", "c")

    late = NOW + INACTIVE_AFTER + 1
    assert (["a:50000"], [peer]) == (found(registrations, "t", late - 1), nodes(registrations, late - 1))
    assert ([], []) == (found(registrations, "t", late), nodes(registrations, late))
    assert ["c"] == channels(registrations, "t", late)
    peer.last_update = late
    assert (["a:50000"], [peer]) == (found(registrations, "t", late), nodes(registrations, late))


def test_longest_times_hide_nobody(join):
    """With the longest durations there are nobody is inactive, and nobody tombstoned who never was."""
    registrations = Registrations(2**63 - 1, 2**63 - 1, MOST, MOST_OF_PEER)
    peer = Peer("a:1", "a", 4151, b"{}", 0)
    registrations.join(peer)
    registrations.register(peer, "t", "")

    assert ["a:1"] == found(registrations, "t")
    assert (["t"], [False]) == topics_of(registrations, peer, NOW)


def test_everything(registrations, join):
    """All keys are listed as NSQ has them, with peers and the times of their tombstones, expired ones too."""
    one, two = join("a"), join("b")
    registrations.register(one, "t", "c")
    registrations.register(two, "t", "")
    registrations.tombstone("t", "b:4151", NOW)

    assert {
        "client::": [(one, NEVER), (two, NEVER)],
        "topic:t:": [(one, NEVER), (two, NOW)],
        "channel:t:c": [(one, NEVER)],
    } == dict(everything(registrations, NOW + TOMBSTONE_LIFETIME))
