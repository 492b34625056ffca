"""All topic logs of one data path: opened, synced together, and filled again with what the journal has."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from mypy_extensions import i64

from nsqkit.nsqd.core.batch import Batch
from nsqkit.nsqd.core.health import Health
from nsqkit.nsqd.core.store import Deletion, Storage, StoreError, TopicStore
from nsqkit.nsqd.storage.disk import Disk
from nsqkit.nsqd.storage.jobs import CheckpointJob, OpenJob, SyncJob
from nsqkit.nsqd.storage.journal import Journal
from nsqkit.nsqd.storage.log import TopicLog
from nsqkit.nsqd.storage.reader import CHECK_BLOCK
from nsqkit.nsqd.storage.segment import PROBE
from nsqkit.nsqd.storage.shared import GRAVE, Shared

_PROBE_BYTES: Final = 65_536


class FileStorage(Storage):
    """Topic logs in directories of the data path.

    `place` gives a topic's directory, `report` takes a line about something a person should know, `alarm` one about
    loss and damage. `min_free_bytes` is what must stay free on the disk (0: no guard), and `max_open_logs` that many
    logs may keep files open, two each.
    """

    def __init__(
        self,
        disk: Disk,
        data_path: str,
        place: Callable[[str], str],
        report: Callable[[str], None],
        max_bytes_per_file: i64,
        min_free_bytes: i64,
        *,
        health: Health | None = None,
        max_open_logs: int = 100,
        alarm: Callable[[str], None] | None = None,
    ) -> None:
        self.shared = Shared(
            disk,
            data_path,
            report,
            alarm or report,
            max_bytes_per_file,
            min_free_bytes,
            health or Health(),
            max_open_logs,
        )
        self.journal = Journal(disk, f"{data_path}/journal")
        self.opens_later = False  # logs are opened by jobs, once there are threads for them
        self._disk = disk
        self._place = place

    def open(self, topic: str) -> TopicLog:
        """The topic's log, made if there is none."""
        try:
            return TopicLog(self.shared, self._place(topic), later=self.opens_later)
        except OSError as error:
            raise StoreError(f"the log of {topic} can't be opened: {error.strerror}") from error

    def open_job(self, store: TopicStore) -> OpenJob:
        """What a thread has to do before a log can be used that is not `opened` yet."""
        assert isinstance(store, TopicLog)
        return store.open_job()

    def probe(self, topics: list[str]) -> list[str]:
        """Try to write where writing failed, and beside it; returns who can be written again. For a thread.

        A topic without a directory is one that was deleted: nothing fails there any more.
        """
        well: list[str] = []
        for topic in topics:
            try:
                self._disk.replace(f"{self._place(topic)}/{PROBE}", bytes(_PROBE_BYTES))
                self._disk.remove(f"{self._place(topic)}/{PROBE}")
            except FileNotFoundError:
                pass
            except OSError:
                continue
            well.append(topic)
        return well

    def find_graves(self) -> list[str]:
        """Directories of topics that were deleted before a start, and that nobody removed. Before any log is used."""
        graves: list[str] = []
        for name in self._disk.names(self.shared.data_path):
            number = name.removeprefix(GRAVE)
            if number != name and number.isdecimal():
                self.shared.graves = max(self.shared.graves, int(number))
                graves.append(f"{self.shared.data_path}/{name}")
        return graves

    def sync_jobs(self) -> list[SyncJob]:
        """Jobs that sync everything written so far."""
        shared = self.shared
        logs = list(shared.unsynced)
        shared.unsynced = {}
        shared.unsynced_batches = 0
        jobs: list[SyncJob] = []
        for log in logs:
            job = log.sync_job()
            if job is not None:
                jobs.append(job)
        return jobs

    def take_jobs(self) -> list[CheckpointJob]:
        """The checkpoints to be written, in order."""
        jobs = self.shared.jobs
        self.shared.jobs = []
        return jobs

    def replay_journal(self, known: Callable[[str], bool]) -> int:
        """Give the logs what only the journal has; returns how many messages. Before any log is used.

        Topics that are not `known` any more were deleted. Raises StoreError, and then keeps the journal.
        """
        self.shared.unguarded = True
        try:
            return self._replay(known)
        except OSError as error:
            raise StoreError(f"the journal can't be read: {error.strerror}") from error
        finally:
            self.shared.unguarded = False

    def _replay(self, known: Callable[[str], bool]) -> int:
        journal = self.journal
        journal.start()
        paths = journal.files()
        buried: dict[str, tuple[str, int]] = {}  # where the journal tells of a topic's last deletion
        for path in paths:
            for index, (topic, entry) in enumerate(journal.replay(path)):
                if isinstance(entry, Deletion):
                    buried[topic] = (path, index)
        refills: dict[str, Refill] = {}
        count = 0
        for path in paths:
            for index, (topic, entry) in enumerate(journal.replay(path)):
                if isinstance(entry, Deletion) or not known(topic):
                    continue
                if (path, index) < buried.get(topic, ("", 0)):
                    continue
                refill = refills.get(topic)
                if refill is None:
                    refill = refills[topic] = Refill(self.open(topic), entry.first_position)
                count += refill.put(entry)
        for refill in refills.values():
            count += refill.finish()
        for path in paths:
            self._put_away(path)
        return count

    def _put_away(self, path: str) -> None:
        """Remove a file of the journal that the logs do without; keep it if there is damage in it."""
        damaged = self.journal.damage(path)
        if damaged:
            self.shared.damage(
                f"{path}: passed over {damaged} damaged or incomplete bytes; kept as {path}.damaged"
            )
            self._disk.rename(path, f"{path}.damaged")
            self._disk.sync_directory(os.path.dirname(path))  # in order, as `remove` does it
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
