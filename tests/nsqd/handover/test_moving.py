"""Moving in: a data path that an NSQ left becomes ours, without a loss."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsqkit.log import Log
from nsqkit.nsqd.core.broker import Broker
from nsqkit.nsqd.core.ledger import record
from nsqkit.nsqd.core.owed import TopicOwed
from nsqkit.nsqd.core.session import Outlet, Session
from nsqkit.nsqd.core.settings import SECOND, Settings
from nsqkit.nsqd.core.store import StoreError
from nsqkit.nsqd.handover import moving
from nsqkit.nsqd.handover.diskqueue import StoredMessage, find_queues, queue_files, write_queue
from nsqkit.nsqd.storage.disk import Disk
from nsqkit.nsqd.storage.files import FileStorage
from nsqkit.wire.frames import MESSAGE, FrameReader

NOW = 1_700_000_000 * SECOND


class Consumer(Outlet):
    """Takes and finishes whatever it is sent."""

    def __init__(self, broker: Broker, topic: str, channel: str) -> None:
        self.messages: list[StoredMessage] = []  # attempts as they were before this delivery
        self.reader = FrameReader()
        self.session = Session(broker, self, "10.0.0.1:1", NOW)
        self.session.receive(f"  V2SUB {topic} {channel}\nRDY 2500\n".encode(), NOW)

    def send(self, data: bytes) -> None:
        """Finish messages."""
        for kind, payload in self.reader.feed(data):
            if kind == MESSAGE:
                time, attempts = int.from_bytes(payload[:8], "big"), int.from_bytes(payload[8:10], "big")
                self.messages.append(
                    StoredMessage(time, attempts - 1, bytes(payload[10:26]), bytes(payload[26:]))
                )
                self.session.receive(b"FIN " + bytes(payload[10:26]) + b"\n", NOW)


class Node:
    """A broker on a data path, which is started anew after each crash."""

    def __init__(self, data_path: Path, **limits: int) -> None:
        self.path = str(data_path)
        self.limits = limits
        self.topics: dict[str, dict[str, bool]] = {}
        self.lines: list[str] = []
        self.broker: Broker
        self.storage: FileStorage
        self.start()

    def start(self) -> None:
        """Restore what is known."""
        self.storage = FileStorage(
            Disk(),
            self.path,
            lambda topic: os.path.join(self.path, topic),
            self.lines.append,
            self.limits.get("max_bytes_per_file", 1 << 20),
            self.limits.get("min_free_bytes", 0),
        )
        self.broker = Broker(Settings(), self.storage)
        for name, channels in self.topics.items():
            self.broker.restore_topic(name, channels, False, NOW)

    def move_in(self) -> int:
        """Import what NSQ left; a daemon saves its metadata after that."""
        log = Log(write=self.lines.append)
        return moving.import_queues(self.path, find_queues(self.path), self.broker, self.storage, log, NOW)

    def crash(self) -> None:
        """Start again with nothing but the files, and the names that nsqd.dat has."""
        self.topics = {t.name: dict.fromkeys(t.channels, False) for t in self.broker.topics.values()}
        self.start()

    def drain(self, topic: str, channel: str) -> list[StoredMessage]:
        """What a consumer gets."""
        consumer = Consumer(self.broker, topic, channel)
        while self.broker.busy():
            self.broker.changes.finish(self.broker.changes.count, "")  # a daemon saves it
            self.broker.work(NOW)
            self.broker.flush()
        self.broker.topics[topic].channels[channel].check()
        consumer.session.gone()
        return consumer.messages


def message(number: int, attempts: int = 0, body: bytes = b"body") -> StoredMessage:
    """A message that differs from all others."""
    return StoredMessage(NOW - SECOND + number, attempts, b"%016x" % (0xABC0 + number), body)


@pytest.fixture
def node(tmp_path) -> Node:
    """A broker on an empty data path."""
    return Node(tmp_path)


def leave(node: Node, name: str, *messages: StoredMessage) -> None:
    """A queue as NSQ leaves it."""
    write_queue(node.path, name, messages, 1000)


def test_everything_is_delivered_once(node):
    """A channel gets its own queue, then that of its topic, with ids, timestamps and attempts."""
    mine, topics = [message(n, attempts=n % 3) for n in range(50)], [message(100 + n) for n in range(20)]
    leave(node, "t:c", *mine)
    leave(node, "t:d", message(200))
    leave(node, "t", *topics)

    assert 71 == node.move_in()

    assert sorted(mine + topics) == sorted(node.drain("t", "c"))
    assert sorted([message(200), *topics]) == sorted(node.drain("t", "d"))
    assert [] == node.drain("t", "c")


def test_order_is_kept(node):
    """Messages come in the order they have in the queue, tried before or not."""
    mine = [message(n, attempts=n % 2) for n in range(30)]
    leave(node, "t:c", *mine)
    node.move_in()

    assert mine == node.drain("t", "c")


def test_a_topic_without_channels(node):
    """The first channel gets what waits; attempts, which NSQ does not count there, begin at 0."""
    leave(node, "t", message(1), message(2, attempts=7), message(3))
    node.move_in()
    assert 3 == node.broker.topics["t"].depth()

    node.broker.topics["t"].channel("first", NOW)

    assert [message(1), message(2), message(3)] == node.drain("t", "first")


@pytest.mark.parametrize("when", ["before delivery", "after delivery"])
def test_it_survives_a_kill(node, when):
    """What was imported is in the log, and owed by who had it."""
    mine = [message(n, attempts=n % 2) for n in range(10)]
    leave(node, "t:c", *mine)
    leave(node, "t:d", message(100))
    node.move_in()
    if when == "after delivery":
        node.drain("t", "d")
        topic = node.broker.topics["t"]
        topic.store.checkpoint(record(TopicOwed(topic, topic.store)))
        for job in node.storage.take_jobs():
            job.run()

    node.crash()

    assert mine == node.drain("t", "c")
    assert ([message(100)] if when == "before delivery" else []) == node.drain("t", "d")


def test_old_files_are_kept(node):
    """NSQ's files go to a directory of their own, as they were."""
    leave(node, "t:c", *[message(n) for n in range(50)])
    before = {name: Path(node.path, name).read_bytes() for name in queue_files(node.path, "t:c")}
    assert len(before) > 2

    node.move_in()

    assert [] == queue_files(node.path, "t:c")
    assert before == {path.name: path.read_bytes() for path in Path(node.path, "imported").iterdir()}
    assert any("50 messages of t:c taken over from NSQ" in line for line in node.lines)


