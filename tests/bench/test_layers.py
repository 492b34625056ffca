"""The client's side of TLS and compression, against the server's layers."""

import pytest

from nsqkit.bench.layers import TlsClient, client_layer
from nsqkit.nsqd.options import NsqdOptions
from nsqkit.nsqd.tls import Certificates, Tls
from nsqkit.wire.compression import Deflate, Snappy
from nsqkit.wire.identify import Identity, Limits
from nsqkit.wire.layer import Layer, LayerError
from tests.certificates import Certificates as Files


def carry(sender: Layer, receiver: Layer) -> bytes:
    """Bring over what one side has to say; what the other makes of it."""
    plain = b""
    while data := sender.output():
        receiver.received(data)
        while piece := receiver.take():
            plain += piece
    return plain


@pytest.fixture
def server(certificates: Files) -> Tls:
    """The server's side of a connection."""
    certificate, key = certificates.server
    return Tls(Certificates(NsqdOptions(tls_cert=certificate, tls_key=key)), Identity(Limits()))


def test_tls_in_both_directions(server: Tls) -> None:
    """What is sent before the handshake is done waits for it; the certificate is not looked at."""
    client = TlsClient()
    client.send(b"early")
    assert not client.ready()

    heard = b""
    for _ in range(3):
        heard += carry(client, server)
        assert b"" == carry(server, client)
    server.send(b"answer" * 10_000)

    assert client.ready()
    assert b"early" == heard
    assert b"answer" * 10_000 == carry(server, client)


def test_a_broken_handshake_is_told() -> None:
    """The error says that it was the handshake."""
    client = TlsClient()
    client.received(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with pytest.raises(LayerError, match="^TLS: handshake failed: "):
        client.take()


def test_a_broken_record_is_told(server: Tls) -> None:
    """After the handshake, too."""
    client = TlsClient()
    for _ in range(3):
        carry(client, server)
        carry(server, client)
    server.send(b"good")
    record = bytearray(server.output())
    record[-1] ^= 1
    client.received(bytes(record))

    with pytest.raises(LayerError, match="^TLS: "):
        client.take()


@pytest.mark.parametrize("agreed", [{}, {"deflate_level": 1}, {"deflate_level": 99}])
def test_compression_is_that_of_the_wire(agreed: dict[str, object]) -> None:
    """With the level that the server agreed to, if it makes sense."""
    assert isinstance(client_layer("snappy", agreed), Snappy)
    deflate = client_layer("deflate", agreed)
    deflate.send(b"text")

    assert b"text" == carry(deflate, Deflate(6))
