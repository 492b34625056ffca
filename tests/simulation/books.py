"""What the checker writes down: messages by the identity of their bodies, and what each channel owes of them.

An entry is OWED, DONE (finished, emptied), or MAYBE: both is right from here on, because of a kill, a power cut, or a
command of which nobody can know whether it was executed. An entry is required when it is OWED and its publish was
answered OK.
"""

from __future__ import annotations

from typing import Final

from tests.simulation.calendar import Due

OWED: Final = "owed"
DONE: Final = "done"
MAYBE: Final = "maybe"

LONG_AGO: Final = -1
NEVER: Final = 1 << 62


class Violation(AssertionError):
    """A promise was broken. `kind` is short, and the same for the same promise."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind


class Publish:
    """One publish command. `state` is what its publisher heard: "", "ok", "refused", or "unknown" for never."""

    def __init__(
        self, topic: str, bodies: list[bytes], due: Due | None, serial: int, publisher: int = 0
    ) -> None:
        self.topic = topic
        self.publisher = publisher
        self.ok_before = NEVER  # what has this serial, or a later one, was sent after the OK
        self.state = ""
        self.ok_at = LONG_AGO
        self.stamped = (LONG_AGO, NEVER)  # between which times of the calendar
        self.dropped = False  # its topic was deleted, maybe while its log was being opened
        self.messages = [Message(self, body, due, serial + n) for n, body in enumerate(bodies)]


class Message:
    """One message. Times are ns."""

    __slots__ = (
        "accepted_at",
        "body",
        "copies",
        "damaged",
        "due",
        "floating",
        "home",
        "publish",
        "released_at",
        "serial",
    )

    def __init__(self, publish: Publish, body: bytes, due: Due | None, serial: int) -> None:
        self.publish = publish
        self.body = body
        self.due = due
        self.serial = serial  # order of publishing
        self.home: TopicBook | None = None
        self.accepted_at = LONG_AGO
        self.released_at = LONG_AGO  # given to channels
        self.copies = False  # a power cut may have left it twice in the log
        self.damaged = False  # what the log has of it is not readable any more
        self.floating = False  # a kill may have moved it past the checkpoint, for all channels to have


class Entry:
    """One message in one channel, or waiting in its topic."""

    __slots__ = (
        "attempts",
        "done_at",
        "due",
        "due_at",
        "in_topic",
        "message",
        "state",
        "tentative",
    )

    def __init__(self, message: Message, state: str) -> None:
        self.message = message
        self.state = state
        self.done_at = LONG_AGO
        self.attempts: list[tuple[int, int]] = []  # when, and how many; the last one counts
        self.due = message.due
        self.due_at = LONG_AGO  # when a REQ set it
        self.in_topic = False  # maybe a kill put it back there
        self.tentative: Command | None = None  # what has to succeed before the last FIN or REQ counts

    def required(self) -> bool:
        """Must it be delivered?"""
        return self.state == OWED and self.message.publish.state == "ok" and not self.message.damaged

    def unsure(self) -> bool:
        """Is it not known yet whether the last command was executed?"""
        return self.tentative is not None and self.tentative.state != "ok"

    def doubt(self) -> None:
        """Nobody knows any more."""
        self.state = MAYBE
        self._forget_requeue()

    def fall_back(self, covered: int) -> None:
        """A kill: what changed after `covered` may be forgotten."""
        if self.state == DONE and self.done_at > covered:
            self.state = MAYBE
        while self.attempts and self.attempts[-1][0] > covered:
            self.attempts.pop()
        if self.due_at > covered:
            self._forget_requeue()

    def _forget_requeue(self) -> None:
        if self.due_at != LONG_AGO:  # so it was sent, and comes again at once
            self.due = None


class Flight:
    """A message in flight to a client. `firm`: it can be said exactly until when."""

    __slots__ = ("channel", "client", "deadline", "entry", "firm", "since")

    def __init__(self, client: object, channel: ChannelBook, entry: Entry, since: int, deadline: int) -> None:
        self.client = client
        self.channel = channel
        self.entry = entry
        self.since = since
        self.deadline = deadline
        self.firm = True

    def current(self) -> bool:
        """Is it the last delivery, and not answered?"""
        return self.channel.flights.get(self.entry.message.body) is self


class Command:
    """A command whose answer is awaited, in order. `state`: "", "ok", "failed" or "unknown"."""

    __slots__ = ("entry", "expected", "failures", "id", "name", "publish", "state")

    def __init__(self, name: str) -> None:
        self.name = name
        self.state = ""
        self.id = b""
        self.publish: Publish | None = None
        self.entry: Entry | None = None
        self.failures = 0  # of the disk, before it was sent
        self.expected = ""  # of FIN, REQ and TOUCH: "ok", "failed", or "" for either

    def silent(self) -> bool:
        """Is it answered only when it fails?"""
        return self.name in ("FIN", "REQ", "TOUCH")


class ChannelBook:
    """One channel."""

    def __init__(self, name: str, ephemeral: bool) -> None:
        self.name = name
        self.ephemeral = ephemeral
        self.paused = False
        self.saved = False  # whoever made it may rely on it
        self.entries: dict[bytes, Entry] = {}
        self.flights: dict[bytes, Flight] = {}

    def drop_all(self, now: int) -> None:
        """Emptied, or deleted."""
        for entry in self.entries.values():
            if entry.in_topic:
                entry.doubt()
            elif entry.state != DONE:
                entry.state = DONE
                entry.done_at = now
                entry.tentative = None
        self.flights = {}


class TopicBook:
    """One topic."""

    def __init__(self, name: str, ephemeral: bool) -> None:
        self.name = name
        self.ephemeral = ephemeral
        self.paused = False
        self.saved = False  # whoever made it may rely on it
        self.channels: dict[str, ChannelBook] = {}
        self.waiting: dict[bytes, Entry] = {}
        self.dropped: list[Entry] = []  # emptied while they waited
        self.graves: list[tuple[int, ChannelBook]] = []  # deleted channels, and when
        self.pending: list[Publish] = []
        self.messages: list[Message] = []
        self.loose = False  # the checkpoint may be lost: everything that was ever published may come again
        self.crashed = False

    def entries(self) -> list[Entry]:
        """All of them."""
        return [*self.waiting.values(), *(e for c in self.channels.values() for e in c.entries.values())]

    def loosen(self) -> None:
        """The checkpoint may be lost, and all that was published so far may be twice in the log."""
        self.loose = True
        for message in self.messages:
            message.copies = True

    def commit(self, now: int) -> None:
        """What was published in this turn goes where it belongs."""
        pending, self.pending = self.pending, []
        for publish in pending:
            for message in publish.messages:
                message.accepted_at = now
                message.home = self
                self.messages.append(message)
                self._distribute(message, now)

    def _distribute(self, message: Message, now: int) -> None:
        if self.paused or not self.channels:
            self.waiting[message.body] = Entry(message, OWED)
            return
        message.released_at = now
        for channel in self.channels.values():
            channel.entries.setdefault(message.body, Entry(message, OWED))
        if all(channel.ephemeral for channel in self.channels.values()):
            self.waiting[message.body] = Entry(message, MAYBE)  # they may have been gone by then

    def release(self, now: int) -> None:
        """What waits goes to all channels, if there are any and the topic is not paused."""
        if self.paused or not self.channels:
            return
        for channel in self.channels.values():
            for entry in channel.entries.values():
                entry.in_topic = False
        for body, entry in self.waiting.items():
            entry.message.released_at = now
            for channel in self.channels.values():
                channel.entries.setdefault(body, Entry(entry.message, entry.state))
        if not all(channel.ephemeral for channel in self.channels.values()):
            self.waiting = {}
        else:
            for entry in self.waiting.values():
                entry.state = MAYBE

    def empty(self, now: int) -> None:
        """What waits is dropped."""
        for entry in self.waiting.values():
            entry.state = DONE
            entry.done_at = now
            self.dropped.append(entry)
        self.waiting = {}
        for channel in self.channels.values():
            for entry in channel.entries.values():
                if entry.in_topic and entry.state == OWED:
                    entry.state = MAYBE
                    entry.in_topic = False
