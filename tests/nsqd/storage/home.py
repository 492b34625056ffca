"""The logs of a data path, on a faulty disk."""

import os

from nsqkit.nsqd.core.batch import Batch
from nsqkit.nsqd.core.settings import SECOND
from nsqkit.nsqd.core.store import TopicRecord
from nsqkit.nsqd.storage.files import FileStorage
from nsqkit.nsqd.storage.log import TopicLog
from nsqkit.nsqd.storage.segment import BATCH_HEADER
from tests.nsqd.storage.faulty_disk import FaultyDisk

NOW = 1_700_000_000 * SECOND
BATCH_BYTES = BATCH_HEADER + 4 + 40  # of what `Home.fill` writes


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


def checkpoint(home: Home, log: TopicLog, needed_from: int | None = None) -> list[str]:
    """Write a checkpoint down, of which only two numbers matter here; returns errors."""
    record = TopicRecord()
    record.end = log.end()
    record.needed_from = log.end() if needed_from is None else needed_from
    log.checkpoint(record)
    return home.run_jobs()


def owed_from(position: int, log: TopicLog) -> TopicRecord:
    """A checkpoint of which nothing in front of `position` is needed."""
    record = TopicRecord()
    record.end = log.end()
    record.needed_from = position
    return record


def change(path: str, offset: int, data: bytes) -> None:
    """Write into a file behind the log's back."""
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


def flip(path: str, bit: int) -> None:
    """Flip one bit of a file."""
    with open(path, "r+b") as file:
        file.seek(bit // 8)
        byte = file.read(1)[0]
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))
