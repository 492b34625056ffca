"""TLS that wants a certificate of its client and takes any, as `--tls-client-auth-policy=require` says.

Python's ssl can't ask for a certificate without verifying it; pyOpenSSL can, and is used for this policy alone. To
asyncio, and to our layer, a connection looks as one of ssl's.
"""

import ssl
from typing import Any, Final

from cryptography.x509.oid import NameOID
from OpenSSL import SSL

_MOST: Final = 1 << 18  # bytes that are copied at once


class AnyCertificate:
    """Makes connections with the versions and ciphers of another context. SSLError if the files do not fit."""

    def __init__(self, like: ssl.SSLContext, certificate: str, key: str) -> None:
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(int(like.minimum_version))
        if like.minimum_version < ssl.TLSVersion.TLSv1_2:
            context.set_cipher_list(b"DEFAULT:@SECLEVEL=0")
        context.set_options(SSL.OP_NO_RENEGOTIATION)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_session_id(b"nsqd")
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True)
        try:
            context.use_certificate_chain_file(certificate)
            context.use_privatekey_file(key)
        except SSL.Error as error:
            raise _translated(error) from None
        self._context = context

    def wrap(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> "SslObject":
        """The server's side of a new connection."""
        return SslObject(self._context, incoming, outgoing)


class SslObject:
    """What ssl.SSLObject is, as far as servers need it."""

    def __init__(self, context: SSL.Context, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._connection = SSL.Connection(context, None)
        self._connection.set_accept_state()
        self._more = False  # there may be something that OpenSSL has taken, and nobody has asked for

    def _do(self, what: Any, *arguments: Any) -> Any:
        """Do something with all that came, and pass on what it says to the peer. SSLError, as ssl raises it."""
        came = memoryview(self._incoming.read())
        while came:
            came = came[self._connection.bio_write(bytes(came)) :]
        self._more = True
        try:
            return what(*arguments)
        except SSL.WantReadError:
            self._more = False
            raise ssl.SSLWantReadError from None
        except SSL.ZeroReturnError:
            raise ssl.SSLZeroReturnError from None
        except SSL.Error as error:
            raise _translated(error) from None
        finally:
            self._pass_on()

    def _pass_on(self) -> None:
        try:
            while True:
                self._outgoing.write(self._connection.bio_read(_MOST))
        except SSL.WantReadError:  # that was all
            pass

    def do_handshake(self) -> None:
        """Go on with the handshake."""
        self._do(self._connection.do_handshake)

    def read(self, size: int = 16384, buffer: Any = None) -> Any:
        """Decrypt: bytes, or their number if they go to a buffer."""
        if buffer is None:
            return self._do(self._connection.recv, size)
        return self._do(self._connection.recv_into, buffer, size)

    def write(self, data: Any) -> int:
        """Encrypt; the number of bytes that were."""
        return int(self._do(self._connection.send, bytes(data[:_MOST])))

    def pending(self) -> int:
        """Bytes that are decrypted and not read, 1 if that is yet to be seen."""
        return self._connection.pending() or int(self._more)

    def unwrap(self) -> None:
        """Say goodbye."""
        if not self._do(self._connection.shutdown):
            raise ssl.SSLWantReadError

    def cipher(self) -> tuple[str, str, int] | None:
        """Name, version and bits of what was agreed on."""
        connection = self._connection
        name = connection.get_cipher_name()
        if not name:
            return None
        return name, connection.get_cipher_version() or "", connection.get_cipher_bits() or 0

    def version(self) -> str:
        """The version of TLS."""
        return self._connection.get_protocol_version_name()

    def selected_alpn_protocol(self) -> str | None:
        """None: nothing is offered."""
        return None

    def compression(self) -> str | None:
        """None: it is never used."""
        return None

    def getpeercert(self) -> dict[str, Any]:
        """Whom the client's certificate names, as far as anybody asks."""
        certificate = self._connection.get_peer_certificate(as_cryptography=True)
        try:
            names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME) if certificate else []
        except ValueError:  # nobody verified that it makes sense
            names = []
        return {"subject": tuple((("commonName", name.value),) for name in names)}


def _translated(error: SSL.Error) -> ssl.SSLError:
    """The error that ssl would raise."""
    reasons = error.args[0] if error.args else ()
    text = str(reasons[0][2]) if reasons else str(error) or "unexpected eof"
    made = ssl.SSLError(1, text)
    made.reason = text
    return made
