"""A broker on a faulty disk, from one crash to the next."""

import random
from contextlib import suppress

from nsqkit.nsqd.core.batch import Batch
from nsqkit.nsqd.core.broker import Broker
from nsqkit.nsqd.core.channel import Channel
from nsqkit.nsqd.core.ledger import carry_forward, record, save_memory, stuck
from nsqkit.nsqd.core.owed import TopicOwed
from nsqkit.nsqd.core.session import Outlet, Session
from nsqkit.nsqd.core.settings import SECOND, Settings
from nsqkit.nsqd.core.store import StoreError
from nsqkit.nsqd.core.topic import Topic
from nsqkit.nsqd.durability import Durability
from nsqkit.wire.frames import MESSAGE, FrameReader
from tests.nsqd.storage.faulty_disk import FaultyDisk
from tests.nsqd.storage.home import NOW, Home


class Consumer(Outlet):
    """A client of one channel that takes whatever it gets."""

    def __init__(self, life: "Life", topic: str, channel: str, ready: int) -> None:
        self.life = life
        self.held: dict[bytes, tuple[bytes, int, int]] = {}  # by id: body, attempts, timestamp; in order
        self._reader = FrameReader()
        self.session = Session(life.broker, self, "10.0.0.1:1", life.now)
        self.session.receive(f"  V2SUB {topic} {channel}\nRDY {ready}\n".encode(), life.now)

    def send(self, data: bytes) -> None:
        """Note the messages."""
        for kind, payload in self._reader.feed(data):
            if kind == MESSAGE:
                attempts = int.from_bytes(payload[8:10], "big")
                self.held[bytes(payload[10:26])] = (
                    bytes(payload[26:]),
                    attempts,
                    int.from_bytes(payload[:8], "big"),
                )

    def hold(self, held: bool) -> None:
        """A consumer publishes nothing."""

    def close(self) -> None:
        """The owner of a connection tells the session."""
        self.session.gone()

    def abort(self) -> None:
        """The same, at once."""
        self.session.gone()

    def finish(self, message_id: bytes) -> bytes:
        """FIN; returns the body."""
        self.session.receive(b"FIN " + message_id + b"\n", self.life.now)
        return self.held.pop(message_id)[0]

    def requeue(self, message_id: bytes, delay_ms: int) -> None:
        """REQ."""
        self.session.receive(b"REQ %s %d\n" % (message_id, delay_ms), self.life.now)
        del self.held[message_id]

    def alive(self) -> bool:
        """Silent clients are hung up on."""
        return not self.session.closed

    def in_flight(self) -> list[bytes]:
        """Ids of what it has and has not lost to a timeout."""
        subscriber = self.session.subscriber
        assert subscriber is not None
        return [message_id for message_id in self.held if message_id in subscriber.in_flight]

    def leave(self) -> None:
        """Hang up."""
        self.session.gone()


