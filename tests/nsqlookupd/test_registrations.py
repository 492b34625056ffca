"""The database of registrations: what each operation leaves behind, and the database of the spec beside it."""

import gc
from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from nsqkit.names import is_ephemeral
from nsqkit.nsqlookupd.registrations import (
    FREEZE_EVERY,
    NEVER,
    PORTION,
    Channel,
    Peer,
    Registrations,
    TooMany,
)
from tests.nsqlookupd.conftest import INACTIVE_AFTER, MOST, MOST_OF_PEER, NOW, SECOND, TOMBSTONE_LIFETIME
from tests.nsqlookupd.views import everything, find, nodes, topics_of


def found(registrations, topic, now=NOW):
    """The nsqds that /lookup shows, or None for an unknown topic."""
    home = registrations.topics(now).get(topic)
    return None if home is None else sorted(peer.id for peer in find(registrations, home, now))


def channels(registrations, topic, now=NOW):
    """The channels of a topic, or None for an unknown one."""
    home = registrations.topics(now).get(topic)
    return None if home is None else sorted(home.channels)


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


# -- the database of the spec


class Model:
    """`(category, key, subkey) -> {peer: tombstoned at}`, and nothing clever.

    Two things differ from NSQ on purpose: with an ephemeral topic its channels go, and ephemeral names also go when
    their last producer unregisters the topic, or some time after its connection broke.
    """

    def __init__(self) -> None:
        self.map: dict[tuple[str, str, str], dict[str, int]] = {("client", "", ""): {}}
        self.updated: dict[str, int] = {}
        self.abandoned: dict[tuple[str, str, str], int] = {}

    def add(self, key: tuple[str, str, str], peer: str) -> None:
        """Add a producer."""
        self.map.setdefault(key, {}).setdefault(peer, NEVER)

    def remove(self, key: tuple[str, str, str], peer: str) -> None:
        """Remove a producer; an ephemeral name goes with the last."""
        self.map.get(key, {}).pop(peer, None)
        if not self.map.get(key, {}) and is_ephemeral(key[2] or key[1]):
            self.drop(key)

    def drop(self, key: tuple[str, str, str]) -> None:
        """Drop a key, and with a topic its channels."""
        for other in [key, *self.channel_keys(key[1])] if key[0] == "topic" else [key]:
            self.map.pop(other, None)
            self.abandoned.pop(other, None)

    def channel_keys(self, topic: str) -> list[tuple[str, str, str]]:
        """The keys of a topic's channels."""
        return [key for key in self.map if key[:2] == ("channel", topic)]

    def leave(self, peer: str, now: int) -> None:
        """A connection broke."""
        for key, peers in self.map.items():
            if peers.pop(peer, None) is not None and not peers and is_ephemeral(key[2] or key[1]):
                self.abandoned[key] = now + INACTIVE_AFTER

    def forget(self, now: int) -> None:
        """Drop what nobody has come back for."""
        for key in [key for key, when in self.abandoned.items() if when <= now]:
            if not self.map.get(key):
                self.drop(key)
            self.abandoned.pop(key, None)

    def active(self, key: tuple[str, str, str], now: int, lifetime: int) -> list[str]:
        """The producers that are neither inactive nor tombstoned."""
        return sorted(
            peer
            for peer, at in self.map[key].items()
            if now - self.updated[peer] <= INACTIVE_AFTER and not now - at < lifetime
        )


NAMES = st.sampled_from(["one", "two", "three#ephemeral", "four#ephemeral"])


