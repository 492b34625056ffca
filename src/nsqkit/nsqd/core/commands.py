"""The command table: one row per command, one function per row (spec/tcp-protocol.md, section 2).

State, number of parameters and kind of body are in the row and are checked in one place, `Command.check`, in NSQ's
order: state, heartbeats, parameters, names; then the body's size, the body, permission, and the command itself. MPUB
needs permission before its body comes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from mypy_extensions import i64

from nsqkit.names import valid_name_bytes
from nsqkit.nsqd.core.batch import Batch
from nsqkit.nsqd.core.changes import promise
from nsqkit.nsqd.core.store import StoreError
from nsqkit.nsqd.core.subscriber import Subscriber
from nsqkit.nsqd.core.topic import DRAINING
from nsqkit.wire.commands import CommandReader, parse_number
from nsqkit.wire.errors import (
    AuthDisabled,
    BadBody,
    BadChannel,
    BadMessage,
    BadTopic,
    ClientError,
    Invalid,
    PublishFailed,
    SubscribeFailed,
    quoted,
)
from nsqkit.wire.identify import MS, negotiate

if TYPE_CHECKING:
    from nsqkit.nsqd.core.session import Session
    from nsqkit.nsqd.core.settings import Settings

# What follows the line.
NO_BODY: Final = 0
MESSAGE: Final = 1  # one message after its size
BATCH: Final = 2  # an MPUB body
DOCUMENT: Final = 3  # opaque bytes after their size

MAX_DOCUMENT: Final = 65_536  # bytes of a document, even if other bodies may be larger

# States in which a command is allowed, as bits 1 << state (0 init, 3 subscribed, 4 closing).
_INIT: Final = 1
_SUBSCRIBED: Final = 8
_ALIVE: Final = 8 | 16
_ANY: Final = 1 | 8 | 16


class Command:
    """One row. `words` is the split line, the command's name first."""

    def __init__(
        self,
        name: str,
        run: Callable[[Session, list[bytes], bytes], None],
        *,
        states: int = _ANY,
        params: int = 0,
        params_word: str = "parameters",
        body: int = NO_BODY,
        prepare: Callable[[Session, list[bytes]], None] | None = None,
        begin: Callable[[Session, list[bytes]], None] | None = None,
        guarded: bool = False,
    ) -> None:
        self.name = name
        self.run = run
        self.states: i64 = states
        self.params: i64 = params
        self.params_word = params_word
        self.body: i64 = body
        self.prepare = prepare
        self.begin = begin  # what comes before the body and after the client's permission
        self.guarded = guarded  # where there is an auth server, the client needs its permission for the topic

    def check(self, session: Session, words: list[bytes]) -> None:
        """Everything that is wrong before the body is read."""
        if not (self.states >> session.state) & 1:
            raise Invalid(f"cannot {self.name} in current state")
        if self.name == "SUB" and session.identity.heartbeat_interval == 0:
            raise Invalid("cannot SUB with heartbeats disabled")
        if len(words) <= self.params:
            raise Invalid(f"{self.name} insufficient number of {self.params_word}")
        if self.prepare is not None:
            self.prepare(session, words)
        if session.broker.probe is not None:
            session.broker.probe.command_came(self.name)

    def read_body(self, reader: CommandReader, settings: Settings) -> bytes | None:
        """The body, None while it is incomplete. A message comes with its size before it, as batches keep it."""
        if self.body == BATCH:
            return reader.batch(settings.max_msg_size, settings.max_body_size)
        if not reader.has(4):
            return None
        size: i64 = i64(reader.peek_size())
        if self.body == MESSAGE:
            if size <= 0:
                raise BadMessage(f"{self.name} invalid message body size {size}")
            if size > settings.max_msg_size:
                raise BadMessage(f"{self.name} message too big {size} > {settings.max_msg_size}")
            return reader.take(4 + size)
        if size > settings.max_body_size:
            raise BadBody(f"{self.name} body too big {size} > {settings.max_body_size}")
        if size > MAX_DOCUMENT:
            raise BadBody(f"{self.name} body too big {size} > {MAX_DOCUMENT}")
        if size <= 0:
            raise BadBody(f"{self.name} invalid body size {size}")
        document = reader.take(4 + size)
        return None if document is None else document[4:]

    def fault(self, reader: CommandReader) -> str:
        """The error payload when the input ends within the body."""
        if self.body == BATCH:
            return reader.batch_fault()
        what = "E_BAD_MESSAGE" if self.body == MESSAGE else "E_BAD_BODY"
        message = "message " if self.body == MESSAGE else ""
        size = " size" if reader.pending() < 4 else ""
        return f"{what} {self.name} failed to read {message}body{size}"


