"""IDENTIFY: what a client asks for, checked against what the server allows (spec/tcp-protocol.md, section 4).

The request is JSON. Times in it and in the reply are milliseconds; inside they are ns.
"""

import json
from typing import Final

from mypy_extensions import i64

from nsqkit.wire.document import BadDocument, decode_document
from nsqkit.wire.errors import BadBody, IdentifyFailed

MS: Final = 1_000_000  # ns in a millisecond

_KINDS: Final[dict[str, type]] = {
    "client_id": str,
    "hostname": str,
    "user_agent": str,
    "topology_region": str,
    "topology_zone": str,
    "feature_negotiation": bool,
    "tls_v1": bool,
    "snappy": bool,
    "deflate": bool,
    "heartbeat_interval": int,
    "output_buffer_size": int,
    "output_buffer_timeout": int,
    "sample_rate": int,
    "msg_timeout": int,
    "deflate_level": int,
}


class Limits:
    """What a server offers and allows in IDENTIFY. Sizes in bytes, times in ns; the defaults are NSQ's."""

    def __init__(self) -> None:
        self.version = "1.3.0"
        self.max_rdy_count: i64 = 2500
        self.msg_timeout: i64 = 60_000 * MS
        self.max_msg_timeout: i64 = 900_000 * MS
        self.heartbeat_interval: i64 = 30_000 * MS
        self.max_heartbeat_interval: i64 = 60_000 * MS
        self.output_buffer_size: i64 = 16384
        self.max_output_buffer_size: i64 = 65536
        self.output_buffer_timeout: i64 = 250 * MS
        self.min_output_buffer_timeout: i64 = 25 * MS
        self.max_output_buffer_timeout: i64 = 30_000 * MS
        self.max_deflate_level: i64 = 6
        self.deflate = True
        self.snappy = True
        self.tls = False  # a certificate is there
        self.auth_required = False
        self.topology_region = ""
        self.topology_zone = ""


class Security:
    """What TLS with one client came to, in the words of /stats."""

    def __init__(self, version: str, cipher_suite: str, protocol: str, common_name: str) -> None:
        self.version = version
        self.cipher_suite = cipher_suite
        self.protocol = protocol  # agreed on by ALPN
        self.common_name = common_name  # in the client's certificate


