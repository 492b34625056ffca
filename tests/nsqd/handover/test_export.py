"""Moving out: what a stopped nsqd owes, as files that NSQ 1.3 reads."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsqkit.log import Log
from nsqkit.nsqd import metadata
from nsqkit.nsqd.core.batch import Batch
from nsqkit.nsqd.core.broker import Broker
from nsqkit.nsqd.core.channel import Channel
from nsqkit.nsqd.core.ledger import record, save_memory
from nsqkit.nsqd.core.owed import TopicOwed
from nsqkit.nsqd.core.settings import SECOND, Settings
from nsqkit.nsqd.datapath import DataPathLock, topic_directory
from nsqkit.nsqd.durability import Durability
from nsqkit.nsqd.handover import moving
from nsqkit.nsqd.handover.diskqueue import StoredMessage, find_queues, read_queue, write_queue
from nsqkit.nsqd.handover.export import main
from nsqkit.nsqd.storage.disk import Disk
from nsqkit.nsqd.storage.files import FileStorage
from nsqkit.wire.message import Message

NOW = 1_700_000_000 * SECOND
LATER = 3_000_000_000 * SECOND  # not before this test is forgotten


class Node:
    """An nsqd that can be stopped."""

    def __init__(
        self, path: Path, durability: Durability = Durability.OS, max_bytes_per_file: int = 1 << 20
    ) -> None:
        path.mkdir(exist_ok=True)
        self.path = str(path)
        self.storage = FileStorage(
            Disk(),
            self.path,
            lambda topic: topic_directory(self.path, topic),
            lambda _: None,
            max_bytes_per_file,
            0,
        )
        settings = Settings()
        settings.durability = durability
        settings.mem_queue_size = 5
        self.broker = Broker(settings, self.storage)
        self.storage.replay_journal(lambda _: True)

    def channel(self, topic: str, channel: str) -> Channel:
        """A channel."""
        return self.broker.topic(topic).channel(channel, NOW)

    def publish(self, topic: str, *bodies: bytes, due: int = 0) -> Batch:
        """One batch."""
        data = b"".join(len(body).to_bytes(4, "big") + body for body in bodies)
        batch = self.broker.topic(topic).publish(data, len(bodies), due, None, NOW)
        self.broker.changes.finish(self.broker.changes.count, "")  # a daemon saves it
        self.broker.work(NOW)
        return batch

    def take(self, channel: Channel, attempts: int = 1) -> Message:
        """Deliver a message; it comes back at once, and the checkpoint knows of it."""
        message = channel.queue.take()
        while message is None:
            channel.queue.refill(NOW)
            message = channel.queue.take()
        message.attempts = attempts
        return message

    def stop(self, *, checkpoint: bool = True) -> str:
        """Write everything down; without a checkpoint, as after a kill. Returns the data path."""
        topics = []
        for topic in self.broker.topics.values():
            channels = [metadata.ChannelState(c.name, c.paused) for c in topic.channels.values()]
            topics.append(metadata.TopicState(topic.name, topic.paused, channels))
            assert topic.store is not None
            if self.broker.settings.durability == Durability.MEMORY:
                save_memory(topic, topic.store)
            if checkpoint:
                topic.store.checkpoint(record(TopicOwed(topic, topic.store)))
        for job in self.storage.take_jobs():
            job.run()
        metadata.save(Disk(), self.path, metadata.Metadata(topics))
        return self.path


def stored(batch: Batch, attempts: int = 0) -> list[StoredMessage]:
    """A batch as NSQ's files have it."""
    found = []
    for index in range(batch.count):
        message = batch.message(index, batch.offset_of(index))
        found.append(StoredMessage(message.timestamp, attempts, message.id, message.body))
    return found


def files(path: str) -> dict[str, tuple[bytes, int]]:
    """Everything in a directory, with the times of the last change."""
    found = {}
    for place, _, names in os.walk(path):
        for name in names:
            file = Path(place, name)
            found[str(file)] = (file.read_bytes(), file.stat().st_mtime_ns)
    return found


@pytest.fixture
def node(tmp_path) -> Node:
    """An nsqd in `os` mode."""
    return Node(tmp_path / "data")


@pytest.fixture
def export(tmp_path, capsys):
    """Run the command; it must not change the data path. Returns the exit code; `.out` and `.err` have its lines."""

    class Run:
        target = str(tmp_path / "out")
        out: list[str]
        err: str

        def __call__(self, data_path: str, *flags: str) -> int:
            before = files(data_path)
            code = main([f"--data-path={data_path}", f"--to={self.target}", *flags])
            printed = capsys.readouterr()
            self.out, self.err = printed.out.splitlines(), printed.err
            assert before == files(data_path)
            return code

        def queue(self, name: str) -> list[StoredMessage]:
            contents = read_queue(self.target, name)
            assert [] == contents.problems
            return contents.messages

    return Run()


