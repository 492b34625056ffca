"""What an auth server answers. Input: a body. Patterns without special characters are found where Python finds them."""

import json
from typing import Final

from nsqkit.nsqd.auth import NoAnswer
from nsqkit.nsqd.auth.answer import MAX_PATTERN, MAX_PATTERNS, MAX_TEXT, MAX_TTL, Granted, Reader
from nsqkit.options.duration import SECOND
from tests.fuzz.source import same

NOW: Final = 1_700_000_000 * SECOND
NAMES: Final = ("t", "orders", "orders.eu", "x" * 64)
CHANNELS: Final = ("", "c", "billing", "c#ephemeral")
SAID: Final = {
    "its answer is not the JSON of an auth server",
    "the ttl of its answer is not above 0",
    f"the identity in its answer has more than {MAX_TEXT} characters",
    f"its answer has more than {MAX_PATTERNS} patterns",
    f"a pattern of its answer has more than {MAX_PATTERN} characters",
    "a pattern of its answer is no regular expression",
    "a permission in its answer is neither subscribe nor publish",
}
"""Errors have no word of the answer."""


def check(data: bytes) -> None:
    """Permissions that end, and allow what the answer allows; or an error without a word of it."""
    try:
        granted = Reader().read(data, NOW)
    except NoAnswer as error:
        same(True, str(error) in SAID)
        return
    assert NOW + SECOND <= granted.expires_at <= NOW + MAX_TTL * SECOND
    document = json.loads(data.decode("utf-8", "replace"))
    assert granted.expires_at == NOW + min(document["ttl"], MAX_TTL) * SECOND
    rules = document.get("authorizations") or []
    assert len(rules) == granted.count
    for topic in NAMES:
        for channel in CHANNELS:
            _compare(granted, rules, topic, channel)


def _compare(granted: Granted, rules: list[dict[str, object]], topic: str, channel: str) -> None:
    allowed = granted.allow(topic, channel)
    expected = [_allows(rule, topic, channel) for rule in rules]
    if None not in expected:
        assert allowed == any(expected), (topic, channel)
    elif True in expected:
        assert allowed


def _allows(rule: dict[str, object], topic: str, channel: str) -> bool | None:
    """Whether a rule allows it; None if its patterns are more than text."""
    permissions, channels = rule.get("permissions") or [], rule.get("channels") or []
    assert isinstance(permissions, list)
    assert isinstance(channels, list)
    if ("subscribe" if channel else "publish") not in permissions:
        return False
    found = [_found(rule.get("topic") or "", topic), _any([_found(text, channel) for text in channels])]
    return False if False in found else None if None in found else True


def _any(found: list[bool | None]) -> bool | None:
    return True if True in found else None if None in found else False


def _found(pattern: object, name: str) -> bool | None:
    assert isinstance(pattern, str)
    return pattern in name if pattern.isalnum() or not pattern else None