class Life:
    """A broker on a faulty disk, from one crash to the next. Its metadata are never lost."""

    def __init__(self, disk: FaultyDisk, durability: Durability, **options: int) -> None:
        self.disk = disk
        self.home = Home(disk, max_bytes_per_file=options.pop("max_bytes_per_file", 1 << 20))
        self.settings = Settings()
        self.settings.durability = durability
        for name, value in options.items():
            setattr(self.settings, name, value)
        self.fsync = durability == Durability.FSYNC
        self.now = NOW
        self.replayed = 0
        self.broker: Broker
        self.known: dict[str, dict[str, bool]] = {}
        self.begin()

    def begin(self) -> None:
        """Start, as the daemon does."""
        storage = self.home.begin()
        self.broker = Broker(self.settings, storage)
        self.replayed = storage.replay_journal(self.known.__contains__)
        for name, channels in self.known.items():
            self.broker.restore_topic(name, channels, False, self.now)
        self.turn()

    def topic(self, name: str, *channels: str) -> Topic:
        """A topic with these channels."""
        topic = self.broker.topic(name)
        for channel in channels:
            topic.channel(channel, self.now)
        self.turn()
        return topic

    def channel(self, topic: str, channel: str) -> Channel:
        """A channel."""
        return self.broker.topic(topic).channel(channel, self.now)

    def publish(self, topic: str, *bodies: bytes, delay: int = 0) -> Batch:
        """Publish one batch, and let a turn go by."""
        data = b"".join(len(body).to_bytes(4, "big") + body for body in bodies)
        due = self.now + delay if delay else 0
        batch = self.broker.topic(topic).publish(data, len(bodies), due, None, self.now)
        self.turn()
        return batch

    def turn(self) -> None:
        """Turns until there is nothing to do; metadata are saved in each."""
        for _ in range(1000):
            self.now += 1000
            self.broker.changes.finish(self.broker.changes.count, "")  # a daemon saves it
            self.broker.work(self.now)
            self.commit()
            self.known = {
                topic.name: {channel.name: channel.paused for channel in topic.channels.values()}
                for topic in self.broker.topics.values()
            }
            self.broker.flush()
            if not self.broker.busy():
                return
        raise AssertionError("the broker does not come to rest")

    def commit(self) -> None:
        """What the commit thread does in fsync mode."""
        group = self.broker.take_unsynced()
        if group:
            try:
                self.home.storage.journal.write(group)
            except StoreError as error:
                self.broker.synced(group, str(error))
            else:
                self.broker.synced(group, "")

    def sync(self) -> list[str]:
        """What the background does each --sync-timeout; returns errors."""
        storage = self.home.storage
        complete = storage.journal.rotate() if self.fsync else []
        failures = storage.shared.sync_failures
        errors = self.home.sync()
        if storage.shared.sync_failures == failures:
            with suppress(OSError):
                storage.journal.remove(complete)
        return errors

    def checkpoint(self) -> list[str]:
        """What the background does each --checkpoint-interval; returns errors."""
        dirty, self.broker.dirty = self.broker.dirty, []
        for topic in dirty:
            topic.dirty = False
            if topic.store is not None and not topic.deleted:
                owed = TopicOwed(topic, topic.store)
                left = [] if owed.oldest is None else stuck(owed, owed.oldest)
                topic.store.checkpoint(record(owed))
                if left:
                    topic.note_change()
                    carry_forward(left, topic.store)
        errors = self.home.run_jobs()
        if errors:
            for topic in dirty:
                topic.note_change()
        return errors

    def exit(self) -> None:
        """A clean exit."""
        self.broker.hang_up_all()
        self.turn()
        for topic in self.broker.topics.values():
            assert topic.store is not None
            if self.settings.durability == Durability.MEMORY:
                save_memory(topic, topic.store)
            topic.store.checkpoint(record(TopicOwed(topic, topic.store)))
        assert [] == self.home.run_jobs()
        for topic in self.broker.topics.values():
            assert topic.store is not None
            topic.store.close()

    def kill(self) -> None:
        """Die and start again."""
        self.disk.kill()
        self.begin()

    def cut(self, chance: random.Random | None = None) -> None:
        """Lose power and start again."""
        self.disk.cut(chance)
        self.begin()

    def consumer(self, topic: str, channel: str, ready: int = 2500) -> Consumer:
        """Somebody who takes messages."""
        consumer = Consumer(self, topic, channel, ready)
        self.turn()
        return consumer

    def drain(self, topic: str, channel: str) -> list[tuple[bytes, int]]:
        """Take and finish everything a channel has, deferred or in flight; bodies and attempts in order of delivery."""
        taken: list[tuple[bytes, int]] = []
        for _ in range(5):
            consumer = self.consumer(topic, channel)
            while consumer.held:
                for message_id in list(consumer.held):
                    taken.append(consumer.held[message_id][:2])
                    consumer.finish(message_id)
                self.turn()
            consumer.leave()
            self.now += 3600 * SECOND
            self.turn()
        self.channel(topic, channel).check()
        return taken
