"""What the logs of one data path share: limits, the free-space guard, counters, reports, and which files are open."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from mypy_extensions import i64

from nsqkit.nsqd.core.health import Health
from nsqkit.nsqd.core.store import StoreError
from nsqkit.nsqd.storage.disk import Disk
from nsqkit.nsqd.storage.durations import Durations
from nsqkit.nsqd.storage.segment import FILE_HEADER, Segment, is_ours

if TYPE_CHECKING:
    from nsqkit.nsqd.storage.jobs import CheckpointJob
    from nsqkit.nsqd.storage.log import TopicLog

FREE_SPACE: Final = "free space"  # cause of bad health: the reserve is touched
DATA_PATH: Final = "data path"  # cause of bad health: it was removed, renamed or replaced
GRAVE: Final = "%deleted-"  # begins the names of the directories of deleted topics; no topic's begins so
LOSS: Final = "loss in "  # beginning of the causes of bad health of one log; its directory follows
_GUARD_STEP: Final = 4_194_304  # bytes written between two looks at the free space
_NO_ROOM: Final = 1 << 16  # with less free bytes the disk is full
_ROOM: Final = 1 << 20  # and with so many it is not any more


class Shared:
    """Handed to each log; the arguments are those of `FileStorage`."""

    def __init__(
        self,
        disk: Disk,
        data_path: str,
        report: Callable[[str], None],
        alarm: Callable[[str], None],
        max_bytes_per_file: i64,
        min_free_bytes: i64,
        health: Health,
        max_open_logs: int,
    ) -> None:
        self.disk = disk
        self.max_bytes_per_file = max_bytes_per_file
        self.torn_count: i64 = 0  # logs whose end was cut off when they were opened
        self.damaged_count: i64 = 0  # damaged places found in logs
        self.jobs: list[CheckpointJob] = []  # to be run in a thread, in this order
        self.unsynced: dict[TopicLog, None] = {}
        self.unsynced_batches: i64 = 0
        self.sync_failures: i64 = 0  # syncs of logs that have to be done again
        self.sync_durations = Durations()  # of the files of logs; those of the journal are counted there
        self.checkpoint_count: i64 = 0  # checkpoints that were put in their place
        self.checkpointed_at = -1.0  # when the last one was, by the clock of the disk; -1: none yet
        self.low = False  # less than the reserve is free
        self.full = False  # there is no room for a checkpoint, as far as was seen
        self.free_bytes: i64 = 0  # as far as was seen
        self.misplaced = ""  # why nothing may be written, as far as was seen
        self.unguarded = False  # what was confirmed comes back from the journal, and may use the reserve
        self.data_path = data_path
        self._report = report
        self._alarm = alarm
        self.health = health
        self.min_free_bytes = min_free_bytes
        self._until_look: i64 = -1  # bytes that may be written before the next look
        self._max_open_logs = max_open_logs
        self._open_logs: dict[TopicLog, None] = {}  # that may have files open, the one used last at the end
        self._used_last: TopicLog | None = None
        self.graves = 0  # directories of deleted topics that were named so far
        self.buried: Callable[[str], None] | None = None  # takes such a directory, to remove it in a thread

    def configure(self, max_bytes_per_file: i64, min_free_bytes: i64) -> None:
        """Have other limits from now on."""
        self.max_bytes_per_file = max_bytes_per_file
        self.min_free_bytes = min_free_bytes
        if min_free_bytes <= 0 and self.low:
            self.low = False
            self.health.clear(FREE_SPACE)
            self._report("the free space is no longer looked at")
        self.look()

    # -- what a person should know

    def report(self, line: str) -> None:
        """Tell a person."""
        self._report(line)

    def damage(self, line: str) -> None:
        """Tell a person what is lost or damaged, and count it."""
        self.damaged_count += 1
        self._alarm(line)

    def lose(self, segment: Segment, size: i64, line: str) -> None:
        """Somebody changed a segment's file, and `size` bytes are left. Health is bad as long as the log has it.

        Of an empty one, or one of which that was said before, there is nothing to say.
        """
        if segment.size <= max(size, FILE_HEADER):
            return
        segment.size = max(size, FILE_HEADER)
        segment.harmed = True
        self.damage(f"{segment.path}: {line}")
        self.health.set(LOSS + os.path.dirname(segment.path), f"{segment.path}: {line}")

    # -- the data path and its free space

    def guard(self, size: i64, copies: bool = False) -> None:
        """Refuse to write `size` bytes into a lost data path, or when too little would stay free. StoreError.

        Copies may use the reserve: they let segments go, or are a broker's last will.
        """
        if self.unguarded:
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
            self.health.set(DATA_PATH, self.misplaced)
            return
        self.health.clear(DATA_PATH)
        try:
            self.free_bytes = self.disk.free_bytes(self.data_path)
        except OSError:
            return  # whoever writes will see what is wrong
        if self.free_bytes < _NO_ROOM:
            self.full = True
        elif self.free_bytes >= _ROOM:
            self.full = False
        if self.min_free_bytes <= 0:
            return
        low = self.free_bytes < self.min_free_bytes
        if low:
            self.health.set(FREE_SPACE, self._too_little())
        else:
            self.health.clear(FREE_SPACE)
        if low != self.low:
            self.low = low
            full = f"the disk is full up to the reserve ({self.free_bytes} bytes free): publishes are refused"
            self._report(full if low else "the disk has room again")

    def note_failure(self, error: OSError) -> None:
        """Something could not be written. Is the disk, or somebody's share of it, full?"""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            self.full = True

    def tight(self) -> bool:
        """Should whatever nobody needs be given back, even if it is little?"""
        return self.low or self.full

    def _too_little(self) -> str:
        return f"less than {self.min_free_bytes} bytes are free on the disk of the data path"

    # -- what the logs have to sync, and have open

    def wrote(self, log: TopicLog, batches: int) -> None:
        """A log has something to sync."""
        self.unsynced[log] = None
        self.unsynced_batches += batches

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

    def forget(self, log: TopicLog) -> None:
        """A log is closed for good."""
        self.unsynced.pop(log, None)
        self._open_logs.pop(log, None)
        if self._used_last is log:
            self._used_last = None

    # -- deleted topics

    def put_away(self, directory: str) -> None:
        """A topic is deleted: remove the files that a log makes. Others, and then the directory, stay."""
        try:
            names = self.disk.names(directory)
            if all([is_ours(name) for name in names]):
                self._bury(directory)
                return
            for name in names:
                if is_ours(name):
                    self.disk.remove(f"{directory}/{name}")
            self.disk.remove_directory(directory)
        except FileNotFoundError:
            return  # somebody removed the directory
        except OSError as error:
            self.report(f"{directory}: the topic is deleted, but this is still there: {error.strerror}")

    def _bury(self, directory: str) -> None:
        """Let a thread remove the directory, as giving back the space of large files takes long. OSError."""
        self.graves += 1
        grave = f"{self.data_path}/{GRAVE}{self.graves}"
        self.disk.rename(directory, grave)
        if self.buried is None:
            clear_away(self.disk, grave)
        else:
            self.buried(grave)


def clear_away(disk: Disk, grave: str) -> None:
    """Remove the directory of a deleted topic with all that is in it. OSError."""
    for name in disk.names(grave):
        disk.remove(f"{grave}/{name}")
    disk.remove_directory(grave)
