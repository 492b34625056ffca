"""A broker without sockets, clock and disk, and clients that speak the protocol with it.

`node` owns the broker and runs its turns; `clock` stops at each of the broker's deadlines on its way; a `FakeLog` is a
topic's store in memory that can be told to fail. `flavour` says what is under the broker: nothing, or a store in one of
the durability modes; most tests run in all four.
"""

import json
import random
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from nsqkit.nsqd.core.batch import KEPT, Batch, Publisher
from nsqkit.nsqd.core.broker import Broker
from nsqkit.nsqd.core.channel import Channel
from nsqkit.nsqd.core.ledger import carry_forward, record, save_memory, stuck
from nsqkit.nsqd.core.owed import TopicOwed
from nsqkit.nsqd.core.session import Outlet, Session
from nsqkit.nsqd.core.settings import SECOND, Settings
from nsqkit.nsqd.core.store import Extent, Storage, StoreError, TopicRecord, TopicStore
from nsqkit.nsqd.core.topic import Topic
from nsqkit.nsqd.durability import Durability
from nsqkit.wire.frames import ERROR, MESSAGE, RESPONSE, FrameReader
from nsqkit.wire.identify import Identity
from nsqkit.wire.message import NOWHERE

NOW = 1_700_000_000 * SECOND
HEARTBEAT = (RESPONSE, b"_heartbeat_")
FLAVOURS = {
    "nothing": Durability.OS,
    "memory": Durability.MEMORY,
    "os": Durability.OS,
    "fsync": Durability.FSYNC,
}


class FakeLog(TopicStore):
    """A topic's log: a list of batches. Like a real one it gives copies, and forgets what no checkpoint needs."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.failure = ""  # the error of every write, if any
        self.read_failure = ""  # the error of every read, if any
        self.segment = 0  # messages in a segment, 0: there is only one
        self.writes = 0
        self.record: TopicRecord | None = None
        self.open = True
        self.deleted = False
        self._pending: list[Batch] = []
        self._end = 0

    def append(self, batch: Batch) -> None:
        """Positions are consecutive."""
        batch.first_position = self._end + sum(b.count for b in self._pending)
        self._pending.append(batch)

    def write(self) -> None:
        """All of it or nothing."""
        pending, self._pending = self._pending, []
        if self.failure:
            for batch in pending:
                batch.first_position = NOWHERE
            raise StoreError(self.failure)
        self.batches += [_copy(batch) for batch in pending]
        self._end += sum(batch.count for batch in pending)
        self.writes += bool(pending)

    def read(self, start: int, stop: int, limit_bytes: int) -> list[Batch]:
        """Whole batches, at least one."""
        if self.read_failure:
            raise StoreError(self.read_failure)
        found: list[Batch] = []
        for batch in self.batches:
            if batch.first_position < stop and batch.first_position + batch.count > start:
                found.append(_copy(batch))
                limit_bytes -= len(batch.data)
                if limit_bytes <= 0:
                    break
        return found

    def damage(self, position: int) -> None:
        """Lose the batch that has this position."""
        self.batches = [
            b for b in self.batches if not b.first_position <= position < b.first_position + b.count
        ]

    def cut_off(self, count: int) -> None:
        """Lose the last batches, as a power cut does."""
        del self.batches[-count:]

    def end(self) -> int:
        """Positions never repeat."""
        return self._end

    def start(self) -> int:
        """What is in front was removed."""
        return self.batches[0].first_position if self.batches else self._end

    def recovered(self) -> TopicRecord | None:
        """The last checkpoint."""
        return self.record

    def checkpoint(self, record: TopicRecord) -> None:
        """Forget everything that is not needed, as strictly as possible."""
        self.record = record
        self.batches = [b for b in self.batches if b.first_position + b.count > record.needed_from]

    def oldest(self) -> Extent | None:
        """The oldest segment, if they have a size."""
        start = self.start()
        return Extent(start, start + self.segment) if 0 < self.segment < self._end - start else None

    def size_bytes(self) -> int:
        """Without headers."""
        return sum(len(batch.data) for batch in self.batches)

    def worth_leaving(self) -> bool:
        """If it has a segment's worth of messages."""
        return 0 < self.segment <= self._end - self.start()

    def close(self) -> None:
        """Note it."""
        self.open = False

    def delete(self) -> None:
        """Note it."""
        self.deleted = True


