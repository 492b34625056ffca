"""All topic logs of one data path, and what they share: limits, the free-space guard, reports and jobs."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from mypy_extensions import i64

from nsqkit.nsqd.core.batch import Batch
from nsqkit.nsqd.core.health import Health
from nsqkit.nsqd.core.store import Storage, StoreError
from nsqkit.nsqd.storage.disk import Disk
from nsqkit.nsqd.storage.jobs import CheckpointJob, SyncJob
from nsqkit.nsqd.storage.journal import Journal
from nsqkit.nsqd.storage.log import TopicLog
from nsqkit.nsqd.storage.reader import CHECK_BLOCK
from nsqkit.nsqd.storage.segment import PROBE

FREE_SPACE: Final = "free space"  # cause of bad health: the reserve is touched
DATA_PATH: Final = "data path"  # cause of bad health: it was removed, renamed or replaced
_PROBE_BYTES: Final = 65_536
_GUARD_STEP: Final = 4_194_304  # bytes written between two looks at the free space


class FileStorage(Storage):
    """Topic logs in directories of the data path.

    `place` gives a topic's directory, `report` takes a line about something a person should know, `min_free_bytes` is
    what must stay free on the disk (0: no guard), and `max_open_logs` that many logs may keep files open, two each.
    """

    def __init__(
        self,
        disk: Disk,
        data_path: str,
        place: Callable[[str], str],
        report: Callable[[str], None],
        max_bytes_per_file: i64,
        min_free_bytes: i64,
        health: Health | None = None,
        max_open_logs: int = 100,
    ) -> None:
        self.disk = disk
        self.max_bytes_per_file = max_bytes_per_file
        self.jobs: list[CheckpointJob] = []  # to be run in a thread, in this order
        self.torn_count: i64 = 0  # logs whose end was cut off when they were opened
        self.damaged_count: i64 = 0  # damaged places found in logs
        self.unsynced_batches: i64 = 0
        self.sync_failures: i64 = 0  # syncs of logs that have to be done again
        self.journal = Journal(disk, f"{data_path}/journal")
        self._data_path = data_path
        self._place = place
        self._report = report
        self._health = health or Health()
        self._min_free_bytes = min_free_bytes
        self._until_look: i64 = -1  # bytes that may be written before the next look
        self.low = False  # less than the reserve is free
        self.free_bytes: i64 = 0  # as far as was seen
        self.misplaced = ""  # why nothing may be written, as far as was seen
        self._replaying = False
        self._unsynced: dict[TopicLog, None] = {}
        self._max_open_logs = max_open_logs
        self._open_logs: dict[TopicLog, None] = {}  # that may have files open, the one used last at the end
        self._used_last: TopicLog | None = None

    def open(self, topic: str) -> TopicLog:
        """The topic's log, made if there is none."""
        try:
            return TopicLog(self, self._place(topic))
        except OSError as error:
            raise StoreError(f"the log of {topic} can't be opened: {error.strerror}") from error

    def report(self, line: str) -> None:
        """Tell a person."""
        self._report(line)

    def damage(self, line: str) -> None:
        """Tell a person what is lost or damaged, and count it."""
        self.damaged_count += 1
        self._report(line)

    def guard(self, size: i64, copies: bool = False) -> None:
        """Refuse to write `size` bytes into a lost data path, or when too little would stay free. StoreError.

        Copies may use the reserve: they let segments go, or are a broker's last will.
        """
        if self._replaying:
            return
        self._until_look -= size
        if self._until_look < 0 or self.low or self.misplaced:
            self.look()
        if self.misplaced:
            raise StoreError(self.misplaced)
        if self.low and not copies:
            raise StoreError(self._too_little())

    def look_before_writing(self) -> None:
        """What was seen is old: the next write has to look first."""
        self._until_look = -1

    def look(self) -> None:
        """Look where the data path is and how much is free; to be called now and then, for others may change both."""
        self._until_look = _GUARD_STEP
        self.misplaced = "" if self.disk.misplaced is None else self.disk.misplaced()
        if self.misplaced:
            self._health.set(DATA_PATH, self.misplaced)
            return
        self._health.clear(DATA_PATH)
        if self._min_free_bytes <= 0:
            return
        try:
            self.free_bytes = self.disk.free_bytes(self._data_path)
        except OSError:
            return  # whoever writes will see what is wrong
        low = self.free_bytes < self._min_free_bytes
        if low:
            self._health.set(FREE_SPACE, self._too_little())
        else:
            self._health.clear(FREE_SPACE)
        if low != self.low:
            self.low = low
            full = f"the disk is full up to the reserve ({self.free_bytes} bytes free): publishes are refused"
            self._report(full if low else "the disk has room again")

    def _too_little(self) -> str:
        return f"less than {self._min_free_bytes} bytes are free on the disk of the data path"

    def probe(self, topics: list[str]) -> list[str]:
        """Try to write where writing failed, and beside it; returns who can be written again. For a thread.

        A topic without a directory is one that was deleted: nothing fails there any more.
        """
        well: list[str] = []
        for topic in topics:
            try:
                self.disk.replace(f"{self._place(topic)}/{PROBE}", bytes(_PROBE_BYTES))
                self.disk.remove(f"{self._place(topic)}/{PROBE}")
            except FileNotFoundError:
                pass
            except OSError:
                continue
            well.append(topic)
        return well

    def wrote(self, log: TopicLog, batches: int) -> None:
        """A log has something to sync."""
        self._unsynced[log] = None
        self.unsynced_batches += batches

    def is_unsynced(self, log: TopicLog) -> bool:
        """Was it written since it was synced last?"""
        return log in self._unsynced

    def forget(self, log: TopicLog) -> None:
        """A log is closed for good."""
        self._unsynced.pop(log, None)
        self._open_logs.pop(log, None)
        if self._used_last is log:
            self._used_last = None

    def use(self, log: TopicLog) -> None:
        """A log is about to use its files. If too many have some open, the one used longest ago closes them."""
        if self._used_last is log:
            return
        self._used_last = log
        logs = self._open_logs
        logs.pop(log, None)
        logs[log] = None
        if len(logs) > self._max_open_logs:
            idle = next(iter(logs))
            del logs[idle]
            idle.rest()

    def sync_jobs(self) -> list[SyncJob]:
        """Jobs that sync everything written so far."""
        logs = list(self._unsynced)
        self._unsynced = {}
        self.unsynced_batches = 0
        jobs: list[SyncJob] = []
        for log in logs:
            job = log.sync_job()
            if job is not None:
                jobs.append(job)
        return jobs

    def take_jobs(self) -> list[CheckpointJob]:
        """The checkpoints to be written, in order."""
        jobs = self.jobs
        self.jobs = []
        return jobs

    def replay_journal(self, known: Callable[[str], bool]) -> int:
        """Give the logs what only the journal has; returns how many messages. Before any log is used.

        Topics that are not `known` any more were deleted. Raises StoreError, and then keeps the journal.
        """
        self._replaying = True  # what was confirmed may use the reserve
        try:
            return self._replay(known)
        except OSError as error:
            raise StoreError(f"the journal can't be read: {error.strerror}") from error
        finally:
            self._replaying = False

    def _replay(self, known: Callable[[str], bool]) -> int:
        journal = self.journal
        journal.start()
        paths = journal.files()
        buried: dict[str, tuple[str, int]] = {}  # where the journal tells of a topic's last deletion
        for path in paths:
            for index, (topic, batch) in enumerate(journal.replay(path)):
                if batch.count == 0:
                    buried[topic] = (path, index)
        refills: dict[str, Refill] = {}
        count = 0
        for path in paths:
            for index, (topic, batch) in enumerate(journal.replay(path)):
                if batch.count == 0 or not known(topic) or (path, index) < buried.get(topic, ("", 0)):
                    continue
                refill = refills.get(topic)
                if refill is None:
                    refill = refills[topic] = Refill(self.open(topic), batch.first_position)
                count += refill.put(batch)
        for refill in refills.values():
            count += refill.finish()
        for path in paths:
            self._put_away(path)
        return count

    def _put_away(self, path: str) -> None:
        """Remove a file of the journal that the logs do without; keep it if there is damage in it."""
        damaged = self.journal.damage(path)
        if damaged:
            self.damaged_count += 1
            self._report(f"{path}: passed over {damaged} damaged or incomplete bytes; kept as {path}.damaged")
            self.disk.rename(path, f"{path}.damaged")
            self.disk.sync_directory(os.path.dirname(path))  # in order, as `remove` does it
        else:
            self.journal.remove([path])


