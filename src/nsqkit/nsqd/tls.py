"""TLS: the certificates that nsqd shows and asks for, and the layer between socket and session.

A context can't be changed safely, so a reload makes a new one. Connections keep the one that they began with.
"""

import ssl
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final, Self, TypeAlias, cast

from nsqkit.accept import reason
from nsqkit.errors import StartError
from nsqkit.log import Log
from nsqkit.nsqd.options import NsqdOptions, TlsVersion
from nsqkit.nsqd.traffic import Traffic
from nsqkit.wire.identify import Identity, Security
from nsqkit.wire.layer import Layer, LayerError

Wrapper: TypeAlias = Callable[[ssl.MemoryBIO, ssl.MemoryBIO], ssl.SSLObject]

REQUIRE: Final = "require"
REQUIRE_VERIFY: Final = "require-verify"

_BITE: Final = 32_768  # bytes that are decrypted at once; it keeps a piece of what they stand for below PIECE
_RECORD: Final = 16_384  # bytes that a record carries at most

_VERSIONS: Final = {"TLSv1": "TLS1.0", "TLSv1.1": "TLS1.1", "TLSv1.2": "TLS1.2", "TLSv1.3": "TLS1.3"}

_SUITES: Final = {
    "ECDHE-RSA-AES128-GCM-SHA256": "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "ECDHE-RSA-AES256-GCM-SHA384": "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "ECDHE-RSA-CHACHA20-POLY1305": "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    "ECDHE-RSA-AES128-SHA256": "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "ECDHE-RSA-AES128-SHA": "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "ECDHE-RSA-AES256-SHA": "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "ECDHE-ECDSA-AES128-GCM-SHA256": "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384": "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305": "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "ECDHE-ECDSA-AES128-SHA256": "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "ECDHE-ECDSA-AES128-SHA": "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "ECDHE-ECDSA-AES256-SHA": "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "AES128-GCM-SHA256": "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "AES256-GCM-SHA384": "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "AES128-SHA256": "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "AES128-SHA": "TLS_RSA_WITH_AES_128_CBC_SHA",
    "AES256-SHA": "TLS_RSA_WITH_AES_256_CBC_SHA",
}
"""Go's names of cipher suites, by OpenSSL's. Those of TLS 1.3 have the same in both."""


class Certificates:
    """The certificate of this nsqd, and what it wants of clients', as options name them. StartError if they are bad."""

    def __init__(self, options: NsqdOptions, traffic: Traffic | None = None) -> None:
        self.traffic = traffic or Traffic()
        self._options = options
        self._wrap = _wrapper(options)
        self.context = _Newest(self)

    def reload(self) -> None:
        """Read the files again, for connections to come. StartError leaves everything as it was."""
        self._wrap = _wrapper(self._options)

    def introduce(self, log: Log) -> None:
        """Say what may not be meant."""
        policy = self._options.tls_client_auth_policy
        if policy not in ("", REQUIRE, REQUIRE_VERIFY):
            log.warning(
                f"TLS: --tls-client-auth-policy={policy} asks clients for no certificate: "
                f"{REQUIRE} and {REQUIRE_VERIFY} do"
            )

    def renew(self, log: Log) -> None:
        """Reload, and say how that went."""
        try:
            self.reload()
        except StartError as error:
            log.error(f"TLS: what was loaded before stays in use: {error}")
        else:
            log.info(f"TLS: {self._options.tls_cert} is loaded anew, for connections to come")

    def wrap(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> ssl.SSLObject:
        """The server's side of a new connection."""
        return self._wrap(incoming, outgoing)


class _Newest(ssl.SSLContext):
    """Stands for the newest context where an event loop takes one for long."""

    _certificates: Certificates

    def __new__(cls, certificates: Certificates) -> Self:
        context = super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)
        context._certificates = certificates
        return context

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *_: Any, **__: Any) -> ssl.SSLObject:
        """The server's side of a new connection."""
        return self._certificates.wrap(incoming, outgoing)


