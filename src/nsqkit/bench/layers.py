"""The client's side of what IDENTIFY can put between socket and frames. No I/O.

Compression is the same on both sides. TLS trusts whatever certificate it is shown: it is for measuring only.
"""

import ssl
from collections.abc import Mapping
from typing import Final

from nsqkit.wire.compression import Deflate, Snappy
from nsqkit.wire.layer import Layer, LayerError

_RECORD: Final = 16_384  # bytes that a record carries at most


def client_layer(name: str, server: Mapping[str, object]) -> Layer:
    """The layer that this key of IDENTIFY names, as the server's answer agreed to it."""
    if name == "tls_v1":
        return TlsClient()
    if name == "snappy":
        return Snappy()
    level = server.get("deflate_level")
    return Deflate(level if isinstance(level, int) and 1 <= level <= 9 else 6)


class TlsClient(Layer):
    """TLS 1.2 or newer, without a look at the certificate."""

    def __init__(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing)
        self._waiting = b""
        self._ready = False
        self._shake_hands()

    def received(self, data: bytes) -> None:
        """Keep it."""
        self._incoming.write(data)

    def take(self) -> bytes:
        """Go on with the handshake, or decrypt a record. LayerError."""
        if not self._ready and not self._shake_hands():
            return b""
        try:
            return self._tls.read(_RECORD)
        except ssl.SSLWantReadError:
            return b""
        except ssl.SSLError as error:
            raise LayerError(f"TLS: {error.reason or error}") from None

    def send(self, data: bytes) -> None:
        """Encrypt."""
        if self._ready:
            self._tls.write(data)
        else:
            self._waiting += data

    def output(self) -> bytes:
        """What was sent, and what TLS itself has to say."""
        return self._outgoing.read()

    def ready(self) -> bool:
        """Is the handshake done?"""
        return self._ready

    def _shake_hands(self) -> bool:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            raise LayerError(f"TLS: handshake failed: {error.reason or error}") from None
        self._ready = True
        waiting, self._waiting = self._waiting, b""
        if waiting:
            self._tls.write(waiting)
        return True
