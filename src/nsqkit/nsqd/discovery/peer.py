"""nsqd's connection to one nsqlookupd (spec/lookup-peers.md): IDENTIFY, everything there is, then what changes.

Commands go out in bunches of at most WINDOW, and the next bunch follows when each of them was answered OK; so neither
side ever buffers more. Whatever is not as it should be ends the connection, and the next one tells everything anew. The
log has a line when a connection stands and one when it is lost, or when the first attempt fails; not one for each try.
"""

import asyncio
import random
from typing import Final

import msgspec

from nsqkit.address import join_address
from nsqkit.lines import cut
from nsqkit.log import Level, Log
from nsqkit.nsqd.core.broker import Broker
from nsqkit.nsqd.discovery.announcer import Announcer
from nsqkit.wire.registration import MAGIC, OK, PING, BadReply, ReplyReader, encode_identify

Endpoint = tuple[str, int]
"""An address and a port."""

CONNECT_TIMEOUT_S: Final = 1.0
REPLY_TIMEOUT_S: Final = 5.0  # for all the replies to a bunch of commands
PING_INTERVAL_S: Final = 15.0
WINDOW: Final = 200  # commands in one bunch, and a topic's worth more
MAX_REPLY: Final = 65_536  # bytes
FIRST_DELAY_S: Final = 0.25  # before trying again, while there was nobody yet
LOST_DELAY_S: Final = (
    1.0  # after a connection that stood: all nsqds lost it at once, and do not come back all at once
)
MAX_DELAY_S: Final = 8.0


class LookupFailed(Exception):
    """The nsqlookupd did not do what it should; the text says what."""


class _Introduction(msgspec.Struct):
    """What an nsqlookupd says of itself."""

    broadcast_address: str = ""
    http_port: int = 0
    version: str = "?"


class Backoff:
    """How long to wait before the next try: twice as long each time, at random down to a half of it, up to a limit."""

    def __init__(self, first: float, most: float, chance: random.Random) -> None:
        """Seconds."""
        self._most = most
        self._chance = chance
        self._delay = first

    def next(self) -> float:
        """The time to wait now, in seconds."""
        delay = self._delay
        self._delay = min(delay * 2, self._most)
        return delay * self._chance.uniform(0.5, 1.0)

    def begin(self, first: float) -> None:
        """Start anew, with this delay in seconds."""
        self._delay = min(first, self._most)