def test_moving_in_again(node):
    """Files of an earlier time are not overwritten."""
    for number in range(3):
        leave(node, "t:c", message(number))
        assert 1 == node.move_in()

    kept = Path(node.path, "imported")
    name = "t:c.diskqueue.000000.dat"
    for number, file in enumerate([name, f"{name}.2", f"{name}.3"]):
        assert message(number).id in (kept / file).read_bytes()
    assert [message(0), message(1), message(2)] == node.drain("t", "c")


def test_nothing_to_import(node):
    """An empty data path stays empty."""
    assert 0 == node.move_in()
    assert [] == os.listdir(node.path)


def test_damage_is_told(node):
    """What can be read is taken over, and a line says what could not."""
    leave(node, "t:c", *[message(n) for n in range(5)])
    path = Path(node.path, "t:c.diskqueue.000000.dat")
    raw = bytearray(path.read_bytes())
    raw[68:70] = b"\xff\xff"  # the length of the third
    path.write_bytes(raw)

    assert 4 == node.move_in()

    assert [message(n) for n in (0, 1, 3, 4)] == node.drain("t", "c")
    assert any("IMPORT" in line and "damaged bytes" in line for line in node.lines)
    assert Path(node.path, "imported", path.name).read_bytes() == raw


@pytest.mark.parametrize("bad", [b"not hexadecimal!", b"ABCDEF0123456789", b"ffffffffffffffff", b"\x00" * 16])
def test_ids_that_are_none(node, bad):
    """The message is kept, under an id of ours."""
    leave(node, "t:c", message(1), StoredMessage(NOW, 2, bad, b"strange"), message(3))
    node.move_in()

    first, strange, last = node.drain("t", "c")

    assert (message(1), message(3)) == (first, last)
    assert (NOW, 2, b"strange") == (strange.timestamp, strange.attempts, strange.body)
    assert 16 == len(strange.id)
    assert strange.id not in (bad, first.id, last.id)


