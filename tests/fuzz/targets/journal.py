"""The journal, and what it brings back to the logs of two topics.

Input: a byte for the mode. Mode 0: a list of publishes, each in the journal and in its log, then of damages to these
files. Mode 1: the rest is a journal file as it is; mode 2: the same with the checksums made right.
"""

from typing import Final

from nsqkit.nsqd.core.batch import Batch
from nsqkit.nsqd.core.store import Deletion
from nsqkit.nsqd.storage.segment import BATCH_MAGIC, FILE_HEADER
from tests.fuzz.memory_disk import Damage, House, identity, read_all, sealed
from tests.fuzz.source import Source

TOPICS: Final = ("t", "u")
FILE: Final = "d/journal/0000000001.journal"
WORK: Final = 100  # times that the files may be read

Message = tuple[str, int, bytes]


def check(data: bytes) -> None:
    """What is whole in the journal or in the log is in the log afterwards; nothing else is."""
    source = Source(data)
    mode = source.byte() % 3
    if mode == 0:
        _check_damage(source)
        return
    content = source.rest()
    if mode == 2:
        content = sealed(content, BATCH_MAGIC, 8, 12)
    house = House()
    house.disk.files[FILE] = bytearray(content)
    entries = house.storage.journal.replay(FILE)
    assert house.storage.journal.damage(FILE) <= len(content)
    assert all(len(topic) <= 64 for topic, _ in entries)
    batches = [entry for _, entry in entries if isinstance(entry, Batch)]
    assert all(batch.data in content for batch in batches)
    count = house.storage.replay_journal(lambda topic: topic in TOPICS)
    assert count <= sum(batch.count for batch in batches)
    assert FILE not in house.disk.files, "it would be replayed again"


def _check_damage(source: Source) -> None:
    house = House(max_bytes_per_file=1200)
    publishes = _publish(house, source)
    damages = {
        path: Damage(bytes(content), FILE_HEADER * path.endswith(".log"))
        for path, content in sorted(house.disk.files.items())
    }
    paths = list(damages)
    while source:
        damages[paths[source.byte() % len(paths)]].apply(source)
    for path, damage in damages.items():
        house.disk.files[path] = damage.content
    total = sum(len(damage.content) for damage in damages.values())
    house.begin()
    if any(isinstance(entry, Deletion) for _, entry in house.storage.journal.replay(FILE)):
        return  # the damage brought one along, checksum and all
    house.disk.bytes_read = 0
    house.storage.replay_journal(lambda _: True)
    assert house.disk.bytes_read <= WORK * total
    found = _found(house)
    known = {message for _, batch in publishes for message in batch}
    if not set(found) <= known:  # the damage brought a batch along, checksum and all
        files = [bytes(damage.content) for damage in damages.values()]
        assert all(any(body in file for file in files) for _, _, body in found), "a message out of nowhere"
        return
    assert len(found) == len(set(found)), "brought back twice"
    ends = {
        path: {stop for places, _ in publishes for other, _, stop in places if other == path}
        for path in paths
    }
    for places, batch in publishes:
        if batch <= set(found):
            continue
        whole = [path for path, start, stop in places if damages[path].whole(start, stop)]
        assert not whole, f"lost, though whole in {whole}"
        cut = all(damages[path].is_cut(ends[path]) for path, _, _ in places)
        assert house.reports or cut, "lost, and not told"
    house.begin()
    assert 0 == house.storage.replay_journal(lambda _: True)
    assert found == _found(house)


def _publish(house: House, source: Source) -> list[tuple[list[tuple[str, int, int]], set[Message]]]:
    """Publishes: where each stands in the files, and its messages."""
    storage = house.storage
    storage.journal.start()
    logs = {topic: storage.open(topic) for topic in TOPICS}
    publishes: list[tuple[list[tuple[str, int, int]], set[Message]]] = []
    for _ in range(1 + source.byte() % 12):
        kind = source.byte()
        topic = TOPICS[kind & 1]
        batch = house.batch(1 + kind % 3, kind // 2)
        length = len(batch.data) + 52
        logs[topic].append(batch)
        logs[topic].write()
        path, content = max(item for item in house.disk.files.items() if item[0].startswith(f"d/{topic}/"))
        storage.journal.write([(topic, batch)])
        reach = len(house.disk.files[FILE])
        places = [(path, len(content) - length, len(content)), (FILE, reach - length - 9, reach)]
        publishes.append((places, _messages(topic, batch)))
    for log in logs.values():
        log.close()
    storage.journal.rotate()
    return publishes


def _messages(topic: str, batch: Batch) -> set[Message]:
    return {
        (topic, int(batch.first_id + index), batch.message(index, batch.offset_of(index)).body)
        for index in range(batch.count)
    }


def _found(house: House) -> list[Message]:
    """The messages of both logs."""
    found: list[Message] = []
    for topic in TOPICS:
        log = house.storage.open(topic)
        positions: set[int] = set()
        for batch in read_all(log):
            assert identity(batch)[0] not in positions
            positions.add(int(batch.first_position))
            found += sorted(_messages(topic, batch))
        log.close()
    return found