class Tls(Layer):
    """The server's side of one connection. When the handshake is done it is noted in `identity`."""

    def __init__(self, certificates: Certificates, identity: Identity) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = certificates.wrap(self._incoming, self._outgoing)
        self._traffic = certificates.traffic
        self._identity = identity
        self._input = memoryview(b"")  # what has not been decrypted
        self._waiting = b""  # what is to be sent after the handshake
        self._ready = False
        self._ended = False  # the peer said goodbye; what comes after that is passed over
        self._fault = ""  # what is wrong, told after everything that was right

    def received(self, data: bytes) -> None:
        """Keep it; mostly there is nothing before it."""
        if not self._ended:
            self._input = memoryview(bytes(self._input) + data if self._input else data)

    def take(self) -> bytes:
        """Go on with the handshake, or decrypt. LayerError."""
        while True:
            piece = self._read()
            if piece:
                return piece
            if self._fault:
                raise LayerError(self._fault)
            if self._ended or not self._input:
                return b""
            self._incoming.write(self._input[:_BITE])
            self._input = self._input[_BITE:]

    def _read(self) -> bytes:
        pieces: list[bytes] = []
        try:
            if not self._ready:
                self._shake_hands()
            while not self._ended and not self._fault:
                plain = self._tls.read(_RECORD)
                self._ended = not plain
                pieces.append(plain)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._ended = True
        except ssl.SSLError as error:
            if not self._ready:
                self._traffic.handshake_failures += 1
            self._fault = f"TLS: {'' if self._ready else 'handshake failed: '}{reason(error)}"
        return b"".join(pieces)

    def _shake_hands(self) -> None:
        tls = self._tls
        tls.do_handshake()
        self._ready = True
        name, _, _ = tls.cipher() or ("", "", 0)
        self._identity.security = Security(
            _VERSIONS.get(tls.version() or "", tls.version() or ""),
            _SUITES.get(name, name),
            tls.selected_alpn_protocol() or "",
            _common_name(tls.getpeercert() or {}),
        )
        waiting, self._waiting = self._waiting, b""
        if waiting:
            self.send(waiting)

    def send(self, data: bytes) -> None:
        """Encrypt."""
        if not self._ready:
            self._waiting += data
            return
        left = memoryview(data)
        with suppress(ssl.SSLError):  # a broken connection: the next `take` tells
            while left:
                left = left[self._tls.write(left) :]

    def output(self) -> bytes:
        """What was sent, and what TLS itself has to say."""
        return self._outgoing.read()

    def ready(self) -> bool:
        """Is the handshake done?"""
        return self._ready

    def ended(self) -> bool:
        """Did the peer say goodbye?"""
        return self._ended

    def end(self) -> None:
        """Say goodbye."""
        if self._ready:
            with suppress(ssl.SSLError):  # the peer has not said it yet, and need not
                self._tls.unwrap()


def _common_name(certificate: dict[str, Any]) -> str:
    """The name that a client's certificate gives it."""
    for part in certificate.get("subject", ()):
        for key, value in part:
            if key == "commonName":
                return str(value)
    return ""


def _wrapper(options: NsqdOptions) -> Wrapper:
    """What makes the server's side of connections, from the files as they are now. StartError."""
    context = _context(options)
    if options.tls_client_auth_policy != REQUIRE:
        return partial(context.wrap_bio, server_side=True)
    from nsqkit.nsqd.any_certificate import AnyCertificate  # noqa: PLC0415 - it takes a while to load

    try:
        return cast("Wrapper", AnyCertificate(context, options.tls_cert, options.tls_key).wrap)
    except ssl.SSLError as error:
        raise _bad("--tls-cert", options.tls_cert, reason(error)) from None


def _context(options: NsqdOptions) -> ssl.SSLContext:
    """A context for what the options say, from the files as they are now. StartError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_NO_RENEGOTIATION
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # whoever asks for an old version gets it
        context.minimum_version = ssl.TLSVersion(int(options.tls_min_version))
    if options.tls_min_version < TlsVersion.TLS1_2:
        context.set_ciphers("DEFAULT:@SECLEVEL=0")  # their signatures are too weak for more
    _load_pair(context, options.tls_cert, options.tls_key)
    policy = options.tls_client_auth_policy
    if options.tls_root_ca_file:
        _load_authorities(context, "--tls-root-ca-file", options.tls_root_ca_file)
    elif policy == REQUIRE_VERIFY:
        context.load_default_certs(ssl.Purpose.CLIENT_AUTH)
    if policy == REQUIRE_VERIFY:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _load_pair(context: ssl.SSLContext, certificate: str, key: str) -> None:
    _load_authorities(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), "--tls-cert", certificate)
    _readable("--tls-key", key)
    try:
        context.load_cert_chain(certificate, key, lambda: "")  # without one, OpenSSL asks the terminal
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            why = f"it is not the key of {certificate}"
        elif error.reason and error.reason.endswith("_TOO_SMALL"):
            why = f"too short for OpenSSL ({reason(error)}); 2048 bits would do"
        else:
            why = f"no unencrypted key in PEM format ({reason(error)})"
        raise _bad("--tls-key", key, why) from None


def _load_authorities(context: ssl.SSLContext, flag: str, path: str) -> None:
    _readable(flag, path)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise _bad(flag, path, f"no certificate in PEM format ({reason(error)})") from None


def _readable(flag: str, path: str) -> None:
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise _bad(flag, path, error.strerror or str(error)) from None


def _bad(flag: str, path: str, why: str) -> StartError:
    return StartError(f"failed to build TLS config - {flag} {path}: {why}")
