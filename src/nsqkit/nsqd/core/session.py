"""A client's session: bytes in, commands executed, replies out in the order of the commands.

    receive -> magic -> line -> row of the command table -> (body) -> the command's function

Message frames and heartbeats may stand anywhere between replies. An OK that waits for its commit holds back the
replies behind it, not the reading. A ClientError raised anywhere below becomes its error frame in `fail`.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from librt.strings import BytesWriter
from mypy_extensions import i64, mypyc_attr

from nsqkit.nsqd.core import commands
from nsqkit.nsqd.core.batch import FAILED, PENDING, Batch, Publisher
from nsqkit.nsqd.core.deadlines import Alarm
from nsqkit.wire.commands import CommandReader
from nsqkit.wire.errors import ClientError, LineTooLong, PublishFailed
from nsqkit.wire.frames import ERROR, HEARTBEAT_FRAME, OK_FRAME, RESPONSE, write_frame
from nsqkit.wire.identify import Identity

if TYPE_CHECKING:
    from nsqkit.nsqd.core.broker import Broker
    from nsqkit.nsqd.core.subscriber import Subscriber

MAGIC: Final = b"  V2"
BAD_PROTOCOL: Final = b"\x00\x00\x00\x12\x00\x00\x00\x01E_BAD_PROTOCOL"
MAX_REPLIES: Final = 10_000  # replies waiting for a commit, above which nothing more is read from the client
KEPT_OUTPUT: Final = 65536  # bytes up to which an output buffer is used again

# Connection states, with the numbers that /stats shows.
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
        """Stop reading, or go on: the session has as many open replies as it may have."""
        raise NotImplementedError

    def upgrade(self, identity: Identity) -> None:
        """Put the compression that was agreed on between the socket and the session."""
        raise NotImplementedError

    def close(self) -> None:
        """Close behind what was sent."""
        raise NotImplementedError

    def abort(self) -> None:
        """Close at once: the peer does not read."""
        raise NotImplementedError


class Receipt:
    """A reply that is not due yet: the answer to a publish, or one behind it."""

    def __init__(self, frame: bytes, batch: Batch | None, command: str, topic: str, count: i64) -> None:
        self.frame = frame
        self.batch = batch
        self.command = command
        self.topic = topic
        self.count = count  # messages published


class Heartbeat(Alarm):
    """A session's ticks and deadlines (spec/tcp-protocol.md, section 5)."""

    def __init__(self, session: Session, interval: i64, now: i64) -> None:
        super().__init__()
        self._session: Session | None = session
        self._interval = interval
        self._tick = now + interval
        self._blocked_at: i64 = 0

    def forget(self) -> None:
        """The session is gone. The alarm stands in the heap until it is due, and must not keep the session alive."""
        self._session = None

    def drained(self) -> None:
        """The client does read, however slowly."""
        self._blocked_at = 0

    def ring(self, now: i64) -> i64:
        """Send a heartbeat when it is time; hang up on who is silent for two intervals or does not read for one."""
        session = self._session
        if session is None or session.closed or session.heartbeat is not self:
            return 0
        if not session.blocked:
            self._blocked_at = 0
        elif self._blocked_at == 0:
            self._blocked_at = now
        elif now - self._blocked_at >= self._interval:
            session.abort()
            return 0
        silence = 2 * session.identity.heartbeat_interval
        if silence > 0 and now - session.heard_at >= silence:
            session.hang_up()
            return 0
        if now >= self._tick:
            self._tick = max(self._tick + self._interval, now + 1)
            if not session.blocked:
                session.out.write(HEARTBEAT_FRAME)
                session.has_output()
        return min(self._tick, session.heard_at + silence) if silence > 0 else self._tick


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
        self.blocked = False  # the transport takes nothing now
        self.closed = False  # hung up: nothing is executed any more
        self._listed = False  # stands in the broker's list of sessions to flush
        self._gone = False
        self._held = False
        self._upgrading: Identity | None = None  # agreed on, but replies in the clear are not out yet
        self._greeted = False
        self._identified = False
        self._reader = CommandReader()
        self._replies: deque[Receipt] = deque()
        self._command: commands.Command | None = None  # the one whose body is awaited
        self._params: list[bytes] = []

    # -- bytes in

    def receive(self, data: bytes, now: i64) -> None:
        """Execute every command that these bytes complete."""
        if self.closed:
            return
        self.now = now
        if not self._reader.feed(data):
            return
        if not self._greeted and not self._greet():
            return
        while not self.closed:
            try:
                if not self._step(now):
                    return
            except ClientError as error:
                self.fail(error)
            except LineTooLong:
                self.hang_up()

    def end(self) -> None:
        """The client will send no more. A command cut short is answered with its error."""
        if self.closed:
            return
        if self._command is not None:
            fault = self._command.fault(self._reader)
            self._reply(_error_frame(fault.encode()))
        self.hang_up()

    def _greet(self) -> bool:
        magic = self._reader.take(4)
        if magic is None:
            return False
        if magic != MAGIC:
            self.out.write(BAD_PROTOCOL)
            self.has_output()
            self.hang_up()
            return False
        self._greeted = True
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
        if subscriber is not None:
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
        command = commands.COMMANDS.get(words[0])
        if command is None:
            raise commands.unknown(words[0])
        command.check(self, words)
        if command.body == commands.NO_BODY:
            command.run(self, words, b"")
            return True
        self._params = words
        self._command = command
        return True

    def _finish_body(self, command: commands.Command) -> bool:
        body = command.read_body(self._reader, self.broker.settings)
        if body is None:
            return False
        self._command = None
        command.run(self, self._params, body)
        return True

    # -- replies out

    def has_output(self) -> None:
        """There is something in `out`: flush it at the end of this turn."""
        if not self._listed:
            self._listed = True
            self.broker.outgoing.append(self)

    def flush(self) -> None:
        """Hand the output to the transport."""
        self._listed = False
        if self._gone:
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
        self._reply(_error_frame(error.frame_payload()))
        if error.fatal:
            self.hang_up()

    def _reply(self, frame: bytes) -> None:
        if self._replies:
            self._hold_back(Receipt(frame, None, "", "", 0))
        else:
            self.out.write(frame)
            self.has_output()

    def await_batch(self, batch: Batch, command: str, topic: str, count: i64) -> None:
        """Answer a publish when its batch is settled."""
        self._hold_back(Receipt(OK_FRAME, batch, command, topic, count))

    def _hold_back(self, receipt: Receipt) -> None:
        self._replies.append(receipt)
        if len(self._replies) > MAX_REPLIES and not self._held:
            self._held = True
            self.outlet.hold(True)

    def settled(self, batch: Batch) -> None:  # noqa: ARG002 - whichever it is, replies go out in order
        """A publish was kept, or failed: give the replies that are due now."""
        replies = self._replies
        while replies:
            receipt = replies[0]
            awaited = receipt.batch
            if awaited is not None and awaited.state == PENDING:
                break
            replies.popleft()
            if awaited is not None and awaited.state == FAILED:
                error = PublishFailed(receipt.command, awaited.cause)
                self.out.write(_error_frame(error.frame_payload()))
                self.closed = True
                replies.clear()
                break
            self.out.write(receipt.frame)
            if receipt.count > 0:
                self.pub_counts[receipt.topic] = self.pub_counts.get(receipt.topic, 0) + int(receipt.count)
        self.has_output()
        if self._upgrading is not None and not replies and not self.closed:
            self._upgrade(self._upgrading)
        if self._held and len(replies) <= MAX_REPLIES // 2:
            self._held = False
            self.outlet.hold(False)

    # -- life

    def identify(self, identity: Identity) -> None:
        """IDENTIFY was agreed on. Its reply goes out in the clear, then the agreed layers are put in place."""
        self.identity = identity
        self.respond(identity.reply(self.broker.settings.limits))
        if not self._identified:
            self._identified = True
            self._start_heartbeat()
        if identity.snappy or identity.deflate:
            self._reader.discard()
            if self._replies:
                self._upgrading = identity
            else:
                self._upgrade(identity)

    def _upgrade(self, identity: Identity) -> None:
        self._upgrading = None
        self.flush()
        self.outlet.upgrade(identity)
        self._reply(OK_FRAME)

    def subscribe(self, subscriber: Subscriber) -> None:
        """SUB succeeded."""
        self.subscriber = subscriber
        self.state = SUBSCRIBED

    def close_subscription(self) -> None:
        """CLS: the consumer gets nothing more."""
        self.state = CLOSING
        if self.subscriber is not None:
            self.subscriber.ready_count = 0

    def closing(self) -> bool:
        """Did the client send CLS?"""
        return self.state == CLOSING

    def batch_count(self) -> i64:
        """How many messages the MPUB being executed has."""
        return self._reader.batch_count

    def _start_heartbeat(self) -> None:
        interval = self.identity.heartbeat_interval
        if self.heartbeat is not None:
            self.heartbeat.forget()
            self.heartbeat = None
        if interval > 0:
            heartbeat = Heartbeat(self, interval, self.now)
            self.heartbeat = heartbeat
            self.broker.deadlines.set(heartbeat, self.now + interval)

    def hang_up(self) -> None:
        """Execute nothing more; close when the replies are out."""
        self.closed = True
        self._command = None
        self._reader.discard()
        self.has_output()

    def abort(self) -> None:
        """Close at once: the client does not read what it is sent."""
        self.hang_up()
        self.outlet.abort()

    def gone(self) -> None:
        """The connection is closed. Called once by its owner."""
        if self._gone:
            return
        self.closed = True
        self._gone = True
        if self.heartbeat is not None:
            self.heartbeat.forget()
            self.heartbeat = None
        self._reader.discard()
        self.broker.sessions.pop(self.number, None)
        if self.subscriber is not None:
            self.subscriber.channel.leave(self.subscriber)


def _error_frame(payload: bytes) -> bytes:
    frame = BytesWriter()
    write_frame(frame, ERROR, payload)
    return frame.getvalue()
