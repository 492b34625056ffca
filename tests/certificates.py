"""Throw-away certificates for tests: an authority, a server's pair, a client's pair, and one that nobody signed."""

import ssl
from pathlib import Path
from typing import NamedTuple

import trustme


class Pair(NamedTuple):
    """The files of a certificate and its key."""

    certificate: str
    key: str


class Certificates:
    """Files in a directory."""

    def __init__(self, directory: Path):
        self.directory = directory
        authority, stranger = trustme.CA(), trustme.CA()
        self.authority = str(directory / "authority.pem")
        authority.cert_pem.write_to_path(self.authority)
        self.server = self._write("server", authority.issue_cert("127.0.0.1"))
        self.other_server = self._write("other", authority.issue_cert("127.0.0.1"))
        self.client = self._write("client", authority.issue_cert("client.example", common_name="a client"))
        self.rogue = self._write("rogue", stranger.issue_cert("rogue.example", common_name="a rogue"))

    def _write(self, name: str, made: trustme.LeafCert) -> Pair:
        certificate, key = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        certificate.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
        made.private_key_pem.write_to_path(str(key))
        return Pair(str(certificate), str(key))

    def flags(self, *more: str) -> tuple[str, ...]:
        """What an nsqd with TLS is started with."""
        return f"--tls-cert={self.server.certificate}", f"--tls-key={self.server.key}", *more

    def trusting(self, pair: Pair | None = None, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        """A client's context, which trusts the authority."""
        context = ssl.create_default_context(cafile=self.authority)
        if pair is not None:
            context.load_cert_chain(*pair)
        if version is not None:
            context.minimum_version = context.maximum_version = version
        return context


def der(pair: Pair) -> bytes:
    """A certificate as a peer shows it."""
    text = Path(pair.certificate).read_text()
    end = "-----END CERTIFICATE-----"
    return ssl.PEM_cert_to_DER_cert(text[: text.index(end)] + end)
