"""A connection: between the transport and the session, with layers and the backlog."""

import asyncio
import gc
import itertools
import json
import zlib
from typing import Any

import pytest

from nsqkit.clock import Clock
from nsqkit.nsqd.connection import LARGE, Connection, make_layer
from nsqkit.nsqd.core.broker import Broker
from nsqkit.nsqd.core.settings import Settings
from nsqkit.nsqd.turns import Turns
from nsqkit.wire.compression import Deflate
from nsqkit.wire.frames import ERROR, OK_FRAME, RESPONSE, FrameReader
from nsqkit.wire.identify import Identity, Limits
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


def test_what_is_left_waits_for_its_turn():
    """A large chunk is executed in several passes; nothing is read meanwhile, and then everything is answered."""

    async def scene(world):
        world.connection.data_received(b"  V2" + PUB * 10_000)
        assert not world.transport.reading

        assert await until(lambda: world.transport.reading) > 5

        assert 10_000 == world.count()
        await passes()
        assert OK_FRAME * 10_000 == world.transport.sent

    play(scene, 1_000_000)


def test_a_small_chunk_is_executed_at_once():
    """Before the turn, and without a pause."""

    async def scene(world):
        (session,) = world.broker.sessions.values()
        world.connection.data_received(b"  V2" + b"NOP\n" * 5 + b"FROB\n")

        assert session.closed
        assert world.transport.reading

    play(scene)


def test_the_end_comes_after_what_was_sent_before():
    """A client that ends while its commands wait has them executed, and is then let go."""

    async def scene(world):
        world.connection.data_received(b"  V2" + PUB * 1000 + b"PUB")
        assert world.connection.eof_received()
        assert world.count() < 1000

        await until(lambda: world.transport.ended)

        assert 1000 == world.count()

    play(scene, 1_000_000)


def test_what_comes_while_something_waits():
    """Bytes that arrive although nothing should be read are executed in order."""

    async def scene(world):
        world.connection.data_received(b"  V2" + PUB * 1000 + PUB[:3])
        world.connection.data_received(PUB[3:] + b"FROB\n")

        await until(lambda: world.transport.ended)

        assert 1001 == world.count()
        assert world.transport.sent.endswith(b"E_INVALID invalid command FROB")

    play(scene, 1_000_000)


def test_a_transport_that_is_full_stops_execution():
    """While it holds too much nothing is executed; when it drained the rest is."""

    async def scene(world):
        world.connection.data_received(b"  V2" + PUB * 10_000)
        world.connection.pause_writing()
        world.transport.size = 5_000_000
        await passes(50)
        assert world.count() < 10_000

        world.transport.size = 0
        world.connection.resume_writing()
        await until(lambda: world.transport.reading)

        assert 10_000 == world.count()

    play(scene, 1_000_000)


def test_a_connection_that_is_lost():
    """What waited is not executed any more."""

    async def scene(world):
        world.connection.data_received(b"  V2" + PUB * 10_000)
        world.connection.connection_lost(None)
        await passes(10)

        assert 1 == world.count()
        assert world.turns.backlog.empty()

    play(scene, 1_000_000)


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_a_layer_that_is_ready_late(size):
    """Its greeting goes out unasked, OK waits for the peer's, then everything goes through it, cut anywhere."""

    async def scene(world):
        world.connection.data_received(b"  V2" + identify(snappy=True))
        await passes(3)
        ((_, document),) = FrameReader().feed(world.transport.sent.removesuffix(b"hello"))
        assert json.loads(document)["snappy"]
        assert world.transport.sent.endswith(b"hello")
        world.transport.sent = b""

        stream = b"hey" + shifted(PUB * 50, 1)
        for at in range(0, len(stream), size):
            world.connection.data_received(stream[at : at + size])
            if at % 3 == 0:
                await passes()
        await until(lambda: world.count() == 50)
        await passes(2)

        assert [OK] * 51 == FrameReader().feed(shifted(world.transport.sent, -1))

    play(scene)


def test_a_layer_that_gets_ready_by_itself():
    """A layer may tell that it is ready without anything having been received."""

    async def scene(world):
        world.connection.data_received(b"  V2" + identify(snappy=True))
        await passes(3)
        world.transport.sent = b""

        world.layers[0].open()
        await passes(3)

        assert OK_FRAME == shifted(world.transport.sent, -1)

    play(scene)


