"""A disk that fails and loses power, logs on it, and a broker on those.

`disk` keeps real files in a temporary directory and knows what a power cut leaves of them. `home` opens logs on it,
and opens them again as the next process would. `new_life` makes a broker that can be killed, cut off and restarted.
"""

import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

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
from nsqkit.nsqd.storage.disk import Disk
from nsqkit.nsqd.storage.files import FileStorage
from nsqkit.nsqd.storage.log import TopicLog
from nsqkit.wire.frames import MESSAGE, FrameReader

NOW = 1_700_000_000 * SECOND
PAGE = 64  # bytes that reach the disk together; small, so that small files have many


class Killed(BaseException):
    """The process dies here."""


class Inode:
    """What is known of a file: the content that a power cut leaves."""

    def __init__(self, durable: bytes = b"", *, whole: bool = False) -> None:
        self.durable = durable
        self.whole = whole  # replaced at once: what is there after a power cut is old, new or empty


class FaultyDisk(Disk):
    """Real files below `root`. Calls can be made to fail; `cut` takes away what was not synced.

    Removing and renaming are taken to be durable at once, which is the worst case for who relies on what was written
    before.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.calls: list[tuple[str, str]] = []  # name and file of each call that changes or reads something
        self.free = 1 << 40
        self.most = 1 << 40  # bytes that one write takes
        self._faults: dict[str, list[int]] = {}  # by name of the call: what each of the next ones does
        self._deadly: int | None = None  # writes until the process dies
        self._open: dict[int, str] = {}
        self._inodes: dict[str, Inode] = {}  # files as they are
        self._entries: dict[str, Inode] = {}  # files whose names a power cut leaves
        self._directories = {root}  # likewise

    # -- orders

    def fail(self, call: str, error: int, *, after: int = 0, times: int = 1) -> None:
        """Let a call fail with this errno, `times` times, after some that succeed."""
        self._faults[call] = [0] * after + [error] * times

    def heal(self) -> None:
        """Nothing fails any more."""
        self._faults = {}
        self._deadly = None
        self.most = 1 << 40

    def die(self, writes: int) -> None:
        """Let the process die in the middle of a write, after so many others."""
        self._deadly = writes

    def kill(self) -> None:
        """The process is dead: its files are closed, and stay as they are."""
        for file in self._open:
            os.close(file)
        self._open = {}
        self.heal()

    def cut(self, chance: random.Random | None = None) -> None:
        """The power is cut. By chance, parts of what was not synced are there; otherwise nothing of it."""
        self.kill()
        for path in self._directories_below():
            if (
                path not in self._directories
                and os.path.isdir(path)
                and not (chance and chance.random() < 0.5)
            ):
                shutil.rmtree(path)
        for path in self.paths():
            entry = self._entries.get(path)
            inode = self._inodes.get(path, Inode())
            if entry is None and not (chance and chance.random() < 0.5):
                os.unlink(path)
                continue
            kept = entry.durable if entry is not None else b""
            if entry is not None and entry is inode and not inode.whole:
                kept = _mixed(inode.durable, self._load(path), chance)
            elif entry is None or (chance and chance.random() < 0.5):
                content = self._load(path)
                kept = (
                    chance.choice([content, b""]) if chance and inode.whole else _mixed(b"", content, chance)
                )
            with open(path, "wb") as file:
                file.write(kept)
        self._inodes = {path: Inode(self._load(path)) for path in self.paths()}
        self._entries = dict(self._inodes)
        self._directories = {self.root, *self._directories_below()}

    def paths(self) -> list[str]:
        """Every file."""
        return sorted(os.path.join(place, name) for place, _, names in os.walk(self.root) for name in names)

    def names_called(self, *wanted: str) -> list[tuple[str, str]]:
        """The recorded calls of these names, with files as their last part."""
        return [(call, os.path.basename(path)) for call, path in self.calls if call in wanted]

    def opened(self) -> int:
        """Descriptors in use."""
        return len(self._open)

    def directories_open(self) -> set[str]:
        """The directories, by their last part, in which a file is open."""
        return {os.path.basename(os.path.dirname(path)) for path in self._open.values()}

    # -- the calls

    def create(self, path: str) -> int:
        """Make a file that no power cut leaves."""
        self._step("create", path)
        file = super().create(path)
        self._open[file] = path
        self._inodes[path] = Inode()
        return file

    def open(self, path: str) -> int:
        """A file that is there may be on the disk."""
        self._step("open", path)
        file = super().open(path)
        self._open[file] = path
        self._known(path)
        return file

    def close(self, file: int) -> None:
        """Forget the descriptor."""
        del self._open[file]
        super().close(file)

    def read(self, file: int, length: int, offset: int) -> bytes:
        """What is there now."""
        self._step("read", self._open[file])
        return super().read(file, length, offset)

    def write(self, file: int, pieces: list[bytes], offset: int) -> int:
        """As much as the disk takes, or half of it if the process dies here."""
        path = self._open[file]
        data = b"".join(pieces)
        if self._deadly is not None:
            self._deadly -= 1
            if self._deadly < 0:
                os.pwrite(file, data[: len(data) // 2], offset)
                raise Killed
        self._step("write", path)
        return os.pwrite(file, data[: self.most], offset)

    def truncate(self, file: int, size: int) -> None:
        """Not synced."""
        self._step("truncate", self._open[file])
        super().truncate(file, size)

    def sync(self, file: int) -> None:
        """What is there now survives."""
        path = self._open[file]
        self._step("sync", path)
        if path in self._inodes:  # it may have been removed
            self._inodes[path].durable = os.pread(file, os.fstat(file).st_size, 0)

    def sync_directory(self, path: str) -> None:
        """The names that are there now survive."""
        self._step("sync_directory", path)
        for name in os.listdir(path):
            entry = os.path.join(path, name)
            if os.path.isdir(entry):
                self._directories.add(entry)
            else:
                self._entries[entry] = self._known(entry)

    def replace(self, path: str, content: bytes, *, sync: bool = False) -> None:
        """Old or new, and only with `sync` for sure."""
        self._step("replace", path)
        self._known(path)
        super().replace(path, content)
        self._inodes[path] = Inode(content if sync else b"", whole=True)
        if sync:
            self._step("sync", path)
            self._entries[path] = self._inodes[path]

    def load(self, path: str) -> bytes | None:
        """What is there now."""
        self._step("load", path)
        return super().load(path)

    def remove(self, path: str) -> None:
        """For good."""
        self._step("remove", path)
        super().remove(path)
        self._inodes.pop(path, None)
        self._entries.pop(path, None)

    def rename(self, path: str, target: str) -> None:
        """For good."""
        self._step("rename", path)
        super().rename(path, target)
        self._inodes[target] = self._inodes.pop(path, Inode())
        if path in self._entries:
            self._entries[target] = self._entries.pop(path)

    def remove_directory(self, path: str) -> None:
        """For good."""
        self._step("remove_directory", path)
        super().remove_directory(path)
        self._directories.discard(path)

    def free_bytes(self, path: str) -> int:
        """What the test says."""
        self._step("free_bytes", path)
        return self.free

    # -- inside

    def _step(self, call: str, path: str) -> None:
        self.calls.append((call, path))
        faults = self._faults.get(call)
        error = faults.pop(0) if faults else 0
        if error:
            raise OSError(error, os.strerror(error))

    def _known(self, path: str) -> Inode:
        """The inode of a file; one that was there before is on the disk already."""
        if path not in self._inodes and os.path.exists(path):
            self._entries[path] = self._inodes[path] = Inode(self._load(path))
        return self._inodes.get(path, Inode())

    def _load(self, path: str) -> bytes:
        with open(path, "rb") as file:
            return file.read()

    def _directories_below(self) -> list[str]:
        return sorted(os.path.join(place, name) for place, names, _ in os.walk(self.root) for name in names)


def _mixed(durable: bytes, current: bytes, chance: random.Random | None) -> bytes:
    """What is left of a file: by chance pages of the new content, in any order, and zeros in between."""
    if chance is None:
        return durable
    size = chance.choice([len(durable), len(current), chance.randint(*sorted((len(durable), len(current))))])
    pages = []
    for at in range(0, size, PAGE):
        source = current if chance.random() < 0.5 else durable
        pages.append(source[at : at + PAGE].ljust(PAGE, b"\x00"))
    return b"".join(pages)[:size]


class Home:
    """The logs of a data path."""

    def __init__(self, disk: FaultyDisk, max_bytes_per_file: int = 1 << 30, min_free_bytes: int = 0) -> None:
        self.disk = disk
        self.max_bytes_per_file = max_bytes_per_file
        self.min_free_bytes = min_free_bytes
        self.max_open_logs = 100
        self.reports: list[str] = []
        self.ids = 1000
        self.storage: FileStorage
        self.begin()

    def begin(self) -> FileStorage:
        """A process starts."""
        self.reports.clear()
        root = self.disk.root
        self.storage = FileStorage(
            self.disk,
            root,
            lambda topic: f"{root}/{topic}",
            self.reports.append,
            self.max_bytes_per_file,
            self.min_free_bytes,
            max_open_logs=self.max_open_logs,
        )
        return self.storage

    def open(self, topic: str = "t") -> TopicLog:
        """A topic's log."""
        return self.storage.open(topic)

    def reopen(self, topic: str = "t") -> TopicLog:
        """A topic's log, as the next process finds it after a kill."""
        self.disk.kill()
        self.begin()
        return self.open(topic)

    def batch(self, *bodies: bytes, due: int = 0, carried: bool = False) -> Batch:
        """A batch with ids of its own."""
        data = b"".join(len(body).to_bytes(4, "big") + body for body in bodies)
        batch = Batch(data, len(bodies), NOW + self.ids, due, None)
        batch.first_id = self.ids
        batch.carried = carried
        self.ids += len(bodies)
        return batch

    def write(self, log: TopicLog, *bodies: bytes, carried: bool = False) -> Batch:
        """Append one batch."""
        batch = self.batch(*bodies, carried=carried)
        log.append(batch)
        log.write()
        return batch

    def fill(self, log: TopicLog, count: int, size: int = 40) -> list[bytes]:
        """Append `count` messages, a batch each; returns their bodies."""
        bodies = [b"%05d" % (log.end() + n) + bytes([n % 256]) * (size - 5) for n in range(count)]
        for body in bodies:
            self.write(log, body)
        return bodies

    def run_jobs(self) -> list[str]:
        """What the background thread does with checkpoints; returns errors."""
        jobs = self.storage.take_jobs()
        for job in jobs:
            job.run()
            job.finish()
        return [job.error for job in jobs if job.error]

    def sync(self) -> list[str]:
        """What the background thread does with logs; returns errors."""
        jobs = self.storage.sync_jobs()
        for job in jobs:
            job.run()
            job.finish()
        return [job.error for job in jobs if job.error]

    def segments(self, topic: str = "t") -> list[int]:
        """First positions of the segments that have files."""
        names = os.listdir(f"{self.disk.root}/{topic}")
        return sorted(int(name[:-4]) for name in names if name.endswith(".log"))

    def path(self, first_position: int = 0, topic: str = "t") -> str:
        """A segment's file."""
        return f"{self.disk.root}/{topic}/{first_position:020d}.log"


