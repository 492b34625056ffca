"""The connection to one nsqlookupd. The nsqlookupd is a socket server in the same process that does as it is told."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from nsqkit.log import Level, Log
from nsqkit.nsqd.core.broker import Broker
from nsqkit.nsqd.core.settings import Settings
from nsqkit.nsqd.discovery import peer as module
from nsqkit.nsqd.discovery.peer import LOST_DELAY_S, Backoff, LookupPeer
from nsqkit.wire.registration import MAGIC, OK, encode_reply

IDENTITY = b'{"tcp_port":4150}'
INTRODUCTION = json.dumps(
    {"broadcast_address": "lookup.example", "http_port": 4161, "version": "1.3.0"}
).encode()


class FakeLookupd:
    """Takes connections one after the other. `reply` makes the answer to each line; None is silence."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.connections = 0
        self.reply: Callable[[bytes], bytes | None] = lambda line: INTRODUCTION if line == b"IDENTIFY" else OK
        self.writer: asyncio.StreamWriter
        self.heard = asyncio.Condition()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.writer = writer
        try:
            assert MAGIC == await reader.readexactly(4)
            self.connections += 1
            while line := (await reader.readline()).strip():
                if line == b"IDENTIFY":
                    size = int.from_bytes(await reader.readexactly(4), "big")
                    assert IDENTITY == await reader.readexactly(size)
                async with self.heard:
                    self.lines.append(line)
                    self.heard.notify_all()
                reply = self.reply(line)
                if reply is not None:
                    writer.write(encode_reply(reply))
                if reply is not None and reply.startswith(b"E_"):
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when it holds; it is looked at whenever a line came."""
        async with asyncio.timeout(10), self.heard:
            await self.heard.wait_for(condition)


class Lines(list[str]):
    """A log that one can wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.more = asyncio.Event()

    def write(self, line: str) -> None:
        """Take a line."""
        self.append(line)
        self.more.set()


class Scene:
    """A broker, a peer, and the nsqlookupd it talks to."""

    def __init__(self, lookupd: FakeLookupd, peer: LookupPeer, broker: Broker, log: Lines) -> None:
        self.lookupd = lookupd
        self.peer = peer
        self.broker = broker
        self.log = log

    async def logged(self, text: str) -> None:
        """Return when a line of the log holds this."""
        async with asyncio.timeout(10):
            while not any(text in line for line in self.log):
                self.log.more.clear()
                await self.log.more.wait()


@asynccontextmanager
async def scene(*topics: str, prepare: Callable[[FakeLookupd], object] = bool) -> AsyncIterator[Scene]:
    """A peer that runs. `prepare` is given the nsqlookupd before."""
    lookupd = FakeLookupd()
    prepare(lookupd)
    server = await asyncio.start_server(lookupd.serve, "127.0.0.1", 0)
    broker = Broker(Settings(), None)
    for topic in topics:
        broker.topic(topic).channel("c", 0)
    lines = Lines()
    endpoint = ("127.0.0.1", server.sockets[0].getsockname()[1])
    peer = LookupPeer("lookup", endpoint, IDENTITY, broker, Log("", Level.DEBUG, write=lines.write))
    task = asyncio.create_task(peer.run())
    try:
        yield Scene(lookupd, peer, broker, lines)
    finally:
        task.cancel()
        await asyncio.wait([task])
        server.close()
        await server.wait_closed()


@pytest.fixture
def play(runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch) -> Callable[[Awaitable[None]], None]:
    """Runs a test's coroutine. Tries follow each other quickly."""
    monkeypatch.setattr(module, "FIRST_DELAY_S", 0.001)
    monkeypatch.setattr(module, "LOST_DELAY_S", 0.001)
    monkeypatch.setattr(module, "MAX_DELAY_S", 0.002)

    def run(work: Coroutine[Any, Any, None]) -> None:
        runner.run(work)

    return run  # type: ignore[return-value]


def test_identifies_and_tells_everything(play):
    """A connection begins with the magic, IDENTIFY and all topics and channels; the answer is kept."""

    async def test() -> None:
        async with scene("t", "u") as it:
            await it.lookupd.until(lambda: len(it.lookupd.lines) == 3)
            await it.logged("INFO: LOOKUPD(lookup at 127.0.0.1:")

            assert [b"IDENTIFY", b"REGISTER t c", b"REGISTER u c"] == it.lookupd.lines
            assert "lookup.example:4161" == it.peer.http_address

    play(test())


def test_changes_follow(play):
    """What is made or deleted later is told at once."""

    async def test() -> None:
        async with scene("t") as it:
            await it.logged("knows every topic")
            it.broker.topic("t").channel("d", 0)
            it.peer.made("t")
            await it.lookupd.until(lambda: b"REGISTER t d" in it.lookupd.lines)
            it.broker.topic("t").delete_channel("c")
            it.peer.deleted("t", "c")
            await it.lookupd.until(lambda: b"UNREGISTER t c" in it.lookupd.lines)

    play(test())


def test_pings(play, monkeypatch):
    """In regular intervals there is a PING, also while things change."""
    monkeypatch.setattr(module, "PING_INTERVAL_S", 0.01)

    async def test() -> None:
        async with scene() as it:
            await it.lookupd.until(lambda: it.lookupd.lines.count(b"PING") >= 3)

        assert 1 == it.lookupd.connections

    play(test())


