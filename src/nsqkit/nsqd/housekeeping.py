"""What the daemon does on the side: syncs and checkpoints, in threads, and only when there is something to do.

opening     of new topics' logs, at the first publish: making files may wait for a busy disk
removal     of deleted topics' directories: giving back the space of large files takes long
sync        in `fsync` mode the journal, one sync at a time, each covering every publish that arrived meanwhile;
            in every mode the logs, each --sync-timeout or --sync-every writes
checkpoint  of topics that changed, twice in each --checkpoint-interval
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, Final, Protocol

from nsqkit.log import Log
from nsqkit.nsqd.core.broker import JOURNAL, Broker
from nsqkit.nsqd.core.health import READING, WRITING
from nsqkit.nsqd.core.ledger import carry_forward, record, save_memory, stuck
from nsqkit.nsqd.core.owed import TopicOwed
from nsqkit.nsqd.core.store import JournalEntry, StoreError, TopicRecord, TopicStore
from nsqkit.nsqd.core.topic import Topic
from nsqkit.nsqd.durability import Durability
from nsqkit.nsqd.machine import Machine
from nsqkit.nsqd.options import NsqdOptions
from nsqkit.nsqd.storage.disk import pause
from nsqkit.nsqd.storage.files import FileStorage
from nsqkit.nsqd.storage.shared import clear_away
from nsqkit.nsqd.watch import Watch
from nsqkit.options.duration import SECOND
from nsqkit.wire.message import Message

Checkpoint = tuple[Topic, TopicRecord, list[Message]]  # and what keeps its oldest segment alive

OPENED_TOGETHER: Final = 64  # new topics whose logs are made before the first of them can be used
LOOK_AGAIN_S: Final = 1.0  # between two looks at the disk while something is wrong, or is written
SHARE: Final = 20  # checkpoints may take one part in so many of the time
_COPYING: Final = "copying leftovers of "  # begins a cause of bad health; the topic follows

BUDGET_S: Final = 0.002  # of CPU, after which a pass of the loop begins no more checkpoints


class Job(Protocol):
    """Work of the storage: `run` in a thread, then `finish` in the loop."""

    error: str

    def run(self) -> None:
        """The slow part."""

    def finish(self) -> None:
        """The rest."""


class Housekeeping:
    """The timers and threads of one daemon's storage. `turn` runs a turn of the broker."""

    def __init__(
        self,
        broker: Broker,
        storage: FileStorage,
        options: NsqdOptions,
        log: Log,
        turn: Callable[[], None],
        machine: Machine,
    ) -> None:
        self.carried_count = 0  # times that leftovers were copied to the end of a log
        self._synchronous = options.durability is Durability.FSYNC
        self._broker = broker
        self._storage = storage
        self._memory_mode = options.durability is Durability.MEMORY
        self._set_times(options)
        self._log = log
        self._turn = turn
        self._loop = asyncio.get_running_loop()
        self._commits = machine.executor("nsqd-commit")
        self._syncs = machine.executor("nsqd-sync")
        self._checkpoints = machine.executor("nsqd-checkpoint")  # which must not wait for a slow sync
        self._openings = machine.executor("nsqd-opening")
        self._opening: asyncio.Future[None] | None = None
        self._removals = machine.executor("nsqd-removal")
        self._removing: set[asyncio.Future[str]] = set()
        self._committing: asyncio.Future[str] | None = None
        self._syncing: asyncio.Future[None] | None = None
        self._checkpointing: asyncio.Future[Any] | None = None
        self._written: list[Checkpoint] = []  # to be given to the logs
        self._took = 0.0  # seconds of CPU that the checkpoints under way took so far
        self._sync_timer: asyncio.TimerHandle | None = None
        self._checkpoint_timer: asyncio.TimerHandle | None = None
        self._health_timer: asyncio.TimerHandle | None = None
        self._look_timer: asyncio.TimerHandle | None = None
        self._misplaced = ""  # what was said of it last
        self._probing: asyncio.Future[list[str]] | None = None
        self._complaints: dict[str, str] = {}  # by what fails
        self._machine = machine
        self._cpu_time = machine.cpu_time
        self._tight = False  # so it was when it was looked at last
        self._late = False  # the last pass left topics for the next one
        self._stopping = False
        storage.shared.buried = self.clear_away
        self._watch = Watch(broker, storage.shared, machine, turn)

    def start(self) -> None:
        """Begin: nsqd is ready."""
        self._watch.start()
        self.after_turn()  # what a killed process wrote is still to be synced

    def _set_times(self, options: NsqdOptions) -> None:
        self._sync_every = options.sync_every
        self._sync_timeout = int(options.sync_timeout) / SECOND
        # Half of it, so that what was finished just after one checkpoint is in the next within the interval.
        self._checkpoint_pause = int(options.checkpoint_interval) / SECOND / 2

    def configure(self, options: NsqdOptions) -> None:
        """Go by these options from now on: what waits begins to wait anew."""
        self._set_times(options)
        for timer in (self._sync_timer, self._checkpoint_timer):
            if timer is not None:
                timer.cancel()
        self._sync_timer = self._checkpoint_timer = None
        self.after_turn()

    def after_turn(self) -> None:
        """See whether a turn left something to do."""
        if self._stopping:
            return
        if self._committing is None and self._broker.unsynced:
            self._commit()
        if self._broker.unopened and self._opening is None:
            self._open()
        if self._storage.shared.tight() is not self._tight:
            self._tight = self._storage.shared.tight()
            self._give_back()
        if self._storage.shared.misplaced != self._misplaced:
            self._misplaced = self._storage.shared.misplaced
            if self._misplaced:
                self._log.error(f"STORAGE: {self._misplaced}: publishes are refused")
            else:
                self._log.info("STORAGE: the data path is back")
        self._see_unsynced(self._storage.shared.unsynced_batches)
        if self._broker.health.reasons and self._health_timer is None:
            self._health_timer = self._loop.call_later(LOOK_AGAIN_S, self._look_again)
        if self._broker.dirty and self._checkpoint_timer is None and self._checkpointing is None:
            self._checkpoint_timer = self._loop.call_later(self._checkpoint_pause, self._checkpoint)

    def _see_unsynced(self, waiting: int) -> None:
        if not waiting:
            return
        if self._look_timer is None:
            self._look_timer = self._loop.call_later(LOOK_AGAIN_S, self._look_before_writing)
        if self._syncing is None:
            if waiting >= self._sync_every:
                self._sync()
            elif self._sync_timer is None:
                self._sync_timer = self._loop.call_later(self._sync_timeout, self._sync)

    # -- bad health

    def _look_before_writing(self) -> None:
        self._look_timer = None
        self._storage.shared.look_before_writing()

    def _look_again(self) -> None:
        """See whether what failed works again, without waiting for somebody to publish."""
        self._storage.shared.look()
        broker = self._broker
        for topic in broker.health.topics(READING):
            if topic in broker.topics:
                broker.topics[topic].reread()
        if JOURNAL in broker.health.reasons and self._committing is None:
            self._commit()
        self._probing = self._loop.run_in_executor(
            self._checkpoints, self._storage.probe, broker.health.topics(WRITING)
        )
        self._probing.add_done_callback(self._looked)

    def _looked(self, done: asyncio.Future[list[str]]) -> None:
        self._health_timer = self._probing = None
        for topic in done.result():
            self._broker.health.clear(WRITING + topic)
        if not self._stopping:
            self._turn()  # nsqd.dat is tried again, if that is what failed

    # -- new topics

    def _open(self) -> None:
        topics = self._broker.unopened[:OPENED_TOGETHER]
        del self._broker.unopened[:OPENED_TOGETHER]
        jobs: list[tuple[Topic, Job]] = []
        for topic in topics:
            if topic.store is not None and not topic.deleted:
                jobs.append((topic, self._storage.open_job(topic.store)))
        self._opening = self._loop.run_in_executor(self._openings, _run_all, [job for _, job in jobs])
        self._opening.add_done_callback(lambda _: self._have_opened(jobs))

    def _have_opened(self, jobs: Sequence[tuple[Topic, Job]]) -> None:
        self._opening = None
        for topic, job in jobs:
            job.finish()
            if not topic.deleted:
                topic.log_opened(job.error)
        self._turn()

    # -- the journal

    def _commit(self) -> None:
        group = self._broker.take_unsynced()
        self._committing = self._loop.run_in_executor(self._commits, self._write_journal, group)
        self._committing.add_done_callback(partial(self._committed, group))

    def _write_journal(self, group: list[JournalEntry]) -> str:
        try:
            self._storage.journal.write(group)
        except StoreError as error:
            return str(error)
        return ""

    def _committed(self, group: list[JournalEntry], done: asyncio.Future[str]) -> None:
        self._committing = None
        error = done.result()
        self._complain(JOURNAL, error)
        self._broker.synced(group, error)
        self._turn()

    # -- the logs

    def _sync(self) -> None:
        if self._sync_timer is not None:
            self._sync_timer.cancel()
            self._sync_timer = None
        # After every commit so far, before every later one. Everything in the files that are complete then was
        # written to the logs before, so the jobs cover it, but for logs whose last sync failed.
        complete = self._commits.submit(self._storage.journal.rotate) if self._synchronous else None
        failures = self._storage.shared.sync_failures
        jobs = self._storage.sync_jobs()
        self._syncing = self._loop.run_in_executor(self._syncs, _run_all, jobs)
        self._syncing.add_done_callback(lambda _: self._synced(jobs, failures, complete))

    def _synced(self, jobs: Sequence[Job], failures: int, complete: Future[list[str]] | None) -> None:
        self._syncing = None
        self._finish("syncing", jobs)
        if complete is not None and self._storage.shared.sync_failures == failures:
            self._commits.submit(self._remove_journal, complete)
        if not self._stopping:
            self._storage.shared.look()
            self.after_turn()

    def _remove_journal(self, complete: Future[list[str]]) -> None:
        with suppress(OSError):  # they do no harm, and the next sync tries again
            self._storage.journal.remove(complete.result())

    # -- checkpoints

    def _checkpoint(self) -> None:
        """Look at what the topics owe; a thread writes it down."""
        self._checkpoint_timer = None
        began = self._cpu_time()
        owed = self._look_at_owed()
        self._took = self._cpu_time() - began
        self._checkpointing = self._loop.run_in_executor(self._checkpoints, self._write_down, owed)
        self._checkpointing.add_done_callback(self._written_down)

    def _write_down(self, owed: list[TopicOwed]) -> tuple[list[Checkpoint], float]:
        """In the thread; returns the seconds of CPU that it took as well."""
        began = self._cpu_time()
        written: list[Checkpoint] = []
        while owed:
            one = owed.pop()  # so that it is let go here
            left = [] if one.oldest is None else stuck(one, one.oldest, pause)
            written.append((one.topic, record(one, pause), left))
        return written, self._cpu_time() - began

    def _written_down(self, done: asyncio.Future[tuple[list[Checkpoint], float]]) -> None:
        self._written, took = done.result()
        self._took += took
        self._keep_checkpoints()

    def _keep_checkpoints(self) -> None:
        """Give the logs what was written down, as much as there is time for, and have it put on the disk."""
        began = self._cpu_time()
        end = began + BUDGET_S
        topics: list[Topic] = []
        while self._written and self._cpu_time() < end:
            topic, written, left = self._written.pop()
            if written.unsaved and written.needed_from < written.end:
                topic.note_change()  # only where nothing is owed a full disk need not be able to save metadata first
                continue
            if topic.store is not None and not topic.deleted:
                topics.append(topic)
                topic.store.checkpoint(written)
                if left:
                    self._carry(topic, topic.store, left)
                else:
                    self._complain(_COPYING + topic.name, "")  # whoever it failed for has finished it
        jobs = self._storage.take_jobs()
        self._took += self._cpu_time() - began
        self._checkpointing = self._loop.run_in_executor(self._checkpoints, _run_all, jobs)
        self._checkpointing.add_done_callback(lambda _: self._checkpointed(jobs, topics))

    def _checkpointed(self, jobs: Sequence[Job], topics: Sequence[Topic]) -> None:
        self._finish("checkpointing", jobs)
        if any(job.error for job in jobs):
            for topic in topics:
                topic.note_change()  # try again, even if nothing happens to the topic
        self._checkpointing = None
        if self._stopping:
            return
        if self._written:
            self._keep_checkpoints()
            return
        rest = self._took * SHARE
        if not self._late:
            rest -= self._checkpoint_pause
        if rest > 0:
            self._checkpoint_timer = self._loop.call_later(rest, self._checkpoint)
        else:
            self.after_turn()

    def _give_back(self) -> None:
        """When space gets low, every topic looks for what it can give back, also one to which nothing happens."""
        for topic in self._broker.topics.values():
            if topic.store is not None and topic.store.worth_leaving():
                topic.note_change()

    def _look_at_owed(self) -> list[TopicOwed]:
        """What topics owe that changed, as many as there is time for; the others have the next turn."""
        broker = self._broker
        dirty, broker.dirty = broker.dirty, []
        saved = broker.changes.saved
        end = self._cpu_time() + BUDGET_S
        owed: list[TopicOwed] = []
        self._late = False
        for number, topic in enumerate(dirty):
            if self._cpu_time() > end:
                broker.dirty += dirty[number:]
                self._late = True
                break
            topic.dirty = False
            if topic.deleted:
                self._complain(_COPYING + topic.name, "")
            if topic.store is None or topic.deleted or not topic.opened:
                continue
            if topic.changed > saved and not self._storage.shared.full:
                topic.note_change()  # what it gave to a channel that a start does not know yet would be lost
                continue
            owed.append(TopicOwed(topic, topic.store))
        return owed

    def _carry(self, topic: Topic, store: TopicStore, left: list[Message]) -> None:
        error = ""
        try:
            self.carried_count += carry_forward(left, store)
        except StoreError as failure:
            error = str(failure)
        topic.note_change()  # the copies are to be named, and the others to be copied
        self._complain(_COPYING + topic.name, error)

    # -- deleted topics

    def clear_away(self, grave: str) -> None:
        """Have the directory of a deleted topic removed."""
        removing = self._loop.run_in_executor(self._removals, self._remove, grave)
        self._removing.add(removing)
        removing.add_done_callback(self._removed)

    def _remove(self, grave: str) -> str:
        if self._stopping:
            return ""  # the next start goes on
        try:
            clear_away(self._machine.disk, grave)
        except OSError as error:
            return f"{grave}: what is left of a deleted topic can't be removed: {error.strerror}"
        return ""

    def _removed(self, done: asyncio.Future[str]) -> None:
        self._removing.discard(done)
        error = done.result()
        if error:
            self._log.error(f"STORAGE: {error}")

    # -- both

    def _finish(self, what: str, jobs: Sequence[Job]) -> None:
        error = ""
        for job in jobs:
            job.finish()
            error = error or job.error
        self._complain(what, error)

    def _complain(self, what: str, error: str) -> None:
        """Say what is wrong once, and that it is over."""
        if error != self._complaints.get(what, ""):
            if error:
                self._complaints[what] = error
                self._broker.health.set(what, error)
                self._log.error(f"STORAGE: {error}")
            else:
                del self._complaints[what]
                self._broker.health.clear(what)
                self._log.info(f"STORAGE: {what} works again")

    async def stop(self) -> None:
        """Wait for what is running; begin nothing new."""
        self._stopping = True
        await self._watch.stop()
        for timer in (self._sync_timer, self._checkpoint_timer, self._health_timer, self._look_timer):
            if timer is not None:
                timer.cancel()
        ours = (self._opening, self._committing, self._syncing, self._checkpointing, self._probing)
        running: list[asyncio.Future[Any]] = [*self._removing, *[f for f in ours if f is not None]]
        if running:
            await asyncio.wait(running)
        while self._broker.unsynced:
            self._commit()
            assert self._committing is not None
            await asyncio.wait([self._committing])
        self._commits.shutdown()
        self._syncs.shutdown()
        self._checkpoints.shutdown()
        self._removals.shutdown()
        self._openings.shutdown()

    def close_logs(self) -> None:
        """Write down everything and close the logs: the last thing before the daemon's end."""
        errors: list[str] = []
        logs = [
            (topic, topic.store)
            for topic in self._broker.topics.values()
            if topic.store is not None and topic.opened
        ]
        if self._memory_mode:
            for topic, store in logs:
                errors.append(_attempt(partial(save_memory, topic, store)))
        # Syncs first, so that the checkpoints name them and the next start is quick.
        errors += self._run_together(self._storage.sync_jobs())
        for topic, store in logs:
            store.checkpoint(record(TopicOwed(topic, store)))
        errors += self._run_together(self._storage.take_jobs())
        for _, store in logs:
            errors.append(_attempt(store.close))
        for error in sorted(set(errors) - {""}):
            self._log.error(f"STORAGE: {error}")
        if self._synchronous and not any(errors):
            with suppress(OSError):  # they do no harm: the next start finds that the logs have it all
                self._storage.journal.remove(self._storage.journal.rotate())

    def _run_together(self, jobs: Sequence[Job]) -> list[str]:
        """Run jobs of different logs; returns their errors."""
        self._machine.together([job.run for job in jobs])
        for job in jobs:
            job.finish()
        return [job.error for job in jobs]


def _attempt(act: Callable[[], object]) -> str:
    """Do it; returns the error, if any."""
    try:
        act()
    except StoreError as error:
        return str(error)
    return ""


def _run_all(jobs: Sequence[Job]) -> None:
    for job in jobs:
        job.run()