def _copy(batch: Batch) -> Batch:
    twin = Batch(batch.data, batch.count, batch.timestamp, batch.due, None)
    twin.first_id, twin.first_position = batch.first_id, batch.first_position
    twin.carried, twin.state = batch.carried, KEPT
    return twin


class FakeStorage(Storage):
    """Logs by topic. A deleted one is gone; one that was open before is there again."""

    def __init__(self) -> None:
        self.logs: dict[str, FakeLog] = {}
        self.failure = ""  # the error of opening a log, if any

    def open(self, topic: str) -> TopicStore:
        """The topic's log."""
        if self.failure:
            raise StoreError(self.failure)
        if topic not in self.logs or self.logs[topic].deleted:
            self.logs[topic] = FakeLog()
        return self.logs[topic]


class Recorder(Outlet):
    """The connection of a test client. What is sent through it is cut into frames."""

    def __init__(self, client: "Client") -> None:
        self.client = client
        self.frames: list[tuple[int, bytes]] = []
        self.sends: list[bytes] = []
        self.heartbeats = 0
        self.held = False
        self.upgrades: list[tuple[str, int]] = []  # with the number of frames sent before
        self.ready = True  # are layers ready at once?
        self.ended = ""  # "closed" or "aborted"
        self.session: Session
        self.blocks_above = 1 << 62  # bytes that block it until the test says `resume`
        self._reader = FrameReader()

    def send(self, data: bytes) -> None:
        """Cut it into frames."""
        assert not self.ended
        self.sends.append(data)
        frames = self._reader.feed(data)
        self.frames += frames
        self.heartbeats += frames.count(HEARTBEAT)
        node = self.client.node
        node.sent += [(node.clock.now, self.client, _delivery(p)) for kind, p in frames if kind == MESSAGE]
        if len(data) > self.blocks_above:
            self.session.blocked = True

    def hold(self, held: bool) -> None:
        """Note it."""
        assert self.held != held
        self.held = held

    def upgrade(self, layer: str, identity: Identity) -> bool:  # noqa: ARG002 - an outlet's interface
        """Note when."""
        self.upgrades.append((layer, len(self.frames)))
        return self.ready

    def close(self) -> None:
        """The owner of a connection tells the session."""
        self.ended = self.ended or "closed"
        self.session.gone()

    def abort(self) -> None:
        """The same, at once."""
        self.ended = "aborted"
        self.session.gone()


class Delivery(NamedTuple):
    """A message frame."""

    body: bytes
    attempts: int
    id: bytes
    timestamp: int


class Client:
    """A connection. What it says is answered within the call, unless a commit is awaited."""

    def __init__(self, node: "Node", address: str = "10.0.0.1:4321", *, greeted: bool = True) -> None:
        self.node = node
        self.outlet = Recorder(self)
        self.session = self.outlet.session = Session(node.broker, self.outlet, address, node.clock.now)
        self.lively = True  # answers heartbeats
        self.answered = 0  # heartbeats answered
        self.seen = 0  # frames looked at by `replies`
        self.taken = 0  # frames looked at by `deliveries`
        node.clients.append(self)
        if greeted:
            self.send(b"  V2")

    def send(self, data: bytes) -> "Client":
        """Bytes, in one chunk; then a turn."""
        if not self.outlet.ended:
            self.receive(data)
        self.node.turn()
        return self

    def send_chunks(self, chunks: list[bytes]) -> "Client":
        """Bytes in chunks; then a turn."""
        for chunk in chunks:
            self.receive(chunk)
        self.node.turn()
        return self

    def receive(self, data: bytes) -> None:
        """Execute what these bytes complete, share after share."""
        more = self.session.receive(data, self.node.clock.now)
        while more and not self.session.waiting:
            more = self.session.proceed(self.node.clock.now)

    def replies(self) -> list[tuple[int, bytes]]:
        """New response and error frames, without heartbeats."""
        frames, self.seen = self.outlet.frames[self.seen :], len(self.outlet.frames)
        return [frame for frame in frames if frame[0] != MESSAGE and frame != HEARTBEAT]

    def error(self) -> bytes:
        """The one reply, which is an error."""
        ((kind, payload),) = self.replies()
        assert kind == ERROR
        return payload

    def answer_heartbeats(self) -> None:
        """Say NOP for each, if this is a lively client."""
        while self.lively and self.answered < self.outlet.heartbeats and not self.ended:
            self.answered += 1
            self.session.receive(b"NOP\n", self.node.clock.now)

    def deliveries(self) -> list[Delivery]:
        """New message frames."""
        frames, self.taken = self.outlet.frames[self.taken :], len(self.outlet.frames)
        return [_delivery(payload) for kind, payload in frames if kind == MESSAGE]

    def received(self) -> list[tuple[bytes, int]]:
        """Body and attempts of new messages."""
        return [(delivery.body, delivery.attempts) for delivery in self.deliveries()]

    def bodies(self) -> list[bytes]:
        """Bodies of new messages."""
        return [delivery.body for delivery in self.deliveries()]

    @property
    def ended(self) -> str:
        """Whether nsqd has `closed` or `aborted` the connection."""
        return self.outlet.ended

    def identify(self, **fields: object) -> "Client":
        """IDENTIFY; its reply is thrown away."""
        body = json.dumps(fields).encode()
        self.send(b"IDENTIFY\n" + sized(body)).replies()
        return self

    def subscribe(self, topic: str, channel: str) -> "Client":
        """SUB, which must succeed."""
        self.send(f"SUB {topic} {channel}\n".encode())
        assert [(RESPONSE, b"OK")] == self.replies()
        return self

    def ready(self, count: int) -> "Client":
        """RDY."""
        return self.send(b"RDY %d\n" % count)

    def finish(self, *ids: bytes) -> "Client":
        """FIN."""
        return self.send(b"".join(b"FIN %s\n" % i for i in ids))

    def requeue(self, message_id: bytes, delay_ms: int = 0) -> "Client":
        """REQ."""
        return self.send(b"REQ %s %d\n" % (message_id, delay_ms))

    def touch(self, message_id: bytes) -> "Client":
        """TOUCH."""
        return self.send(b"TOUCH %s\n" % message_id)

    def leave(self) -> None:
        """Hang up."""
        self.session.gone()
        self.outlet.ended = self.outlet.ended or "left"
        self.node.turn()


