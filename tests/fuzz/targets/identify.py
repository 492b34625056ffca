"""IDENTIFY: `negotiate` against the rules of Go's decoder, and the reply to it.

Input: a byte of what the server offers, then the body. The model decodes the JSON by Go's rules: names match
regardless of case, every value of a name must be of its type, null changes nothing, and the last one counts.
"""

import json
from collections.abc import Iterable
from typing import Any, Final, NoReturn

from nsqkit.wire.errors import BadBody, IdentifyFailed
from nsqkit.wire.identify import MS, Identity, Limits, negotiate
from tests.fuzz.source import same

STRINGS: Final = ("client_id", "hostname", "user_agent", "topology_region", "topology_zone")
BOOLS: Final = ("feature_negotiation", "tls_v1", "snappy", "deflate")
INTS: Final = (
    "heartbeat_interval",
    "output_buffer_size",
    "output_buffer_timeout",
    "sample_rate",
    "msg_timeout",
    "deflate_level",
)
KEYS: Final = (
    "max_rdy_count, version, max_msg_timeout, msg_timeout, tls_v1, deflate, deflate_level, max_deflate_level, "
    "snappy, sample_rate, auth_required, output_buffer_size, output_buffer_timeout, topology_region, topology_zone"
)


class _Pairs(list[tuple[str, Any]]):
    """An object, with every pair that it was written with."""


def check(data: bytes) -> None:
    """What was agreed on is what the model expects, and the reply tells it as one JSON object."""
    limits = Limits()
    offered = data[0] if data else 0
    limits.tls, limits.snappy, limits.deflate = bool(offered & 1), not offered & 2, not offered & 4
    limits.max_deflate_level = 1 + (offered >> 3) % 9
    body = data[1:]
    asked = _asked(body)
    try:
        agreed = negotiate(body, limits)
    except BadBody as error:
        if asked is not None:
            same(_refusal(asked, limits), str(error))
    except IdentifyFailed:
        assert asked is not None
        assert limits.snappy
        assert limits.deflate
        assert asked["snappy"]
        assert asked["deflate"]
    else:
        assert asked is not None, "Go does not take this"
        assert not _refusal(asked, limits)
        _check_agreed(agreed, asked, limits)
        _check_reply(agreed, limits)


def _asked(body: bytes) -> dict[str, Any] | None:
    """The fields with Go's zero values; None if Go can't decode the body."""
    fields: dict[str, Any] = dict.fromkeys(STRINGS, "") | dict.fromkeys(BOOLS, False) | dict.fromkeys(INTS, 0)
    try:
        document = json.loads(
            body.decode("utf-8", "replace"), object_pairs_hook=_Pairs, parse_constant=_refuse
        )
    except (ValueError, RecursionError):
        return None
    if document is None:
        return fields
    if not isinstance(document, _Pairs):
        return None
    return fields if all(_set(fields, key, value) for key, value in document) else None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _set(fields: dict[str, Any], key: str, value: object) -> bool:
    """Let a value count. False if it is of the wrong type."""
    name = _folded(key)
    kind = _type_of(name, STRINGS + BOOLS + INTS)
    if kind is None or value is None:
        return True
    if type(value) is not kind or (isinstance(value, int) and not -(2**63) <= value < 2**63):
        return False
    if isinstance(value, str):  # half a character becomes a mark of replacement
        value = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    fields[name] = value
    return True


def _type_of(name: str, known: Iterable[str]) -> type | None:
    if name not in known:
        return None
    return str if name in STRINGS else bool if name in BOOLS else int


def _folded(key: str) -> str:
    """The name that a key stands for: Go folds ASCII letters, and the two characters that fold to one of them."""
    ascii_key = key.replace("\N{LATIN SMALL LETTER LONG S}", "s").replace("\N{KELVIN SIGN}", "k")
    return ascii_key.lower() if ascii_key.isascii() else key


def _refusal(asked: dict[str, Any], limits: Limits) -> str:
    """What NSQ finds wrong first; "" if nothing is."""
    ranges = (
        ("heartbeat_interval", "heartbeat interval", 1000, int(limits.max_heartbeat_interval) // MS, (0, -1)),
        (
            "output_buffer_timeout",
            "output buffer timeout",
            int(limits.min_output_buffer_timeout) // MS,
            int(limits.max_output_buffer_timeout) // MS,
            (0, -1),
        ),
        ("output_buffer_size", "output buffer size", 64, int(limits.max_output_buffer_size), (0, -1)),
        ("sample_rate", "sample rate", 0, 99, ()),
        ("msg_timeout", "msg timeout", 1000, int(limits.max_msg_timeout) // MS, (0,)),
    )
    for name, words, low, high, more in ranges:
        value = asked[name]
        if not low <= value <= high and value not in more:
            return f"IDENTIFY {words} ({value}) is invalid"
    return ""


def _check_agreed(agreed: Identity, asked: dict[str, Any], limits: Limits) -> None:
    for name in STRINGS:
        assert asked[name] == getattr(agreed, name)
    interval = asked["heartbeat_interval"] or 30_000
    assert agreed.heartbeat_interval == max(interval, 0) * MS
    assert agreed.sample_rate == asked["sample_rate"]
    assert agreed.msg_timeout == (asked["msg_timeout"] or 60_000) * MS
    size, timeout = asked["output_buffer_size"] or 16384, asked["output_buffer_timeout"] or 250
    assert agreed.output_buffer_size == (1 if size == -1 else size)
    assert agreed.output_buffer_timeout == (0 if -1 in {size, timeout} else timeout * MS)
    assert agreed.negotiated == asked["feature_negotiation"]
    for feature, name in (("tls", "tls_v1"), ("snappy", "snappy"), ("deflate", "deflate")):
        expected = agreed.negotiated and asked[name] and getattr(limits, feature)
        assert expected == getattr(agreed, feature)
    assert not (agreed.snappy and agreed.deflate)
    assert 1 <= agreed.deflate_level <= limits.max_deflate_level


def _check_reply(agreed: Identity, limits: Limits) -> None:
    reply = agreed.reply(limits)
    if not agreed.negotiated:
        assert reply == b"OK"
        return
    told = json.loads(reply.decode("utf-8"))
    assert KEYS.split(", ") == list(told)
    assert int(agreed.msg_timeout) == told["msg_timeout"] * MS
    assert (agreed.tls, agreed.snappy, agreed.deflate) == (told["tls_v1"], told["snappy"], told["deflate"])
