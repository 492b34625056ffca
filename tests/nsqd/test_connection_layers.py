"""A connection with layers between its transport and its session."""

import json
import zlib
from typing import Any

import pytest

from nsqkit.nsqd.connection import LARGE
from nsqkit.wire.compression import Deflate
from nsqkit.wire.frames import ERROR, OK_FRAME, FrameReader
from nsqkit.wire.identify import Identity, Limits
from nsqkit.wire.layer import Layer, LayerError
from tests.nsqd.fake_transport import OK, PUB, identify, passes, play, shifted, until


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