class Refill:
    """What the journal brings back to one log, in order, beginning with position `first`.

    A power cut takes the end of a log, but may also take something in front of what it leaves. The end is
    written again, under its old positions. What is missing further in front goes to the end, under new ones.
    """

    def __init__(self, log: TopicLog, first: i64) -> None:
        self._log = log
        checkpoint = log.recovered()
        self._needed: i64 = 0 if checkpoint is None else checkpoint.needed_from
        self._reach = log.written()
        self._there = _positions(log, first, self._reach)
        self._misplaced: list[Batch] = []

    def put(self, batch: Batch) -> int:
        """Write a batch if the log lacks it; returns how many messages came back."""
        position = batch.first_position
        if position >= self._log.written():
            self._log.go_to(position)
            self._write(batch)
            return int(batch.count)
        # What is not needed was removed, once the checkpoint that says so was safe.
        needed = position + batch.count > self._needed
        if needed and position < self._reach and int(position) not in self._there:
            self._misplaced.append(batch)
        return 0

    def finish(self) -> int:
        """Write the rest, sync and close the log; returns how many messages came back. StoreError."""
        log = self._log
        checkpoint = log.recovered()
        if checkpoint is not None:
            log.go_to(max(log.end(), checkpoint.end))
        count = 0
        for batch in self._misplaced:
            self._write(batch)
            count += int(batch.count)
        log.close()
        return count

    def _write(self, batch: Batch) -> None:
        self._log.append(batch)
        self._log.write()


def _positions(log: TopicLog, start: i64, stop: i64) -> set[int]:
    """Where the batches begin that the log has in [start, stop)."""
    found: set[int] = set()
    while start < stop:
        batches = log.read(start, stop, CHECK_BLOCK)
        for batch in batches:
            found.add(int(batch.first_position))
        start = batches[-1].first_position + batches[-1].count if batches else stop
    return found
