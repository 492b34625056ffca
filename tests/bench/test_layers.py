"""What the bench's clients put between socket and frames."""

import pytest

from nsqkit.bench.layers import client_layer
from nsqkit.client.tls import TlsClient
from nsqkit.wire.compression import Deflate, Snappy


def test_tls_trusts_anybody() -> None:
    """It is for measuring."""
    layer = client_layer("tls_v1", {})

    assert isinstance(layer, TlsClient)
    assert not layer.ready()
    assert layer.output()


@pytest.mark.parametrize("agreed", [{}, {"deflate_level": 1}, {"deflate_level": 99}])
def test_compression_is_that_of_the_wire(agreed: dict[str, object]) -> None:
    """With the level that the server agreed to, if it makes sense."""
    assert isinstance(client_layer("snappy", agreed), Snappy)
    deflate = client_layer("deflate", agreed)
    deflate.send(b"text")
    other = Deflate(6)
    other.received(deflate.output())

    assert b"text" == other.take()