def unknown(name: bytes) -> ClientError:
    """The error for a word that is no command."""
    return Invalid(f"invalid command {name.decode('utf-8', 'surrogateescape')}")


def tls_missing(name: bytes) -> ClientError:
    """The error for any word but IDENTIFY where TLS is required."""
    return Invalid(f"cannot {name.decode('utf-8', 'surrogateescape')} in current state (TLS required)")


# -- publishing


def _check_topic(session: Session, words: list[bytes]) -> None:
    if words[1] == session.last_topic:
        return  # a publisher mostly says the same name again
    if not valid_name_bytes(words[1]):
        raise BadTopic(f"{words[0].decode()} topic name {quoted(words[1])} is not valid")
    session.last_topic = words[1]


def _check_batch_topic(session: Session, words: list[bytes]) -> None:
    if not valid_name_bytes(words[1]):
        # NSQ 1.3 says the code twice, and clients that compare whole texts know it so.
        raise BadTopic(f"E_BAD_TOPIC MPUB topic name {quoted(words[1])} is not valid")


def _begin_batch(session: Session, words: list[bytes]) -> None:
    try:
        session.broker.topic(words[1].decode())
    except StoreError as error:
        raise PublishFailed("MPUB", str(error)) from None


def _check_deferred(session: Session, words: list[bytes]) -> None:
    _check_topic(session, words)
    delay = parse_number(words[2])
    if delay < 0:
        raise Invalid(f"DPUB could not parse timeout {words[2].decode('utf-8', 'surrogateescape')}")
    most = session.broker.settings.max_req_timeout // MS
    if delay > most:
        raise Invalid(f"DPUB timeout {delay} out of range 0-{most}")


def _pub(session: Session, words: list[bytes], body: bytes) -> None:
    """PUB <topic> [size][body]: append one message to a topic."""
    _publish(session, "PUB", words[1], body, 1, 0)


def _mpub(session: Session, words: list[bytes], body: bytes) -> None:
    """MPUB <topic> [size][count]([size][body])*: append many messages, all or none."""
    _publish(session, "MPUB", words[1], body, session.batch_count(), 0)


def _dpub(session: Session, words: list[bytes], body: bytes) -> None:
    """DPUB <topic> <ms> [size][body]: append one message, to be delivered when the time is over."""
    delay = parse_number(words[2]) * MS
    _publish(session, "DPUB", words[1], body, 1, session.now + delay if delay else 0)


def _publish(session: Session, command: str, topic: bytes, data: bytes, count: i64, due: i64) -> None:
    name = topic.decode()
    try:
        batch: Batch = session.broker.topic(name).publish(data, count, due, session, session.now)
    except StoreError as error:
        raise PublishFailed(command, str(error)) from None
    session.await_batch(batch, command, name, count)


# -- consuming


def _check_channel(session: Session, words: list[bytes]) -> None:
    _check_topic(session, words)
    if not valid_name_bytes(words[2]):
        raise BadChannel(f"SUB channel name {quoted(words[2])} is not valid")


def _sub(session: Session, words: list[bytes], body: bytes) -> None:
    """SUB <topic> <channel>: join a channel; both are made on demand."""
    if session.broker.exiting:
        raise SubscribeFailed("SUB failed exiting")
    try:
        topic = session.broker.topic(words[1].decode())
        channel_name = words[2].decode()
        if session.broker.draining and topic.channels and channel_name not in topic.channels:
            raise SubscribeFailed(f"SUB failed {DRAINING}")  # nothing would ever come there
        channel = topic.channel(channel_name, session.now)
    except StoreError as error:
        raise SubscribeFailed(f"SUB failed {error}") from None
    subscriber = Subscriber(session, channel)
    channel.join(subscriber)
    session.subscribe(subscriber)
    if channel.made > session.broker.changes.saved:
        subscriber.confirmed = False
        batch = promise(session)
        session.await_batch(batch, "SUB", "", 0)
        session.broker.changes.settle_when_saved(batch, channel.made)
    else:
        session.respond(b"OK")


