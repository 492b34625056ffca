"""What an nsqlookupd is told. A stand-in for one takes the commands and has to end up with the truth."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsqkit.nsqd.discovery.announcer import TOPIC, Announcer


class Lookupd:
    """Does what the spec says an nsqlookupd does, for one nsqd."""

    def __init__(self) -> None:
        self.channels: dict[str, set[str]] = {}  # by topic
        self.tombstones: set[str] = set()

    def take(self, commands: list[bytes]) -> None:
        """Execute commands."""
        for command in commands:
            verb, topic, *rest = command.decode().split()
            if verb == "REGISTER":
                self.channels.setdefault(topic, set()).update(rest)
            elif rest:
                self.channels[topic].discard(rest[0])
            else:
                self.channels.pop(topic)
                self.tombstones.discard(topic)


class World:
    """Topics and channels of an nsqd, its announcer, and the nsqlookupd."""

    def __init__(self) -> None:
        self.topics: dict[str, set[str]] = {}
        self.announcer = Announcer(self.topics.get)
        self.lookupd = Lookupd()
        self.connect()

    def connect(self) -> None:
        """A new connection."""
        self.lookupd = Lookupd()
        self.announcer.begin(self.topics)

    def make(self, topic: str, channel: str) -> None:
        """Make a channel, or just the topic."""
        if topic not in self.topics:
            self.topics[topic] = set()
            self.announcer.made(topic)
        if channel not in ("", *self.topics[topic]):
            self.topics[topic].add(channel)
            self.announcer.made(topic)

    def delete(self, topic: str, channel: str) -> None:
        """Delete a channel, or the topic."""
        if channel in self.topics.get(topic, ()):
            self.topics[topic].remove(channel)
            self.announcer.deleted(topic, channel)
        elif not channel and topic in self.topics:
            for one in sorted(self.topics[topic]):
                self.delete(topic, one)
            del self.topics[topic]
            self.announcer.deleted(topic, TOPIC)

    def tell(self, limit: int = 1000) -> list[bytes]:
        """Tell the nsqlookupd some of it."""
        commands = self.announcer.take(limit)
        self.lookupd.take(commands)
        return commands


@pytest.fixture
def world():
    """An nsqd without topics, connected."""
    return World()


def test_everything_is_told_to_a_new_connection():
    """A topic with channels is told by its channels alone, one without by its name."""
    announcer = Announcer({"a": ["x", "y"], "b": []}.get)
    announcer.begin(["a", "b"])

    assert [b"REGISTER a x\n", b"REGISTER a y\n", b"REGISTER b\n"] == announcer.take(10)
    assert [] == announcer.take(10)


def test_what_is_made_is_registered(world):
    """A topic is told when it is made, and so is each channel."""
    world.make("t", "")
    assert [b"REGISTER t\n"] == world.tell()
    world.make("t", "c")
    assert [b"REGISTER t c\n"] == world.tell()


def test_what_is_deleted_is_unregistered(world):
    """A channel goes by its name; a topic goes with its channels, they first."""
    world.make("t", "c")
    world.make("t", "d")
    world.tell()

    world.delete("t", "c")
    assert [b"UNREGISTER t c\n"] == world.tell()
    world.delete("t", "")
    assert [b"UNREGISTER t d\n", b"UNREGISTER t\n"] == world.tell()


def test_what_came_and_went_between_two_bunches_is_not_mentioned(world):
    """Nobody hears of a topic that was deleted before it was told, and nothing is kept of it."""
    world.make("t", "c")
    world.delete("t", "")

    assert {} == world.announcer._changed
    assert [] == world.tell()


def test_topic_that_is_made_again_ends_its_tombstone(world):
    """A topic deleted and made again at once is unregistered in between."""
    world.make("t", "c")
    world.tell()
    world.lookupd.tombstones.add("t")

    world.delete("t", "")
    world.make("t", "c")

    assert [b"UNREGISTER t c\n", b"UNREGISTER t\n", b"REGISTER t c\n"] == world.tell()
    assert set() == world.lookupd.tombstones


def test_channel_that_is_made_again_is_told_again(world):
    """A channel deleted and made again at once is unregistered in between."""
    world.make("t", "c")
    world.tell()

    world.delete("t", "c")
    world.make("t", "c")

    assert [b"UNREGISTER t c\n", b"REGISTER t c\n"] == world.tell()


def test_bunches_are_small(world):
    """No more than the limit and one topic's worth is given out at once."""
    for number in range(10):
        world.make(f"t{number}", "c")

    assert [3, 3, 3, 1] == [len(world.tell(3)) for _ in range(4)]


topics = st.sampled_from(["t", "u", "v"])
channels = st.sampled_from(["", "c", "d"])
events = st.one_of(
    st.tuples(st.just("make"), topics, channels),
    st.tuples(st.just("delete"), topics, channels),
    st.tuples(st.just("tell"), st.integers(1, 3)),
    st.tuples(st.just("connect")),
)


@given(st.lists(events, max_size=40))
def test_nsqlookupd_ends_up_with_the_truth(history):
    """Whatever happens in whatever order, once all is told the nsqlookupd knows just what there is."""
    world = World()

    for event, *arguments in history:
        getattr(world, event)(*arguments)
        known = set(world.topics) | set(world.lookupd.channels)
        assert known >= set(world.announcer._changed), "the memory used is bounded by what there is"
    while world.tell():
        pass

    assert world.topics == world.lookupd.channels
    assert {} == world.announcer._changed