class BesideTheModel(RuleBasedStateMachine):
    """Whatever happens, in whatever order, answers are those of the model and the indexes are right."""

    peers: Bundle[Peer] = Bundle("peers")

    def __init__(self) -> None:
        super().__init__()
        self.registrations = Registrations(INACTIVE_AFTER, TOMBSTONE_LIFETIME, MOST, MOST_OF_PEER)
        self.model = Model()
        self.now = NOW
        self.count = 0

    @rule(target=peers, host=st.sampled_from("ab"))
    def connect(self, host: str) -> Peer:
        """An nsqd identifies itself; several may share a machine."""
        self.count += 1
        peer = Peer(f"{host}:{self.count}", host, 4151, b"", self.now)
        self.registrations.join(peer)
        self.model.updated[peer.id] = self.now
        self.model.add(("client", "", ""), peer.id)
        return peer

    @rule(peer=consumes(peers))
    def leave(self, peer: Peer) -> None:
        """Its connection breaks."""
        self.registrations.leave(peer, self.now)
        self.model.forget(self.now)
        self.model.leave(peer.id, self.now)

    @rule(peer=peers)
    def ping(self, peer: Peer) -> None:
        """It pings."""
        peer.last_update = self.model.updated[peer.id] = self.now

    @rule(peer=peers, topic=NAMES, channel=st.one_of(st.just(""), NAMES))
    def register(self, peer: Peer, topic: str, channel: str) -> None:
        """It registers something."""
        self.registrations.register(peer, topic, channel)
        self.model.add(("topic", topic, ""), peer.id)
        if channel:
            self.model.add(("channel", topic, channel), peer.id)

    @rule(peer=peers, topic=NAMES, channel=st.one_of(st.just(""), NAMES))
    def unregister(self, peer: Peer, topic: str, channel: str) -> None:
        """It unregisters something."""
        self.registrations.unregister(peer, topic, channel)
        if channel:
            self.model.remove(("channel", topic, channel), peer.id)
            return
        for key in self.model.channel_keys(topic):
            if peer.id in self.model.map[key]:
                self.model.remove(key, peer.id)
        self.model.remove(("topic", topic, ""), peer.id)

    @rule(topic=NAMES, channel=st.one_of(st.just(""), NAMES))
    def create(self, topic: str, channel: str) -> None:
        """An operator makes a topic or a channel."""
        self.model.map.setdefault(("topic", topic, ""), {})
        if channel:
            self.registrations.create_channel(topic, channel)
            self.model.map.setdefault(("channel", topic, channel), {})
        else:
            self.registrations.create_topic(topic)

    @rule(topic=NAMES, channel=st.one_of(st.just(""), NAMES))
    def delete(self, topic: str, channel: str) -> None:
        """An operator deletes one."""
        if channel:
            known = ("channel", topic, channel) in self.model.map
            assert known == self.registrations.delete_channel(topic, channel)
            self.model.drop(("channel", topic, channel))
        else:
            self.registrations.delete_topic(topic)
            self.model.drop(("topic", topic, ""))

    @rule(topic=NAMES, host=st.sampled_from("ab"))
    def tombstone(self, topic: str, host: str) -> None:
        """An operator hides a node."""
        self.registrations.tombstone(topic, f"{host}:4151", self.now)
        for peer in self.model.map.get(("topic", topic, ""), {}):
            if peer.startswith(host):
                self.model.map["topic", topic, ""][peer] = self.now

    @rule(seconds=st.sampled_from([1, 44, 45, 46, 299, 300, 301]))
    def wait(self, seconds: int) -> None:
        """Time passes."""
        self.now += seconds * SECOND
        self.model.forget(self.now)
        self.registrations.topics(self.now)

    @invariant()
    def answers_agree(self) -> None:
        """Both say the same."""
        model, now = self.model, self.now
        topics = self.registrations.topics(now)
        assert {key for category, key, _ in model.map if category == "topic"} == set(topics)
        for name, topic in topics.items():
            assert {key[2] for key in model.channel_keys(name)} == set(topic.channels)
            visible = sorted(peer.id for peer in find(self.registrations, topic, now))
            assert model.active(("topic", name, ""), now, TOMBSTONE_LIFETIME) == visible
        active = nodes(self.registrations, now)
        assert model.active(("client", "", ""), now, 0) == sorted(peer.id for peer in active)
        for peer in active:
            has = {
                name: now - peers[peer.id] < TOMBSTONE_LIFETIME
                for (category, name, _), peers in sorted(model.map.items())
                if category == "topic" and peer.id in peers
            }
            assert (list(has), list(has.values())) == topics_of(self.registrations, peer, now)
        registered = {
            key: {peer.id: at for peer, at in peers} for key, peers in everything(self.registrations, now)
        }
        assert {":".join(key): peers for key, peers in model.map.items()} == registered

    @invariant()
    def is_consistent(self) -> None:
        """Every index points back."""
        check(self.registrations)


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


TestBesideTheModel = BesideTheModel.TestCase
TestBesideTheModel.settings = settings(max_examples=100, stateful_step_count=40)


# -- limits


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
