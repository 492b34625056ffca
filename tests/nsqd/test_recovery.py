"""What a start finds in a data path."""

import os

import pytest

from nsqkit.nsqd import metadata
from nsqkit.nsqd.core.batch import Batch
from nsqkit.nsqd.core.broker import Broker
from nsqkit.nsqd.core.settings import Settings
from nsqkit.nsqd.datapath import topic_directory
from nsqkit.nsqd.recovery import recover, restore
from nsqkit.nsqd.storage.disk import Disk
from nsqkit.nsqd.storage.files import FileStorage


@pytest.fixture
def lines() -> list[str]:
    """What a person was told."""
    return []


@pytest.fixture
def storage(tmp_path, lines) -> FileStorage:
    """The logs of a data path."""
    path = str(tmp_path)
    return FileStorage(Disk(), path, lambda topic: topic_directory(path, topic), lines.append, 1 << 20, 0)


def keep(storage: FileStorage, topic: str, body: bytes) -> None:
    """Write a message to a log."""
    log = storage.open(topic)
    log.append(Batch(len(body).to_bytes(4, "big") + body, 1, 1, 0, None))
    log.write()
    log.close()


def test_topics(tmp_path, storage, lines):
    """Those of nsqd.dat come first, in its order; those of which only the log is there follow, with a line."""
    named = [metadata.TopicState("z"), metadata.TopicState("journal", paused=True)]
    metadata.save(Disk(), str(tmp_path), metadata.Metadata(named))
    for topic in ("b", "a", "z", "imported"):
        keep(storage, topic, b"x")
    os.mkdir(tmp_path / "no-log")

    found = recover(str(tmp_path), Disk(), storage, lines.append)

    assert ["z", "journal", "imported", "a", "b"] == [topic.name for topic in found.topics]
    assert 0 == found.replayed
    assert [
        f"TOPIC({t}): nsqd.dat does not name it, but its log is there" for t in ("imported", "a", "b")
    ] == lines


def test_the_journal(tmp_path, storage, lines):
    """What only the journal has is in the logs afterwards, and each channel is owed it."""
    state = metadata.TopicState("t", paused=False, channels=[metadata.ChannelState("c", paused=True)])
    metadata.save(Disk(), str(tmp_path), metadata.Metadata([state]))
    batch = Batch(b"\0\0\0\1x", 1, 1, 0, None)
    batch.first_position = 0
    storage.journal.start()
    storage.journal.write([("t", batch)])
    storage.journal.rotate()

    found = recover(str(tmp_path), Disk(), storage, lines.append)
    broker = Broker(Settings(), storage)
    for topic in found.topics:
        restore(broker, topic, 2)

    assert 1 == found.replayed
    channel = broker.topics["t"].channels["c"]
    assert (True, 1) == (channel.paused, channel.queue.depth())
    assert [] == lines