def _delivery(payload: bytes) -> Delivery:
    timestamp, attempts, message_id = struct.unpack_from(">qH16s", payload)
    return Delivery(payload[26:], attempts, message_id, timestamp)


def sized(*bodies: bytes) -> bytes:
    """Each body behind its size."""
    return b"".join(struct.pack(">i", len(body)) + body for body in bodies)


class Clock:
    """A clock that moves when told to, and lets the broker do what is due at the very moment."""

    def __init__(self) -> None:
        self.now = NOW
        self.node: Node

    def advance(self, seconds: float) -> None:
        """Move on, stopping at each deadline."""
        end = self.now + round(seconds * SECOND)
        when = int(self.node.broker.deadlines.next())
        while when and when <= end:
            assert when >= self.now, "a deadline was not served in its time"
            self.now = when
            self.node.turn()
            when = int(self.node.broker.deadlines.next())
        self.now = end
        self.node.turn()

    def jump(self, seconds: float) -> None:
        """Move on at once: the machine slept."""
        self.now += round(seconds * SECOND)
        self.node.turn()


class Node:
    """A broker with its surroundings: what the daemon is in production."""

    def __init__(self, flavour: str, settings: Settings, clock: Clock) -> None:
        self.flavour = flavour
        self.settings = settings
        settings.durability = FLAVOURS[flavour]
        self.clock = clock
        clock.node = self
        self.storage = None if flavour == "nothing" else FakeStorage()
        self.clients: list[Client] = []
        self.sent: list[tuple[int, Client, Delivery]] = []  # all messages sent, and when
        self.syncing = True  # False: syncs take until the test calls `sync`
        self.broker = Broker(settings, self.storage)

    def turn(self) -> None:
        """Work and flush until there is nothing left to do."""
        broker = self.broker
        for _ in range(10_000):
            broker.changes.finish(broker.changes.count, "")  # a daemon saves it
            broker.work(self.clock.now)
            broker.flush()
            if self.syncing and broker.unsynced:
                broker.synced(broker.take_unsynced(), "")
            for client in self.clients:
                client.answer_heartbeats()
            if not broker.busy():
                return
        raise AssertionError("the broker does not come to rest")

    def sync(self, error: str = "") -> None:
        """A sync ends."""
        self.broker.synced(self.broker.take_unsynced(), error)
        self.turn()

    def client(self, address: str = "10.0.0.1:4321", *, greeted: bool = True) -> Client:
        """A new connection."""
        return Client(self, address, greeted=greeted)

    def topic(self, name: str) -> Topic:
        """A topic of the broker."""
        return self.broker.topic(name)

    def channel(self, topic: str, channel: str) -> Channel:
        """A channel of the broker."""
        return self.broker.topic(topic).channel(channel, self.clock.now)

    def log(self, topic: str) -> FakeLog:
        """A topic's log."""
        assert self.storage is not None
        return self.storage.logs[topic]

    def publish(
        self, topic: str, *bodies: bytes, delay: float = 0, publisher: Publisher | None = None
    ) -> Batch:
        """Publish as HTTP does; one batch."""
        now = self.clock.now
        due = now + round(delay * SECOND) if delay else 0
        batch = self.broker.topic(topic).publish(sized(*bodies), len(bodies), due, publisher, now)
        self.turn()
        return batch

    def checkpoint(self) -> None:
        """Write down what every topic owes."""
        self.broker.dirty = []
        for topic in self.broker.topics.values():
            topic.dirty = False
            if topic.store is not None:
                topic.store.checkpoint(record(TopicOwed(topic, topic.store)))

    def carry_forward(self, name: str) -> bool:
        """Copy what keeps the oldest segment of a topic's log."""
        topic = self.topic(name)
        assert topic.store is not None
        owed = TopicOwed(topic, topic.store)
        left = [] if owed.oldest is None else stuck(owed, owed.oldest)
        return bool(left) and carry_forward(left, topic.store) > 0

    def stop(self) -> None:
        """What a clean exit does to the logs."""
        for topic in self.broker.topics.values():
            if topic.store is not None and self.flavour == "memory":
                save_memory(topic, topic.store)
        self.checkpoint()

    def restart(self) -> None:
        """A new broker on the same storage; metadata is always up to date. Without `stop`: after a kill."""
        before = self.broker.topics
        self.clients.clear()
        self.broker = Broker(self.settings, self.storage)
        for name, topic in before.items():
            if not topic.ephemeral:
                channels = {c.name: c.paused for c in topic.channels.values() if not c.ephemeral}
                self.broker.restore_topic(name, channels, topic.paused, self.clock.now)
        self.turn()

    def check(self) -> None:
        """Assert the invariant of every channel, and of the memory."""
        self.broker.check()