def _rdy(session: Session, words: list[bytes], body: bytes) -> None:
    """RDY [count]: how many messages may be in flight at once. Ignored after CLS."""
    subscriber = session.subscriber
    if subscriber is None or session.closing():
        return
    count: i64 = 1
    if len(words) > 1:
        count = parse_number(words[1])
        if count < 0:
            raise Invalid(f"RDY could not parse count {words[1].decode('utf-8', 'surrogateescape')}")
    most = session.broker.settings.limits.max_rdy_count
    if count > most:
        raise Invalid(f"RDY count {count} out of range 0-{most}")
    subscriber.ready(count)


def _fin(session: Session, words: list[bytes], body: bytes) -> None:
    """FIN <id>: the consumer is done with a message. Success is silent."""
    subscriber = _consumer(session, words)
    subscriber.channel.finish(subscriber, words[1], session.now)


def _req(session: Session, words: list[bytes], body: bytes) -> None:
    """REQ <id> <ms>: give a message back, at once or later. Success is silent."""
    subscriber = _consumer(session, words)
    delay = parse_number(words[2])
    if delay < 0:
        raise Invalid(f"REQ could not parse timeout {words[2].decode('utf-8', 'surrogateescape')}")
    most = session.broker.settings.max_req_timeout
    wait = most if delay > most // MS else delay * MS
    subscriber.channel.requeue(subscriber, words[1], wait, session.now)


def _touch(session: Session, words: list[bytes], body: bytes) -> None:
    """TOUCH <id>: the consumer needs more time. Success is silent."""
    subscriber = _consumer(session, words)
    subscriber.channel.touch(subscriber, words[1], session.now)


def _consumer(session: Session, words: list[bytes]) -> Subscriber:
    if len(words[1]) != 16:
        raise Invalid("invalid message ID")
    subscriber = session.subscriber
    assert subscriber is not None  # the row's states
    return subscriber


def _cls(session: Session, words: list[bytes], body: bytes) -> None:
    """CLS: send nothing more; the client finishes what it has, then closes."""
    session.close_subscription()
    session.respond(b"CLOSE_WAIT")


# -- the rest


def _identify(session: Session, words: list[bytes], body: bytes) -> None:
    """IDENTIFY [size][JSON]: tell who one is, and agree on features."""
    session.identify(negotiate(body, session.broker.settings.limits))


def _auth(session: Session, words: list[bytes], body: bytes) -> None:
    """AUTH [size][secret]: let the auth servers say what the client may do."""
    if session.guard is None:
        raise AuthDisabled("AUTH disabled")
    session.guard.authenticate(body)


def _check_auth(session: Session, words: list[bytes]) -> None:
    if len(words) != 1:
        raise Invalid("AUTH invalid number of parameters")


def _nop(session: Session, words: list[bytes], body: bytes) -> None:
    """NOP: a sign of life."""


_PARAMS: Final = "params"  # how NSQ words it for these three

COMMANDS: Final[dict[bytes, Command]] = {
    b"IDENTIFY": Command("IDENTIFY", _identify, states=_INIT, body=DOCUMENT),
    b"AUTH": Command("AUTH", _auth, states=_INIT, body=DOCUMENT, prepare=_check_auth),
    b"PUB": Command("PUB", _pub, params=1, body=MESSAGE, prepare=_check_topic, guarded=True),
    b"MPUB": Command(
        "MPUB", _mpub, params=1, body=BATCH, prepare=_check_batch_topic, begin=_begin_batch, guarded=True
    ),
    b"DPUB": Command("DPUB", _dpub, params=2, body=MESSAGE, prepare=_check_deferred, guarded=True),
    b"SUB": Command("SUB", _sub, states=_INIT, params=2, prepare=_check_channel, guarded=True),
    b"RDY": Command("RDY", _rdy, states=_ALIVE),
    b"FIN": Command("FIN", _fin, states=_ALIVE, params=1, params_word=_PARAMS),
    b"REQ": Command("REQ", _req, states=_ALIVE, params=2, params_word=_PARAMS),
    b"TOUCH": Command("TOUCH", _touch, states=_ALIVE, params=1, params_word=_PARAMS),
    b"CLS": Command("CLS", _cls, states=_SUBSCRIBED),
    b"NOP": Command("NOP", _nop),
}