def test_layers_on_layers():
    """Two layers each have their OK, the second one's through both."""

    async def scene(world):
        session = next(iter(world.broker.sessions.values()))
        world.connection.data_received(b"  V2")
        identity = Identity(Limits())
        identity.snappy = identity.deflate = True
        session.identify(identity)
        await passes(3)
        first = Deflate(6)
        world.transport.sent = b""

        world.connection.data_received(b"hey")
        await passes(3)
        first.received(shifted(world.transport.sent.removeprefix(shifted(OK_FRAME, 1)), -1))
        assert OK_FRAME == first.take()
        first.send(PUB)
        world.connection.data_received(shifted(first.output(), 1))
        await passes(3)

        assert 1 == world.count()

    play(scene)


def test_a_layer_that_fails():
    """What is not the layer's stream ends the connection at once."""

    async def scene(world):
        world.connection.data_received(b"  V2" + identify(snappy=True))
        await passes(3)
        world.connection.data_received(b"NONSENSE")
        await passes(3)

        assert world.transport.aborted

    play(scene)


def test_a_bomb_is_unpacked_in_pieces():
    """A few compressed bytes that stand for millions take many passes, and reading stops meanwhile."""

    async def scene(world):
        world.connection.data_received(b"  V2" + identify(deflate=True))
        await passes(3)
        packer = Deflate(6)
        packer.send(b"NOP\n" * 200_000)
        bomb = packer.output()
        assert len(bomb) < LARGE
        world.connection.data_received(bomb)
        await passes(2)
        assert not world.transport.reading

        assert await until(lambda: world.transport.reading) > 100

    play(scene, 1_000_000)


def test_errors_come_through_the_layers():
    """The last error frame too."""

    async def scene(world):
        world.connection.data_received(b"  V2" + identify(snappy=True))
        await passes(3)
        world.transport.sent = b""
        world.connection.data_received(b"hey" + shifted(b"FROB\n", 1))
        await until(lambda: world.transport.ended)

        expected = [OK, (ERROR, b"E_INVALID invalid command FROB")]
        assert expected == FrameReader().feed(shifted(world.transport.sent, -1))

    play(scene)


def test_a_connection_that_is_gone_is_freed_at_once():
    """Nothing of a connection is left in a cycle, so it does not wait for the garbage collector."""

    async def scene(world: World) -> None:
        world.connection.data_received(b"  V2SUB t ch\nRDY 1\n")
        await passes(3)
        world.connection.connection_lost(None)
        await passes(3)
        del world.transport
        gc.collect()
        gc.disable()
        del world.connection
        left = [one for one in gc.get_objects() if isinstance(one, Connection)]
        gc.enable()
        assert [] == left

    play(scene)


class Polite(Layer):
    """Deflate with words for the end, and for what it does not understand."""

    def __init__(self) -> None:
        self.deflate = Deflate(6)
        self.words = b""

    def received(self, data: bytes) -> None:
        """As deflate."""
        self.deflate.received(data)

    def send(self, data: bytes) -> None:
        """As deflate."""
        self.deflate.send(data)

    def take(self) -> bytes:
        """A LayerError comes with a word about it."""
        try:
            return self.deflate.take()
        except LayerError:
            self.words = b"what?"
            raise

    def ended(self) -> bool:
        """The stream's end is one."""
        return bool(self.deflate._decompress.eof)

    def end(self) -> None:
        """Bye."""
        self.words = b"bye"

    def output(self) -> bytes:
        """The words come last."""
        words, self.words = self.words, b""
        return self.deflate.output() + words


def polite(scene: Any) -> None:
    """Play a scene in which deflate is Polite."""

    async def acted(world):
        world.connection._make_layer = lambda *_: Polite()
        world.connection.data_received(b"  V2" + identify(deflate=True))
        await passes(3)
        world.transport.sent = b""
        await scene(world)

    play(acted)


def test_a_layer_in_which_the_peer_says_goodbye():
    """What came before it is executed, and the connection is closed with our own goodbye."""

    async def scene(world):
        packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
        world.connection.data_received(packer.compress(PUB) + packer.flush(zlib.Z_FINISH))
        await until(lambda: world.transport.ended)

        assert 1 == world.count()
        assert world.transport.sent.endswith(b"bye")

    polite(scene)


def test_a_layer_that_fails_with_a_word():
    """The peer gets to hear it before the connection is closed."""

    async def scene(world):
        world.connection.data_received(b"\x07" * 100)
        await until(lambda: world.transport.ended)

        assert not world.transport.aborted
        assert world.transport.sent.startswith(b"what?")

    polite(scene)
