"""What auth servers answer, good and bad."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsqkit.nsqd.auth import NoAnswer
from nsqkit.nsqd.auth.answer import MAX_PATTERN, MAX_PATTERNS, MAX_TEXT, Reader
from nsqkit.nsqd.core.settings import SECOND

NOW = 1_700_000_000 * SECOND
BOTH = ["subscribe", "publish"]


def rule(topic=".*", channels=(".*",), permissions=BOTH):
    """An authorization."""
    return {"topic": topic, "channels": channels, "permissions": permissions}


def read(*rules, **more):
    """What is made of an answer."""
    answer = {"ttl": 60, "identity": "me", "identity_url": "url", "authorizations": rules, **more}
    return Reader().read(json.dumps(answer).encode(), NOW)


def test_a_good_answer():
    """Identity, number of authorizations and the time to ask again are taken from it."""
    granted = read(rule(), rule(), ttl=3)

    assert ("me", "url", 2, NOW + 3 * SECOND) == (
        granted.identity,
        granted.identity_url,
        granted.count,
        granted.expires_at,
    )


@pytest.mark.parametrize(
    "rules, topic, channel, allowed",
    [
        ([rule()], "t", "", True),
        ([rule()], "t", "c", True),
        ([], "t", "", False),
        ([rule(topic="^a$")], "a", "c", True),
        ([rule(topic="^a$")], "ab", "c", False),
        ([rule(topic="a")], "xay", "c", True),
        ([rule(topic=None)], "anything", "c", True),
        ([rule(topic=r"^\pL+\z")], "a", "c", True),
        ([rule(permissions=["publish"])], "t", "c", False),
        ([rule(permissions=["subscribe"])], "t", "", False),
        ([rule(permissions=None)], "t", "", False),
        ([rule(channels=["^foo$"])], "t", "", False),
        ([rule(channels=[])], "t", "", False),
        ([rule(channels=["^foo$", "^$"])], "t", "", True),
        ([rule(channels=["^foo$", "^bar$"])], "t", "bar", True),
        ([rule(topic="^a$"), rule(topic="^b$", permissions=["publish"])], "b", "", True),
        ([rule(topic="^a$"), rule(topic="^b$", permissions=["publish"])], "b", "c", False),
    ],
)
def test_what_is_allowed(rules, topic, channel, allowed):
    """Any authorization suffices; patterns are searched for; publishing is a channel without a name."""
    assert allowed == read(*rules).allow(topic, channel)


@pytest.mark.parametrize(
    "more, why",
    [
        ({"ttl": 0}, "ttl"),
        ({"ttl": -5}, "ttl"),
        ({"ttl": None}, "ttl"),
        ({"ttl": "60"}, "JSON"),
        ({"authorizations": {}}, "JSON"),
        ({"authorizations": [rule(permissions=["publish", "fly"])]}, "permission"),
        ({"authorizations": [rule(topic="(")]}, "no regular expression"),
        ({"authorizations": [rule(channels=["(?<=a)b"])]}, "no regular expression"),
        ({"authorizations": [rule(topic="((a{100}){100}){100}")]}, "no regular expression"),
        ({"authorizations": [rule(topic="\ud800")]}, "answer"),
        ({"authorizations": [rule(topic="a" * (MAX_PATTERN + 1))]}, "1024 characters"),
        ({"authorizations": [rule(channels=["a"] * MAX_PATTERNS)]}, "1000 patterns"),
        ({"identity": "a" * (MAX_TEXT + 1)}, "1024 characters"),
    ],
)
def test_a_bad_answer(more, why):
    """It is refused, for a reason that repeats nothing of it."""
    with pytest.raises(NoAnswer, match=why) as caught:
        read(**more)

    assert "fly" not in str(caught.value)


@given(st.binary())
def test_anything_may_be_answered(raw):
    """Whatever comes is good or refused."""
    with pytest.raises(NoAnswer):
        Reader().read(raw, NOW)


def test_deep_nesting():
    """A document that nests without end is refused."""
    with pytest.raises(NoAnswer):
        Reader().read(b"[" * 60_000, NOW)


def test_no_pattern_takes_long():
    """One with which others try for ages is decided at once: a test that takes too long fails."""
    granted = read(rule(topic="^(a+)+$"), rule(topic="^(a|aa)+$"), rule(topic="(x+x+)+y"))

    assert not granted.allow("a" * 63 + "!", "")
    assert not granted.allow("x" * 64, "")


def test_patterns_are_shared_while_in_use():
    """Clients with the same pattern have it once, and nothing stays of those that are gone."""
    reader = Reader()
    body = json.dumps({"ttl": 1, "authorizations": [rule(topic="^shared$")]}).encode()

    one, two = reader.read(body, NOW), reader.read(body, NOW)
    assert 2 == len(reader._patterns)

    assert one._rules[0]._topic is two._rules[0]._topic
    del one, two
    assert 0 == len(reader._patterns)


def test_a_ttl_without_end():
    """It is cut, and not out of range."""
    assert NOW < read(ttl=2**62).expires_at < 2**63
