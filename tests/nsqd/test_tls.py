"""The layer of TLS, against OpenSSL's own client, and the files that it is made of."""

import shutil
import ssl
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from nsqkit.errors import StartError
from nsqkit.nsqd.options import NsqdOptions, TlsRequired, TlsVersion
from nsqkit.nsqd.tls import Certificates, Tls
from nsqkit.wire.identify import Identity, Limits
from nsqkit.wire.layer import PIECE, LayerError
from tests.certificates import Certificates as Files
from tests.certificates import Pair, der


def options(files: Files, pair: Pair | None = None, **more: Any) -> NsqdOptions:
    """Those of an nsqd with a certificate."""
    certificate, key = pair or files.server
    return NsqdOptions(tls_cert=certificate, tls_key=key, **more)


class Talk:
    """A client and the layer, with a wire between them that cuts what it carries into pieces."""

    def __init__(self, certificates: Certificates, context: ssl.SSLContext, size: int = 1000):
        self.identity = Identity(Limits())
        self.layer = Tls(certificates, self.identity)
        self.size = size
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = context.wrap_bio(self._in, self._out, server_hostname="127.0.0.1")

    def to_layer(self, data: bytes | None = None) -> bytes:
        """Carry what the client has to say; what the layer makes of it."""
        data = self._out.read() if data is None else data
        plain = b""
        for at in range(0, len(data), self.size):
            self.layer.received(data[at : at + self.size])
            while piece := self.layer.take():
                assert len(piece) <= PIECE
                plain += piece
        return plain

    def to_client(self) -> bytes:
        """Carry what the layer has to say; what the client makes of it."""
        self._in.write(self.layer.output())
        plain = b""
        while True:
            try:
                plain += self.client.read(PIECE)
            except ssl.SSLWantReadError:
                return plain

    def shake_hands(self) -> "Talk":
        """Until both are content."""
        for _ in range(4):
            try:
                self.client.do_handshake()
            except ssl.SSLWantReadError:
                self.to_layer()
                self._in.write(self.layer.output())
        self.client.do_handshake()
        assert b"" == self.to_layer()
        assert self.layer.ready()
        return self


def talk(files: Files, client: ssl.SSLContext | None = None, size: int = 1000, **more: Any) -> Talk:
    """One whose handshake is done."""
    return Talk(Certificates(options(files, **more)), client or files.trusting(), size).shake_hands()


@pytest.mark.parametrize("size", [1, 7, 1000, 100_000])
def test_both_directions(certificates, size):
    """What one side says is what the other hears, whatever pieces it comes in."""
    pair = talk(certificates, size=size)
    said = bytes(range(256)) * 400

    for at in range(0, len(said), 9000):
        pair.client.write(said[at : at + 9000])
    pair.layer.send(said)
    pair.layer.send(b"end")

    assert said == pair.to_layer()
    assert said + b"end" == pair.to_client()


def test_what_is_sent_early_waits(certificates):
    """What the session says before the handshake is done is encrypted after it."""
    pair = Talk(Certificates(options(certificates)), certificates.trusting())
    assert not pair.layer.ready()
    pair.layer.send(b"early")
    assert b"" == pair.layer.output()

    pair.shake_hands()

    assert b"early" == pair.to_client()


@pytest.mark.parametrize(
    "version,name,suites",
    [
        (ssl.TLSVersion.TLSv1_2, "TLS1.2", "TLS_ECDHE_ECDSA_WITH_"),
        (ssl.TLSVersion.TLSv1_3, "TLS1.3", "TLS_"),
    ],
)
def test_what_was_agreed_on_is_noted(certificates, version, name, suites):
    """Version and cipher suite have the names that Go gives them; without a certificate a client has no name."""
    pair = talk(certificates, certificates.trusting(version=version))

    security = pair.identity.security
    assert security
    assert (name, "", "") == (security.version, security.protocol, security.common_name)
    assert security.cipher_suite.startswith(suites)


