"""The thread of the blocking clients: calls into it, and what becomes of those that are interrupted."""

import asyncio
import threading

import pytest

from nsqkit.client.thread import LoopThread, _Call
from tests.client.places import settle


async def message_after(event):
    """What a `get` comes to."""
    await event.wait()
    return "message"


@pytest.mark.parametrize("come", [True, False])
def test_a_call_that_is_interrupted_loses_nothing(come):
    """What has come is undone, even if the waiting thread has not seen it; what has not is cancelled."""

    async def inside():
        event = asyncio.Event()
        undone: list[str] = []
        call = _Call(asyncio.get_running_loop(), message_after(event), undone.append)
        call._begin()
        await settle()
        if come:
            event.set()
            await settle()
        call._abandon()
        await settle()
        assert undone == (["message"] if come else [])
        assert call._task is not None
        assert call._task.cancelled() is not come

    asyncio.run(inside())


def test_what_comes_in_spite_of_the_cancelling_is_undone():
    """It was under way already."""

    async def stubborn():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "message"

    async def inside():
        undone: list[str | None] = []
        call = _Call(asyncio.get_running_loop(), stubborn(), undone.append)
        call._begin()
        await settle()
        call._abandon()
        await settle()
        assert undone == ["message"]

    asyncio.run(inside())


def test_errors_keep_their_class_and_both_tracebacks():
    """That of the thread, and that of who called."""

    async def fail():
        raise KeyError("x")

    thread = LoopThread()
    try:
        with pytest.raises(KeyError) as caught:
            thread.run(fail())
        assert {"fail", "run"} <= {entry.name for entry in caught.traceback}
    finally:
        thread.stop()


def test_who_calls_from_within_the_thread_is_told():
    """It would wait for itself for ever."""

    async def run():
        thread.run(asyncio.sleep(0))

    async def call():
        thread.call(int)

    thread = LoopThread()
    try:
        for work in (run, call):
            with pytest.raises(RuntimeError, match="its own event loop"):
                thread.run(work())
    finally:
        thread.stop()


def test_after_the_deadline_nobody_waits():
    """The end of a process sets one."""
    thread = LoopThread()
    thread.deadline = 0.0
    try:
        with pytest.raises(TimeoutError, match="the process ends"):
            thread.run(asyncio.sleep(3600))
        thread.deadline = None
        assert thread.call(threading.current_thread).name == "nsqkit-client"
    finally:
        thread.stop()
