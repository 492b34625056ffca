"""Consuming one channel, from all nsqds that have it.

Messages are asked for by RDY, which `Pace` sends. What was received waits in the `Inbox` until somebody takes it; so
nothing is held beyond `max_in_flight`.
"""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Final, Self, Unpack, cast

from nsqkit.client.addresses import addresses_of
from nsqkit.client.clock import ClientClock, clock_of
from nsqkit.client.connection import Opener
from nsqkit.client.discovery import Discovery
from nsqkit.client.handlers import Handler, Handlers
from nsqkit.client.hope import Hope
from nsqkit.client.link import Link
from nsqkit.client.message import Inbox, Message
from nsqkit.client.options import ConsumerKeywords, ConsumerOptions
from nsqkit.client.pace import Pace
from nsqkit.client.pool import Pool
from nsqkit.client.seldom import Seldom
from nsqkit.client.state import ENDING, ConnectionStats, ConsumerState, ConsumerStats
from nsqkit.client.touching import Touching
from nsqkit.errors import ConsumerFailed, OptionError
from nsqkit.names import valid_name
from nsqkit.options.duration import Duration

TURN: Final = 64  # messages handed out before others have the loop
CLOSE_WAIT_S: Final = 2.0  # how long a stop waits for nsqds to say that no more comes


