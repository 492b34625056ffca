"""What gives a consumer's messages to its handler: a few tasks, each with one message at a time."""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Protocol

from nsqkit.client.message import Message
from nsqkit.errors import ConsumerFailed

Handler = Callable[[Message], Awaitable[object]] | Callable[[Message], object]
"""An `async def`, or a plain function, which runs in a thread; what it returns does not matter."""


class Source(Protocol):
    """Where messages come from."""

    topic: str
    channel: str

    async def next(self) -> Message | None:
        """The next one; None when there will be none. ConsumerFailed."""


class Handlers:
    """`concurrency` tasks that call the handler."""

    def __init__(self, source: Source, handler: Handler, concurrency: int, log: logging.Logger) -> None:
        self._source = source
        self._handler = handler
        self._concurrency = concurrency
        self._log = log
        self._threads: Executor | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin."""
        if not is_async(self._handler):
            self._threads = ThreadPoolExecutor(self._concurrency, "nsqkit-handler")
        loop = asyncio.get_running_loop()
        name = f"nsqkit: handler of {self._source.topic}/{self._source.channel}"
        self._tasks = [loop.create_task(self._work(), name=name) for _ in range(self._concurrency)]

    async def stop(self, timeout: float, hurry: asyncio.Event) -> None:
        """Wait until each has done what it is at, for so many seconds or until there is a hurry; then cancel."""
        done = asyncio.gather(*self._tasks, return_exceptions=True)
        impatience = asyncio.ensure_future(hurry.wait())
        try:
            await asyncio.wait((done, impatience), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            impatience.cancel()
        for task in self._tasks:
            task.cancel()
        await done
        if self._threads is not None:
            self._threads.shutdown(wait=False)

    async def _work(self) -> None:
        source = self._source
        while True:
            try:
                message = await source.next()
            except ConsumerFailed:
                return  # who runs the consumer hears of it
            if message is None:
                return
            try:
                async with message:
                    await self._call(message)
            except Exception:  # noqa: BLE001 - whatever it is, it is logged, and the message comes again
                self._log.exception(
                    "%s/%s: message %s, attempt %d: the handler failed",
                    source.topic,
                    source.channel,
                    message.id,
                    message.attempts,
                )

    async def _call(self, message: Message) -> None:
        if self._threads is not None:
            await asyncio.get_running_loop().run_in_executor(self._threads, self._handler, message)
            return
        outcome = self._handler(message)
        if inspect.isawaitable(outcome):
            await outcome


def is_async(handler: Handler) -> bool:
    """Whether it runs in the event loop, not in a thread."""
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(
        getattr(handler, "__call__", None)  # noqa: B004 - of an object that is called
    )
