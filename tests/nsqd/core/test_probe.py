"""What a test may hook into a broker."""

from nsqkit.nsqd.core.probe import Probe
from nsqkit.wire.errors import PublishFailed
from tests.nsqd.core.sent import mpub, pub


class Refusing(Probe):
    """Writes down what it hears, and refuses some commands."""

    def __init__(self, *refused):
        self.refused = refused
        self.heard = []

    def command_came(self, command):
        """Refuse it, or write it down."""
        if command in self.refused:
            raise PublishFailed(command, "no")
        self.heard.append(command)

    def published(self, topic, data, count):
        """Write it down."""
        self.heard.append((topic, data, count))


def test_it_hears_of_commands_and_of_what_is_published(node, client):
    """Each command is told before its body is there, and each publish when it was taken in."""
    node.broker.probe = Refusing()

    client.send(b"NOP\n" + pub(b"t", b"one") + mpub(b"t", b"two", b"three"))

    assert [
        "NOP",
        "PUB",
        "MPUB",
        ("t", b"\0\0\0\x03one", 1),
        ("t", b"\0\0\0\x03two\0\0\0\x05three", 2),
    ] == node.broker.probe.heard


def test_it_may_let_commands_fail(node, client):
    """A command that it refuses is answered with the error, and nothing of it is done."""
    node.broker.probe = Refusing("MPUB")

    client.send(mpub(b"t", b"one"))

    assert b"E_MPUB_FAILED MPUB failed no" == client.error()
    assert {} == node.broker.topics


def test_one_that_does_nothing(node, client, consumer):
    """The plain one lets everything pass."""
    node.broker.probe = Probe()

    consumer.send(b"SUB t c\nRDY 1\n")
    client.send(pub(b"t", b"one"))

    assert [b"one"] == [one.body for one in consumer.deliveries()]
