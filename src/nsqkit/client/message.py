"""A message that a consumer received, and the inbox in which it waits to be handed out.

Answers are commands without a reply (spec/tcp-protocol.md, section 2): they are written at once, to leave with whatever
else this pass of the event loop sends. So nothing here waits; what may be awaited is there to read like the rest.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections import deque
from collections.abc import Callable, Generator
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, final

from mypy_extensions import i64, mypyc_attr

from nsqkit.errors import AlreadyAnswered, RequeueMessage

if TYPE_CHECKING:
    from nsqkit.client.link import Link

# What an answer says about the health of who handles messages.
RESUME: Final = 0  # finished
BACK_OFF: Final = 1  # given back, and others would fare no better
CONTINUE: Final = 2  # given back for another reason


class Done:
    """Something that has been done already, and may be awaited."""

    def __await__(self) -> Generator[Any, Any, None]:
        return _nothing()


def _nothing() -> Generator[Any, Any, None]:
    return
    yield


DONE: Final = Done()


@final
@mypyc_attr(free_list_len=1)
class Message:
    """A message. Answer it once, by `finish` or `requeue`, or let `async with message:` do it.

    In `async with message:` it is touched as often as it must be, finished when the block ends, and requeued if an
    exception ends it: after a growing delay and with back-off, or at once if the block was cancelled. The exception
    goes on, but for RequeueMessage.
    """

    def __init__(
        self, link: Link, id: bytes, timestamp: i64, attempts: i64, body: bytes, received_at: float
    ) -> None:
        self.link = link
        self._id = id
        self._timestamp = timestamp
        self._attempts = attempts
        self._answered = False
        self._received_at = received_at
        self.deadline = (
            received_at + link.msg_timeout
        )  # of the client's clock: nsqd gives it to another after it
        self.touch_at = 0.0  # when it is to be touched, while somebody works on it
        self.body = body

    @property
    def id(self) -> str:
        """16 hexadecimal digits. Each delivery of a message has the same."""
        return self._id.decode("latin-1")

    @property
    def timestamp(self) -> int:
        """When nsqd got it, in ns since the epoch."""
        return int(self._timestamp)

    @property
    def attempts(self) -> int:
        """Deliveries so far; 1 for the first."""
        return int(self._attempts)

    @property
    def nsqd(self) -> str:
        """The address of the nsqd that it came from."""
        return self.link.nsqd

    @property
    def topic(self) -> str:
        """Its topic."""
        return self.link.inbox.topic

    @property
    def channel(self) -> str:
        """Its channel."""
        return self.link.inbox.channel

    @property
    def received_at(self) -> float:
        """When it came here, in seconds of the event loop's clock."""
        return self._received_at

    @property
    def answered(self) -> bool:
        """Whether it was finished or requeued."""
        return self._answered

    @property
    def expired(self) -> bool:
        """Whether nsqd has, or will have, given it to somebody else: its time is over, or the connection is gone."""
        link = self.link
        return link.lost or link.inbox.now() > self.deadline

    def json(self) -> Any:
        """The body, read as JSON. ValueError if it is none."""
        return json.loads(self.body)

    def finish(self) -> Done:
        """Say that it is done with. AlreadyAnswered. It works without `await`, too."""
        self._answer()
        link = self.link
        if link.lost:
            link.inbox.report_late("finished", self)
            return DONE
        link.finish(self._id)
        inbox = link.inbox
        inbox.finished += 1
        if inbox.attentive:
            inbox.on_answer(RESUME)
        return DONE

    def requeue(self, delay: float | str | timedelta | None = None, *, backoff: bool = True) -> Done:
        """Give it back to nsqd, to come again after `delay`: seconds, or text like "1m30s"; 0 is at once.

        None is `default_requeue_delay` for each attempt so far, up to `max_requeue_delay`. nsqd shortens what is above
        its --max-req-timeout. `backoff`: the consumer takes a break, for the next message would fare no better.
        AlreadyAnswered, and ValueError for what is no delay. It works without `await`, too.
        """
        inbox = self.link.inbox
        milliseconds: i64 = inbox.requeue_ms(self._attempts) if delay is None else inbox.delay_ms(delay)
        self._answer()
        link = self.link
        if link.lost:
            inbox.report_late("requeued", self)
            return DONE
        link.requeue(self._id, milliseconds)
        inbox.requeued += 1
        inbox.on_answer(BACK_OFF if backoff else CONTINUE)
        return DONE

    def touch(self) -> Done:
        """Ask nsqd for another `msg_timeout` from now, never beyond its --max-msg-timeout after the delivery.

        AlreadyAnswered. It works without `await`, too.
        """
        if self._answered:
            raise AlreadyAnswered(f"message {self.id} is finished or requeued, so it can't be touched")
        link = self.link
        if link.lost:
            link.inbox.report_late("touched", self)
            return DONE
        link.touch(self._id)
        link.inbox.touched += 1
        self.deadline = min(link.inbox.now() + link.msg_timeout, self._received_at + link.max_msg_timeout)
        return DONE

    def drop(self) -> None:
        """Never to be answered: it is somebody else's by now."""
        self._answered = True

    def _answer(self) -> None:
        if self._answered:
            raise AlreadyAnswered(f"message {self.id} has been finished or requeued before")
        self._answered = True

    async def __aenter__(self) -> Message:
        self.begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.settle(error)
        return isinstance(error, RequeueMessage)

    def begin(self) -> None:
        """Somebody works on it, until `settle` is called: it is touched meanwhile."""
        self.link.inbox.begin(self)

    def settle(self, error: BaseException | None) -> None:
        """Somebody has worked on it, and ended with an error, or without."""
        self.link.inbox.end(self)
        if self._answered:
            return
        if error is None:
            self.finish()
        elif isinstance(error, RequeueMessage):
            self.requeue(error.delay, backoff=error.backoff)
        elif isinstance(error, Exception):
            self.requeue()
        else:
            self.requeue(0, backoff=False)

    def __repr__(self) -> str:
        return (
            f"<Message {self.id} of {self.topic}/{self.channel}, {len(self.body)} bytes, attempt {self.attempts}"
            f"{', answered' if self._answered else ''}>"
        )


