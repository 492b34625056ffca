"""Changes of the metadata, and who waits until they are saved."""

import pytest

from nsqkit.nsqd.core.batch import FAILED, KEPT, PENDING
from nsqkit.nsqd.core.broker import Broker
from nsqkit.nsqd.core.changes import Changes, promise
from nsqkit.nsqd.core.session import Outlet, Session
from nsqkit.nsqd.core.settings import Settings
from nsqkit.nsqd.durability import Durability
from nsqkit.wire.frames import MESSAGE, RESPONSE, FrameReader

NOW = 1_700_000_000_000_000_000


class Client(Outlet):
    """A client of a broker whose metadata nobody saves unasked."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.reader = FrameReader()
        self.frames: list[tuple[int, bytes]] = []
        self.session = Session(broker, self, "10.0.0.1:4321", NOW)
        self.closed = False
        self.session.receive(b"  V2", NOW)

    def send(self, data: bytes) -> None:
        """From the broker."""
        self.frames += self.reader.feed(data)

    def close(self) -> None:
        """From the broker."""
        self.closed = True

    def say(self, data: bytes) -> list[tuple[int, bytes]]:
        """Send commands; returns what comes in the same turn."""
        more = self.session.receive(data, NOW)
        while more:
            more = self.session.proceed(NOW)
        return self.turn()

    def turn(self) -> list[tuple[int, bytes]]:
        """A turn; returns what comes."""
        for _ in range(3):
            self.broker.work(NOW)
            self.broker.flush()
        frames, self.frames = self.frames, []
        return frames


@pytest.fixture
def broker() -> Broker:
    """One without a disk."""
    return Broker(Settings(), None)


@pytest.fixture
def client(broker: Broker) -> Client:
    """A client of it."""
    return Client(broker)


def save(broker: Broker, error: str = "") -> None:
    """What the daemon does in a thread."""
    broker.changes.take()
    broker.changes.finish(broker.changes.count, error)


OK = (RESPONSE, b"OK")
PUB = b"PUB t\n\0\0\0\1x"


def test_each_changed_thing_is_told_once() -> None:
    """However often it changed, what is to be saved of it is what it is then."""
    changes = Changes()

    numbers = [changes.note("t", ""), changes.note("t", "c"), changes.note("t", "")]

    assert [1, 2, 3] == numbers
    assert [("t", ""), ("t", "c")] == changes.take()
    assert [] == changes.take()
    assert changes.pending()
    changes.finish(3, "")
    assert not changes.pending()


def test_a_save_covers_what_was_there_when_it_began(client: Client) -> None:
    """Who waits for a later change goes on waiting."""
    changes = client.broker.changes
    first, second = promise(client.session), promise(client.session)
    changes.settle_when_saved(first, changes.note("t", ""))
    begun = changes.count
    changes.settle_when_saved(second, changes.note("u", ""))

    changes.finish(begun, "")

    assert (KEPT, PENDING) == (first.state, second.state)
    assert changes.pending()


def test_a_failed_save_saves_nothing(client: Client) -> None:
    """Who waits for it is told why, and everything is still to be saved."""
    changes = client.broker.changes
    batch = promise(client.session)
    changes.settle_when_saved(batch, changes.note("t", ""))

    changes.finish(1, "disk full")

    assert (FAILED, "disk full") == (batch.state, batch.cause)
    assert changes.pending()


def test_sub_of_a_new_channel_is_answered_when_it_is_saved(broker: Broker, client: Client) -> None:
    """The OK says that a restart will know the channel. What comes after SUB is executed meanwhile."""
    assert [] == client.say(b"SUB t c\nCLS\n")

    save(broker)

    assert [OK, (RESPONSE, b"CLOSE_WAIT")] == client.turn()


def test_no_message_comes_before_the_answer_to_sub(broker: Broker, client: Client) -> None:
    """RDY counts from the OK on: clients don't expect messages before it."""
    client.say(b"SUB t c\nRDY 5\n")
    Client(broker).say(PUB)
    assert [] == client.turn()

    save(broker)

    assert [RESPONSE, MESSAGE] == [kind for kind, _ in client.turn()]


def test_sub_of_a_saved_channel_is_answered_at_once(broker: Broker, client: Client) -> None:
    """What others change meanwhile does not matter."""
    client.say(b"SUB t c\n")
    save(broker)
    broker.topic("other")

    assert [OK] == Client(broker).say(b"SUB t c\n")


def test_ephemeral_channel_waits_for_its_topic(broker: Broker, client: Client) -> None:
    """The channel is in no file, but its topic is; with an ephemeral topic there is nothing to wait for."""
    assert [] == client.say(b"SUB t c#ephemeral\n")
    assert [OK] == Client(broker).say(b"SUB e#ephemeral c\n")

    save(broker)

    assert [OK] == client.turn()


def test_sub_fails_with_the_save(broker: Broker, client: Client) -> None:
    """It is refused with the disk's reason, and the channel is tried again with the next save."""
    client.say(b"SUB t c\n")

    save(broker, "failed to write metadata")

    assert [(1, b"E_SUB_FAILED SUB failed failed to write metadata")] == client.turn()
    assert client.closed
    again = Client(broker)
    assert [] == again.say(b"SUB t c\n")
    save(broker)
    assert [OK] == again.turn()


@pytest.mark.parametrize("durability", [Durability.MEMORY, Durability.OS])
def test_a_publish_that_makes_its_topic_waits_for_it(durability: Durability) -> None:
    """And so do those after it, until the topic is saved; publishes to others don't."""
    settings = Settings()
    settings.durability = durability
    broker = Broker(settings, None)
    client = Client(broker)
    broker.topic("known")
    save(broker)

    assert [] == client.say(PUB)
    assert [] == Client(broker).say(PUB)
    assert [OK] == Client(broker).say(PUB.replace(b" t", b" known"))
    save(broker)
    assert [OK] == client.turn()
    assert [OK] == client.say(PUB)


def test_a_synced_publish_still_waits_for_its_topic(broker: Broker, client: Client) -> None:
    """After a power cut the journal's messages go to topics that the metadata names, and to no others."""
    topic = broker.topic("t")
    batch = promise(client.session)

    broker.synced([("t", batch)], "")
    assert PENDING == batch.state
    save(broker)

    assert KEPT == batch.state
    assert topic.made == topic.changed == 1


def test_a_publish_to_a_known_topic_does_not_wait_for_a_new_channel(broker: Broker, client: Client) -> None:
    """It promises nothing about channels."""
    broker.topic("t")
    save(broker)
    broker.topics["t"].channel("new", NOW)

    assert [OK] == client.say(PUB)