def test_topics_and_channels(node, export):
    """What waits in a topic is its queue's, what a channel owes is that channel's; names and pauses are nsqd.dat's."""
    waiting = node.publish("lonely", b"1", b"2")
    node.channel("t", "a")
    node.channel("t", "b").paused = True
    batches = [node.publish("t", b"3"), node.publish("t", b"4", b"")]
    node.broker.topic("none")

    assert 0 == export(node.stop())

    assert stored(waiting) == export.queue("lonely")
    expected = stored(batches[0]) + stored(batches[1])
    assert (expected, expected, []) == (export.queue("t:a"), export.queue("t:b"), export.queue("t"))
    assert [
        "lonely: 2 messages", "none: 0 messages", "t: 0 messages", "t:a: 3 messages", "t:b: 3 messages",
        "8 messages in all",
    ] == export.out  # fmt: skip
    known = {
        t.name: {c.name: c.paused for c in t.channels} for t in metadata.load(Disk(), export.target).topics
    }
    assert {"lonely": {}, "none": {}, "t": {"a": False, "b": True}} == known
    assert "" == export.err


def test_order_and_attempts(node, export):
    """Messages that were tried keep their place and their attempts, those in flight too."""
    channel = node.channel("t", "a")
    expected = stored(node.publish("t", *[b"%d" % n for n in range(10)]))
    taken = [node.take(channel, attempts=n + 1) for n in range(4)]
    channel.queue.put_back(taken[1])
    channel.queue.put_back(taken[3])  # the others are finished

    assert 0 == export(node.stop())

    again = [expected[1]._replace(attempts=2), expected[3]._replace(attempts=4)]
    assert again + expected[4:] == export.queue("t:a")


def test_attempts_beyond_what_nsq_can_say(node, export):
    """They stay at the most that a record holds."""
    channel = node.channel("t", "a")
    node.publish("t", b"x")
    channel.queue.put_back(node.take(channel, attempts=70_000))

    export(node.stop())

    assert [65535] == [message.attempts for message in export.queue("t:a")]


@pytest.mark.parametrize("checkpoint", [True, False])
def test_deferred_messages(node, export, checkpoint):
    """They come after the others, by the time they were due at, and their number is said."""
    node.channel("t", "a")
    last = node.publish("t", b"last", due=LATER + 2)
    first = node.publish("t", b"first", b"second", due=LATER + 1)
    ready = node.publish("t", b"ready")
    waiting = node.publish("lonely", b"deferred", due=LATER)

    assert 0 == export(node.stop(checkpoint=checkpoint))

    assert stored(ready) + stored(first) + stored(last) == export.queue("t:a")
    assert stored(waiting) == export.queue("lonely")
    assert "t:a: 4 messages, 3 of them deferred and now without their time" in export.out
    assert "lonely: 1 messages, 1 of them deferred and now without their time" in export.out


def test_requeued_with_a_delay(node, export):
    """Attempts are kept, the time is not."""
    channel = node.channel("t", "a")
    batch = node.publish("t", b"x")
    channel.defer(node.take(channel, attempts=3), LATER)

    export(node.stop())

    assert stored(batch, attempts=3) == export.queue("t:a")


def test_after_a_kill(node, export):
    """Without a checkpoint every channel gets its log again; a torn end stays where it is."""
    node.channel("t", "a")
    batch = node.publish("t", b"1", b"2")
    path = node.stop(checkpoint=False)
    with open(f"{path}/t/{0:020d}.log", "ab") as file:
        file.write(b"NSQb half a batch")

    assert 0 == export(path)

    assert stored(batch) == export.queue("t:a")
    assert "incomplete batch" in export.err


def test_memory_mode(tmp_path, export):
    """A clean stop has written what was in memory."""
    node = Node(tmp_path / "data", Durability.MEMORY)
    node.channel("t", "a")
    batch = node.publish("t", b"1", b"2")

    export(node.stop())

    assert stored(batch) == export.queue("t:a")


def test_damage(node, export):
    """What can't be read is said, and makes the exit code; the rest is written, the damage stays."""
    node.channel("t", "a")
    batches = [node.publish("t", body) for body in (b"1", b"2", b"3")]
    path = node.stop()
    with open(f"{path}/t/{0:020d}.log", "r+b") as file:
        file.seek(24 + 52 + 5 + 53)
        file.write(b"?")

    assert 1 == export(path)

    assert stored(batches[0]) + stored(batches[2]) == export.queue("t:a")
    assert "t:a: 2 messages; 1 MORE ARE LOST to damage" in export.out
    assert "damaged bytes" in export.err


