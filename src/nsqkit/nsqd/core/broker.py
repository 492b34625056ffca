"""The broker: every topic, every session, and the turn.

A turn is what happens between two looks at the sockets. Sessions have taken their bytes; then `work` writes what was
published, gives it to the channels and dispatches each touched channel once, and `flush` sends each connection's
output.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mypy_extensions import i64

from nsqkit.names import is_ephemeral
from nsqkit.nsqd.core.batch import FAILED, Batch
from nsqkit.nsqd.core.calendar import Calendar
from nsqkit.nsqd.core.changes import Changes
from nsqkit.nsqd.core.deadlines import Deadlines
from nsqkit.nsqd.core.events import Events
from nsqkit.nsqd.core.guid import IdSource
from nsqkit.nsqd.core.health import READING, WRITING, Health
from nsqkit.nsqd.core.held import Held
from nsqkit.nsqd.core.ledger import restore
from nsqkit.nsqd.core.registry import Registry
from nsqkit.nsqd.core.store import Deletion, JournalEntry, NoRoom, StoreError
from nsqkit.nsqd.core.topic import DRAINING, Topic
from nsqkit.nsqd.core.waste import Waste
from nsqkit.nsqd.durability import Durability

if TYPE_CHECKING:
    from nsqkit.nsqd.core.authority import Authority
    from nsqkit.nsqd.core.channel import Channel
    from nsqkit.nsqd.core.probe import Probe
    from nsqkit.nsqd.core.session import Session
    from nsqkit.nsqd.core.settings import Settings
    from nsqkit.nsqd.core.store import Storage

TURN: Final = 4000  # messages sent in one turn, about; more would make the others wait
FLUSHES: Final = 256  # sessions flushed in one turn
JOURNAL: Final = "the journal"  # cause of bad health: publishes can't be made safe


class Broker:
    """Topics and sessions, the ids, the alarms, and what this turn has to do."""

    def __init__(self, settings: Settings, storage: Storage | None, health: Health | None = None) -> None:
        self.settings = settings
        self.storage = storage  # None: nothing is kept on disk
        self.topics: dict[str, Topic] = {}
        self.sessions: dict[int, Session] = {}
        self.registry = Registry()  # hears of topics and channels
        self.authority: Authority | None = None  # says what clients may do; None: everything
        self.probe: Probe | None = None  # a test's
        self.events = Events()  # hears of everything that belongs into a log
        self.ids = IdSource(settings.node_id)
        self.deadlines = Deadlines()
        self.held = Held(settings.mem_queue_bytes)
        self.waste = Waste(self.deadlines, self.held)
        self.health = health or Health()
        self.calendar = Calendar(self.ids)  # who sets it: `nsqkit.clock`
        self.exiting = False
        self.draining = False  # publishes and new topics are refused
        self.changes = Changes()  # of topics, channels and pauses that a restart must know
        self.deletions: i64 = 0  # of topics, that the journal does not know yet
        self.published: list[Topic] = []  # to be committed in this turn
        self.unopened: list[Topic] = []  # whose logs are to be opened, for something was published
        self.to_dispatch: list[Channel] = []  # to be dispatched in this turn
        self.dirty: list[Topic] = []  # topics whose checkpoints are behind
        self.outgoing: list[Session] = []  # to be flushed in this turn
        self.left: i64 = TURN  # what may still be sent in this turn
        self.unsynced: list[JournalEntry] = []  # what the next sync has to cover
        self.made: i64 = 0  # topics so far
        self.channel_count: i64 = 0  # of all topics
        self._sessions_seen = 0

    # -- topics

    def topic(self, name: str) -> Topic:
        """The topic of this name, made if there is none. StoreError if its log can't be opened, or none may be made."""
        topic = self.topics.get(name)
        if topic is None:
            if self.draining:
                raise StoreError(DRAINING)
            most = self.settings.max_topics
            if most != 0 and len(self.topics) >= most:
                raise NoRoom(f"there are {len(self.topics)} topics already: --max-topics")
            ephemeral = is_ephemeral(name)
            store = None if self.storage is None or ephemeral else self.storage.open(name)
            topic = Topic(self, name, store)
            self.topics[name] = topic
            self.made += 1
            self.metadata_changed(topic, "", ephemeral)
            topic.made = topic.changed
            self.events.topic_made(name)
            self.registry.topic_made(topic)
        return topic

    def restore_topic(self, name: str, channels: dict[str, bool], paused: bool, now: i64) -> None:
        """Take over a topic from before a restart: its channels (name: is it paused), and what they owe."""
        topic = self.topic(name)
        topic.paused = paused
        for channel_name, channel_paused in channels.items():
            channel = topic.channel(channel_name, now)
            channel.paused = channel_paused
        if topic.store is not None:
            restore(topic, topic.store, now)

    def follow_calendar(self, ahead: int) -> None:
        """The calendar was set, and is so far ahead of the time that the broker is told."""
        step = ahead - self.calendar.ahead
        self.calendar.set(ahead)
        for topic in self.topics.values():
            for channel in topic.channels.values():
                channel.follow_calendar(step)

    def delete_topic(self, name: str) -> None:
        """Drop a topic with its channels, messages and files."""
        topic = self.topics.pop(name)
        topic.delete()
        self.health.clear(WRITING + name)
        self.health.clear(READING + name)
        if topic.store is not None and self.settings.durability is Durability.FSYNC:
            self.deletions += 1
            self.unsynced.append((name, Deletion()))  # what was published before must not come back
        self.metadata_changed(topic, "", topic.ephemeral)
        self.events.topic_deleted(name)
        self.registry.topic_deleted(name)

    def metadata_changed(self, topic: Topic, channel: str, ephemeral: bool) -> None:
        """A channel, or the topic itself, changed in a way that must survive a restart, unless it is ephemeral."""
        if not ephemeral:
            topic.changed = self.changes.note(topic.name, channel)

    # -- sessions

    def enter(self, session: Session) -> int:
        """Take in a session; returns its number, 1, 2, 3 …"""
        self._sessions_seen += 1
        self.sessions[self._sessions_seen] = session
        self.events.client_came(session.address)
        return self._sessions_seen

    def leave(self, session: Session) -> None:
        """A session's connection is closed."""
        self.sessions.pop(session.number, None)
        self.events.client_left(session.address)

    # -- the turn

    def work(self, now: i64) -> None:
        """Do everything that is due but answering: alarms, commits, dispatches. What is too much waits for the next."""
        self.deadlines.run(now)
        if self.published:
            published = self.published
            self.published = []
            for topic in published:
                topic.commit(now)
        if self.to_dispatch:
            waiting = self.to_dispatch
            self.to_dispatch = []
            self.left = TURN
            for index, channel in enumerate(waiting):
                if self.left <= 0:
                    self.to_dispatch = waiting[index:] + self.to_dispatch  # those that had nothing are first
                    break
                channel.dispatch(now)

    def flush(self) -> None:
        """Send what there is to be sent. In between the caller may persist what the answers promise."""
        if self.outgoing:
            outgoing = self.outgoing
            self.outgoing = []
            if len(outgoing) > FLUSHES and not self.exiting:
                # Those that wait longest and, so that an answer need not wait for thousands of consumers, the newest.
                half = FLUSHES // 2
                self.outgoing = outgoing[half:-half]
                outgoing = outgoing[:half] + outgoing[-half:]
            for session in outgoing:
                session.flush()

    def busy(self) -> bool:
        """Is another turn wanted, without waiting for a socket or a deadline?"""
        return bool(self.published or self.to_dispatch or self.outgoing) or self.deadlines.overdue

    def await_sync(self, topic: Topic, batch: Batch) -> None:
        """A batch was written and is to be answered when it is synced."""
        self.unsynced.append((topic.name, batch))

    def take_unsynced(self) -> list[JournalEntry]:
        """What the next sync has to cover; `synced` must follow."""
        group = self.unsynced
        self.unsynced = []
        return group

    def synced(self, group: list[JournalEntry], error: str) -> None:
        """The sync is done, or failed with `error`."""
        if error:
            self.health.set(JOURNAL, error)
        else:
            self.health.clear(JOURNAL)
        for name, entry in group:
            if isinstance(entry, Deletion):
                self.deletions -= 1
            elif error:
                entry.settle(FAILED, error)
            else:
                topic = self.topics.get(name)
                self.changes.settle_when_saved(entry, 0 if topic is None else topic.made)

    def check(self) -> None:
        """Assert the invariant of every channel, and that the bytes held are what is there."""
        waiting = self.waste.counted()
        for topic in self.topics.values():
            waiting.extend(topic.waiting.counted())
            for channel in topic.channels.values():
                channel.check()
                waiting.extend(channel.queue.counted())
                waiting.extend(channel.early)
                waiting.extend([entry[2] for entry in channel.deferred])
        batches: dict[int, int] = {}
        total: i64 = 0
        for item in waiting:
            if isinstance(item, Batch):
                batches[id(item)] = len(item.data)
            else:
                total += len(item.body)
        total += sum(batches.values())
        assert self.held.bytes == total, f"{self.held.bytes} bytes are counted as held, {total} are"

    def hang_up_all(self) -> None:
        """Close every connection: the broker is stopping."""
        self.exiting = True
        self.published += [topic for topic in self.topics.values() if topic.opening]
        for session in list(self.sessions.values()):
            session.hang_up()
