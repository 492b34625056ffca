"""Checkpoint files, and a log under each.

Input: a byte for the mode. Mode 0: the rest is the content; mode 1: what stands behind a front that is right; mode 2: a
list of numbers from which a valid checkpoint is made, and then of damages to it.
"""

from nsqkit.nsqd.core.store import ChannelRecord, Extent, Leftover, TopicRecord
from nsqkit.nsqd.storage.checkpoint import Synced, decode, encode
from tests.fuzz.memory_disk import Damage, House, identity, read_all, sealed
from tests.fuzz.source import Source


def check(data: bytes) -> None:
    """What is taken for a checkpoint is one, to its last byte; a log under any of them opens and keeps its messages."""
    source = Source(data)
    mode = source.byte() % 3
    if mode == 1:
        content = sealed(b"NSQKCKP\n\x00\x00\x00\x01...." + source.rest(), b"", 12, 16)
    elif mode == 2:
        content = _made(source)
    else:
        content = source.rest()
    found = decode(content)
    if found is not None:
        assert content == encode(*found)
    if mode != 1:
        _check_log(content, valid=found is not None)


def _made(source: Source) -> bytes:
    record = TopicRecord()
    record.end, record.last_id, record.needed_from = source.number() % 8, source.number(), source.byte() % 8
    for index in range(source.byte() % 4):
        channel = ChannelRecord(f"c{index}" if index else "")
        channel.ready = [Extent(source.byte(), source.byte()) for _ in range(source.byte() % 3)]
        channel.deferred = [Extent(source.byte(), source.byte()) for _ in range(source.byte() % 3)]
        channel.leftovers = [
            Leftover(source.byte(), source.byte(), source.number()) for _ in range(source.byte() % 3)
        ]
        record.channels.append(channel)
    content = encode(record, Synced(0, source.number() % 512, source.byte() % 8))
    decoded = decode(content)
    assert decoded is not None
    assert content == encode(*decoded)
    damage = Damage(content)
    while source:
        damage.apply(source)
    if damage.content != content:
        assert decode(bytes(damage.content)) is None, "damage that was not noticed"
    return bytes(damage.content)


def _check_log(content: bytes, *, valid: bool) -> None:
    house = House()
    log = house.storage.open("t")
    written = []
    for size in (10, 20, 30):
        batch = house.batch(2, size)
        log.append(batch)
        log.write()
        written.append(identity(batch))
    log.close()
    house.disk.files["d/t/checkpoint"] = bytearray(content)
    house.begin()
    log = house.storage.open("t")
    if not valid:
        assert log.recovered() is None
        assert len(house.reports) == 1
        assert written == [identity(batch) for batch in read_all(log)]