def test_a_damaged_header_and_a_short_file(node, export):
    """What a start would mend or remove is left alone."""
    node.channel("t", "a")
    batch = node.publish("t", b"1")
    path = node.stop()
    with open(f"{path}/t/{0:020d}.log", "r+b") as file:
        file.write(b"?")
    Path(path, "t", f"{1:020d}.log").touch()
    Path(path, "t", f"{2:020d}.log").write_bytes(b"?" * 100)

    assert 0 == export(path)
    assert stored(batch) == export.queue("t:a")


def test_a_log_that_is_not_in_the_metadata(node, export):
    """It comes along, as it would at a start."""
    batch = node.publish("t", b"1")
    path = node.stop()
    os.unlink(metadata.path_of(path))

    assert 0 == export(path)

    assert stored(batch) == export.queue("t")
    assert "TOPIC(t): nsqd.dat does not name it, but its log is there" in export.err


def test_small_files(node, export):
    """Files of a queue have the size that was asked for."""
    batch = node.publish("t", *[b"%03d" % n for n in range(100)])

    export(node.stop(), "--max-bytes-per-file=330")

    assert stored(batch) == export.queue("t")
    assert f"{9:06d}" in "".join(os.listdir(export.target))


class TestJournal:
    """The data path of an nsqd in `fsync` mode."""

    @pytest.fixture
    def path(self, tmp_path):
        """It was killed, and the journal is there."""
        node = Node(tmp_path / "data", Durability.FSYNC)
        node.channel("t", "a")
        for body in (b"1", b"2"):
            node.publish("t", body)
            node.storage.journal.write(node.broker.take_unsynced())
        return node.stop(checkpoint=False)

    def test_logs_that_are_complete(self, path, export):
        """The journal is not needed."""
        assert 0 == export(path)
        assert [b"1", b"2"] == [message.body for message in export.queue("t:a")]

    def test_logs_that_are_not(self, path, export):
        """What only the journal has would be lost: an nsqd has to bring it back."""
        log = f"{path}/t/{0:020d}.log"
        os.truncate(log, os.path.getsize(log) - 10)

        assert 1 == export(path)
        assert "start nsqd once" in export.err
        assert not os.path.exists(export.target)


@pytest.mark.parametrize("harm", ["nothing", "torn end", "header", "journal"])
def test_a_read_only_file_system(tmp_path, export, monkeypatch, harm):
    """It is never asked to change anything, so an export is what it is elsewhere, or says that it needs a repair."""
    node = Node(tmp_path / "data", Durability.FSYNC)
    node.channel("t", "a")
    node.publish("t", b"1")
    node.publish("t", b"2")
    node.storage.journal.write(node.broker.take_unsynced() if harm == "journal" else [])
    path = node.stop(checkpoint=False)
    log = f"{path}/t/{0:020d}.log"
    if harm in ("torn end", "journal"):
        os.truncate(log, os.path.getsize(log) - 1)
    elif harm == "header":
        Path(log).write_bytes(bytes(24) + Path(log).read_bytes()[24:])
    found = export(path), export.out, export.err
    export.target += "2"

    def refuse(name: str) -> None:
        call = getattr(os, name)

        def instead(place: str, *arguments: Any, **more: Any) -> Any:
            writes = name != "open" or arguments[0] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes and str(place).startswith(path):
                raise AssertionError(f"{name} {place}")
            return call(place, *arguments, **more)

        monkeypatch.setattr(os, name, instead)

    for name in ("open", "unlink", "rename", "replace", "mkdir", "rmdir", "truncate", "link", "utime"):
        refuse(name)

    assert found == (export(path), export.out, export.err.replace(export.target, export.target[:-1]))
    assert (1 if harm == "journal" else 0) == found[0]
    assert ("or on a copy" in export.err) == (harm != "nothing")


