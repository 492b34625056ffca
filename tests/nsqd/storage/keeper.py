"""Housekeeping on a faulty disk, with turns by hand."""

import asyncio
import io
import os

from nsqkit.log import Log
from nsqkit.nsqd import options
from nsqkit.nsqd.core.batch import Batch
from nsqkit.nsqd.core.broker import Broker
from nsqkit.nsqd.core.settings import Settings
from nsqkit.nsqd.durability import Durability
from nsqkit.nsqd.housekeeping import Housekeeping
from nsqkit.nsqd.machine import Machine


class Keeper:
    """Housekeeping of a broker in fsync mode, on a faulty disk, with turns by hand."""

    def __init__(self, home) -> None:
        self.home = home
        self.lines = io.StringIO()
        settings = Settings()
        settings.durability = Durability.FSYNC
        self.storage = home.begin()
        self.storage.journal.start()
        self.broker = Broker(settings, self.storage)
        chosen = options.NsqdOptions(durability=Durability.FSYNC)
        log = Log("[nsqd] ", write=self.lines.write)
        self.keeping = Housekeeping(self.broker, self.storage, chosen, log, self.turn, Machine())

    def turn(self) -> None:
        """What the daemon's turns do."""
        self.broker.changes.finish(self.broker.changes.count, "")  # a daemon saves it
        self.broker.work(1)
        self.keeping.after_turn()

    def publish(self, topic: str, body: bytes) -> Batch:
        """One message."""
        batch = self.broker.topic(topic).publish(len(body).to_bytes(4, "big") + body, 1, 0, None, 1)
        self.turn()
        return batch

    async def rest(self) -> None:
        """Wait for everything that threads do."""
        waiting = self.keeping
        while running := [
            f for f in (waiting._committing, waiting._syncing, waiting._checkpointing) if f is not None
        ]:
            await asyncio.wait(running)
            await asyncio.sleep(0)
        waiting._commits.submit(int).result()

    def files(self) -> list[str]:
        """Numbers of the journal's files."""
        return [os.path.basename(path)[6:10] for path in self.storage.journal.files()]
