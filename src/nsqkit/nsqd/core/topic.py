"""A topic: takes what is published, keeps it, and gives every channel its copy.

A publish is noted with `publish` and done in `commit`, once per turn of the event loop for all of them together: one
write to the log, then the copies. While there is no channel, or the topic is paused, messages wait here, and the first
channel (or the end of the pause) gets them all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mypy_extensions import i64

from nsqkit.names import is_ephemeral
from nsqkit.nsqd.core.batch import FAILED, Batch, behind
from nsqkit.nsqd.core.channel import Channel
from nsqkit.nsqd.core.deadlines import Alarm
from nsqkit.nsqd.core.guid import SEQUENCES
from nsqkit.nsqd.core.health import READING, WRITING
from nsqkit.nsqd.core.quantile import LatencyWindow
from nsqkit.nsqd.core.queue import ReadyQueue
from nsqkit.nsqd.core.store import Extent, NoRoom, StoreError
from nsqkit.nsqd.durability import Durability
from nsqkit.wire.message import NOWHERE

if TYPE_CHECKING:
    from nsqkit.nsqd.core.batch import Publisher
    from nsqkit.nsqd.core.broker import Broker
    from nsqkit.nsqd.core.store import TopicStore

EXITING: Final = "exiting"
DRAINING: Final = "draining"  # nothing may come in any more
MOST_BYTES: Final = 1 << 20  # of one topic that a turn writes, unless a batch has more


class Topic(Alarm):
    """One topic. An ephemeral one has no store. As an alarm it rings to go on with what waited here."""

    def __init__(self, broker: Broker, name: str, store: TopicStore | None) -> None:
        super().__init__()
        self.broker = broker
        self.name = name
        self.ephemeral = is_ephemeral(name)
        self.store = store
        self.opened = store is None or store.opened()
        self.opening = False  # it is being opened: what is published has to wait
        self.paused = False
        self.awaits_channels = False  # it is still being asked which channels it should have
        self.releasing = False  # what waits here is on its way to the channels
        self.deleted = False
        self.made: i64 = 0  # number of the change of the metadata that it began with; 0: ephemeral
        self.changed: i64 = 0  # of the last one that concerned it
        self.dirty = False  # the checkpoint is behind; the broker has a list of such topics
        self.channels: dict[str, Channel] = {}
        self.waiting = ReadyQueue(
            broker.settings.mem_queue_size, store, broker.held, broker.calendar, keeps=store is not None
        )
        self.message_count: i64 = 0
        self.message_bytes: i64 = 0
        self.last_id: i64 = 0
        self._always_stored = store is not None and broker.settings.durability is not Durability.MEMORY
        self._pending: list[Batch] = []  # published in this turn

    def note_change(self) -> None:
        """What is owed changed: the checkpoint has to follow."""
        if not self.dirty and self.store is not None:
            self.dirty = True
            self.broker.dirty.append(self)

    # -- publishing

    def publish(self, data: bytes, count: i64, due: i64, publisher: Publisher | None, now: i64) -> Batch:
        """Take `count` messages, each after its size in `data`; `due` (by the time of `now`) 0 means at once.

        Returns the batch that the publisher hears of when everything is settled. Ids of a batch share a tick, so
        more than SEQUENCES messages become several batches; they are kept, or not, from the front. StoreError if the
        broker takes nothing any more.
        """
        broker = self.broker
        if broker.draining:
            raise StoreError(DRAINING)
        if not self._pending:
            broker.published.append(self)
        calendar = now + broker.calendar.ahead  # what a batch says outlasts this process
        if due > 0:
            due += broker.calendar.ahead
        begin: i64 = 0
        while count > SEQUENCES:
            end = behind(data, begin, SEQUENCES)
            piece = Batch(data[begin:end], SEQUENCES, calendar, due, None)
            piece.first_id = broker.ids.take(SEQUENCES, calendar)
            self._pending.append(piece)
            begin = end
            count -= SEQUENCES
        batch = Batch(data[begin:], count, calendar, due, publisher)
        batch.first_id = broker.ids.take(batch.count, calendar)
        self._pending.append(batch)
        return batch

    def commit(self, now: i64) -> None:
        """Write what was published in this turn, then give it to the channels. What is too much has the next turn."""
        if not (self.opened or self.deleted or self.broker.exiting):
            self._want_opened()
            return
        pending = self._pending
        self._pending = []
        size: i64 = 0
        for index, batch in enumerate(pending):
            size += len(batch.data)
            if size > MOST_BYTES and index > 0 and not self.broker.exiting:
                self._pending = pending[index:]
                pending = pending[:index]
                self.broker.published.append(self)
                break
        if self.deleted or self.broker.exiting:
            for batch in pending:
                batch.settle(FAILED, EXITING)
            return
        stored: list[Batch] = []
        for batch in pending:
            if self.store is not None and (self._always_stored or stored or not self._has_room(batch, now)):
                stored.append(batch)
            else:
                self._accept(batch, now)
        if stored:
            self._store(stored, now)

    def _want_opened(self) -> None:
        if not self.opening:
            self.opening = True
            self.broker.unopened.append(self)

    def log_opened(self, error: str) -> None:
        """The log can be used from now on; or it can't, and what waits for it fails. The next publish tries again."""
        self.opening = False
        pending = self._pending
        if not error:
            self.opened = True
            if pending:
                self.broker.published.append(self)
            return
        self.broker.health.set(WRITING + self.name, error)
        self._pending = []
        for batch in pending:
            batch.settle(FAILED, error)

    def _store(self, batches: list[Batch], now: i64) -> None:
        store = self.store
        assert store is not None
        try:
            for batch in batches:
                store.append(batch)
            store.write()
        except StoreError as error:
            self.broker.health.set(WRITING + self.name, str(error))
            for batch in batches:
                batch.settle(FAILED, str(error))
            return
        self.broker.health.clear(WRITING + self.name)
        for batch in batches:
            self._accept(batch, now)

    def _accept(self, batch: Batch, now: i64) -> None:
        self.note_change()
        self.message_count += batch.count
        self.message_bytes += batch.body_bytes()
        self.last_id = batch.first_id + batch.count - 1
        if self.broker.probe is not None:
            self.broker.probe.published(self.name, batch.data, batch.count)
        self._distribute(batch, now)
        if self.broker.settings.durability is Durability.FSYNC and self.store is not None:
            self.broker.await_sync(self, batch)
        else:
            self.broker.changes.settle_when_saved(batch, self.made)

    def _distribute(self, batch: Batch, now: i64) -> None:
        if self.withholds():
            self.waiting.put(batch)
            self.waiting.trim()
            return
        for channel in self.channels.values():
            channel.put(batch, now)

    def _has_room(self, batch: Batch, now: i64) -> bool:
        if self.withholds():
            return self.waiting.has_room(batch.count)
        return all([channel.has_room(batch, now) for channel in self.channels.values()])

    def withholds(self) -> bool:
        """Does what is published wait here?"""
        return self.paused or self.awaits_channels or self.releasing or not self.channels

    def release_waiting(self, now: i64) -> None:
        """Give the channels what waited here: a slice now, and the rest in the next turns.

        Until that is done, what is published waits after it. A channel made meanwhile gets the rest, too.
        """
        self.releasing = False
        if self.withholds() or self.waiting.depth() == 0:
            return
        self.note_change()
        deadlines = self.broker.deadlines
        homeless: list[Batch] = []  # in memory mode: beyond what may stay in memory
        while deadlines.left > 0:
            item = self.waiting.take_first()
            if item is None:
                break
            deadlines.left -= len(self.channels)
            if isinstance(item, Batch) and item.first_position == NOWHERE:
                if homeless or not self._has_room(item, now):
                    homeless.append(item)
                else:
                    self._hand_on(item, now)
                continue
            self._find_place(homeless, now)  # it comes first
            homeless = []
            if isinstance(item, Extent):
                for channel in self.channels.values():
                    channel.message_count += item.stop - item.start
                    channel.put_extent(item.start, item.stop, item.since)
            else:
                self._hand_on(item, now)
        self._find_place(homeless, now)
        if self.waiting.depth() > 0:
            self.releasing = True
            deadlines.set(self, deadlines.now)

    def ring(self, now: i64) -> i64:
        """Go on with what waits here."""
        self.release_waiting(now)
        return 0

    def _hand_on(self, batch: Batch, now: i64) -> None:
        for channel in self.channels.values():
            channel.put(batch, now)
        self.broker.held.remove(batch)

    def _find_place(self, batches: list[Batch], now: i64) -> None:
        """Write what waited in memory, so that it does not overtake what a channel has in the log, and hand it on."""
        if self.store is not None and batches:
            try:
                for batch in batches:
                    self.store.append(batch)
                self.store.write()
            except StoreError as error:
                self.broker.health.set(WRITING + self.name, str(error))  # it stays in memory
        for batch in batches:
            self._hand_on(batch, now)

    # -- channels

    def channel(self, name: str, now: i64) -> Channel:
        """The channel of this name, made if there is none. StoreError if there are too many."""
        channel = self.channels.get(name)
        if channel is None:
            settings = self.broker.settings
            count = self.broker.channel_count
            if settings.max_channels != 0 and count >= settings.max_channels:
                raise NoRoom(f"there are {count} channels already: --max-channels")
            latency = None
            if settings.latency_quantiles:
                latency = LatencyWindow(settings.latency_quantiles, settings.latency_window)
            channel = Channel(self, name, latency)
            self.channels[name] = channel
            self.broker.channel_count += 1
            self.note_change()
            self.broker.metadata_changed(self, name, self.ephemeral or channel.ephemeral)
            channel.made = self.made if channel.ephemeral else self.changed
            self.broker.events.channel_made(self.name, channel.name)
            self.broker.registry.channel_made(self.name, channel.name)
            self.release_waiting(now)
        return channel

    def delete_channel(self, name: str) -> None:
        """Drop a channel with everything in it. An ephemeral topic goes with its last channel."""
        channel = self.channels.pop(name)
        self.broker.channel_count -= 1
        channel.delete()
        self.note_change()
        self.broker.metadata_changed(self, name, self.ephemeral or channel.ephemeral)
        self.broker.events.channel_deleted(self.name, channel.name)
        self.broker.registry.channel_deleted(self.name, channel.name)
        if self.ephemeral and not self.channels and not self.deleted:
            self.broker.delete_topic(self.name)

    # -- a log that could not be read

    def unreadable(self, error: str, now: i64) -> None:
        """What waits here, or in the channels, could not be read when it was needed."""
        self.broker.health.set(READING + self.name, error)
        for channel in self.channels.values():
            channel.unreadable(error, now)

    def reread(self) -> None:
        """See whether what waits here can be read again. Channels see for themselves."""
        extents = self.waiting.extents()
        if self.store is not None and extents and not self.channels:
            try:
                self.store.read(extents[0].start, extents[0].stop, 1)
            except StoreError:
                return
        if not any([channel.read_error for channel in self.channels.values()]):
            self.broker.health.clear(READING + self.name)

    # -- what operators do

    def depth(self) -> i64:
        """Messages that wait for a channel or for the end of the pause."""
        return self.waiting.depth()

    def pause(self, paused: bool, now: i64) -> None:
        """Hold messages back from the channels, or let them go. Publishing goes on."""
        if self.paused != paused:
            self.paused = paused
            self.broker.metadata_changed(self, "", self.ephemeral)
            self.release_waiting(now)

    def await_channels(self) -> None:
        """Keep what is published here until `let_go`, even if there are channels: some may still be missing."""
        self.awaits_channels = True

    def channels_known(self, now: i64) -> None:
        """Every channel is there that should be."""
        self.awaits_channels = False
        self.release_waiting(now)

    def empty(self) -> None:
        """Drop what waits here. Channels keep what they have."""
        self.broker.waste.take(self.waiting.clear(), counted=True)
        self.note_change()

    def delete(self) -> None:
        """Drop everything. To be called by the broker, which forgets the topic."""
        self.deleted = True
        for batch in self._pending:
            batch.settle(FAILED, EXITING)
        self._pending = []
        for name in list(self.channels):
            self.delete_channel(name)
        self.broker.waste.take(self.waiting.clear(), counted=True)
        self.broker.deadlines.cancel(self)
        if self.store is not None:
            self.store.delete()