def test_old_versions_only_if_asked_for(certificates):
    """Nothing under TLS 1.2 by default; with --tls-min-version=tls1.0 an old client gets its version."""
    old = certificates.trusting()
    old.set_ciphers("DEFAULT:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1

    with pytest.raises(LayerError, match="^TLS: handshake failed: unsupported protocol$"):
        talk(certificates, old)
    security = talk(certificates, old, tls_min_version=TlsVersion.TLS1_0).identity.security
    assert security
    assert "TLS1.0" == security.version


def test_a_version_that_is_too_old(certificates):
    """--tls-min-version is the least that is spoken."""
    with pytest.raises(LayerError, match="^TLS: handshake failed: unsupported protocol$"):
        talk(
            certificates,
            certificates.trusting(version=ssl.TLSVersion.TLSv1_2),
            tls_min_version=TlsVersion.TLS1_3,
        )


@pytest.mark.parametrize("data", [b"PUB orders\n\0\0\0\1x", b"GET / HTTP/1.0\r\n\r\n", b"\0" * 100])
def test_what_is_no_handshake(certificates, data):
    """It is refused at once, and the peer is told in TLS's way."""
    shown = Certificates(options(certificates))
    layer = Tls(shown, Identity(Limits()))

    layer.received(data)
    with pytest.raises(LayerError, match="^TLS: handshake failed: [a-z ]+$"):
        layer.take()
    assert 1 == shown.traffic.handshake_failures

    layer.output()
    layer.send(b"nobody hears this")


def test_damage(certificates):
    """What came before a damaged record is still heard."""
    pair = talk(certificates, size=100_000)
    pair.client.write(b"good")
    good = pair._out.read()
    pair.client.write(b"bad")
    bad = bytearray(pair._out.read())
    bad[-1] ^= 1

    pair.layer.received(good + bad)

    assert b"good" == pair.layer.take()
    with pytest.raises(LayerError, match="^TLS: decryption failed or bad record mac$"):
        pair.layer.take()


def test_goodbye(certificates):
    """Each side can say that it sends no more; what follows is passed over."""
    pair = talk(certificates)
    pair.client.write(b"last")
    with pytest.raises(ssl.SSLWantReadError):
        pair.client.unwrap()
    farewell = pair._out.read()

    assert b"last" == pair.to_layer(farewell)
    assert b"" == pair.layer.take()
    assert pair.layer.ended()
    pair.layer.received(b"more" * 1000)
    assert b"" == pair.layer.take()

    pair.layer.send(b"bye")
    pair.layer.end()
    pair._in.write(pair.layer.output())
    assert b"bye" == pair.client.read(100)
    with pytest.raises(ssl.SSLZeroReturnError):
        pair.client.read(1)


# -- clients' certificates


def policy(files: Files, name: str) -> dict[str, Any]:
    """The options for it."""
    return {"tls_client_auth_policy": name, "tls_root_ca_file": files.authority}


@pytest.mark.parametrize(
    "name,who,accepted",
    [
        ("", "", True),
        ("whatever", "rogue", True),
        ("require", "client", True),
        ("require", "rogue", True),
        ("require", "", False),
        ("require-verify", "client", True),
        ("require-verify", "rogue", False),
        ("require-verify", "", False),
    ],
)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_policies(certificates, name, who, accepted, version):
    """None is asked for, any will do, or one that the authority signed."""
    pair = getattr(certificates, who) if who else None
    client = certificates.trusting(pair, version)

    if accepted:
        both = talk(certificates, client, **policy(certificates, name))
        both.client.write(b"x" * 100_000)
        both.layer.send(b"y" * 100_000)
        assert b"x" * 100_000 == both.to_layer()
        assert b"y" * 100_000 == both.to_client()
        security = both.identity.security
        assert security
        assert ("" if name in ("", "whatever") else f"a {who}") == security.common_name
    else:
        with pytest.raises(LayerError, match="^TLS: handshake failed: .*certificate"):
            talk(certificates, client, **policy(certificates, name))


def test_any_certificate_otherwise_is_the_same(certificates):
    """Names, the goodbye and the oldest version with --tls-client-auth-policy=require."""
    pair = talk(certificates, certificates.trusting(certificates.client), tls_client_auth_policy="require")
    security = pair.identity.security
    assert security
    assert ("TLS1.3", "") == (security.version, security.protocol)
    assert security.cipher_suite.startswith("TLS_")
    with pytest.raises(ssl.SSLWantReadError):
        pair.client.unwrap()
    assert b"" == pair.to_layer()
    assert pair.layer.ended()
    pair.layer.end()
    pair._in.write(pair.layer.output())
    with pytest.raises(ssl.SSLZeroReturnError):
        pair.client.read(1)

    with pytest.raises(LayerError, match="^TLS: handshake failed: unsupported protocol$"):
        talk(
            certificates,
            certificates.trusting(certificates.client, ssl.TLSVersion.TLSv1_2),
            tls_client_auth_policy="require",
            tls_min_version=TlsVersion.TLS1_3,
        )


def test_any_certificate_and_what_comes_with_the_end_of_the_handshake(certificates):
    """It is not forgotten: whoever asks whether something is pending, as event loops do, is told so."""
    mine = Certificates(options(certificates, tls_client_auth_policy="require"))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = mine.context.wrap_bio(incoming, outgoing, server_side=True)
    pair = Talk(mine, certificates.trusting(certificates.client))
    with pytest.raises(ssl.SSLWantReadError):
        pair.client.do_handshake()
    incoming.write(pair._out.read())
    with pytest.raises(ssl.SSLWantReadError):
        server.do_handshake()
    pair._in.write(outgoing.read())
    pair.client.do_handshake()
    pair.client.write(b"at once")
    incoming.write(pair._out.read())

    server.do_handshake()

    assert server.pending()
    assert b"at once" == server.read(100)
    with pytest.raises(ssl.SSLWantReadError):
        server.read(100)
    assert not server.pending()


def test_who_asks_for_certificates_requires_tls(certificates):
    """A policy makes TLS required, but for HTTP if that is said."""
    asking = options(certificates, tls_client_auth_policy="require")
    assert TlsRequired.YES is asking.tls_required
    partly = options(certificates, tls_client_auth_policy="require", tls_required=TlsRequired.TCP_EXCEPT_HTTP)
    assert TlsRequired.TCP_EXCEPT_HTTP is partly.tls_required


# -- files


@pytest.mark.parametrize("flag", ["tls_cert", "tls_key", "tls_root_ca_file"])
@pytest.mark.parametrize(
    "content,why",
    [
        (None, "No such file or directory"),
        ("", "no (certificate|unencrypted key) in PEM format"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n", "no (certificate|unencrypted key) in PEM format"),
    ],
)
def test_a_file_that_is_bad_is_named(certificates, tmp_path, flag, content, why):
    """The error names the flag, the file and what is wrong with it."""
    path = tmp_path / "file.pem"
    if content is not None:
        path.write_text(content)
    given = {"tls_cert": certificates.server.certificate, "tls_key": certificates.server.key}
    name = flag.replace("_", "-")

    with pytest.raises(StartError, match=f"^failed to build TLS config - --{name} {path}: {why}"):
        Certificates(NsqdOptions(**{**given, flag: str(path)}))


def test_a_key_that_is_too_short(certificates, tmp_path):
    """It is called so, with the length that will do."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "short")])
    begin = datetime(2020, 1, 1, tzinfo=UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, begin, begin + timedelta(days=36500))
    short = Pair(str(tmp_path / "short.pem"), str(tmp_path / "short.key"))
    pem = serialization.Encoding.PEM
    Path(short.certificate).write_bytes(made.sign(key, hashes.SHA256()).public_bytes(pem))
    Path(short.key).write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )

    with pytest.raises(
        StartError, match=f"{short.key}: too short for OpenSSL .*key too small.; 2048 bits would do$"
    ):
        Certificates(options(certificates, short))


@pytest.mark.parametrize("name", ["", "require"])
def test_the_key_of_another_certificate(certificates, name):
    """It is called so."""
    mixed = Pair(certificates.server.certificate, certificates.client.key)

    with pytest.raises(StartError, match=f"{mixed.key}: it is not the key of {mixed.certificate}$"):
        Certificates(options(certificates, mixed, tls_client_auth_policy=name))


@pytest.mark.parametrize("name", ["", "require"])
def test_reload(certificates, tmp_path, name):
    """New connections get the new certificate, old ones go on; a bad file leaves everything as it was."""
    own = Pair(str(tmp_path / "own.pem"), str(tmp_path / "own.key"))
    copy(certificates.server, own)
    mine = Certificates(options(certificates, own, tls_client_auth_policy=name))
    client = certificates.trusting(certificates.client)
    old = Talk(mine, client).shake_hands()

    copy(certificates.other_server, own)
    mine.reload()

    new = Talk(mine, client).shake_hands()
    assert der(certificates.server) == old.client.getpeercert(True)
    assert der(certificates.other_server) == new.client.getpeercert(True)
    old.client.write(b"still here")
    assert b"still here" == old.to_layer()

    Path(own.key).write_text("nonsense")
    with pytest.raises(StartError):
        mine.reload()
    again = Talk(mine, client).shake_hands()
    assert der(certificates.other_server) == again.client.getpeercert(True)


def copy(source: Pair, target: Pair) -> None:
    """The files of one pair over those of another."""
    for one, other in zip(source, target, strict=True):
        shutil.copy(one, other)
