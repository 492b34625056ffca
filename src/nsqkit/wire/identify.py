"""IDENTIFY: what a client asks for, checked against what the server allows (spec/tcp-protocol.md, section 4).

The request is JSON; keys match regardless of case, unknown ones are ignored, null means absent, and a wrong type
is an error, as in Go's decoder. Times in the request and the reply are milliseconds; inside they are ns.
"""

import json
from typing import Final, NoReturn

from mypy_extensions import i64

from nsqkit.wire.errors import BadBody, IdentifyFailed

MS: Final = 1_000_000  # ns in a millisecond
MAX_STRING: Final = 256  # characters of a string: each is kept, logged and shown

_STRINGS: Final = ("client_id", "hostname", "user_agent", "topology_region", "topology_zone")
_BOOLS: Final = ("feature_negotiation", "tls_v1", "snappy", "deflate")
_INTS: Final = (
    "heartbeat_interval",
    "output_buffer_size",
    "output_buffer_timeout",
    "sample_rate",
    "msg_timeout",
    "deflate_level",
)


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
        self.tls = False
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
        # An object becomes a tuple of pairs: nothing else does, and a name may be there twice.
        document: object = json.loads(
            body.decode("utf-8", "replace"), parse_constant=_refuse, object_pairs_hook=tuple
        )
        if document is None:
            return {}
        if not isinstance(document, tuple):
            _refuse("")
        return _checked(document)
    except (ValueError, RecursionError):
        raise BadBody("IDENTIFY failed to decode JSON body") from None


def _refuse(_: str) -> NoReturn:
    raise ValueError("not what IDENTIFY takes")


def _checked(document: tuple[tuple[str, object], ...]) -> dict[str, object]:
    """As in Go, every value of a name must be of its type, null changes nothing, and the last one counts."""
    fields: dict[str, object] = {}
    for key, value in document:
        name = key.replace("\u017f", "s").lower()  # Go folds the long s, too
        if value is None:
            continue
        if name in _STRINGS:
            good = isinstance(value, str)
        elif name in _BOOLS:
            good = isinstance(value, bool)
        elif name in _INTS:
            good = isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63
        else:
            continue
        if not good:
            _refuse(name)
        if isinstance(value, str) and len(value) > MAX_STRING:
            raise BadBody(f"IDENTIFY {name} too long {len(value)} > {MAX_STRING}")
        fields[name] = value
    return fields


def _string(fields: dict[str, object], name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else ""


def _int(fields: dict[str, object], name: str) -> int:
    value = fields.get(name)
    return value if isinstance(value, int) else 0
