"""A layer that is as awkward as it may be: ready late, speaking unasked, cutting what passes through it anywhere.

    [1 kind][2 length][payload]     HELLO comes first, DATA carries bytes, NOISE says nothing

Each side says HELLO, the client after the broker. The broker's is ready when it was greeted and has done its own part.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING, Final

from nsqkit.wire.layer import PIECE, Layer, LayerError
from tests.simulation.steps import MS, SECOND

if TYPE_CHECKING:
    from tests.simulation.client import Client

HELLO: Final = 1
DATA: Final = 2
NOISE: Final = 3
HEADER: Final = 3

DELAYS: Final = (0, 0, 0, MS, 50 * MS, 700 * MS, 3 * SECOND)  # of each side's part of the handshake
STUCK: Final = 60 * SECOND  # of one that nobody waits for
LATER: Final = (0, 20 * MS, 300 * MS, 2 * SECOND)  # when something is said unasked
LONGEST: Final = (15, 100, 1000, PIECE)  # bytes of a piece, or of a record


def delay_of(chance: Random) -> int:
    """How long one side takes for its part of the handshake."""
    return STUCK if chance.randrange(40) == 0 else chance.choice(DELAYS)


def record(kind: int, payload: bytes) -> bytes:
    """One record."""
    return bytes((kind,)) + len(payload).to_bytes(2, "big") + payload


def seal(data: bytes, chance: Random) -> bytes:
    """Data as records of any size, with noise between them."""
    sealed = bytearray()
    most = min(chance.choice(LONGEST), 0xFFFF)
    at = 0
    while at < len(data):
        if chance.randrange(8) == 0:
            sealed += record(NOISE, bytes(chance.randrange(5)))
        piece = data[at : at + chance.randint(1, most)]
        sealed += record(DATA, piece)
        at += len(piece)
    return bytes(sealed)


def unseal(data: bytes) -> tuple[bool, bytes]:
    """What whole records carry: a HELLO, and data."""
    greeted = False
    plain = bytearray()
    while data:
        end = HEADER + int.from_bytes(data[1:HEADER], "big")
        assert end <= len(data), "a record is cut short"
        greeted = greeted or data[0] == HELLO
        if data[0] == DATA:
            plain += data[HEADER:end]
        data = data[end:]
    return greeted, bytes(plain)


def cut(data: bytes, chance: Random) -> list[bytes]:
    """The same in a few pieces."""
    places = sorted({chance.randrange(len(data)) for _ in range(chance.randrange(4))} | {0, len(data)})
    return [data[begin:end] for begin, end in pairwise(places)]


class Awkward(Layer):
    """The broker's end. It tells the client which of its bytes the session is about to get."""

    def __init__(self, client: Client, stir: Callable[[], None]) -> None:
        self._client = client
        self._stir = stir
        self._greeted = False  # by the peer
        self._done = False  # with its own part of the handshake
        self._input = b""
        self._kind = 0  # of the record that is being taken
        self._left = 0  # bytes of it
        self._waiting = b""  # to be sent
        self._output = record(HELLO, b"welcome")
        world = client.world
        self._longest = world.chance.choice(LONGEST)
        world.loop.call_in(delay_of(world.chance), self._finish)
        for _ in range(world.chance.randrange(4)):
            world.loop.call_in(world.chance.choice(LATER), self._speak)

    def _finish(self) -> None:
        self._done = True
        self._client.world.counts["layer ready by itself"] += self._greeted
        self._stir()

    def _speak(self) -> None:
        self._client.world.counts["layer spoke unasked"] += 1
        self._output += record(NOISE, b"by the way")
        self._stir()

    def ready(self) -> bool:
        """When both sides have done their part."""
        return self._greeted and self._done

    def received(self, data: bytes) -> None:
        """Anything, cut anywhere."""
        self._input += data

    def take(self) -> bytes:
        """A piece of any size. What comes before the layer is ready waits in it."""
        client = self._client
        client.world.catch_up()  # with what the piece before this one did
        while self._left or ((not self._greeted or self._done) and self._open_record()):
            most = client.world.chance.randint(1, self._longest) if self._kind == DATA else self._left
            piece = self._input[: min(self._left, most)]
            if len(piece) < min(self._left, 1):
                break
            self._input = self._input[len(piece) :]
            self._left -= len(piece)
            if self._kind == DATA:
                client.world.counts["piece through a layer"] += 1
                client.arrive(len(piece))
                return piece
        return b""

    def _open_record(self) -> bool:
        if len(self._input) < HEADER:
            return False
        self._kind = self._input[0]
        if self._kind not in ((DATA, NOISE) if self._greeted else (HELLO,)):
            raise LayerError(f"a record of kind {self._kind}")
        self._left = int.from_bytes(self._input[1:HEADER], "big")
        self._input = self._input[HEADER:]
        if self._kind == HELLO:
            self._greeted = True
            self._client.world.counts["layer ready when greeted"] += self._done
        return True

    def send(self, data: bytes) -> None:
        """Wait, or go."""
        self._waiting += data

    def output(self) -> bytes:
        """Whole records."""
        if self.ready() and self._waiting:
            self._output += seal(self._waiting, self._client.world.chance)
            self._waiting = b""
        output, self._output = self._output, b""
        return output