class TestRefusals:
    """No export, and a text that says why."""

    def test_a_running_nsqd(self, node, export):
        """Its data path is locked."""
        path = node.stop()
        with DataPathLock(path):
            assert 1 == export(path)

        assert "possibly in use by another instance of nsqd" in export.err

    def test_no_data_path(self, tmp_path, export):
        """There must be one."""
        assert 1 == export(str(tmp_path / "nowhere"))
        assert "no such file" in export.err

    def test_a_target_that_is_not_empty(self, node, export):
        """Nothing is mixed with what is there."""
        os.makedirs(export.target)
        Path(export.target, "file").touch()

        assert 1 == export(node.stop())
        assert "is not empty" in export.err
        assert ["file"] == os.listdir(export.target)

    def test_an_empty_target(self, node, export):
        """That is as good as none."""
        os.makedirs(export.target)

        assert 0 == export(node.stop())

    @pytest.mark.parametrize("inside", ["", "sub", "../data/x/.."])
    def test_a_target_inside_the_data_path(self, node, export, inside):
        """That would change it."""
        path = node.stop()
        export.target = os.path.join(path, inside)

        assert 1 == export(path)
        assert "inside the data path" in export.err

    def test_queues_that_were_not_taken_over(self, node, export):
        """A data path of NSQ is no data path of ours yet."""
        path = node.stop()
        write_queue(path, "t:a", [], 1000)

        assert 1 == export(path)
        assert "not taken over" in export.err

    def test_damaged_metadata(self, node, export):
        """Without names there is nothing to export to."""
        path = node.stop()
        Path(metadata.path_of(path)).write_bytes(b"{")

        assert 1 == export(path)
        assert "failed to parse metadata" in export.err

    def test_a_target_that_can_not_be_made(self, node, export, tmp_path):
        """The system's error is told."""
        (tmp_path / "file").touch()
        export.target = str(tmp_path / "file" / "out")

        assert 1 == export(node.stop())
        assert f"can't write to {export.target}: Not a directory" in export.err

    def test_a_wrong_directory(self, export, tmp_path):
        """A directory without metadata and logs is no data path: an export of nothing would look like a success."""
        wrong = tmp_path / "wrong"
        wrong.mkdir()

        assert 1 == export(str(wrong))
        assert f"{wrong} is no data path of nsqd: it has no nsqd.dat and no logs" in export.err
        assert not os.path.exists(export.target)

    @pytest.mark.parametrize(
        "flags",
        [[], ["--to=x"], ["--data-path=x", "--to=y", "--max-bytes-per-file=0"], ["--data=x", "--to=y"]],
    )
    def test_wrong_usage(self, flags, capsys):
        """Two lines say what is wrong and where to read more, and the exit code is 2."""
        with pytest.raises(SystemExit) as stopped:
            main(flags)

        assert 2 == stopped.value.code
        assert "nsqkit export --help tells more" == capsys.readouterr().err.splitlines()[1]

    def test_help(self, capsys):
        """It says what is kept, and what is not."""
        with pytest.raises(SystemExit) as stopped:
            main(["--help"])

        assert 0 == stopped.value.code
        assert "Deferred messages lose the time" in capsys.readouterr().out


@settings(max_examples=25)
@given(
    topics=st.dictionaries(
        st.sampled_from(["t", "u.v", "imported"]),
        st.tuples(
            st.lists(st.sampled_from(["a", "b"]), unique=True),
            st.lists(st.lists(st.binary(max_size=50), min_size=1, max_size=5), max_size=8),
            st.integers(0, 6),
        ),
        max_size=3,
    ),
    mode=st.sampled_from(list(Durability)),
)
def test_out_and_in_again(tmp_path_factory, topics, mode):
    """What was exported and imported by another nsqd is owed as before."""
    root = tmp_path_factory.mktemp("root")
    node = Node(root / "data", mode, max_bytes_per_file=600)
    expected: dict[str, list[StoredMessage]] = {}
    for name, (channels, publishes, tried) in topics.items():
        node.broker.topic(name)
        for channel in channels:
            node.channel(name, channel)
        messages = [message for bodies in publishes for message in stored(node.publish(name, *bodies))]
        expected[name] = [] if channels else messages
        for channel in channels:
            queue = node.channel(name, channel).queue
            taken = [node.take(node.channel(name, channel)) for _ in range(min(tried, len(messages)))]
            for message in taken[::-1]:
                queue.put_back(message)
            expected[f"{name}:{channel}"] = [
                message._replace(attempts=int(n < len(taken))) for n, message in enumerate(messages)
            ]
    if mode == Durability.FSYNC:
        node.storage.journal.write(node.broker.take_unsynced())
    target = root / "out"
    assert 0 == main([f"--data-path={node.stop()}", f"--to={target}"])

    there = Node(target)
    for state in metadata.load(Disk(), str(target)).topics:
        there.broker.restore_topic(state.name, {c.name: c.paused for c in state.channels}, state.paused, NOW)
    log = Log(write=lambda _: None)
    moving.import_queues(str(target), find_queues(str(target)), there.broker, there.storage, log, NOW)

    again = there.stop()
    assert 0 == main([f"--data-path={again}", f"--to={root / 'again'}"])
    for name, messages in expected.items():
        assert sorted(messages) == sorted(read_queue(str(root / "again"), name).messages)
