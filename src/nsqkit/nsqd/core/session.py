"""A client's session: bytes in, commands executed, replies out in the order of the commands.

    receive -> magic -> line -> row of the command table -> (body) -> the command's function

    GREETING -> OPEN <-> UPGRADING, WAITING     the phases of a session; what it may do follows from where it is
         `--------+----------`-> ENDING -> GONE

Message frames and heartbeats may stand anywhere between replies. An OK that waits for its commit holds back the
replies after it, not the reading. A ClientError raised anywhere below becomes its error frame in `fail`.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from librt.strings import BytesWriter
from mypy_extensions import i64, mypyc_attr

from nsqkit.nsqd.core import commands
from nsqkit.nsqd.core.batch import FAILED, PENDING, Batch, Publisher, Receipt
from nsqkit.nsqd.core.guard import Guard
from nsqkit.nsqd.core.heartbeat import Heartbeat, Patience
from nsqkit.wire.commands import CommandReader
from nsqkit.wire.errors import ClientError, LineTooLong, PublishFailed, quoted
from nsqkit.wire.frames import ERROR, OK_FRAME, RESPONSE, write_frame
from nsqkit.wire.identify import Identity

if TYPE_CHECKING:
    from nsqkit.nsqd.core.authority import Permissions
    from nsqkit.nsqd.core.broker import Broker
    from nsqkit.nsqd.core.subscriber import Subscriber

MAGIC: Final = b"  V2"
BAD_PROTOCOL: Final = b"\x00\x00\x00\x12\x00\x00\x00\x01E_BAD_PROTOCOL"
MAX_REPLIES: Final = 10_000  # replies waiting for a commit, above which nothing more is read from the client
MAX_WAITING: Final = 1 << 24  # bytes published that wait for a commit, likewise
KEPT_OUTPUT: Final = 65536  # bytes up to which an output buffer is used again

SHARE: Final = 256  # steps that are executed at once, two for a command with a body; then others have a turn
SHARE_TOPICS: Final = 16  # topics that these may publish to: each means a write to a log

# Phases of a session.
GREETING: Final = 0  # the magic is awaited
OPEN: Final = 1  # commands are executed
WAITING: Final = 2  # the authority is asked what the client may do; what comes is kept, and little is read
UPGRADING: Final = 3  # layers are being put in place; what comes past them is thrown away, as in NSQ
ENDING: Final = 4  # hung up: nothing is executed any more, replies still go out
GONE: Final = 5  # the connection is closed

_NEXT: Final = (
    1 << OPEN | 1 << ENDING | 1 << GONE,
    1 << WAITING | 1 << UPGRADING | 1 << ENDING | 1 << GONE,
    1 << OPEN | 1 << ENDING | 1 << GONE,
    1 << OPEN | 1 << ENDING | 1 << GONE,
    1 << ENDING | 1 << GONE,
    1 << GONE,
)
"""By phase: the phases that may follow, as bits."""

# States of a subscription, with the numbers that /stats shows.
INIT: Final = 0
SUBSCRIBED: Final = 3
CLOSING: Final = 4


@mypyc_attr(allow_interpreted_subclasses=True)
class Outlet:
    """A connection as the core sees it."""

    def send(self, data: bytes) -> None:
        """Hand bytes to the transport. When it is full it sets `session.blocked`, and calls `session.resume` later."""
        raise NotImplementedError

    def hold(self, held: bool) -> None:
        """Stop reading, or go on: the session has as many open replies as it may have, or waits for the authority."""
        raise NotImplementedError

    def upgrade(self, layer: str, identity: Identity) -> bool:
        """Put a layer between the socket and the session. False: it is not ready, `session.upgraded` will tell."""
        raise NotImplementedError

    def close(self) -> None:
        """Close after what was sent."""
        raise NotImplementedError

    def abort(self) -> None:
        """Close at once: the peer does not read."""
        raise NotImplementedError


class Session(Publisher):
    """One client connection."""

    def __init__(self, broker: Broker, outlet: Outlet, address: str, now: i64) -> None:
        self.broker = broker
        self.outlet = outlet
        self.address = address  # host:port of the peer
        self.number = broker.enter(self)
        self.connected_at = now
        self.heard_at = now  # last command
        self.now = now
        self.last_topic = b" "  # the last name that was found valid; at first one that no word can be
        self.state: i64 = INIT
        self.identity = Identity(broker.settings.limits)
        self.identity.client_id = self.identity.hostname = address.rpartition(":")[0]
        self.heartbeat: Heartbeat | None = None
        self.subscriber: Subscriber | None = None
        self.pub_counts: dict[str, int] = {}
        self.out = BytesWriter()
        self.phase: i64 = GREETING
        self.blocked = False  # the transport takes nothing now
        self._listed = False  # stands in the broker's list of sessions to flush
        self._tls_missing = broker.settings.tls_required  # nothing but IDENTIFY is allowed
        self._full = False  # too many replies wait
        self._held = False  # for this or another reason nothing is read
        self._ended = False  # the client will send no more
        self.guard = None if broker.authority is None else Guard(self, broker.authority)
        self._identified = False  # heartbeats follow the first IDENTIFY
        self._upgrades: list[str] = []  # layers to put in place, when replies in the clear are out
        self._patience: Patience | None = None
        self._reader = CommandReader()
        self._replies: deque[Receipt] = deque()
        self._waiting: i64 = 0  # bytes of what these were published with
        self._command: commands.Command | None = None  # the one whose body is awaited
        self._params: list[bytes] = []
        self._wait_for_client()

    @property
    def closed(self) -> bool:
        """Hung up: nothing is executed any more."""
        return self.phase >= ENDING

    @property
    def waiting(self) -> bool:
        """The authority is asked; until it answers nothing is executed."""
        return self.phase == WAITING

    def _enter(self, phase: i64) -> None:
        assert (_NEXT[self.phase] >> phase) & 1, f"from phase {self.phase} to {phase}"
        self.phase = phase

    # -- bytes in

    def receive(self, data: bytes, now: i64) -> bool:
        """Take bytes and execute a share of the commands that they complete. True: `proceed` with the rest."""
        if self.phase > WAITING or not self._reader.feed(data):
            return False
        return self.proceed(now)

    def keep(self, data: bytes) -> None:
        """Take bytes that come while there is still something to proceed with."""
        if self.phase <= WAITING:
            self._reader.feed(data)

    def proceed(self, now: i64) -> bool:
        """Execute another share: SHARE steps, fewer if they make topics or publish to many. True: there is more."""
        self.now = now
        if self.phase == GREETING and not self._greet():
            return False
        broker = self.broker
        made: i64 = broker.made
        most: i64 = len(broker.published) + SHARE_TOPICS
        left: i64 = SHARE
        while self.phase == OPEN:
            try:
                if not self._step(now):
                    return False
            except ClientError as error:
                self.fail(error)
            except LineTooLong:
                self.drop("a command's line does not end")
            left -= 1
            if left == 0 or broker.made != made or len(broker.published) >= most:
                return self._reader.pending() > 0
        return self.phase == WAITING and self._reader.pending() > 0

    def end(self) -> None:
        """The client will send no more. A command cut short is answered with its error."""
        if self.closed:
            return
        self._ended = True
        if self.phase == WAITING:
            return
        if self._command is not None:
            fault = self._command.fault(self._reader).encode()
            self.broker.events.client_failed(self.address, fault)
            self._reply(_error_frame(fault))
        self.hang_up()

    def _greet(self) -> bool:
        magic = self._reader.take(4)
        if magic != MAGIC:
            if magic is not None:
                self.out.write(BAD_PROTOCOL)
                self.drop(f"bad protocol magic {quoted(magic)}")
            return False
        self._enter(OPEN)
        self._no_longer_wait()
        self.heard_at = self.now
        self._start_heartbeat()
        return True

    def _step(self, now: i64) -> bool:
        """Execute one command; False if it is not there yet."""
        reader = self._reader
        command = self._command
        if command is not None:
            return self._finish_body(command)
        subscriber = self.subscriber
        if subscriber is not None and not self.broker.events.traced:
            message_id = reader.finish_id()
            if message_id is not None:
                self.heard_at = now
                subscriber.channel.finish(subscriber, message_id, now)
                return True
        line = reader.line()
        if line is None:
            return False
        self.heard_at = now
        words = line.split(b" ")
        if self._tls_missing and words[0] != b"IDENTIFY":
            raise commands.tls_missing(words[0])
        command = commands.COMMANDS.get(words[0])
        if command is None:
            raise commands.unknown(words[0])
        if self.broker.events.traced:  # a secret belongs in a body, but who knows
            self.broker.events.command_came(self.address, words[0] if command.name == "AUTH" else line)
        command.check(self, words)
        if command.body == commands.NO_BODY:
            self.perform(command, words, b"")
            return True
        self._params = words
        self._command = command
        if command.begin is not None:
            self.perform(command, words, b"")
        return True

    def _finish_body(self, command: commands.Command) -> bool:
        body = command.read_body(self._reader, self.broker.settings)
        if body is None:
            return False
        self._command = None
        if command.begin is None:
            self.perform(command, self._params, body)
        else:
            command.run(self, self._params, body)
        return True

    def perform(self, command: commands.Command, words: list[bytes], body: bytes) -> None:
        """Execute a command, or the part of it before its body, if the client may; or do so when that is known."""
        guard = self.guard
        if guard is not None and command.guarded and not guard.permits(command, words, body):
            return
        if command.begin is not None:
            command.begin(self, words)
        else:
            command.run(self, words, body)

    def wait(self) -> None:
        """Execute nothing until the authority answers."""
        self._enter(WAITING)
        self._hold()

    def answered(self, permissions: Permissions | None, now: i64) -> None:
        """The authority says what the client may do, or nothing of use. Go on with the command that waits for it."""
        guard = self.guard
        if guard is None or self.phase != WAITING:
            return
        self._enter(OPEN)
        self.now = self.heard_at = now
        try:
            guard.answered(permissions)
        except ClientError as error:
            self.fail(error)
        self._hold()
        if self._ended and self._reader.pending() == 0:
            self.end()

    # -- replies out

    def has_output(self) -> None:
        """There is something in `out`: flush it at the end of this turn."""
        if not self._listed:
            self._listed = True
            self.broker.outgoing.append(self)

    def flush(self) -> None:
        """Hand the output to the transport."""
        self._listed = False
        if self.phase == GONE:
            return
        size: i64 = len(self.out)
        if size > 0:
            self.outlet.send(self.out.getvalue())
            if size > KEPT_OUTPUT:
                self.out = BytesWriter()
            else:
                self.out.truncate(0)
        if self.closed and not self._replies:
            self.outlet.close()
        elif self.subscriber is not None and not self.blocked:
            self.subscriber.wake()

    def resume(self) -> None:
        """The transport drained."""
        self.blocked = False
        if self.heartbeat is not None:
            self.heartbeat.drained()
        if self.subscriber is not None:
            self.subscriber.wake()

    def respond(self, payload: bytes) -> None:
        """Answer a command."""
        frame = BytesWriter()
        write_frame(frame, RESPONSE, payload)
        self._reply(frame.getvalue())

    def fail(self, error: ClientError) -> None:
        """Answer with an error frame, and hang up if the error is fatal."""
        payload = error.frame_payload()
        self.broker.events.client_failed(self.address, payload)
        self._reply(_error_frame(payload))
        if error.fatal:
            self.hang_up()

    def _reply(self, frame: bytes) -> None:
        if self._replies:
            self._hold_back(Receipt(frame, None, "", "", 0))
        else:
            self.out.write(frame)
            self.has_output()

    def await_batch(self, batch: Batch, command: str, topic: str, count: i64) -> None:
        """Answer a publish, or a SUB without messages, when its batch is settled."""
        self._hold_back(Receipt(OK_FRAME, batch, command, topic, count))

    def _hold_back(self, receipt: Receipt) -> None:
        self._replies.append(receipt)
        self._waiting += receipt.size
        if len(self._replies) > MAX_REPLIES or self._waiting > MAX_WAITING:
            self._full = True
            self._hold()

    def _hold(self) -> None:
        held = self._full or self.phase == WAITING
        if held != self._held:
            self._held = held
            self.outlet.hold(held)

    def settled(self, batch: Batch) -> None:  # noqa: ARG002 - whichever it is, replies go out in order
        """A publish was kept, or failed: give the replies that are due now."""
        replies = self._replies
        while replies:
            receipt = replies[0]
            awaited = receipt.batch
            if awaited is not None and awaited.state == PENDING:
                break
            replies.popleft()
            self._waiting -= receipt.size
            if awaited is not None and awaited.state == FAILED:
                payload = PublishFailed(receipt.command, awaited.cause).frame_payload()
                self.broker.events.client_failed(self.address, payload)
                self.out.write(_error_frame(payload))
                if self.phase < ENDING:
                    self._enter(ENDING)
                replies.clear()
                break
            self.out.write(receipt.frame)
            if receipt.count > 0:
                self.pub_counts[receipt.topic] = self.pub_counts.get(receipt.topic, 0) + int(receipt.count)
            elif awaited is not None and self.subscriber is not None:
                self.subscriber.confirm()
        self.has_output()
        if self.phase == UPGRADING and not replies:
            self._upgrade()
        if self._full and len(replies) <= MAX_REPLIES // 2 and self._waiting <= MAX_WAITING // 2:
            self._full = False
            self._hold()

    # -- life

    def identify(self, identity: Identity) -> None:
        """IDENTIFY was agreed on. Its reply goes out in the clear, then the agreed layers are put in place."""
        identity.security = self.identity.security
        self.identity = identity
        self.broker.events.client_identified(self.address, identity)
        self.respond(identity.reply(self.broker.settings.limits))
        if not self._identified:
            self._identified = True
            self._start_heartbeat()
        self._upgrades = identity.layers()
        if self._upgrades:
            self._enter(UPGRADING)
            self._reader.discard()
            if not self._replies:
                self._upgrade()

    def _upgrade(self) -> None:
        """Put the layers in place, one after the other; the peer is told of each through it."""
        while self._upgrades:
            self.flush()
            if not self.outlet.upgrade(self._upgrades[0], self.identity):
                self._wait_for_client()
                return
            self._upgraded()
        self._enter(OPEN)

    def upgraded(self) -> None:
        """The layer that was not ready is."""
        if self.phase == UPGRADING:
            self._no_longer_wait()
            self._upgraded()
            self._upgrade()

    def _upgraded(self) -> None:
        if self._upgrades.pop(0) == "tls":
            self._tls_missing = False
        self._reply(OK_FRAME)

    def _wait_for_client(self) -> None:
        timeout = self.broker.settings.handshake_timeout
        if timeout > 0:
            self._patience = Patience(self)
            self.broker.deadlines.set(self._patience, self.now + timeout)

    def _no_longer_wait(self) -> None:
        if self._patience is not None:
            self._patience.forget()
            self._patience = None

    def subscribe(self, subscriber: Subscriber) -> None:
        """SUB succeeded."""
        self.subscriber = subscriber
        self.state = SUBSCRIBED

    def close_subscription(self) -> None:
        """CLS: the consumer gets nothing more."""
        self.state = CLOSING
        if self.subscriber is not None:
            self.subscriber.ready(0)

    def closing(self) -> bool:
        """Did the client send CLS?"""
        return self.state == CLOSING

    def batch_count(self) -> i64:
        """How many messages the MPUB being executed has."""
        return self._reader.batch_count

    def _start_heartbeat(self) -> None:
        interval = self.identity.heartbeat_interval
        if self.heartbeat is not None:
            self.broker.deadlines.cancel(self.heartbeat)
            self.heartbeat = None
        if interval > 0:
            heartbeat = Heartbeat(self, interval, self.now)
            self.heartbeat = heartbeat
            self.broker.deadlines.set(heartbeat, self.now + interval)

    def hang_up(self) -> None:
        """Execute nothing more; close when the replies are out."""
        if self.phase < ENDING:
            self._enter(ENDING)
        self._no_longer_wait()
        self._command = None
        self._reader.discard()
        self.has_output()

    def drop(self, reason: str) -> None:
        """Hang up without an answer, and say why where it is logged."""
        self.broker.events.client_dropped(self.address, reason)
        self.hang_up()

    def abort(self, reason: str) -> None:
        """Close at once: the client can't be told anything."""
        self.drop(reason)
        self.outlet.abort()

    def gone(self) -> None:
        """The connection is closed. Called once by its owner."""
        if self.phase == GONE:
            return
        self._enter(GONE)
        self._no_longer_wait()
        if self.guard is not None:
            self.guard.forget()
        if self.heartbeat is not None:
            self.broker.deadlines.cancel(self.heartbeat)
            self.heartbeat = None
        self._reader.discard()
        self.broker.leave(self)
        if self.subscriber is not None:
            self.subscriber.channel.leave(self.subscriber)


def _error_frame(payload: bytes) -> bytes:
    frame = BytesWriter()
    write_frame(frame, ERROR, payload)
    return frame.getvalue()
