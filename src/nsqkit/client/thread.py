"""The thread in which the blocking clients' event loop runs: one for a process, started when it is needed.

A fork leaves its child without the thread. There everybody begins anew: what belongs to the parent is kept and never
touched, as its sockets and its epoll are the parent's as well.
"""

import asyncio
import atexit
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Final, Protocol, TypeVar
from weakref import WeakSet

EXIT_S: Final = 5.0  # that the end of the process waits for what is to be sent
NAME: Final = "nsqkit-client"

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
        self._loop = _new_loop()
        self._thread = threading.Thread(target=self._run, name=NAME, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def run(self, work: Coroutine[Any, Any, T], undo: Callable[[T], object] | None = None) -> T:
        """What it comes to. Whoever interrupts this cancels it; if it is too late, `undo` is called in the loop."""
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError(_IN_LOOP)
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            if not future.cancel() and undo is not None and future.exception() is None:
                self._loop.call_soon_threadsafe(undo, future.result())
            raise

    def call(self, function: Callable[..., T], *arguments: object) -> T:
        """What it returns, or raises, in the loop."""
        if threading.current_thread() is self._thread:
            raise RuntimeError(_IN_LOOP)
        future: Future[T] = Future()

        def call() -> None:
            try:
                future.set_result(function(*arguments))
            except BaseException as error:  # noqa: BLE001 - it is the caller's
                future.set_exception(error)

        self._loop.call_soon_threadsafe(call)
        return future.result()

    def stop(self) -> None:
        """End the loop and the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(EXIT_S)


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
    for client in list(_STATE.clients):
        client.close()
    thread, _STATE.thread = _STATE.thread, None
    if thread is not None:
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
