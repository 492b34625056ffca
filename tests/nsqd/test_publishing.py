"""What an embedding program may publish."""

import re

import pytest

from nsqkit.errors import BadDelay, BadTopicName, EmptyMessage, MessageTooLarge, PublishError
from nsqkit.nsqd.options import NsqdOptions
from nsqkit.nsqd.publishing import Body, delay_of, framed
from nsqkit.options import Duration

OPTIONS = NsqdOptions(max_msg_size=100, max_body_size=300, max_req_timeout="1h")


def test_bodies_are_framed_as_in_mpub():
    """Each body stands after its size, whatever kind of bytes it is."""
    bodies: list[Body] = [b"one", bytearray(b"three"), memoryview(b"4444")]

    assert b"\0\0\0\3one\0\0\0\5three\0\0\0\0044444" == framed(OPTIONS, "t", bodies)


@pytest.mark.parametrize(
    "topic,bodies,error,text",
    [
        ("a b", [b"x"], BadTopicName, "'a b' is no name for a topic"),
        ("", [b"x"], BadTopicName, "'' is no name"),
        ("t", [], EmptyMessage, "there is no message to publish"),
        ("t", [b"x", b""], EmptyMessage, "message 2 of 2 is empty"),
        ("t", [b"x" * 101], MessageTooLarge, "message 1 of 1 has 101 bytes, above --max-msg-size (100)"),
        ("t", [b"x" * 71] * 4, MessageTooLarge, "4 messages are together above --max-body-size (300 bytes)"),
    ],
)
def test_what_is_wrong_is_named(topic, bodies, error, text):
    """Each rule has an error of its own, which says what is wrong with which message."""
    with pytest.raises(error, match=re.escape(text)):
        framed(OPTIONS, topic, bodies)
    assert issubclass(error, PublishError)


def test_the_limits_themselves_are_allowed():
    """A body of the largest size, and bodies that fill a command, are taken."""
    assert 104 == len(framed(OPTIONS, "t", [b"x" * 100]))
    assert 296 == len(framed(OPTIONS, "t", [b"x" * 70] * 4))


def test_text_is_no_body():
    """Text has no bytes until somebody says in which encoding: the mistake is named."""
    with pytest.raises(TypeError, match="message 2 of 2 is str, not bytes"):
        framed(OPTIONS, "t", [b"x", "y"])  # type: ignore[list-item] # that is the point


@pytest.mark.parametrize("delay", [1.5, "1500ms", Duration.parse("1.5s")])
def test_a_delay_is_seconds_or_text(delay):
    """A delay is written like any other length of time."""
    assert 1_500_000_000 == delay_of(OPTIONS, delay)


@pytest.mark.parametrize("delay", [-0.001, 3600.001, float("nan"), "soon", None])
def test_a_delay_that_makes_no_sense_is_refused(delay):
    """A delay is neither negative nor above its limit, and it is a length of time."""
    with pytest.raises(BadDelay, match="a delay of "):
        delay_of(OPTIONS, delay)
