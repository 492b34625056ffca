"""Moving in: disk queue files of a topic and a channel become part of a topic's log.

Input: a byte for who owns the queue, then meta file and data file as for `diskqueue`, mode 1.
"""

import os
from typing import Final

from nsqkit.log import Level, Log
from nsqkit.nsqd.core.broker import Broker
from nsqkit.nsqd.core.settings import Settings
from nsqkit.nsqd.handover.diskqueue import find_queues, read_queue
from nsqkit.nsqd.handover.moving import BLOCK, import_queues
from tests.fuzz.memory_disk import NOW, House, read_all
from tests.fuzz.source import Source
from tests.fuzz.targets.diskqueue import put, scratch

NAMES: Final = ("t", "t:c", "e#ephemeral", "t:c#ephemeral", "..", "imported")


def check(data: bytes) -> None:
    """All that can be read comes along, with its id if that is one; a restart still owes it; the files are put away."""
    source = Source(data)
    name = NAMES[source.byte() % len(NAMES)]
    meta, _, content = source.rest().partition(b"|")
    house = House()
    broker = Broker(Settings(), house.storage)
    with scratch() as path:
        put(path, name, meta, content)
        messages, _ = read_queue(path, name, BLOCK)
        count = import_queues(path, find_queues(path), broker, house.storage, Log("", Level.FATAL), NOW)
        kept = not name.startswith("e#")
        assert count == (len(messages) if kept else 0)
        assert not find_queues(path)
        assert os.listdir(path) == ["imported"]
        assert len(os.listdir(os.path.join(path, "imported"))) == 1 + bool(meta)
    if not kept:
        return
    topic, _, channel = name.partition(":")
    log = broker.topics[topic].store
    assert log is not None
    log.close()
    house.begin()
    read = read_all(house.storage.open(topic))
    assert [message.body for message in messages] == [batch.message(0, 0).body for batch in read]
    for message, batch in zip(messages, read, strict=True):
        assert message.timestamp == batch.timestamp
        assert 0 <= batch.first_id < 1 << 63
        if message.id == b"%016x" % batch.first_id:
            assert message.id == batch.message(0, 0).id
    again = Broker(Settings(), house.storage)
    again.restore_topic(topic, {channel: False} if channel else {}, paused=False, now=NOW)
    restored = again.topics[topic]
    depth = restored.channels[channel].queue.depth() if channel else restored.depth()
    assert count == depth or channel.endswith("#ephemeral")