def bodies_of(batch: Batch) -> list[bytes]:
    """The bodies of a batch."""
    return [batch.message(n, batch.offset_of(n)).body for n in range(batch.count)]


def read_all(log: TopicLog, start: int = 0, limit: int = 100) -> list[tuple[int, bytes]]:
    """Every message of a log behind `start`, with its position, as a channel reads it."""
    found: list[tuple[int, bytes]] = []
    while start < log.end():
        batches = log.read(start, log.end(), limit)
        if not batches:
            break
        for batch in batches:
            for number, body in enumerate(bodies_of(batch)):
                if batch.first_position + number >= start:
                    found.append((batch.first_position + number, body))
        start = batches[-1].first_position + batches[-1].count
    return found


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


@pytest.fixture
def disk(tmp_path) -> Iterator[FaultyDisk]:
    """A disk that does not fail until it is told to."""
    disk = FaultyDisk(str(tmp_path))
    yield disk
    disk.kill()


@pytest.fixture
def home(disk: FaultyDisk) -> Home:
    """Logs on the disk, in one segment each."""
    return Home(disk)


@pytest.fixture(scope="session")
def new_disk(tmp_path_factory) -> Iterator[Callable[[], FaultyDisk]]:
    """Make an empty disk: for each example of a property test."""
    made: list[FaultyDisk] = []

    def make() -> FaultyDisk:
        for old in made:
            old.kill()
            shutil.rmtree(old.root, ignore_errors=True)
        made[:] = [FaultyDisk(str(tmp_path_factory.mktemp("disk")))]
        return made[0]

    yield make
    for old in made:
        old.kill()


@pytest.fixture(scope="session")
def new_home(new_disk) -> Callable[..., Home]:
    """Make logs on an empty disk."""
    return lambda **options: Home(new_disk(), **options)


@pytest.fixture(scope="session")
def new_life(new_disk) -> Callable[..., Life]:
    """Make a broker on an empty disk."""
    return lambda durability, **options: Life(new_disk(), durability, **options)


@pytest.fixture(scope="session")
def contents() -> Callable[..., list[tuple[int, bytes]]]:
    """Every message of a log, with its position."""
    return read_all


@pytest.fixture(scope="session")
def bodies() -> Callable[[Batch], list[bytes]]:
    """The bodies of a batch."""
    return bodies_of


@pytest.fixture(scope="session")
def killed() -> type[Killed]:
    """What is raised where the process dies."""
    return Killed
