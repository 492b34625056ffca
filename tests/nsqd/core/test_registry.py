"""What the broker tells its registry."""

import pytest

from nsqkit.nsqd.core.registry import Registry


class Notes(Registry):
    """Writes down what it hears."""

    def __init__(self):
        super().__init__()
        self.heard: list[str] = []

    def topic_made(self, topic):
        """A topic."""
        self.heard.append(f"+{topic.name}")

    def topic_deleted(self, topic):
        """No topic."""
        self.heard.append(f"-{topic}")

    def channel_made(self, topic, channel):
        """A channel."""
        self.heard.append(f"+{topic}/{channel}")

    def channel_deleted(self, topic, channel):
        """No channel."""
        self.heard.append(f"-{topic}/{channel}")


@pytest.fixture
def notes(broker):
    """The broker's registry."""
    broker.registry = Notes()
    return broker.registry


def test_every_change_is_told_once_and_in_order(node, notes, publish):
    """Topics and channels are told when they are made, and when they are deleted channels before their topic."""
    publish("t", b"x")
    publish("t", b"x")
    node.client().subscribe("t", "c")
    node.client().subscribe("t", "c")
    node.topic("t").delete_channel("c")
    node.channel("t", "d")
    node.broker.delete_topic("t")

    assert ["+t", "+t/c", "-t/c", "+t/d", "-t/d", "-t"] == notes.heard


def test_ephemeral_ones_are_told_too(node, notes):
    """An ephemeral channel that goes with its consumer is told, and so is its topic."""
    consumer = node.client().subscribe("t#ephemeral", "c#ephemeral")

    consumer.leave()
    node.turn()

    assert [
        "+t#ephemeral",
        "+t#ephemeral/c#ephemeral",
        "-t#ephemeral/c#ephemeral",
        "-t#ephemeral",
    ] == notes.heard


def test_registry_may_hold_a_topic(node, broker, publish):
    """What is published to a topic that its registry holds waits, from the first message on."""

    class Holder(Registry):
        def topic_made(self, topic):
            topic.await_channels()

    broker.registry = Holder()
    publish("t", b"x")
    consumer = node.client().subscribe("t", "c").ready(1)
    assert [] == consumer.bodies()

    node.topic("t").channels_known(node.clock.now)
    node.turn()

    assert [b"x"] == consumer.bodies()
