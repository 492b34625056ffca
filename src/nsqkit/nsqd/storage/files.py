"""All topic logs of one data path, and what they share: limits, the free-space guard, reports and jobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mypy_extensions import i64

from nsqkit.nsqd.core.batch import Batch
from nsqkit.nsqd.core.store import Storage, StoreError
from nsqkit.nsqd.storage.disk import Disk
from nsqkit.nsqd.storage.jobs import CheckpointJob, SyncJob
from nsqkit.nsqd.storage.journal import Journal
from nsqkit.nsqd.storage.log import TopicLog

_GUARD_STEP: Final = 4_194_304  # bytes written between two looks at the free space


class FileStorage(Storage):
    """Topic logs in directories of the data path.

    `place` gives a topic's directory, `report` takes a line about something a person should know, and
    `min_free_bytes` is what must stay free on the disk (0: no guard).
    """

    def __init__(
        self,
        disk: Disk,
        data_path: str,
        place: Callable[[str], str],
        report: Callable[[str], None],
        max_bytes_per_file: i64,
        min_free_bytes: i64,
    ) -> None:
        self.disk = disk
        self.max_bytes_per_file = max_bytes_per_file
        self.jobs: list[CheckpointJob] = []  # to be run in a thread, in this order
        self.torn_count: i64 = 0  # logs whose end was cut off when they were opened
        self.damaged_count: i64 = 0  # damaged places found in logs
        self.unsynced_batches: i64 = 0
        self.journal = Journal(disk, f"{data_path}/journal")
        self._data_path = data_path
        self._place = place
        self._report = report
        self._min_free_bytes = min_free_bytes
        self._until_look: i64 = 0
        self._low = False
        self._unsynced: dict[TopicLog, None] = {}

    def open(self, topic: str) -> TopicLog:
        """The topic's log, made if there is none."""
        try:
            return TopicLog(self, self._place(topic))
        except OSError as error:
            raise StoreError(f"the log of {topic} can't be opened: {error.strerror}") from error

    def report(self, line: str) -> None:
        """Tell a person."""
        self._report(line)

    def guard(self, size: i64) -> None:
        """Refuse to write `size` bytes when too little would stay free. StoreError."""
        if self._min_free_bytes <= 0:
            return
        self._until_look -= size
        if self._until_look < 0 or self._low:
            self.look()
        if self._low:
            raise StoreError(f"less than {self._min_free_bytes} bytes are free on the disk of the data path")

    def look(self) -> None:
        """Look at the free space; to be called now and then, as others write to the disk too."""
        self._until_look = _GUARD_STEP
        low = self._min_free_bytes > 0 and i64(self.disk.free_bytes(self._data_path)) < self._min_free_bytes
        if low != self._low:
            self._low = low
            self._report("the disk is full up to the reserve: publishes are refused" if low else "the disk has room again")

    def wrote(self, log: TopicLog, batches: int) -> None:
        """A log has something to sync."""
        self._unsynced[log] = None
        self.unsynced_batches += batches

    def forget(self, log: TopicLog) -> None:
        """A log is deleted."""
        self._unsynced.pop(log, None)

    def sync_jobs(self) -> list[SyncJob]:
        """Jobs that sync everything written so far."""
        logs = list(self._unsynced)
        self._unsynced = {}
        self.unsynced_batches = 0
        return [job for log in logs if (job := log.sync_job()) is not None]

    def take_jobs(self) -> list[CheckpointJob]:
        """The checkpoints to be written, in order."""
        jobs = self.jobs
        self.jobs = []
        return jobs

    def replay_journal(self, known: Callable[[str], bool]) -> int:
        """Give the logs what only the journal has; returns how many messages. Before any log is used.

        Topics that are not `known` any more were deleted. Raises StoreError, and then keeps the journal.
        """
        self.journal.start()
        logs: dict[str, TopicLog] = {}
        count = 0
        for path in self.journal.files():
            for topic, batch in self.journal.replay(path):
                if not known(topic):
                    continue
                log = logs.get(topic)
                if log is None:
                    log = logs[topic] = self.open(topic)
                count += _refill(log, batch)
        for log in logs.values():
            log.close()
        self.journal.remove(self.journal.files())
        return count


def _refill(log: TopicLog, batch: Batch) -> int:
    if batch.first_position < log.end():
        return 0
    log.skip_to(batch.first_position)
    log.append(batch)
    log.write()
    return int(batch.count)
