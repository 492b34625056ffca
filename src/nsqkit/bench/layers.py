"""The client's side of what IDENTIFY can put between socket and frames. No I/O.

Compression is the same on both sides. TLS trusts whatever certificate it is shown: it is for measuring only.
"""

import ssl
from collections.abc import Mapping

from nsqkit.client.tls import TlsClient
from nsqkit.wire.compression import Deflate, Snappy
from nsqkit.wire.layer import Layer


def client_layer(name: str, server: Mapping[str, object]) -> Layer:
    """The layer that this key of IDENTIFY names, as the server's answer agreed to it."""
    if name == "tls_v1":
        return TlsClient(_trusting_all(), None)
    if name == "snappy":
        return Snappy()
    level = server.get("deflate_level")
    return Deflate(level if isinstance(level, int) and 1 <= level <= 9 else 6)


def _trusting_all() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
