"""NSQ's disk queue files, damaged or made up.

Input: a byte for the mode. Mode 0: a list of messages that `write_queue` writes, then of damages. Mode 1: what stands
before the first `|` is the meta file, the rest is a data file.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from nsqkit.nsqd.handover.diskqueue import (
    MAX_BODY_BYTES,
    Queue,
    StoredMessage,
    data_file_name,
    find_queues,
    meta_file_name,
    read_queue,
    write_queue,
)
from tests.fuzz.memory_disk import NOW, Damage
from tests.fuzz.source import Source

NAME: Final = "t:c"
SHARED_MEMORY: Final = "/dev/shm"


@contextmanager
def scratch() -> Iterator[str]:
    """A directory for files that only the operating system can give us."""
    path = tempfile.mkdtemp(
        prefix="nsqkit-fuzz-", dir=SHARED_MEMORY if os.path.isdir(SHARED_MEMORY) else None
    )
    try:
        yield path
    finally:
        shutil.rmtree(path)


def check(data: bytes) -> None:
    """Reading never fails, makes nothing up, keeps what is before the damage, and tells of what it lost."""
    source = Source(data)
    with scratch() as path:
        if source.byte() % 2:
            meta, _, content = source.rest().partition(b"|")
            put(path, NAME, meta, content)
            messages, _ = read_queue(path, NAME)
            _check_made_of(messages, {data_file_name(NAME, 0): content})
        else:
            _check_damage(path, source)


def put(path: str, name: str, meta: bytes, content: bytes) -> None:
    """Make a queue's files; no meta file if it would be empty."""
    for file_name, written in ((meta_file_name(name), meta), (data_file_name(name, 0), content)):
        if written or file_name != meta_file_name(name):
            with open(os.path.join(path, file_name), "wb") as file:
                file.write(written)


def _check_damage(path: str, source: Source) -> None:
    messages = [_message(source, number) for number in range(source.byte() % 12)]
    assert len(messages) == write_queue(path, NAME, messages, 300)
    assert [Queue("t", "c")] == find_queues(path)
    assert (messages, []) == read_queue(path, NAME)
    names = [name for name in sorted(os.listdir(path)) if ".meta." not in name]
    damages = {name: Damage(_load(path, name)) for name in names}
    places = _places(messages, {name: bytes(damage.content) for name, damage in damages.items()})
    while source and names:
        damages[names[source.byte() % len(names)]].apply(source)
    for name, damage in damages.items():
        with open(os.path.join(path, name), "wb") as file:
            file.write(damage.content)
    found, problems = read_queue(path, NAME)
    _check_made_of(found, {name: bytes(damage.content) for name, damage in damages.items()})
    assert problems or len(found) >= len(messages), "lost, and not told"
    one_byte = sum(damage.touched() for damage in damages.values()) == 1
    for index, (message, (name, start, stop)) in enumerate(zip(messages, places, strict=True)):
        # A record is believed if two more follow it. If only one byte is wrong, all the others are found.
        damage = damages[name]
        following = [place for place in places[index : index + 3] if place[0] == name]
        sure = len(following) == 3 and damage.untouched_to() >= following[-1][2]
        sure = sure or (one_byte and damage.keeps_size() and damage.whole(start, stop))
        assert message in found or not sure, f"lost, though whole: {name} {start}"


def _message(source: Source, number: int) -> StoredMessage:
    kind = source.byte()
    body = source.take(kind % 24) * (1 + kind // 64)
    return StoredMessage(NOW + number, kind, b"%016x" % (number << 12), body)


def _record(message: StoredMessage) -> bytes:
    content = (
        message.timestamp.to_bytes(8, "big", signed=True)
        + message.attempts.to_bytes(2, "big")
        + message.id
        + message.body
    )
    return len(content).to_bytes(4, "big") + content


def _places(messages: list[StoredMessage], files: dict[str, bytes]) -> list[tuple[str, int, int]]:
    places: list[tuple[str, int, int]] = []
    names = iter(sorted(files))
    name, at = next(names, ""), 0
    for message in messages:
        record = _record(message)
        if at >= len(files[name]):
            name, at = next(names), 0
        assert files[name].startswith(record, at)
        places.append((name, at, at + len(record)))
        at += len(record)
    return places


def _load(path: str, name: str) -> bytes:
    with open(os.path.join(path, name), "rb") as file:
        return file.read()


def _check_made_of(messages: list[StoredMessage], files: dict[str, bytes]) -> None:
    """Every message stands in the files, and no two in the same place."""
    assert sum(len(_record(message)) for message in messages) <= sum(map(len, files.values()))
    for message in messages:
        assert len(message.body) <= MAX_BODY_BYTES
        assert any(_record(message) in content for content in files.values()), "a message out of nowhere"