class Identity:
    """What was agreed on with one client. Times in ns; a heartbeat interval of 0 means none."""

    def __init__(self, limits: Limits) -> None:
        self.client_id = ""
        self.hostname = ""
        self.user_agent = ""
        self.topology_region = ""
        self.topology_zone = ""
        self.negotiated = False  # the reply is JSON and the features below count
        self.heartbeat_interval: i64 = limits.heartbeat_interval
        self.output_buffer_size: i64 = limits.output_buffer_size
        self.output_buffer_timeout: i64 = limits.output_buffer_timeout
        self.sample_rate: i64 = 0
        self.msg_timeout: i64 = limits.msg_timeout
        self.tls = False  # agreed on, though maybe not in place yet
        self.security: Security | None = None  # it is in place
        self.snappy = False
        self.deflate = False
        self.deflate_level: i64 = min(6, limits.max_deflate_level)

    def layers(self) -> list[str]:
        """The layers to put between socket and session, in this order."""
        agreed = (("tls", self.tls), ("snappy", self.snappy), ("deflate", self.deflate))
        return [name for name, wanted in agreed if wanted]

    def reply(self, limits: Limits) -> bytes:
        """The answer to IDENTIFY: `OK`, or one JSON object when features are negotiated."""
        if not self.negotiated:
            return b"OK"
        fields: dict[str, object] = {
            "max_rdy_count": int(limits.max_rdy_count),
            "version": limits.version,
            "max_msg_timeout": int(limits.max_msg_timeout // MS),
            "msg_timeout": int(self.msg_timeout // MS),
            "tls_v1": self.tls,
            "deflate": self.deflate,
            "deflate_level": int(self.deflate_level),
            "max_deflate_level": int(limits.max_deflate_level),
            "snappy": self.snappy,
            "sample_rate": int(self.sample_rate),
            "auth_required": limits.auth_required,
            "output_buffer_size": int(self.output_buffer_size),
            "output_buffer_timeout": int(self.output_buffer_timeout // MS),
            "topology_region": limits.topology_region,
            "topology_zone": limits.topology_zone,
        }
        return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")


def negotiate(body: bytes, limits: Limits) -> Identity:
    """Check a client's IDENTIFY body. BadBody or IdentifyFailed, with NSQ's texts, if it can't be had."""
    asked = _decode(body)
    agreed = Identity(limits)
    agreed.client_id = _string(asked, "client_id")
    agreed.hostname = _string(asked, "hostname")
    agreed.user_agent = _string(asked, "user_agent")
    agreed.topology_region = _string(asked, "topology_region")
    agreed.topology_zone = _string(asked, "topology_zone")
    agreed.negotiated = bool(asked.get("feature_negotiation"))
    _heartbeat(agreed, _int(asked, "heartbeat_interval"), limits)
    _output_buffer(agreed, asked, limits)
    rate = _int(asked, "sample_rate")
    if not 0 <= rate <= 99:
        raise BadBody(f"IDENTIFY sample rate ({rate}) is invalid")
    agreed.sample_rate = rate
    timeout = _int(asked, "msg_timeout")
    if timeout != 0:
        if not 1000 <= timeout <= limits.max_msg_timeout // MS:
            raise BadBody(f"IDENTIFY msg timeout ({timeout}) is invalid")
        agreed.msg_timeout = timeout * MS
    if agreed.negotiated:
        _features(agreed, asked, limits)
    return agreed


def _heartbeat(agreed: Identity, asked: int, limits: Limits) -> None:
    if asked == 0:
        return
    if asked == -1:
        agreed.heartbeat_interval = 0
    elif 1000 <= asked <= limits.max_heartbeat_interval // MS:
        agreed.heartbeat_interval = asked * MS
    else:
        raise BadBody(f"IDENTIFY heartbeat interval ({asked}) is invalid")


def _output_buffer(agreed: Identity, asked: dict[str, object], limits: Limits) -> None:
    timeout = _int(asked, "output_buffer_timeout")
    if timeout == -1:
        agreed.output_buffer_timeout = 0
    elif timeout != 0:
        if not limits.min_output_buffer_timeout // MS <= timeout <= limits.max_output_buffer_timeout // MS:
            raise BadBody(f"IDENTIFY output buffer timeout ({timeout}) is invalid")
        agreed.output_buffer_timeout = timeout * MS
    size = _int(asked, "output_buffer_size")
    if size == -1:
        agreed.output_buffer_size = 1
        agreed.output_buffer_timeout = 0
    elif size != 0:
        if not 64 <= size <= limits.max_output_buffer_size:
            raise BadBody(f"IDENTIFY output buffer size ({size}) is invalid")
        agreed.output_buffer_size = size


def _features(agreed: Identity, asked: dict[str, object], limits: Limits) -> None:
    agreed.tls = limits.tls and bool(asked.get("tls_v1"))
    agreed.snappy = limits.snappy and bool(asked.get("snappy"))
    agreed.deflate = limits.deflate and bool(asked.get("deflate"))
    if agreed.snappy and agreed.deflate:
        raise IdentifyFailed("cannot enable both deflate and snappy compression")
    level = _int(asked, "deflate_level") if agreed.deflate else 0
    agreed.deflate_level = min(level if level > 0 else 6, int(limits.max_deflate_level))


def _decode(body: bytes) -> dict[str, object]:
    """The known fields, by their lower-case names, types checked."""
    try:
        return decode_document(body, _KINDS)
    except BadDocument as error:
        raise BadBody(f"IDENTIFY {str(error) or 'failed to decode JSON body'}") from None


def _string(fields: dict[str, object], name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else ""


def _int(fields: dict[str, object], name: str) -> int:
    value = fields.get(name)
    return value if isinstance(value, int) else 0
