"""A stack of layers."""

from nsqkit.wire.compression import Deflate, Snappy
from nsqkit.wire.layer import PIECE, Layer, Layers


class Greeting(Layer):
    """Passes everything on, greets once, and is ready when the peer has greeted."""

    def __init__(self) -> None:
        self.input = b""
        self.waiting = b""
        self.greeting = b"hello"
        self.greeted = False

    def received(self, data: bytes) -> None:
        """Keep it."""
        self.input += data

    def take(self) -> bytes:
        """Nothing before the greeting."""
        if not self.greeted:
            if len(self.input) < 5:
                return b""
            self.greeted = True
            self.input = self.input[5:]
        piece, self.input = self.input[:PIECE], self.input[PIECE:]
        return piece

    def send(self, data: bytes) -> None:
        """Wait for the greeting."""
        self.waiting += data

    def output(self) -> bytes:
        """The greeting comes unasked."""
        output, self.greeting = self.greeting, b""
        if self.greeted:
            output, self.waiting = output + self.waiting, b""
        return output

    def ready(self) -> bool:
        """After the greeting."""
        return self.greeted


def everything(layers: Layers) -> bytes:
    """All pieces."""
    pieces = []
    while piece := layers.take():
        assert len(piece) <= PIECE
        pieces.append(piece)
    return b"".join(pieces)


def pair(*names: type[Layer]) -> tuple[Layers, Layers]:
    """Two peers with the same layers."""
    peers = Layers(), Layers()
    for make in names:
        for peer in peers:
            peer.add(Deflate(6) if make is Deflate else make())
    return peers


def test_one_layer_inside_another():
    """What goes through a stack comes out of one that is the same, however it is cut, and in pieces."""
    one, other = pair(Snappy, Deflate)
    text = bytes(300_000) + b"end"
    stream = one.send(text)

    received = b""
    for at in range(0, len(stream), 7):
        other.received(stream[at : at + 7])
        received += everything(other)

    assert text == received


def test_a_layer_speaks_unasked():
    """Sending nothing sends what the layers have to say, and nothing else."""
    one, _ = pair(Greeting)

    assert b"hello" == one.send(b"")
    assert b"" == one.send(b"")


def test_a_layer_is_ready_late():
    """Until the lowest layer is ready, what is sent waits; then it goes out, through all of them."""
    one, other = pair(Greeting, Deflate)
    assert b"hello" == one.send(b"text")

    one.received(other.send(b""))
    assert b"" == everything(one)
    other.received(b"hello" + one.send(b""))

    assert b"text" == everything(other)


def test_ready():
    """A stack is ready when its newest layer is."""
    one, _ = pair(Greeting)
    assert not one.ready()

    one.received(b"hello")
    one.take()

    assert one.ready()
