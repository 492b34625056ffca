"""The thread in which the blocking clients' event loop runs: one for a process, started when it is needed.

A fork leaves its child without the thread. There everybody begins anew: what belongs to the parent is kept and never
touched, as its sockets and its epoll are the parent's as well.
"""

import asyncio
import atexit
import contextlib
import os
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Final, Generic, Protocol, TypeVar
from weakref import WeakSet

from nsqkit.errors import ConsumerFailed

EXIT_S: Final = 5.0  # that the end of the process waits for what is to be sent
LOOK_S: Final = 1.0  # between two looks at signals, for who waits
NAME: Final = "nsqkit-client"

FORKED: Final = "this consumer belongs to the process that was forked: make one in each process"
_IN_LOOP: Final = "a blocking client was called in its own event loop: use Producer or Consumer there"

T = TypeVar("T")


class Client(Protocol):
    """Somebody who uses the thread."""

    def close(self) -> None:
        """Let go of everything. Does nothing the second time."""

    def after_fork(self) -> None:
        """This is the child."""


class LoopThread:
    """A thread with a running event loop."""

    def __init__(self) -> None:
        self.deadline: float | None = None  # of time.monotonic(): then no call is waited for any more
        self._pid = os.getpid()
        self._loop = _new_loop()
        self._thread = threading.Thread(target=self._run, name=NAME, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def run(self, work: Coroutine[Any, Any, T], undo: Callable[[T], object] | None = None) -> T:
        """What it comes to. Whoever interrupts this cancels it; if it is too late, `undo` is called in the loop."""
        try:
            self._check()
        except BaseException:
            work.close()
            raise
        return _Call(self._loop, work, undo).result(self.deadline)

    def call(self, function: Callable[..., T], *arguments: object) -> T:
        """What it returns, or raises, in the loop."""
        self._check()
        future: Future[T] = Future()

        def call() -> None:
            try:
                future.set_result(function(*arguments))
            except BaseException as error:  # noqa: BLE001 - it is the caller's
                future.set_exception(error)

        self._loop.call_soon_threadsafe(call)
        return future.result()

    @property
    def here(self) -> bool:
        """Whether it runs in this process, not in the one that this was forked from."""
        return self._pid == os.getpid()

    def _check(self) -> None:
        if not self.here:
            raise ConsumerFailed(FORKED)
        if threading.current_thread() is self._thread:
            raise RuntimeError(_IN_LOOP)

    def stop(self) -> None:
        """End the loop and the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(EXIT_S)


class _Call(Generic[T]):
    """Work in the loop that a thread waits for.

    Whether it was too late to cancel it is seen in the loop, so no result is lost between the two threads.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        work: Coroutine[Any, Any, T],
        undo: Callable[[T], object] | None,
    ) -> None:
        self._loop = loop
        self._work = work
        self._undo = undo
        self._abandoned = False
        self._task: asyncio.Task[T] | None = None
        self._done = threading.Lock()  # released when it is
        self._done.acquire()

    def result(self, deadline: float | None) -> T:
        """Have it done, and wait for it. TimeoutError."""
        try:
            self._loop.call_soon_threadsafe(self._begin)
            in_time = self._wait(deadline)
        except BaseException:  # above all KeyboardInterrupt
            with contextlib.suppress(RuntimeError):  # the loop is closed, so nothing goes on
                self._loop.call_soon_threadsafe(self._abandon)
            raise
        if not in_time:
            raise TimeoutError("the process ends, and this was not done in time")
        assert self._task is not None
        return self._task.result()

    def _wait(self, deadline: float | None) -> bool:
        """Whether it was done in time. A signal that another thread was given is seen within LOOK_S."""
        while True:
            left = LOOK_S if deadline is None else min(deadline - time.monotonic(), LOOK_S)
            if self._done.acquire(timeout=max(left, 0.0)):
                return True
            if left < LOOK_S:
                return False

    def _begin(self) -> None:
        self._task = self._loop.create_task(self._work)
        self._task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[T]) -> None:
        if not self._abandoned:
            self._done.release()
        elif not task.cancelled() and task.exception() is None and self._undo is not None:
            self._undo(task.result())

    def _abandon(self) -> None:
        self._abandoned = True
        if self._task is None:
            self._work.close()
        elif self._task.done():
            self._end(self._task)
        else:
            self._task.cancel()


class _State:
    """What a process has of this."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.thread: LoopThread | None = None
        self.clients: WeakSet[Any] = WeakSet()
        self.kept: list[object] = []  # the parent's, in a child: nothing of it may be finalized


_STATE: Final = _State()


def the_thread(client: Client) -> LoopThread:
    """This process's thread, started if need be. The client hears of forks and of the end."""
    with _STATE.lock:
        _STATE.clients.add(client)
        if _STATE.thread is None:
            _STATE.thread = LoopThread()
        return _STATE.thread


def keep(thing: object) -> None:
    """Never finalize this: it is the parent's."""
    _STATE.kept.append(thing)


def _after_fork() -> None:
    _STATE.lock = threading.Lock()
    if _STATE.thread is not None:
        keep(_STATE.thread)
        _STATE.thread = None
    for client in list(_STATE.clients):
        client.after_fork()


def _at_exit() -> None:
    thread = _STATE.thread
    if thread is None:
        return
    thread.deadline = time.monotonic() + EXIT_S
    for client in list(_STATE.clients):
        with contextlib.suppress(TimeoutError):
            client.close()
    _STATE.thread = None
    thread.stop()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop  # noqa: PLC0415 - loaded for this thread only
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
