"""`parse_query` and what calls read from it, against a plain reading by Go's rules. Input: a query string."""

from nsqkit.names import valid_name
from nsqkit.web.call import Call, parse_query
from nsqkit.web.errors import BadRequest
from tests.fuzz.source import same


def check(data: bytes) -> None:
    """The parameters are those of the model; a topic that is taken is a name."""
    expected = _reference(data)
    try:
        params = parse_query(data)
    except BadRequest as error:
        assert expected is None
        same("INVALID_REQUEST", error.text)
        return
    assert expected == params
    call = Call({"type": "http", "query_string": data}, b"")
    try:
        topic, channel = call.topic_and_channel()
    except BadRequest as error:
        same(True, error.text.startswith(("MISSING_ARG_", "INVALID_ARG_")))
    else:
        assert valid_name(topic)
        assert valid_name(channel)
        assert (topic, channel) == (params["topic"], params["channel"])


def _reference(raw: bytes) -> dict[str, str] | None:
    if b";" in raw:
        return None
    params: dict[str, str] = {}
    for pair in raw.split(b"&"):
        if not pair:
            continue
        name, _, value = pair.partition(b"=")
        key, text = _unescaped(name), _unescaped(value)
        if key is None or text is None:
            return None
        if key not in params:
            params[key] = text
    return params


def _unescaped(raw: bytes) -> str | None:
    out = bytearray()
    at = 0
    while at < len(raw):
        if raw[at : at + 1] == b"%":
            digits = raw[at + 1 : at + 3]
            if len(digits) < 2 or not all(chr(digit) in "0123456789abcdefABCDEF" for digit in digits):
                return None
            out.append(int(digits, 16))
            at += 3
            continue
        out += b" " if raw[at : at + 1] == b"+" else raw[at : at + 1]
        at += 1
    return out.decode("utf-8", "replace")
