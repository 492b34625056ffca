"""The client's side of TLS, against the server's layer."""

import ssl

import pytest

from nsqkit.client.tls import TlsClient
from nsqkit.nsqd.options import NsqdOptions
from nsqkit.nsqd.tls import Certificates, Tls
from nsqkit.wire.identify import Identity, Limits
from nsqkit.wire.layer import Layer, LayerError
from tests.certificates import Certificates as Files


def a_client(authority: str | None = None, name: str | None = None) -> TlsClient:
    """One that trusts an authority, or anybody."""
    context = (
        ssl.create_default_context(cafile=authority) if authority else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    )
    if authority is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return TlsClient(context, name)


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
    client = a_client()
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
    client = a_client()
    client.received(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with pytest.raises(LayerError, match="^TLS: handshake failed: "):
        client.take()


def test_a_broken_record_is_told(server: Tls) -> None:
    """After the handshake, too."""
    client = a_client()
    for _ in range(3):
        carry(client, server)
        carry(server, client)
    server.send(b"good")
    record = bytearray(server.output())
    record[-1] ^= 1
    client.received(bytes(record))

    with pytest.raises(LayerError, match="^TLS: "):
        client.take()


def test_a_certificate_that_is_not_trusted_is_told(server: Tls) -> None:
    """The error says what is wrong with it."""
    context = ssl.create_default_context()
    client = TlsClient(context, "localhost")

    with pytest.raises(LayerError, match="^TLS: handshake failed: the certificate of nsqd: "):  # noqa: PT012 - which turn it is does not matter
        for _ in range(3):
            carry(client, server)
            carry(server, client)
