"""The checker: what a data path's broker promised, and whether what clients see keeps to it.

It knows nothing of the broker's insides. The world tells it what was sent, what came back, which disk calls failed and
when the machine was stopped; it raises Violation.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Container, Iterable
from typing import Protocol

from nsqkit.names import EPHEMERAL, is_ephemeral
from tests.simulation.books import (
    DONE,
    LONG_AGO,
    MAYBE,
    OWED,
    ChannelBook,
    Command,
    Entry,
    Flight,
    Message,
    Publish,
    TopicBook,
    Violation,
)
from tests.simulation.calendar import Calendar

MILLISECOND = 1_000_000


class Cover:
    """Up to when everything is safe, if it becomes so within `delay` while the disk does its work."""

    def __init__(self, delay: int) -> None:
        self._delay = delay
        self._upto = LONG_AGO
        self._trouble_at = LONG_AGO
        self._troubles = 0  # that go on

    def at(self, now: int) -> int:
        """Everything up to then is safe now."""
        upto = now - self._delay
        return max(self._upto, upto) if not self._troubles and upto > self._trouble_at else self._upto

    def begin(self, now: int) -> None:
        """From now on the disk fails, or takes its time."""
        self._upto = self.at(now)
        self._troubles += 1

    def end(self, now: int) -> None:
        """This trouble is over."""
        self._troubles -= 1
        self._trouble_at = now

    def everything(self, now: int) -> None:
        """It was all written down."""
        self._upto = now


class Consumer(Protocol):
    """A client as the checker sees it."""

    number: int
    topic: str
    channel: str
    msg_timeout: int
    ready: int
    dead: bool
    last_serials: dict[int, int]  # of each publisher, the last that came at its first attempt
    flights: dict[bytes, Flight]
    awaited: deque[Command]
    risk: Command | None  # the last one that may have ended the session


class Model:
    """`mode` is the durability. Delays are in ns."""

    def __init__(self, mode: str, config: dict[str, int], max_msg_timeout: int) -> None:
        self.mode = mode
        self.requeues = bool(config["requeue_on_disconnect"])
        self.max_msg_timeout = max_msg_timeout
        self.topics: dict[str, TopicBook] = {}
        self.messages: dict[bytes, Message] = {}
        self.calendar = Calendar()
        self.checkpointed = Cover(config["checkpoint_interval"])
        self.synced = Cover(config["sync_timeout"] + 20 * MILLISECOND)
        self.serial = 0
        self.counts: Counter[str] = Counter()
        self.haunted: set[str] = set()  # names of topics that could not be deleted as a whole
        self.doomed: set[str] = set()  # names of topics whose deletion is not saved yet
        self._unplaced: list[Publish] = []

    def trouble(self, now: int, *, over: bool) -> None:
        """Something that keeps the disk from its work begins, or is over."""
        for cover in (self.checkpointed, self.synced):
            if over:
                cover.end(now)
            else:
                cover.begin(now)

    # -- topics and channels

    def created(self, topic: str, channel: str, now: int) -> None:
        """They are there now; the channel may be "" for none."""
        book = self.topics.get(topic)
        if book is None:
            book = self.topics[topic] = TopicBook(topic, is_ephemeral(topic))
            book.loose = book.crashed = topic in self.haunted
            book.pending = [publish for publish in self._unplaced if publish.topic == topic]
        if channel and channel not in book.channels:
            book.channels[channel] = ChannelBook(channel, is_ephemeral(channel) or book.ephemeral)
            book.release(now)

    def removed(self, topic: str, channel: str, now: int) -> None:
        """They are gone; the channel "" stands for the whole topic."""
        if not channel:
            gone = self.topics.pop(topic)
            for publish in [*gone.pending, *(message.publish for message in gone.messages)]:
                publish.dropped = True
            for book in gone.channels.values():
                book.drop_all(now)
            self.doomed.add(topic)
            return
        book = self.topics[topic].channels.pop(channel)
        self.topics[topic].graves.append((now, book))
        book.drop_all(now)

    def pause(self, topic: str, channel: str, paused: bool, now: int) -> None:
        """A topic ("" for the channel) or a channel."""
        if channel:
            self.topics[topic].channels[channel].paused = paused
            return
        self.topics[topic].paused = paused
        self.topics[topic].release(now)

    def emptied(self, topic: str, channel: str, now: int) -> None:
        """Likewise."""
        book = self.topics[topic]
        if channel:
            book.channels[channel].drop_all(now)
        else:
            book.empty(now)

    def doubt(self, topic: str) -> None:
        """Something was being done to this topic when the process died."""
        self.haunted.add(topic)
        if topic in self.topics:
            book = self.topics[topic]
            book.loosen()
            for entry in book.entries():
                entry.doubt()

    def damaged(self, bodies: list[bytes]) -> None:
        """A batch of a log can't be read any more. What a journal has may come in its place."""
        for body in bodies:
            message = self.messages.get(body)
            if message is not None:
                message.damaged = message.copies = True

    # -- publishing

    def publish(self, topic: str, bodies: list[bytes], delay: int, now: int, publisher: int = 0) -> Publish:
        """A publish command reached the broker."""
        due = self.calendar.due(delay, now) if delay > 0 else None
        publish = Publish(topic, bodies, due, self.serial, publisher)
        low, high = self.calendar.seen(now)
        publish.stamped = (now + low, now + high)
        self.serial += len(bodies)
        for message in publish.messages:
            self.messages[message.body] = message
        return publish

    def taken(self, publish: Publish) -> None:
        """It is being executed."""
        book = self.topics.get(publish.topic)
        if book is not None:
            book.pending.append(publish)
        else:
            self._unplaced.append(publish)  # it makes its topic, or fails to

    def settled(self, publish: Publish, state: str, now: int) -> None:
        """Its publisher heard of it, or never will."""
        publish.state = state
        if state == "ok":
            publish.ok_at = now
            publish.ok_before = self.serial

    def turned(self, now: int, opening: Container[str] = ()) -> None:
        """The turn is over. What was published to topics whose logs are being opened has to wait."""
        self._unplaced.clear()
        for name, book in self.topics.items():
            if book.pending and name not in opening:
                book.commit(now)

    # -- consuming

    def delivered(self, client: Consumer, message_id: bytes, body: bytes, attempts: int, now: int) -> None:
        """A message was sent."""
        where = (
            f"{body[:12]!r} (attempt {attempts}) to client {client.number} of {client.topic}:{client.channel}"
        )
        message = self.messages.get(body)
        topic = self.topics.get(client.topic)
        if message is None or message.publish.topic != client.topic or topic is None:
            raise Violation("never published", where)
        if topic.pending:
            topic.commit(now)
        channel = topic.channels.get(client.channel)
        if channel is None:
            raise Violation("no such channel", where)
        entry = self._entry(topic, channel, message, where)
        if entry.state == DONE and not entry.unsure() and not message.copies:
            raise Violation("came again", f"{where}: it was done at {entry.done_at}")
        if channel.paused:
            raise Violation("sent while paused", where)
        if self.calendar.is_early(entry.due, now) and not entry.unsure() and not message.copies:
            raise Violation("too early", f"{where}: due at {entry.due and entry.due.at}")
        if entry.attempts and attempts <= entry.attempts[-1][1] and not message.copies:
            raise Violation("attempts fell", f"{where}: it had {entry.attempts[-1][1]}")
        self._check_order(client, topic, entry, attempts, where)
        self._fly(client, topic, channel, entry, message_id, now, where)
        entry.attempts.append((now, attempts))
        entry.state = OWED
        entry.due = entry.tentative = None

    def stamped(self, body: bytes, stamp: int) -> None:
        """A message was sent with this time of its publishing."""
        message = self.messages.get(body)
        if message is not None and not message.publish.stamped[0] <= stamp <= message.publish.stamped[1]:
            raise Violation("wrong timestamp", f"{body[:12]!r}: {stamp} is not in {message.publish.stamped}")

    def _entry(self, topic: TopicBook, channel: ChannelBook, message: Message, where: str) -> Entry:
        entry = channel.entries.get(message.body)
        if entry is None:
            stray = message.home is not topic and topic.name not in self.haunted
            if not channel.ephemeral and (stray or not topic.loose):
                waits = message.body in topic.waiting
                raise Violation("not for this channel", where + (": it waits in its topic" if waits else ""))
            entry = channel.entries[message.body] = Entry(message, MAYBE)
            message.copies = message.copies or topic.loose
        return entry

    def _check_order(
        self, client: Consumer, topic: TopicBook, entry: Entry, attempts: int, where: str
    ) -> None:
        message = entry.message
        if topic.loose or entry.attempts or attempts > 1 or message.due or message.floating:
            return
        if message.damaged:
            return  # the journal may have brought it back, after the others
        if client.channel.endswith(EPHEMERAL):
            return  # what its topic held on the disk comes after what is new
        publish = message.publish
        last = client.last_serials
        latest = max(last.values(), default=-1)
        # Commands of different connections may overtake each other, until one is answered.
        if message.serial < last.get(publish.publisher, -1) or latest >= publish.ok_before:
            raise Violation("out of order", f"{where}: {message.serial} after {latest}")
        last[publish.publisher] = message.serial

    def _fly(
        self,
        client: Consumer,
        topic: TopicBook,
        channel: ChannelBook,
        entry: Entry,
        message_id: bytes,
        now: int,
        where: str,
    ) -> None:
        body = entry.message.body
        before = channel.flights.get(body)
        if before is not None and before.deadline > now and before.firm and not topic.crashed:
            owner = before.client
            if not (self.requeues and getattr(owner, "dead", False)):
                raise Violation("in flight twice", f"{where}: until {before.deadline}")
        self.counts["message timed out"] += before is not None and before.deadline <= now
        self.counts["message deferred"] += entry.message.due is not None
        self.counts["message requeued"] += entry.due_at != LONG_AGO
        flight = Flight(client, channel, entry, now, now + client.msg_timeout)
        channel.flights[body] = flight
        client.flights[message_id] = flight
        if len(client.flights) > client.ready and not topic.crashed:
            live = [f for f in client.flights.values() if f.deadline > now and f.firm and f.current()]
            if len(live) > client.ready:
                raise Violation("more than RDY", f"{where}: {len(live)} in flight, RDY {client.ready}")

    def answer(self, client: Consumer, command: Command, delay: int, now: int) -> None:
        """FIN, REQ or TOUCH reached the broker."""
        flight = client.flights.get(command.id)
        if flight is None or not flight.current():
            copy = (
                flight is not None and flight.entry.message.copies
            )  # another copy was sent to somebody else
            command.expected = "" if copy else "failed"
            return
        entry = command.entry = flight.entry
        if now >= flight.deadline + MILLISECOND and flight.firm:
            command.expected = "failed"
            command.entry = None
            return
        command.expected = "ok" if now < flight.deadline and flight.firm else ""
        risk = client.risk if client.risk is not None and client.risk.state != "ok" else None
        if command.name == "TOUCH":
            latest = flight.since + self.max_msg_timeout
            flight.deadline = min(now + client.msg_timeout, latest)
            flight.firm = flight.firm and command.expected == "ok" and risk is None
            return
        del client.flights[command.id]
        del flight.channel.flights[entry.message.body]
        entry.tentative = risk
        if not command.expected:
            entry.doubt()
        elif command.name == "FIN":
            entry.state = DONE
            entry.done_at = now
        else:
            entry.due = self.calendar.due(delay, now) if delay else None
            entry.due_at = now

    def answered(self, command: Command, state: str) -> None:
        """It is known what became of a FIN, REQ or TOUCH: "ok", "failed" or "unknown"."""
        command.state = state
        if state == "unknown":
            if command.entry is not None and command.name != "TOUCH":
                command.entry.doubt()
        elif command.expected and command.expected != state:
            raise Violation(f"{command.name} {state}", f"{command.id!r}, which should be {command.expected}")

    def gone(self, client: Consumer) -> None:
        """Its connection is closed."""
        client.dead = True
        risky = False
        for command in client.awaited:
            if command.silent():
                if risky:
                    self.answered(command, "unknown")
                continue
            risky = True
            command.state = "unknown"
            if command.publish is not None and not command.publish.state:
                command.publish.state = "unknown"
        client.awaited.clear()

    # -- the end of a process

    def stopped(self, now: int, clients: Iterable[Consumer]) -> None:
        """A clean stop, and nothing went wrong."""
        self.checkpointed.everything(now)
        self.synced.everything(now)
        self._end(now, clients)

    def killed(self, now: int, clients: Iterable[Consumer]) -> None:
        """What came after the last checkpoint is owed again; in memory mode anything may be lost."""
        self._end(now, clients)
        covered = self.checkpointed.at(now)
        for topic in self.topics.values():
            topic.crashed = True
            self._float(topic, covered)
            for entry in topic.entries():
                entry.fall_back(covered)
                if entry.state == OWED and self.mode == "memory":
                    entry.state = MAYBE
                entry.in_topic = entry.in_topic or topic.paused

    def stopped_badly(self) -> None:
        """In memory mode there may be copies that no checkpoint names: every channel may get them."""
        if self.mode == "memory":
            for topic in self.topics.values():
                topic.loosen()

    def _float(self, topic: TopicBook, covered: int) -> None:
        """What the checkpoint does not know to be given out or dropped may come to every channel."""
        for entry in topic.dropped:
            if entry.done_at > covered:
                topic.waiting.setdefault(entry.message.body, Entry(entry.message, MAYBE))
        for died_at, grave in topic.graves:
            book = topic.channels.get(grave.name)
            if book is not None and died_at > covered:
                for body, entry in grave.entries.items():
                    if entry.done_at > covered:
                        book.entries.setdefault(body, Entry(entry.message, MAYBE))
        for message in topic.messages:
            if message.accepted_at > covered or message.released_at > covered:
                message.floating = True
            if message.floating and (topic.paused or not topic.channels):
                topic.waiting.setdefault(message.body, Entry(message, MAYBE))
            if message.floating:
                for channel in topic.channels.values():
                    channel.entries.setdefault(message.body, Entry(message, MAYBE))

    def lost_power(self, now: int, clients: Iterable[Consumer]) -> None:
        """Checkpoints are old or new, and in `os` mode the last publishes may be gone."""
        self._end(now, clients)
        synced = self.synced.at(now)
        for topic in self.topics.values():
            topic.crashed = True
            topic.loosen()
            for entry in topic.entries():
                entry.fall_back(LONG_AGO)
                unsafe = self.mode == "os" and entry.message.publish.ok_at > synced
                if entry.state == OWED and (unsafe or self.mode == "memory"):
                    entry.state = MAYBE
                entry.in_topic = entry.in_topic or topic.paused

    def _end(self, now: int, clients: Iterable[Consumer]) -> None:
        self.calendar.end(now)
        self.haunted |= self.doomed
        for name in self.doomed & self.topics.keys():
            self.topics[name].loosen()  # it may be the old one that comes back, with the new one's messages
        for client in clients:
            self.gone(client)
        for topic in list(self.topics.values()):
            topic.commit(now)
            if topic.ephemeral:
                del self.topics[topic.name]
                continue
            for channel in list(topic.channels.values()):
                channel.flights = {}
                if channel.ephemeral:
                    del topic.channels[channel.name]

    def saved(self) -> None:
        """The metadata is on the disk: whatever is there must be there after a kill, and nothing else."""
        self.doomed.clear()
        for book in self.topics.values():
            book.saved = True
            for channel in book.channels.values():
                channel.saved = True

    def found(self, there: dict[str, dict[str, bool]], paused: dict[str, bool], *, certain: bool) -> None:
        """The topics and channels of a process that started, and which are paused.

        `certain`: they must be as before. What clients rely on must be there in any case.
        """
        for name, book in list(self.topics.items()):
            if name not in there:
                if certain or (book.saved and name not in self.haunted):
                    raise Violation("topic lost", name)
                del self.topics[name]
                self.haunted.add(name)  # what is left of it may be found another time
                continue
            for channel, channel_book in list(book.channels.items()):
                if channel not in there[name]:
                    if certain or (channel_book.saved and name not in self.haunted):
                        raise Violation("channel lost", f"{name}:{channel}")
                    del book.channels[channel]
                    self.doubt(name)
        for name, channels in there.items():
            zombie = name not in self.topics
            if zombie and not certain:
                self.haunted.add(name)  # it was deleted, but that was not saved
            if zombie and certain and name not in self.haunted:
                raise Violation("topic came back", name)
            self._compare(name, channels, paused[name], zombie=zombie, certain=certain)

    def _compare(
        self, name: str, channels: dict[str, bool], paused: bool, *, zombie: bool, certain: bool
    ) -> None:
        if zombie:
            self.topics[name] = TopicBook(name, is_ephemeral(name))
            self.topics[name].loose = self.topics[name].crashed = True
        book = self.topics[name]
        if certain and not zombie and book.paused != paused:
            raise Violation("pause lost", f"{name} is {'' if paused else 'not '}paused")
        if paused and not book.paused:
            for entry in book.entries():
                entry.in_topic = True
            for message in book.messages:
                if message.floating:
                    book.waiting.setdefault(message.body, Entry(message, MAYBE))
        book.paused = paused
        for channel, channel_paused in channels.items():
            if channel not in book.channels:
                if certain and not zombie:
                    raise Violation("channel came back", f"{name}:{channel}")
                book.channels[channel] = ChannelBook(channel, is_ephemeral(channel))
                book.loose = True
            elif certain and book.channels[channel].paused != channel_paused:
                raise Violation("pause lost", f"{name}:{channel}")
            book.channels[channel].paused = channel_paused
        if book.channels and not paused:
            book.release(LONG_AGO)

    # -- the end

    def missing(self) -> list[str]:
        """What must still be delivered."""
        return [
            f"{topic.name}:{channel.name} {entry.message.body[:12]!r}"
            for topic in self.topics.values()
            for channel in topic.channels.values()
            if not channel.ephemeral
            for entry in channel.entries.values()
            if entry.required()
        ]
