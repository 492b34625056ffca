"""The simulation's layer gives everything, in order, however it is cut."""

from collections import Counter
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from nsqkit.wire.layer import LayerError
from tests.simulation.layer import DATA, HELLO, Awkward, cut, record, seal, unseal
from tests.simulation.loop import Loop

MINUTES = 120_000_000_000


class Stage:
    """A client that notes how much is given to its session, a loop, and a layer that is stirred."""

    def __init__(self, seed: int) -> None:
        self.arrived = 0
        self.stirred = 0
        self.world = SimpleNamespace(
            chance=Random(seed), loop=Loop(0, lambda _: 0), counts=Counter(), catch_up=lambda: None
        )
        client: Any = self
        self.layer = Awkward(client, self.stir)

    def arrive(self, size: int) -> None:
        """Count."""
        self.arrived += size

    def stir(self) -> None:
        """Count."""
        self.stirred += 1


@pytest.mark.parametrize("seed", range(20))
def test_what_is_sent_arrives(seed):
    """In both directions, and nothing before both sides have greeted."""
    stage = Stage(seed)
    layer, chance = stage.layer, stage.world.chance
    text = bytes(range(256)) * 3
    layer.send(text)
    assert (True, b"") == unseal(layer.output())

    received = b""
    for piece in cut(record(HELLO, b"") + seal(text, chance), chance):
        layer.received(piece)
        while part := layer.take():
            received += part
    assert received in (b"", text)

    stage.world.loop.advance(MINUTES)
    assert layer.ready()
    assert stage.stirred > 0
    while part := layer.take():
        received += part

    assert text == received
    assert len(text) == stage.arrived
    assert (False, text) == unseal(layer.output())


def test_nonsense_is_an_error():
    """Also data before a greeting."""
    layer = Stage(1).layer
    layer.received(record(DATA, b"x"))

    with pytest.raises(LayerError):
        layer.take()
