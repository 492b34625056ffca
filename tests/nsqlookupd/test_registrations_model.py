"""The registrations beside a model: the database of the spec."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from nsqkit.names import is_ephemeral
from nsqkit.nsqlookupd.registrations import (
    NEVER,
    Peer,
    Registrations,
)
from tests.nsqlookupd.conftest import INACTIVE_AFTER, MOST, MOST_OF_PEER, NOW, SECOND, TOMBSTONE_LIFETIME
from tests.nsqlookupd.views import check, everything, find, nodes, topics_of


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


TestBesideTheModel = BesideTheModel.TestCase
TestBesideTheModel.settings = settings(max_examples=100, stateful_step_count=40)
