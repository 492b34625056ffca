"""An event loop in which time passes when it is told to, and threads that are no threads.

A job of an executor runs at one moment between its submission and its completion, in turn; both moments are drawn by
`duration`. Everything else happens in between: turns go on while a sync takes its time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import Context
from heapq import heappop, heappush
from typing import Any, Final, TypeVar, cast

T = TypeVar("T")

SECOND: Final = 1_000_000_000
MOST_CALLBACKS: Final = 20_000  # between two moments: a broker that does not come to rest


class Handle:
    """A callback that can be cancelled."""

    __slots__ = ("_args", "_callback", "_context", "cancelled")

    def __init__(
        self, callback: Callable[..., object], args: tuple[Any, ...], context: Context | None
    ) -> None:
        self._callback = callback
        self._args = args
        self._context = context
        self.cancelled = False

    def cancel(self) -> None:
        """Don't call it."""
        self.cancelled = True

    def run(self) -> None:
        """Call it."""
        if self._context is None:
            self._callback(*self._args)
        else:
            self._context.run(self._callback, *self._args)


class Restless(AssertionError):
    """Callbacks lead to callbacks without end."""


class Loop:
    """The loop of one process, duck-typed to asyncio's. `duration` tells how many ns an executor's next job takes."""

    def __init__(self, now: int, duration: Callable[[str], int]) -> None:
        self.now = now  # ns
        self.duration = duration
        self.in_job = False  # a job of an executor is running
        self._ready: deque[Handle] = deque()
        self._timers: list[tuple[int, int, Handle]] = []
        self._serial = 0

    # -- what asyncio and the daemon call

    def time(self) -> float:
        """Seconds."""
        return self.now / SECOND

    def get_debug(self) -> bool:
        """No."""
        return False

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        """Run after everything that is ready."""
        handle = Handle(callback, args, context)
        self._ready.append(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        """In so many seconds."""
        return self.call_in(int(delay * SECOND), callback, *args, context=context)

    def call_in(
        self, delay: int, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        """In so many ns."""
        handle = Handle(callback, args, context)
        self._serial += 1
        heappush(self._timers, (self.now + max(delay, 0), self._serial, handle))
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        """One of asyncio's."""
        return asyncio.Future(loop=cast("Any", self))

    def create_task(self, coro: Coroutine[Any, Any, T], **_: Any) -> asyncio.Task[T]:
        """One of asyncio's."""
        return asyncio.Task(coro, loop=cast("Any", self))

    def run_in_executor(
        self, executor: Executor, function: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Hear of it in the loop."""
        future: asyncio.Future[T] = self.create_future()
        executor.submit(function, *args).listener = future.set_result
        return future

    def add_reader(self, *_: object) -> None:
        """Connections are made without one."""

    def remove_reader(self, *_: object) -> None:
        """Likewise."""

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Nothing may fail unheard. What a killed process left undone is no failure."""
        error = context.get("exception")
        if isinstance(error, BaseException):
            raise error

    # -- what the simulation calls

    def run_ready(self) -> None:
        """Until nothing is left to be done now."""
        for _ in range(MOST_CALLBACKS):
            if not self._ready:
                return
            handle = self._ready.popleft()
            if not handle.cancelled:
                handle.run()
        raise Restless("the loop does not come to rest")

    def next_timer(self) -> int | None:
        """When something is due."""
        while self._timers and self._timers[0][2].cancelled:
            heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def advance(self, duration: int) -> None:
        """Let time pass; everything happens in its time."""
        end = self.now + duration
        self.run_ready()
        while (when := self.next_timer()) is not None and when <= end:
            self.now = max(self.now, when)
            handle = heappop(self._timers)[2]
            handle.run()
            self.run_ready()
        self.now = max(self.now, end)

    def complete(self, coroutine: Coroutine[Any, Any, None], most: int) -> None:
        """Run it to its end, which may take `most` ns of simulated time."""
        task = asyncio.Task(coroutine, loop=cast("Any", self))
        end = self.now + most
        self.run_ready()
        while not task.done():
            when = self.next_timer()
            if when is None or when > end:
                task.cancel()
                raise Restless("a coroutine does not come to its end")
            self.advance(max(when - self.now, 0))
        task.result()


@contextmanager
def running(loop: Loop) -> Iterator[None]:
    """What runs inside the block finds this loop with `asyncio.get_running_loop`."""
    asyncio._set_running_loop(cast("Any", loop))
    try:
        yield
    finally:
        asyncio._set_running_loop(None)


class Promise:
    """What `submit` returns."""

    def __init__(self, executor: Executor, job: Callable[[], Any]) -> None:
        self._executor = executor
        self._job = job
        self._value: Any = None
        self.done = False
        self.listener: Callable[[Any], None] | None = None

    def run(self) -> None:
        """Do it."""
        loop = self._executor.loop
        loop.in_job = True
        try:
            self._value = self._job()
        finally:
            loop.in_job = False
        self.done = True

    def tell(self) -> None:
        """It is heard of."""
        if self.listener is not None:
            self.listener(self._value)

    def result(self) -> Any:
        """Wait for it."""
        while not self.done:
            self._executor.hurry()
        return self._value


class Executor:
    """One thread's work, done in order."""

    def __init__(self, name: str) -> None:
        loop: object = asyncio.get_running_loop()
        assert isinstance(loop, Loop)
        self.loop = loop
        self._name = name
        self._waiting: deque[Promise] = deque()
        self._busy = False

    def submit(self, function: Callable[..., Any], *args: Any) -> Promise:
        """Have it done."""
        promise = Promise(self, lambda: function(*args))
        self._waiting.append(promise)
        self._begin()
        return promise

    def hurry(self) -> None:
        """Somebody waits: do the next job now. It is heard of in its time."""
        next(promise for promise in self._waiting if not promise.done).run()

    def shutdown(self) -> None:
        """Wait for everything."""
        while self._waiting:
            if not self._waiting[0].done:
                self._waiting[0].run()
            self._waiting.popleft().tell()

    def _begin(self) -> None:
        if not self._waiting or self._busy:
            return
        self._busy = True
        promise = self._waiting[0]
        duration = self.loop.duration(self._name)
        self.loop.call_in(duration // 2, self._run, promise)
        self.loop.call_in(duration, self._end, promise)

    def _run(self, promise: Promise) -> None:
        if not promise.done:
            promise.run()

    def _end(self, promise: Promise) -> None:
        if not self._waiting or self._waiting[0] is not promise:
            return  # somebody waited for it
        self._waiting.popleft()
        promise.tell()
        self._busy = False
        self._begin()
