"""A broker and its surroundings without sockets, clock or disk: a node, its clock, its clients."""

import json
import struct
from typing import NamedTuple

from nsqkit.nsqd.core.batch import Batch, Publisher
from nsqkit.nsqd.core.broker import Broker
from nsqkit.nsqd.core.channel import Channel
from nsqkit.nsqd.core.ledger import carry_forward, record, save_memory, stuck
from nsqkit.nsqd.core.owed import TopicOwed
from nsqkit.nsqd.core.session import Outlet, Session
from nsqkit.nsqd.core.settings import SECOND, Settings
from nsqkit.nsqd.core.topic import Topic
from nsqkit.wire.frames import ERROR, MESSAGE, RESPONSE, FrameReader
from nsqkit.wire.identify import Identity
from tests.nsqd.core.fake_store import FakeLog, FakeStorage
from tests.nsqd.core.flavours import FLAVOURS
from tests.nsqd.core.sent import sized

NOW = 1_700_000_000 * SECOND
HEARTBEAT = (RESPONSE, b"_heartbeat_")


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

    def drained(self, topic: str = "t", channel: str = "c") -> list[tuple[bytes, int]]:
        """Everything that a new consumer gets and finishes: bodies and attempts."""
        consumer = self.client().subscribe(topic, channel).ready(2500)
        found = consumer.deliveries()
        consumer.finish(*[delivery.id for delivery in found])
        consumer.leave()
        return [(delivery.body, delivery.attempts) for delivery in found]

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
