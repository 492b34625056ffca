"""A store in memory, for brokers without a disk. It fails when told to."""

from nsqkit.nsqd.core.batch import KEPT, Batch
from nsqkit.nsqd.core.store import Extent, Storage, StoreError, TopicRecord, TopicStore
from nsqkit.wire.message import NOWHERE


class FakeLog(TopicStore):
    """A topic's log: a list of batches. Like a real one it gives copies, and forgets what no checkpoint needs."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.failure = ""  # the error of every write, if any
        self.read_failure = ""  # the error of every read, if any
        self.segment = 0  # messages in a segment, 0: there is only one
        self.writes = 0
        self.record: TopicRecord | None = None
        self.open = True
        self.later = False  # it is to be opened, before anything is asked of it
        self.deleted = False
        self._pending: list[Batch] = []
        self._end = 0

    def opened(self) -> bool:
        """May it be used?"""
        return not self.later

    def append(self, batch: Batch) -> None:
        """Positions are consecutive."""
        batch.first_position = self._end + sum(b.count for b in self._pending)
        self._pending.append(batch)

    def write(self) -> None:
        """All of it or nothing."""
        pending, self._pending = self._pending, []
        if self.failure:
            for batch in pending:
                batch.first_position = NOWHERE
            raise StoreError(self.failure)
        self.batches += [_copy(batch) for batch in pending]
        self._end += sum(batch.count for batch in pending)
        self.writes += bool(pending)

    def read(self, start: int, stop: int, limit_bytes: int) -> list[Batch]:
        """Whole batches, at least one."""
        if self.read_failure:
            raise StoreError(self.read_failure)
        found: list[Batch] = []
        for batch in self.batches:
            if batch.first_position < stop and batch.first_position + batch.count > start:
                found.append(_copy(batch))
                limit_bytes -= len(batch.data)
                if limit_bytes <= 0:
                    break
        return found

    def segment_count(self) -> int:
        """One, as far as anybody asks."""
        return 1

    def damage(self, position: int) -> None:
        """Lose the batch that has this position."""
        self.batches = [
            b for b in self.batches if not b.first_position <= position < b.first_position + b.count
        ]

    def cut_off(self, count: int) -> None:
        """Lose the last batches, as a power cut does."""
        del self.batches[-count:]

    def end(self) -> int:
        """Positions never repeat."""
        return self._end

    def start(self) -> int:
        """What is in front was removed."""
        return self.batches[0].first_position if self.batches else self._end

    def recovered(self) -> TopicRecord | None:
        """The last checkpoint."""
        return self.record

    def checkpoint(self, record: TopicRecord) -> None:
        """Forget everything that is not needed, as strictly as possible."""
        self.record = record
        self.batches = [b for b in self.batches if b.first_position + b.count > record.needed_from]

    def leave(self, position: int) -> None:
        """What is copied is at the end in any case."""

    def oldest(self) -> Extent | None:
        """The oldest segment, if they have a size."""
        start = self.start()
        return Extent(start, start + self.segment) if 0 < self.segment < self._end - start else None

    def size_bytes(self) -> int:
        """Without headers."""
        return sum(len(batch.data) for batch in self.batches)

    def worth_leaving(self) -> bool:
        """If it has a segment's worth of messages."""
        return 0 < self.segment <= self._end - self.start()

    def close(self) -> None:
        """Note it."""
        self.open = False

    def delete(self) -> None:
        """Note it."""
        self.deleted = True


def _copy(batch: Batch) -> Batch:
    twin = Batch(batch.data, batch.count, batch.timestamp, batch.due, None)
    twin.first_id, twin.first_position = batch.first_id, batch.first_position
    twin.carried, twin.state = batch.carried, KEPT
    return twin


class FakeStorage(Storage):
    """Logs by topic. A deleted one is gone; one that was open before is there again."""

    def __init__(self) -> None:
        self.logs: dict[str, FakeLog] = {}
        self.failure = ""  # the error of opening a log, if any
        self.later = False  # new logs are to be opened

    def open(self, topic: str) -> TopicStore:
        """The topic's log."""
        if self.failure:
            raise StoreError(self.failure)
        if topic not in self.logs or self.logs[topic].deleted:
            self.logs[topic] = FakeLog()
            self.logs[topic].later = self.later
        return self.logs[topic]