class Inbox:
    """What one consumer has received and not yet handed out, over all its connections, and what became of the rest."""

    def __init__(
        self, topic: str, channel: str, clock: Callable[[], float], milliseconds: Callable[[object], int]
    ) -> None:
        """`milliseconds` reads a delay as users write it; ValueError."""
        self.topic = topic
        self.channel = channel
        self.waiting: deque[Message] = deque()
        self.default_requeue_ms: i64 = 90_000
        self.max_requeue_ms: i64 = 900_000
        self.touching = True  # what is worked on is touched
        self.attentive = False  # `on_answer` hears of messages that were finished, too
        self.on_answer: Callable[[int], None] = _ignore
        self.on_begin: Callable[[], None] = (
            _do_nothing  # a message is worked on, and is to be touched before `touch_due`
        )
        self.on_late: Callable[[str, Message], None] = _ignore_late
        self.received: i64 = 0
        self.finished: i64 = 0
        self.requeued: i64 = 0
        self.touched: i64 = 0
        self.late: i64 = 0  # answered after the connection was gone
        self.expired: i64 = 0  # waited here for too long, and are somebody else's now
        self.touch_due = math.inf  # when something is to be touched, as far as `on_begin` knows
        self.closed = False  # nothing is handed out any more
        self._clock = clock
        self._milliseconds = milliseconds
        self._waiters: deque[asyncio.Future[None]] = deque()

    def now(self) -> float:
        """The client's clock, in seconds."""
        return self._clock()

    def requeue_ms(self, attempts: i64) -> i64:
        """The delay before a message comes again, if nobody says another."""
        return min(self.default_requeue_ms * attempts, self.max_requeue_ms)

    def delay_ms(self, delay: float | str | timedelta) -> i64:
        """A delay in milliseconds. ValueError."""
        milliseconds: i64 = self._milliseconds(delay)
        if milliseconds < 0:
            raise ValueError(f"a delay of {delay!r} is negative")
        return milliseconds

    def add(self, message: Message) -> None:
        """It came."""
        self.received += 1
        self.waiting.append(message)

    def arrived(self) -> None:
        """Some came: wake as many who wait for one."""
        count = len(self.waiting)
        while count > 0 and self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                count -= 1

    def wake_all(self) -> None:
        """There is something else to see to than messages."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)

    def take(self) -> Message | None:
        """The next message; None if there is none."""
        waiting = self.waiting
        if not waiting or self.closed:
            return None
        now = self._clock()
        while waiting:
            message = waiting.popleft()
            if message.deadline > now:
                return message
            message.drop()
            self.expired += 1
            self.on_late("", message)
        return None

    async def wait(self) -> None:
        """Return when something came, or when there is another reason to look."""
        waiter = self.waiter()
        try:
            await waiter
        except asyncio.CancelledError:
            self.forget(waiter)
            raise

    def waiter(self) -> asyncio.Future[None]:
        """What is done when something came, or when there is another reason to look; counted from this call on."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        return waiter

    def forget(self, waiter: asyncio.Future[None]) -> None:
        """Nobody waits for this one any more."""
        if waiter in self._waiters:
            self._waiters.remove(waiter)
        elif not waiter.cancelled():
            self.arrived()  # what woke this one is for another

    def lose(self, link: Link) -> None:
        """A connection is gone, and what came by it and was not handed out is somebody else's."""
        if self.waiting:
            kept: deque[Message] = deque()
            for message in self.waiting:
                if message.link is link:
                    message.drop()
                else:
                    kept.append(message)
            self.waiting = kept

    def give_back(self) -> int:
        """Requeue all that was not handed out, at once; how many these were."""
        count = len(self.waiting)
        while self.waiting:
            message = self.waiting.popleft()
            if not message.answered:
                message.requeue(0, backoff=False)
        return count

    def begin(self, message: Message) -> None:
        """Somebody works on it."""
        link = message.link
        if self.touching and not link.lost and not message.answered:
            now = self._clock()
            half = link.msg_timeout / 2
            if message.deadline - now < half:
                message.touch()  # it has waited for long; so that all of `busy` are in order
            message.touch_at = now + half
            link.busy[message] = None
            if message.touch_at < self.touch_due:
                self.on_begin()

    def end(self, message: Message) -> None:
        """Nobody works on it any more."""
        message.link.busy.pop(message, None)

    def report_late(self, what: str, message: Message) -> None:
        """It was answered too late: nsqd had requeued it when the connection went."""
        self.late += 1
        self.on_late(what, message)


def _ignore(_: int) -> None:
    pass


def _do_nothing() -> None:
    pass


def _ignore_late(_: str, __: Message) -> None:
    pass