class LookupPeer:
    """One nsqlookupd. `run` is its task."""

    def __init__(self, name: str, endpoint: Endpoint, identity: bytes, broker: Broker, log: Log) -> None:
        """`name` is the address as it was configured, `identity` the JSON for IDENTIFY."""
        self.task: asyncio.Task[None]
        self.http_address = ""  # once it has said so
        address = join_address(*endpoint)
        self._title = f"LOOKUPD({name})" if name == address else f"LOOKUPD({name} at {address})"
        self._name = name
        self._endpoint = endpoint
        self._identity = identity
        self._broker = broker
        self._log = log
        self._announcer = Announcer(self._channels)
        self._backoff = Backoff(FIRST_DELAY_S, MAX_DELAY_S, random.Random())  # noqa: S311 - no secret
        self._wire: _Wire | None = None
        self._standing: bool | None = None  # is there a connection? As far as the log knows

    @property
    def connected(self) -> bool:
        """Is there a connection, on which it has said who it is?"""
        return self._wire is not None

    # -- what changed

    def made(self, topic: str) -> None:
        """A topic or one of its channels was made."""
        if self._wire is not None:
            self._announcer.made(topic)
            self._wire.wake.set()

    def deleted(self, topic: str, channel: str) -> None:
        """A channel was deleted, or without one the topic."""
        if self._wire is not None:
            self._announcer.deleted(topic, channel)
            self._wire.wake.set()

    def _channels(self, topic: str) -> list[str] | None:
        found = self._broker.topics.get(topic)
        return None if found is None else list(found.channels)

    # -- the connection

    async def run(self) -> None:
        """Stay connected until cancelled."""
        while True:
            try:
                await self._converse()
            except (OSError, LookupFailed) as error:
                if self._standing:
                    self._backoff.begin(LOST_DELAY_S)
                if self._standing is not False:
                    self._standing = False
                    self._log.error(f"{self._title}: {_why(error)}; trying again", nsqlookupd=self._name)
            await asyncio.sleep(self._backoff.next())

    async def _converse(self) -> None:
        """Connect, say everything, then what changes. Raises OSError or LookupFailed when it is over."""
        wire = _Wire()
        self._log.debug(f"{self._title}: connecting", nsqlookupd=self._name)
        loop = asyncio.get_running_loop()
        try:
            await self._connect(wire)
            (reply,) = await wire.ask([MAGIC + encode_identify(self._identity)])
            self._meet(reply)
            self._wire = wire
            self._announcer.begin(list(self._broker.topics))
            await self._tell(wire)
            self._standing = True
            self._log.info(f"{self._title}: knows every topic and channel", nsqlookupd=self._name)
            ping_at = loop.time() + PING_INTERVAL_S
            while True:
                await wire.sleep(ping_at - loop.time())
                await self._tell(wire)
                if loop.time() >= ping_at:
                    self._log.debug(f"{self._title}: sending heartbeat", nsqlookupd=self._name)
                    await self._expect_ok(wire, [PING])
                    ping_at = loop.time() + PING_INTERVAL_S
        finally:
            self._wire = None
            wire.close()

    async def _connect(self, wire: "_Wire") -> None:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await asyncio.get_running_loop().create_connection(lambda: wire, *self._endpoint)
        except TimeoutError:
            raise LookupFailed(f"no connection within {CONNECT_TIMEOUT_S:g} s") from None

    async def _tell(self, wire: "_Wire") -> None:
        while commands := self._announcer.take(WINDOW):
            if self._log.enabled(Level.INFO):
                for words in (command.decode().split() for command in commands):
                    category = "topic" if len(words) == 2 else "channel"
                    fields = dict(zip(("topic", "channel"), words[1:], strict=False))
                    text = f"{self._title}: {category} {' '.join(words)}"
                    self._log.info(text, nsqlookupd=self._name, **fields)
            await self._expect_ok(wire, commands)

    async def _expect_ok(self, wire: "_Wire", commands: list[bytes]) -> None:
        replies = await wire.ask(commands)
        if replies[-1] != OK:  # an error is the last reply
            raise LookupFailed(f"it answered {replies[-1][:200]!r}")

    def _meet(self, reply: bytes) -> None:
        """Take in what it says of itself."""
        try:
            said = msgspec.json.decode(reply, type=_Introduction)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise LookupFailed(f"IDENTIFY was answered {reply[:200]!r}") from None
        if not said.broadcast_address or not 0 < said.http_port < 65536:
            self._log.error(
                f"{self._title}: no broadcast address; it is not asked for the channels of new topics",
                nsqlookupd=self._name,
            )
            return
        self.http_address = join_address(said.broadcast_address, said.http_port)
        self._log.info(
            f"{self._title}: peer info: version {cut(said.version)}, HTTP at {cut(self.http_address)}",
            nsqlookupd=self._name,
        )


class _Wire(asyncio.Protocol):
    """Commands out, replies in. `wake` is set whenever there is something to see to."""

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        self._reader = ReplyReader(MAX_REPLY)
        self._replies: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._awaited = 0  # replies
        self._failure: Exception | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The connection stands."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Replies came."""
        try:
            self._replies += self._reader.feed(data)
            if len(self._replies) > self._awaited:
                self._fail(LookupFailed(f"{self._replies[-1][:200]!r} answers nothing that was asked"))
        except BadReply as error:
            self._fail(LookupFailed(str(error)))
        self.wake.set()

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone, maybe after an error."""
        if self._replies and self._replies[-1] != OK:
            error = LookupFailed(f"it answered {self._replies[-1][:200]!r}")
        self._fail(error or LookupFailed("it closed the connection"))
        self.wake.set()

    def _fail(self, error: Exception) -> None:
        if self._failure is None:
            self._failure = error
        self.close()

    async def ask(self, commands: list[bytes]) -> list[bytes]:
        """Send commands; their replies, in order. Raises OSError or LookupFailed."""
        self._check()
        assert self._transport is not None
        self._awaited = len(commands)
        self._transport.write(b"".join(commands))
        try:
            async with asyncio.timeout(REPLY_TIMEOUT_S):
                while len(self._replies) < self._awaited:
                    self._check()
                    self.wake.clear()
                    await self.wake.wait()
        except TimeoutError:
            raise LookupFailed(f"no reply within {REPLY_TIMEOUT_S:g} s") from None
        replies, self._replies = self._replies, []
        self._awaited = 0
        return replies

    async def sleep(self, seconds: float) -> None:
        """Return when there is something to see to, or after a while. Raises OSError or LookupFailed."""
        try:
            async with asyncio.timeout(seconds):
                self._check()
                await self.wake.wait()
        except TimeoutError:
            return
        finally:
            self.wake.clear()
        self._check()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.abort()


def _why(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return str(error)
