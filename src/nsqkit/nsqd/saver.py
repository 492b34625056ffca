"""Keeps nsqd.dat up to date, in a thread: one save at a time, each with all that changed meanwhile.

In the loop a change costs the same however many topics there are. The thread knows them all, and is told what changed;
it writes all of them, as NSQ's format wants it, so saves are spread out when there are very many.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final

from nsqkit.log import Log
from nsqkit.nsqd.core.broker import Broker
from nsqkit.nsqd.machine import Machine
from nsqkit.nsqd.metadata import Change, MetadataError, MetadataFile

METADATA: Final = "nsqd.dat"  # cause of bad health: topics and channels can't be written down
RETRY_S: Final = 1.0
SHARE: Final = 4  # putting the file together holds up the loop; it may take one part in so many of the time


class Saver:
    """Saves what `broker.changes` notes. `turn` runs a turn of the broker, for those who waited."""

    def __init__(
        self, broker: Broker, data_path: str, log: Log, turn: Callable[[], None], machine: Machine
    ) -> None:
        self._broker = broker
        self._file = MetadataFile(machine.disk, data_path)
        self._log = log
        self._turn = turn
        self._cpu_time = machine.cpu_time
        self._loop = asyncio.get_running_loop()
        self._thread = machine.executor("nsqd-metadata")
        self._saving: asyncio.Future[tuple[str, float]] | None = None
        self._timer: asyncio.TimerHandle | None = None  # not before it rings
        self._stopping = False

    def save_now(self) -> None:
        """Save without a thread: at the start, when nobody waits for the loop."""
        upto = int(self._broker.changes.count)
        self._finish(upto, self._save(self._changes())[0])

    def after_turn(self) -> None:
        """Begin to save, if there is something to save and nothing in the way.

        The journal must know of deleted topics first: otherwise a new topic of the same name might be there after a
        power cut, and get what the old one had. When it does, there is another turn.
        """
        if self._saving is None and self._timer is None and not self._stopping:
            self._begin()

    def _begin(self) -> None:
        broker = self._broker
        if broker.deletions or not broker.changes.pending():
            return
        upto = int(broker.changes.count)
        self._saving = self._loop.run_in_executor(self._thread, self._save, self._changes())
        self._saving.add_done_callback(partial(self._saved, upto))

    def _changes(self) -> list[Change]:
        topics = self._broker.topics
        changes: list[Change] = []
        for name, channel_name in self._broker.changes.take():
            topic = topics.get(name)
            state = None if topic is None else topic.channels.get(channel_name) if channel_name else topic
            changes.append((name, channel_name, None if state is None else state.paused))
        return changes

    def _save(self, changes: list[Change]) -> tuple[str, float]:
        """In the thread; returns the error, if any, and the seconds that it held up the others."""
        began = self._cpu_time()
        self._file.change(changes)
        content = self._file.encode()
        took = self._cpu_time() - began
        try:
            self._file.write(content)
        except MetadataError as error:
            return str(error), took
        return "", took

    def _saved(self, upto: int, done: asyncio.Future[tuple[str, float]]) -> None:
        self._saving = None
        error, took = done.result()
        self._finish(upto, error)
        if not self._stopping:
            rest = RETRY_S if error else took * (SHARE - 1)
            if rest > 0:
                self._timer = self._loop.call_later(rest, self._on_timer)
            self._turn()

    def _on_timer(self) -> None:
        self._timer = None
        self.after_turn()

    def _finish(self, upto: int, error: str) -> None:
        health = self._broker.health
        if error and METADATA not in health.reasons:
            self._log.error(error)
        elif not error and METADATA in health.reasons:
            self._log.info(f"STORAGE: {METADATA} can be written again")
        if error:
            health.set(METADATA, error)
        else:
            health.clear(METADATA)
        self._broker.changes.finish(upto, error)

    async def stop(self) -> None:
        """Save what there is to be saved. It is tried once."""
        self._stopping = True
        if self._timer is not None:
            self._timer.cancel()
        if self._saving is not None:
            await asyncio.wait([self._saving])
        self._begin()
        if self._saving is not None:
            await asyncio.wait([self._saving])
        self._thread.shutdown()
