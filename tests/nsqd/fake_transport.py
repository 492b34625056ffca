"""A connection with a transport that is none, and the loop's passes one by one."""

import asyncio
import itertools
import json
from typing import Any

from nsqkit.clock import Clock
from nsqkit.nsqd.connection import Connection, make_layer
from nsqkit.nsqd.core.broker import Broker
from nsqkit.nsqd.core.settings import Settings
from nsqkit.nsqd.turns import Turns
from nsqkit.wire.frames import RESPONSE
from nsqkit.wire.identify import Identity
from nsqkit.wire.layer import Layer, LayerError

OK = (RESPONSE, b"OK")


class Transport:
    """A socket that takes everything."""

    def __init__(self):
        self.sent = b""
        self.reading = True
        self.ended = False
        self.aborted = False
        self.size = 0

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        """Whatever."""

    def get_extra_info(self, _: str) -> object:
        """The peer's address."""
        return ("10.0.0.1", 4321)

    def write(self, data: bytes) -> None:
        """Keep it."""
        assert data
        self.sent += data

    def get_write_buffer_size(self) -> int:
        """What the test says."""
        return self.size

    def pause_reading(self) -> None:
        """Note it."""
        self.reading = False

    def resume_reading(self) -> None:
        """Note it."""
        self.reading = True

    def can_write_eof(self) -> bool:
        """As TCP."""
        return True

    def write_eof(self) -> None:
        """Note it."""
        self.ended = True

    def abort(self) -> None:
        """Note it."""
        self.aborted = True


class Late(Layer):
    """Every byte is sent as itself plus one, and received ones come in pieces of seven.

    It greets, and is ready when the peer has greeted, or when `open` is called.
    """

    def __init__(self, stir: Any) -> None:
        self.stir = stir
        self.waits = True
        self.greeting = b"hello"
        self.input = b""
        self.waiting = b""

    def received(self, data: bytes) -> None:
        """Three bytes are the peer's greeting."""
        self.input += data

    def take(self) -> bytes:
        """Seven at a time."""
        if self.waits:
            if len(self.input) < 3:
                return b""
            if self.input[:3] != b"hey":
                raise LayerError("not hey")
            self.input = self.input[3:]
            self.waits = False
        piece, self.input = self.input[:7], self.input[7:]
        return shifted(piece, -1)

    def open(self) -> None:
        """Ready, without having received anything."""
        self.waits = False
        self.stir()

    def send(self, data: bytes) -> None:
        """Wait, or go."""
        self.waiting += shifted(data, 1)

    def output(self) -> bytes:
        """The greeting comes unasked."""
        greeting, self.greeting = self.greeting, b""
        if self.waits:
            return greeting
        waiting, self.waiting = self.waiting, b""
        return greeting + waiting

    def ready(self) -> bool:
        """Was the peer polite?"""
        return not self.waits


def shifted(data: bytes, by: int) -> bytes:
    """Each byte changed."""
    return bytes((byte + by) % 256 for byte in data)


class World:
    """A broker, one connection, and a clock that goes on each time somebody looks."""

    def __init__(self, step: int) -> None:
        self.layers: list[Late] = []
        steps = itertools.count(1, step)
        settings = Settings()
        settings.handshake_timeout = 0
        self.broker = Broker(settings, None)
        self.turns = Turns(self.broker, Clock(lambda: 0, lambda: next(steps)), self.save, lambda: None)
        self.transport = Transport()
        self.connection = Connection(self.turns, set(), self.make)
        transport: Any = self.transport
        self.connection.connection_made(transport)

    def save(self) -> None:
        """The metadata is saved at once."""
        self.broker.changes.finish(self.broker.changes.count, "")

    def make(self, name: str, identity: Identity, stir: Any) -> Layer:
        """Snappy is Late here."""
        if name != "snappy":
            return make_layer(name, identity, stir)
        self.layers.append(Late(stir))
        return self.layers[-1]

    def count(self, topic: str = "t") -> int:
        """Messages published."""
        return int(self.broker.topics[topic].message_count) if topic in self.broker.topics else 0


def play(scene: Any, step: int = 1) -> None:
    """Run a scene in an event loop; the clock goes on by `step` ns."""

    async def stage() -> None:
        world = World(step)
        await scene(world)
        world.turns.stop()

    asyncio.run(stage())


async def passes(number: int = 1) -> None:
    """The event loop goes round."""
    for _ in range(number):
        await asyncio.sleep(0)


async def until(condition: Any) -> int:
    """Passes of the loop before the condition holds."""
    for number in range(10_000):
        if condition():
            return number
        await passes()
    raise AssertionError("never")


def identify(**fields: object) -> bytes:
    """An IDENTIFY that negotiates."""
    body = json.dumps({"feature_negotiation": True, **fields}).encode()
    return b"IDENTIFY\n" + len(body).to_bytes(4, "big") + body


PUB = b"PUB t\n\0\0\0\1x"
