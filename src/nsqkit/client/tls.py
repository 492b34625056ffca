"""TLS under the frames of a client: it begins after IDENTIFY, in the middle of a connection."""

import ssl
from typing import Final

from nsqkit.wire.layer import Layer, LayerError

_RECORD: Final = 16_384  # bytes that a record carries at most


class TlsClient(Layer):
    """The client's side. `context` says whom to trust; `server_name` is what the certificate must be for."""

    def __init__(self, context: ssl.SSLContext, server_name: str | None) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)
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
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            return b""
        except ssl.SSLError as error:
            raise LayerError(f"TLS: {_reason(error)}") from None

    def send(self, data: bytes) -> None:
        """Encrypt."""
        if not self._ready:
            self._waiting += data
            return
        try:
            self._tls.write(data)
        except ssl.SSLError as error:
            raise LayerError(f"TLS: {_reason(error)}") from None

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
            raise LayerError(f"TLS: handshake failed: {_reason(error)}") from None
        self._ready = True
        waiting, self._waiting = self._waiting, b""
        if waiting:
            self._tls.write(waiting)
        return True


def _reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate of nsqd: {error.verify_message}"
    return (error.reason or str(error)).lower().replace("_", " ")