def test_broken_connection_is_made_again(play):
    """When the nsqlookupd hangs up, the next connection tells everything anew, and the log says each change once."""

    async def test() -> None:
        async with scene("t") as it:
            await it.logged("knows every topic")
            it.log.clear()
            it.lookupd.writer.close()
            await it.lookupd.until(lambda: it.lookupd.lines.count(b"REGISTER t c") == 2)
            await it.logged("knows every topic")

            assert ["ERROR", "INFO", "INFO", "INFO"] == levels(it.log)
            assert 1 == sum(line.endswith(": channel REGISTER t c\n") for line in it.log)
            assert "it closed the connection; trying again" in it.log[0]

    play(test())


def test_absent_nsqlookupd_is_one_line(play):
    """However often it is tried, the log says once that there is nobody, and once that somebody came."""

    async def test() -> None:
        def refuse(lookupd: FakeLookupd) -> None:
            lookupd.reply = lambda _: None if lookupd.connections > 5 else b"E_NO"

        async with scene(prepare=refuse) as it:
            await it.lookupd.until(lambda: it.lookupd.connections > 5)
            it.lookupd.reply = lambda line: INTRODUCTION if line == b"IDENTIFY" else OK
            it.lookupd.writer.close()
            await it.logged("knows every topic")

            assert ["ERROR", "INFO", "INFO"] == levels(it.log)

    play(test())


@pytest.mark.parametrize(
    "line, reply, said",
    [
        (
            b"IDENTIFY",
            b"E_BAD_BODY IDENTIFY missing fields",
            "IDENTIFY was answered b'E_BAD_BODY IDENTIFY missing",
        ),
        (b"IDENTIFY", b"[1]", "IDENTIFY was answered b'[1]'"),
        (b"REGISTER t c", b"E_INVALID client must IDENTIFY", "it answered b'E_INVALID client must IDENTIFY'"),
        (b"REGISTER t c", b"maybe", "it answered b'maybe'"),
        (b"REGISTER t c", b"x" * 70_000, "a reply of 70000 bytes is over the limit of 65536"),
    ],
)
def test_bad_reply_ends_the_connection(play, line, reply, said):
    """Whatever is answered but what the protocol says is in the log, and it is tried again."""

    async def test() -> None:
        def lie(lookupd: FakeLookupd) -> None:
            lookupd.reply = lambda asked: (
                reply if asked == line else INTRODUCTION if asked == b"IDENTIFY" else OK
            )

        async with scene("t", prepare=lie) as it:
            await it.logged(said)
            await it.lookupd.until(lambda: it.lookupd.connections > 1)

    play(test())


def test_unasked_reply_ends_the_connection(play):
    """A reply to nothing means that the two do not understand each other."""

    async def test() -> None:
        async with scene() as it:
            await it.logged("knows every topic")
            it.lookupd.writer.write(encode_reply(OK))
            await it.logged("b'OK' answers nothing that was asked")

    play(test())


def test_silence_ends_the_connection(play, monkeypatch):
    """An nsqlookupd that does not reply is given up."""
    monkeypatch.setattr(module, "REPLY_TIMEOUT_S", 0.01)

    async def test() -> None:
        def say_nothing(lookupd: FakeLookupd) -> None:
            lookupd.reply = lambda _: None

        async with scene(prepare=say_nothing) as it:
            await it.logged("no reply within 0.01 s")
            await it.lookupd.until(lambda: it.lookupd.connections > 1)

    play(test())


def test_nsqlookupd_without_an_address_is_not_asked(play):
    """Who does not say where its HTTP is is told everything, but not asked."""

    async def test() -> None:
        def hide(lookupd: FakeLookupd) -> None:
            lookupd.reply = lambda line: b'{"tcp_port":4160}' if line == b"IDENTIFY" else OK

        async with scene("t", prepare=hide) as it:
            await it.lookupd.until(lambda: b"REGISTER t c" in it.lookupd.lines)
            await it.logged("no broadcast address")

            assert "" == it.peer.http_address

    play(test())


def test_many_topics_go_out_in_bunches(play, monkeypatch):
    """No more than a bunch is sent before its replies are there."""
    monkeypatch.setattr(module, "WINDOW", 10)
    topics = [f"t{number}" for number in range(25)]

    async def test() -> None:
        def stop_at_ten(lookupd: FakeLookupd) -> None:
            def reply(line: bytes) -> bytes | None:
                if line == b"IDENTIFY":
                    return INTRODUCTION
                return None if len(lookupd.lines) > 5 else OK

            lookupd.reply = reply

        async with scene(*topics, prepare=stop_at_ten) as it:
            await it.lookupd.until(lambda: len(it.lookupd.lines) >= 11)
            for _ in range(6):
                it.lookupd.writer.write(encode_reply(OK))
            await it.lookupd.until(lambda: len(it.lookupd.lines) >= 21)

            assert 21 == len(it.lookupd.lines)

    play(test())


def test_backoff():
    """Each delay is twice the one before, up to the limit, and a random part of up to a half is taken off."""
    backoff = Backoff(1.0, 5.0, random.Random(1))

    delays = [backoff.next() for _ in range(5)]
    backoff.begin(1.0)

    assert all(most / 2 <= delay <= most for delay, most in zip(delays, [1, 2, 4, 5, 5], strict=True))
    assert 0.5 <= backoff.next() <= 1.0


def levels(log: list[str]) -> list[str]:
    """The levels of the lines that are not for debugging."""
    found = [line.split()[2].rstrip(":") for line in log]
    return [level for level in found if level != "DEBUG"]


def test_soon_back_after_a_loss():
    """A connection that stood is tried again within a second, though not by all at once."""
    backoff = Backoff(1.0, 8.0, random.Random(1))
    delays: list[float] = []
    for _ in range(100):
        backoff.begin(LOST_DELAY_S)
        delays.append(backoff.next())

    assert max(delays) <= 1.0
    assert max(delays) - min(delays) > 0.3
