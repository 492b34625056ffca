"""What an auth server answers: read, checked, and made into permissions.

    {"ttl": 60, "identity": "…", "identity_url": "…",
     "authorizations": [{"topic": "^orders$", "channels": [".*"], "permissions": ["subscribe", "publish"]}]}

Patterns are regular expressions of RE2, as in Go, and by the same library's rules: they are searched for, and the time
it takes grows with pattern and name only. Errors have no word of the answer: who knows what is in it.
"""

from typing import Final
from weakref import WeakValueDictionary

import msgspec
import re2

from nsqkit.nsqd.auth import NoAnswer
from nsqkit.nsqd.core.authority import Permissions
from nsqkit.options.duration import SECOND

MAX_ANSWER: Final = 65_536  # bytes
MAX_PATTERNS: Final = 1000  # in one answer
MAX_PATTERN: Final = 1024  # characters
MAX_TEXT: Final = 1024  # characters of the identity and of its URL
MAX_TTL: Final = 10 * 365 * 86_400  # seconds; more counts as this
PATTERN_MEMORY: Final = 262_144  # bytes that RE2 may use for one pattern

SUBSCRIBE: Final = "subscribe"
PUBLISH: Final = "publish"


class _Authorization(msgspec.Struct):
    """What may be done with the topics and channels that match. Go reads null, and what is missing, as empty."""

    topic: str | None = None
    channels: list[str] | None = None
    permissions: list[str] | None = None


class _Answer(msgspec.Struct):
    """The document."""

    ttl: int | None = None
    identity: str | None = None
    identity_url: str | None = None
    authorizations: list[_Authorization] | None = None


class Pattern:
    """A compiled pattern, the same one for all clients that have it."""

    def __init__(self, text: str) -> None:
        """NoAnswer if it is no regular expression, or one that takes too much."""
        options = re2.Options()
        options.log_errors = False
        options.never_capture = True
        options.max_mem = PATTERN_MEMORY
        try:
            self._compiled = re2.compile(text, options)
        except (re2.error, UnicodeError):
            raise NoAnswer("a pattern of its answer is no regular expression") from None

    def found_in(self, name: str) -> bool:
        """Does it match anywhere?"""
        return self._compiled.search(name) is not None


class Rule:
    """One authorization."""

    def __init__(self, topic: Pattern, channels: list[Pattern], permissions: list[str]) -> None:
        self._topic = topic
        self._channels = channels
        self._permissions = permissions

    def allows(self, topic: str, channel: str) -> bool:
        """To publish is to have a channel without a name."""
        return (
            (SUBSCRIBE if channel else PUBLISH) in self._permissions
            and self._topic.found_in(topic)
            and any(pattern.found_in(channel) for pattern in self._channels)
        )


class Granted(Permissions):
    """The permissions in an answer."""

    def __init__(self, identity: str, identity_url: str, expires_at: int, rules: list[Rule]) -> None:
        super().__init__(identity, identity_url, len(rules), expires_at)
        self._rules = rules

    def allow(self, topic: str, channel: str) -> bool:
        """Any rule suffices."""
        return any(rule.allows(topic, channel) for rule in self._rules)


class Reader:
    """Reads answers. Patterns that are in use are compiled once."""

    def __init__(self) -> None:
        self._patterns: WeakValueDictionary[str, Pattern] = WeakValueDictionary()

    def read(self, body: bytes, now: int) -> Granted:
        """The permissions, good from now on; `now` is ns. NoAnswer."""
        try:
            answer = msgspec.json.decode(body, type=_Answer)
        except (msgspec.MsgspecError, RecursionError, ValueError):
            raise NoAnswer("its answer is not the JSON of an auth server") from None
        ttl = answer.ttl or 0
        if ttl <= 0:
            raise NoAnswer("the ttl of its answer is not above 0")
        identity, identity_url = answer.identity or "", answer.identity_url or ""
        if max(len(identity), len(identity_url)) > MAX_TEXT:
            raise NoAnswer(f"the identity in its answer has more than {MAX_TEXT} characters")
        authorizations = answer.authorizations or []
        if sum(1 + len(one.channels or []) for one in authorizations) > MAX_PATTERNS:
            raise NoAnswer(f"its answer has more than {MAX_PATTERNS} patterns")
        rules = [self._rule(one) for one in authorizations]
        return Granted(identity, identity_url, now + min(ttl, MAX_TTL) * SECOND, rules)

    def _rule(self, authorization: _Authorization) -> Rule:
        permissions = authorization.permissions or []
        if not {SUBSCRIBE, PUBLISH}.issuperset(permissions):
            raise NoAnswer(f"a permission in its answer is neither {SUBSCRIBE} nor {PUBLISH}")
        channels = [self._pattern(text) for text in authorization.channels or []]
        return Rule(self._pattern(authorization.topic or ""), channels, permissions)

    def _pattern(self, text: str) -> Pattern:
        if len(text) > MAX_PATTERN:
            raise NoAnswer(f"a pattern of its answer has more than {MAX_PATTERN} characters")
        pattern = self._patterns.get(text)
        if pattern is None:
            pattern = self._patterns[text] = Pattern(text)
        return pattern