@pytest.fixture(params=list(FLAVOURS))
def flavour(request) -> str:
    """What is under the broker. Parametrize it indirectly to choose."""
    return str(request.param)


@pytest.fixture
def settings() -> Settings:
    """The broker's options; to be changed before topics are made."""
    settings = Settings()
    settings.random = random.Random(1)
    return settings


@pytest.fixture
def clock() -> Clock:
    """The time."""
    return Clock()


@pytest.fixture
def node(flavour: str, settings: Settings, clock: Clock) -> Iterator[Node]:
    """A broker and its surroundings. In the end every channel must be in order."""
    node = Node(flavour, settings, clock)
    yield node
    node.check()


@pytest.fixture
def broker(node: Node) -> Broker:
    """The broker; after a restart it is another one."""
    return node.broker


@pytest.fixture
def client(node: Node) -> Client:
    """A connection that said the magic."""
    return node.client()


@pytest.fixture
def consumer(node: Node) -> Client:
    """A connection for subscribing."""
    return node.client("10.0.0.2:4321")


@pytest.fixture
def publish(node: Node) -> Callable[..., Batch]:
    """Publish bodies to a topic, in one batch."""
    return node.publish


@pytest.fixture(scope="session")
def new_log() -> Callable[[], FakeLog]:
    """Make a topic's log."""
    return FakeLog


@pytest.fixture(scope="session")
def new_node() -> Callable[..., Node]:
    """Make a node for one example of a property test."""

    def make(flavour: str = "os", **options: object) -> Node:
        settings = Settings()
        settings.random = random.Random(1)
        for name, value in options.items():
            setattr(settings, name, value)
        return Node(flavour, settings, Clock())

    return make


@pytest.fixture(params=["whole", "byte by byte", "with a tail"])
def chunks(request) -> Callable[..., list[bytes]]:
    """Cut bytes into chunks; with a tail, the last two are joined by what comes next."""

    def cut(data: bytes, tail: bytes = b"NOP\n") -> list[bytes]:
        if request.param == "whole":
            return [data]
        if request.param == "byte by byte":
            return [data[i : i + 1] for i in range(len(data))]
        return [data + tail[:1], tail[1:]]

    return cut