class Consumer:
    """Consumes a channel of a topic.

        async with Consumer("orders", "billing", nsqd="127.0.0.1:4150") as consumer:
            async for message in consumer:
                async with message:
                    print(message.body)

    `nsqd` are addresses of nsqds, host:port, and `lookupd` HTTP addresses of nsqlookupds, which say where the topic is.
    All other arguments are the options of `ConsumerOptions`. OptionError for one that makes no sense.

    With a `handler`, messages go to it, `concurrency` of them at a time (default: `max_in_flight`, which is raised to
    it): an `async def`, or a plain function, which runs in threads. What returns is finished; an exception is logged,
    and the message requeued after a growing delay, with back-off; RequeueMessage says another way. After `max_attempts`
    deliveries a message is finished without it: `on_giving_up(message)` is called first. `await consumer.run()` returns
    when the consumer was stopped.

    Iteration ends when the consumer was stopped, and raises ConsumerFailed when it has given up. While there is no
    connection it waits, for `give_up_after` at most; `state` says so, and `on_state(state)` is called at each change.

    `max_attempts` counts in iteration only if it is given.
    """

    def __init__(
        self,
        topic: str,
        channel: str,
        *,
        nsqd: str | Sequence[str] = (),
        lookupd: str | Sequence[str] = (),
        handler: Handler | None = None,
        concurrency: int | None = None,
        on_giving_up: Callable[[Message], Awaitable[None] | None] | None = None,
        on_state: Callable[[ConsumerState], None] | None = None,
        options: ConsumerOptions | None = None,
        **more: Unpack[ConsumerKeywords],
    ) -> None:
        for what, name in (("topic", topic), ("channel", channel)):
            if not valid_name(name):
                raise OptionError(f"{name!r} is no name for a {what}: 1 to 64 characters of .a-zA-Z0-9_-")
        if options is not None and more:
            raise OptionError(f"say {', '.join(sorted(more))} in the options, not beside them")
        if handler is not None and not callable(handler):
            raise OptionError(f"handler: {handler!r} can't be called")
        if concurrency is not None and (handler is None or concurrency < 1):
            raise OptionError("concurrency is at least 1, and goes with a handler")
        if concurrency is not None and options is None and "max_in_flight" not in more:
            more["max_in_flight"] = concurrency
        self.topic = topic
        self.channel = channel
        self.options = options or ConsumerOptions(**cast("dict[str, Any]", more))
        self.error: Exception | None = None
        self._nsqds = addresses_of("nsqd", nsqd)
        self._lookupds = addresses_of("lookupd", lookupd)
        if not self._nsqds and not self._lookupds:
            raise OptionError('say where to consume: nsqd="host:4150" or lookupd="host:4161"')
        self._log = logging.getLogger("nsqkit.consumer")
        self._name = f"{topic}/{channel}"
        self._state = ConsumerState.NEW
        self._on_state = on_state
        self._changed = asyncio.Event()
        self._pace = Pace(self.options, self._log, self._name, self._set_state)
        limited = handler is not None or "max_attempts" in more or on_giving_up is not None
        self._max_attempts = self.options.max_attempts if limited else 0
        self._on_giving_up = on_giving_up
        self._given_up = 0
        self._handlers = (
            Handlers(self, handler, concurrency or max(self.options.max_in_flight, 1), self._log)
            if handler
            else None
        )
        self._clock: ClientClock
        self._inbox: Inbox
        self._pool: Pool
        self._hope: Hope
        self._touching: Touching
        self._seldom: Seldom
        self._discovery: Discovery | None = None
        self._handed_out = 0
        self._before_pause = 0
        self._hurry = asyncio.Event()  # a stop is to wait no longer
        self._stopping: asyncio.Task[None] | None = None

    # -- start and stop

    async def start(self) -> None:
        """Begin to connect, and to consume. It does not wait for a connection. Does nothing the second time.

        ConsumerFailed if it was stopped before: make another one then.
        """
        if self._state in ENDING:
            raise ConsumerFailed(
                f"consumer {self._name} was stopped, and can't be started again: make another one"
            )
        if self._state is not ConsumerState.NEW:
            return
        options = self.options
        clock = self._clock = clock_of(asyncio.get_running_loop())
        self._seldom = Seldom(self._log, clock.now)
        inbox = self._inbox = Inbox(self.topic, self.channel, clock.now, _delay_ms)
        inbox.default_requeue_ms = options.default_requeue_delay.milliseconds
        inbox.max_requeue_ms = options.max_requeue_delay.milliseconds
        inbox.on_answer = self._answered
        inbox.on_late = self._too_late
        self._touching = Touching(inbox, clock, options, self._log, self._name)
        opener = self._opener(clock)
        self._hope = Hope(clock, options.give_up_after, not self._lookupds, self._fail)
        self._pool = Pool(
            options,
            clock,
            self._log,
            lambda nsqd: opener.open(nsqd, inbox),
            self._connected,
            self._lost,
            self._hope.refused,
        )
        self._touching.links = self._pool.links
        self._pace.start(clock, inbox, self._pool.links)
        self._enter(ConsumerState.CONNECTING)
        self._hope.start(self._pool, self._nsqds)
        self._pool.add(self._nsqds)
        if self._lookupds:
            self._discovery = Discovery(
                self._lookupds, self.topic, options, clock, self._pool.found, self._log
            )
            self._discovery.start()
        if self._handlers is not None:
            self._handlers.start()

    def _opener(self, clock: ClientClock) -> Opener:
        """What opens connections; tests have another."""
        return Opener(self.options, clock.now, self._log)

    async def stop(self, timeout: float | None = None) -> None:
        """Take no more, give back what was not begun, wait for handlers, and close.

        Handlers that are not done after `timeout` seconds (default: `shutdown_timeout`) are cancelled, and their
        messages requeued. What iteration has handed out may be finished while this waits for it, for the same time. A
        second call while the first one waits ends the waiting.
        """
        if self._state in (ConsumerState.NEW, ConsumerState.STOPPED):
            self._enter(ConsumerState.STOPPED)
            return
        if self._stopping is not None:
            if not self._stopping.done():
                self._hurry.set()
            await asyncio.shield(self._stopping)
            return
        limit = self.options.shutdown_timeout.seconds if timeout is None else timeout
        self._stopping = asyncio.get_running_loop().create_task(self._stop(limit))
        await asyncio.shield(self._stopping)

    async def _stop(self, timeout: float) -> None:
        failed = self._state is ConsumerState.FAILED
        if not failed:
            self._enter(ConsumerState.STOPPING)
        pool, inbox = self._pool, self._inbox
        self._pace.stop()
        self._hope.stop()
        if self._discovery is not None:
            await self._discovery.stop()
        pool.stop_trying()
        for link in pool.links:
            link.write(b"CLS\n")
        inbox.closed = inbox.attentive = True
        inbox.give_back()
        inbox.wake_all()
        await self._until(lambda: all(link.drained for link in pool.links), CLOSE_WAIT_S)
        inbox.give_back()
        loop = asyncio.get_running_loop()
        began = loop.time()
        if self._handlers is not None:
            await self._handlers.stop(timeout, self._hurry)
        left = timeout - (loop.time() - began)
        await self._until(
            lambda: not any(link.in_flight for link in pool.links), left if self._touching.busy else 0
        )
        self._touching.stop()
        await pool.close()
        if not failed:
            self._enter(ConsumerState.STOPPED)
        inbox.wake_all()

    async def _until(self, condition: Callable[[], bool], seconds: float) -> None:
        """Return when it is so, or after a while, or when nobody wants to wait."""
        if seconds <= 0:
            return
        hurry = asyncio.ensure_future(self._hurry.wait())
        try:
            async with asyncio.timeout(seconds):
                while not condition() and not self._hurry.is_set():
                    news = self._inbox.waiter()
                    try:
                        await asyncio.wait((news, hurry), return_when=asyncio.FIRST_COMPLETED)
                    finally:
                        self._inbox.forget(news)
        except TimeoutError:
            return
        finally:
            hurry.cancel()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def run(self) -> None:
        """Consume until the consumer is stopped. Cancelling it stops the consumer. ConsumerFailed if it gives up."""
        await self.start()
        try:
            await self.wait_for(ConsumerState.STOPPED, ConsumerState.FAILED)
        finally:
            await self.stop()
        if self.error is not None:
            raise self.error

    # -- messages

    def __aiter__(self) -> Self:
        if self._handlers is not None:
            raise OptionError("the messages go to the handler, so there is nothing to iterate over")
        return self

    async def __anext__(self) -> Message:
        self._handed_out += 1
        if self._handed_out % TURN == 0:
            await asyncio.sleep(0)
        message = self._inbox.take() if self._state is not ConsumerState.NEW else None
        if message is None or message.attempts > self._max_attempts > 0:
            message = await self.next(message)
            if message is None:
                raise StopAsyncIteration
        return message

    async def get(self, timeout: float | None = None) -> Message | None:
        """The next message; None if none came within `timeout` seconds (default: no limit), or when it is stopped.

        ConsumerFailed if the consumer has given up.
        """
        limit = None if timeout is None else asyncio.get_running_loop().time() + max(timeout, 0)
        return await self.next(limit=limit)

    async def next(self, message: Message | None = None, limit: float | None = None) -> Message | None:
        """The next message that is worth a try, beginning with this one; None when stopped. ConsumerFailed.

        With a limit, a time of the event loop, None also if it has to wait for longer than until then.
        """
        if self._state is ConsumerState.NEW:
            raise OptionError("the consumer was not started: use `async with`, or call start()")
        inbox = self._inbox
        while True:
            if message is None:
                message = inbox.take()
            if message is None:
                if self._state is ConsumerState.FAILED and self.error is not None:
                    raise self.error
                if self._state in ENDING:
                    return None
                if limit is None:  # a time limit costs as much as all the rest
                    await inbox.wait()
                elif not await self._wait_until(limit):
                    return None
            elif message.attempts > self._max_attempts > 0:
                await self._give_up_on(message)
                message = None
            else:
                return message

    async def _wait_until(self, limit: float) -> bool:
        """Whether there was news by then, a time of the event loop."""
        try:
            async with asyncio.timeout_at(limit):
                await self._inbox.wait()
        except TimeoutError:
            return False
        return True

    async def _give_up_on(self, message: Message) -> None:
        """It was tried often enough."""
        self._given_up += 1
        self._log.warning(
            "%s: giving up on message %s of %d bytes after %d attempts (max_attempts)",
            self._name,
            message.id,
            len(message.body),
            message.attempts - 1,
        )
        if self._on_giving_up is not None:
            try:
                async with message:
                    outcome = self._on_giving_up(message)
                    if inspect.isawaitable(outcome):
                        await outcome
            except Exception:  # noqa: BLE001 - whatever it is, it is logged
                self._log.exception(
                    "%s: on_giving_up failed, so message %s comes again", self._name, message.id
                )
        elif not message.answered:
            message.finish()

    # -- how much

    @property
    def max_in_flight(self) -> int:
        """How many messages may be under way, over all connections. It may be set at any time; 0 pauses."""
        return self._pace.max_in_flight

    @max_in_flight.setter
    def max_in_flight(self, count: int) -> None:
        if count < 0:
            raise OptionError("max_in_flight must be at least 0")
        self._pace.set_max_in_flight(count)
        self._set_state()

    def pause(self) -> None:
        """Ask for no more messages until `unpause`. What was received may be finished."""
        self._before_pause = self.max_in_flight or self.options.max_in_flight
        self.max_in_flight = 0

    def unpause(self) -> None:
        """Go on as before `pause`."""
        if self.max_in_flight == 0:
            self.max_in_flight = self._before_pause or self.options.max_in_flight

    # -- state

    @property
    def state(self) -> ConsumerState:
        """What it is doing."""
        return self._state

    async def wait_for(self, *states: ConsumerState) -> ConsumerState:
        """Return when it is in one of these states; which one it is."""
        while self._state not in states:
            await self._changed.wait()
        return self._state

    def stats(self) -> ConsumerStats:
        """What it has done and holds."""
        if self._state is ConsumerState.NEW:
            return ConsumerStats(self._state, [], 0, 0, 0, 0, 0, 0, 0, 0, 0, {})
        inbox, pool = self._inbox, self._pool
        return ConsumerStats(
            state=self._state,
            connections=[
                ConnectionStats(link.nsqd, self._pace.rdy(link), link.in_flight) for link in pool.links
            ],
            received=inbox.received,
            finished=inbox.finished,
            requeued=inbox.requeued,
            touched=inbox.touched,
            waiting=len(inbox.waiting),
            expired=inbox.expired,
            late=inbox.late,
            given_up=self._given_up,
            backoff_level=self._pace.level,
            failures={nsqd: error.reason for nsqd, error in pool.failures.items()},
        )

    def _set_state(self) -> None:
        """Be in the state that follows from what there is."""
        if self._state in ENDING or self._state in (ConsumerState.NEW, ConsumerState.FAILED):
            return
        if not self._pool.links:
            self._enter(ConsumerState.CONNECTING)
        elif self.max_in_flight == 0:
            self._enter(ConsumerState.PAUSED)
        elif self._pace.level:
            self._enter(ConsumerState.BACKOFF)
        else:
            self._enter(ConsumerState.CONSUMING)

    def _enter(self, state: ConsumerState) -> None:
        if state is self._state:
            return
        self._state = state
        self._changed.set()
        self._changed = asyncio.Event()
        self._log.info("%s: %s", self._name, state.value)
        if self._on_state is not None:
            try:
                self._on_state(state)
            except Exception:  # noqa: BLE001 - the same
                self._log.exception("%s: on_state failed", self._name)

    def _fail(self, reason: str, cause: Exception | None = None) -> None:
        self.error = ConsumerFailed(f"consumer {self._name} has given up: {reason}")
        self.error.__cause__ = cause
        self._log.error("%s", self.error)
        self._hope.stop()
        self._pool.stop_trying()
        self._enter(ConsumerState.FAILED)
        self._inbox.wake_all()

    # -- connections

    def _connected(self, link: Link) -> None:
        self._log.info("%s: nsqd %s: subscribed", self._name, link.nsqd)
        link.on_received = self._pace.received
        link.on_complaint = self._complained
        self._hope.connected()
        self._pace.add(link)
        self._set_state()

    def _lost(self, link: Link) -> None:
        if self._state in ENDING:
            return
        self._log.warning("%s: nsqd %s: connection lost: %s", self._name, link.nsqd, link.reason)
        self._pace.remove(link)
        if self._discovery is not None:
            self._discovery.poll_soon()
        self._set_state()
        self._hope.lost()

    # -- answers

    def _answered(self, answer: int) -> None:
        if self._state in ENDING:
            self._inbox.wake_all()  # the stop may wait for just this one
        else:
            self._pace.answered(answer)

    def _too_late(self, what: str, message: Message) -> None:
        if what:
            self._seldom.warn(
                "late",
                "%s: message %s was %s after the connection to nsqd %s was lost: it comes again",
                self._name,
                message.id,
                what,
                message.nsqd,
            )
        else:
            self._seldom.warn(
                "expired",
                "%s: message %s waited here for longer than msg_timeout, so another has it: lower max_in_flight",
                self._name,
                message.id,
            )

    def _complained(self, link: Link, text: str) -> None:
        self._seldom.warn("complaint", "%s: nsqd %s: %s", self._name, link.nsqd, text[:200])


def _delay_ms(delay: object) -> int:
    return Duration.of(delay).milliseconds