def test_ephemeral_queues(node):
    """NSQ never writes them; if somebody did, it is said, and the files are put aside."""
    leave(node, "t#ephemeral", message(1))

    assert 0 == node.move_in()
    assert any("ephemeral" in line for line in node.lines)


@pytest.mark.parametrize("known", [False, True])
def test_a_crash_before_the_files_are_put_aside(node, known):
    """The next start imports again: second deliveries to that channel, none to others, and no loss."""
    if known:
        node.broker.topic("t").channel("d", NOW)
    mine = [message(n, attempts=n % 2) for n in range(5)]
    leave(node, "t:c", *mine)
    Path(node.path, "imported").write_bytes(b"in the way")
    with pytest.raises(OSError):
        node.move_in()
    Path(node.path, "imported").unlink()

    node.crash()
    assert 5 == node.move_in()

    channel = node.broker.topics["t"].channels["c"]
    assert 10 == channel.queue.depth()
    assert set(mine) == set(node.drain("t", "c"))
    assert (not known) or [] == node.drain("t", "d")
    node.crash()
    assert 0 == node.move_in()


def test_a_crash_in_the_middle_of_an_import(node):
    """What was written to the log is nobody's then; the files are still there."""
    node.broker.topic("t").channel("c", NOW)
    node.broker.topic("t").channel("d", NOW)
    many = [message(n, body=b"x" * 1000) for n in range(3000)]
    write_queue(node.path, "t:c", many, 1_200_000)
    data = Path(node.path, "t:c.diskqueue.000001.dat")
    content = data.read_bytes()
    data.unlink()
    data.mkdir()  # can't be read as a file
    with pytest.raises(OSError):
        node.move_in()
    data.rmdir()
    data.write_bytes(content)

    node.crash()

    assert ([], []) == (node.drain("t", "c"), node.drain("t", "d"))
    assert 3000 == node.move_in()
    assert set(many) == set(node.drain("t", "c"))


def test_a_checkpoint_that_fails(node):
    """The files stay where they are, and the start fails."""
    leave(node, "t:c", message(1))
    os.makedirs(os.path.join(node.path, "t", "checkpoint"))  # nothing can be moved there

    with pytest.raises((StoreError, OSError)):
        node.move_in()

    assert [] != queue_files(node.path, "t:c")


def test_too_little_space(tmp_path):
    """An import that would fill the disk is refused, and nothing is moved."""
    node = Node(tmp_path, min_free_bytes=1 << 62)
    leave(node, "t:c", message(1))

    with pytest.raises(StoreError, match="bytes are free"):
        node.move_in()

    assert [] != queue_files(node.path, "t:c")


@settings(max_examples=30)
@given(
    queues=st.dictionaries(
        st.sampled_from(["t:c", "t:d", "u:c", "v:c"]),
        st.lists(st.tuples(st.integers(0, 65534), st.binary(max_size=60)), max_size=30),
        max_size=4,
    ),
    restart=st.booleans(),
)
def test_any_queues(tmp_path_factory, queues, restart):
    """Whatever was in them: it comes as it was, before or after a restart."""
    node = Node(tmp_path_factory.mktemp("data"), max_bytes_per_file=700)
    number = 0
    expected = {}
    for name, contents in queues.items():
        expected[name] = [message(number + n, *content) for n, content in enumerate(contents)]
        number += len(contents)
        leave(node, name, *expected[name])

    assert number == node.move_in()
    if restart:
        node.crash()

    for name, messages in expected.items():
        assert messages == node.drain(*name.split(":"))
