"""Layers between a socket and its session: what changes bytes on their way, such as compression and TLS.

    socket -> received -> take -> received -> take -> session
    socket <- output <- send   <- output <- send   <- session

A layer may need to talk to its peer before it is of use (`ready`), and may have output that nobody sent. It gives what
it received in pieces of bounded size: a few bytes may stand for a thousand times as many.
"""

from typing import Final

from mypy_extensions import i64, mypyc_attr

PIECE: Final = 65536  # most bytes that one `take` gives


class LayerError(Exception):
    """The stream is not what was agreed on. The connection can't go on."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Layer:
    """Both directions of one connection."""

    def received(self, data: bytes) -> None:
        """Bytes came from the socket's side."""
        raise NotImplementedError

    def take(self) -> bytes:
        """What they stand for, at most PIECE bytes of it; nothing when more must be received first. LayerError."""
        raise NotImplementedError

    def send(self, data: bytes) -> None:
        """Bytes go to the peer. Before the layer is ready they wait."""
        raise NotImplementedError

    def output(self) -> bytes:
        """Everything that is to go down now, once."""
        raise NotImplementedError

    def ready(self) -> bool:
        """Has the peer agreed? False only for layers that negotiate."""
        return True

    def ended(self) -> bool:
        """Has the peer said, after what `take` gave, that no more comes? Not every layer has words for that."""
        return False

    def end(self) -> None:
        """Nothing more is sent: tell the peer, if the layer has words for it."""


class Layers:
    """The layers of one connection, the socket's side first."""

    def __init__(self) -> None:
        self._layers: list[Layer] = []

    def add(self, layer: Layer) -> None:
        """Put one more between the others and the session."""
        self._layers.append(layer)

    def ready(self) -> bool:
        """Can the session talk through them all?"""
        return self._layers[-1].ready()

    def received(self, data: bytes) -> None:
        """Bytes came from the socket."""
        self._layers[0].received(data)

    def take(self) -> bytes:
        """The next piece for the session, nothing when more must be received first. LayerError."""
        return self._take(len(self._layers) - 1)

    def _take(self, at: i64) -> bytes:
        layer = self._layers[at]
        while True:
            piece = layer.take()
            if piece or at == 0:
                return piece
            below = self._take(at - 1)
            if not below:
                return b""
            layer.received(below)

    def send(self, data: bytes) -> bytes:
        """What the socket is to send: `data` through all layers, and what these have to say themselves."""
        for layer in reversed(self._layers):
            if data:
                layer.send(data)
            data = layer.output()
        return data

    def ended(self) -> bool:
        """Has the peer said that no more comes?"""
        return any(layer.ended() for layer in self._layers)

    def end(self) -> bytes:
        """The last that the socket is to send: each layer's word that nothing more comes."""
        data = b""
        for layer in reversed(self._layers):
            if data:
                layer.send(data)
            layer.end()
            data = layer.output()
        return data
