"""How kombu's queues and exchanges are called in NSQ."""

from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsqkit.contrib.kombu.names import channel_of_listener, topic_of_exchange, topic_of_queue
from nsqkit.names import valid_name


@pytest.mark.parametrize(
    ("queue", "topic"),
    [
        ("celery", "celery"),
        ("video.high-priority_2", "video.high-priority_2"),
        ("x" * 64, "x" * 64),
        ("worker@host", "worker_host-68349058616c"),
        ("x" * 65, "x" * 51 + "-9537c5fdf120"),
        ("", "-e3b0c44298fc"),
    ],
)
def test_a_queue_is_a_topic(queue: str, topic: str):
    """It has the queue's name, if NSQ takes that."""
    assert topic == topic_of_queue(queue)


def test_a_queue_for_replies_goes_by_itself():
    """The topic of a queue that is named by a UUID is ephemeral, and short enough."""
    one = UUID(int=5)

    assert f"{one}#ephemeral" == topic_of_queue(str(one))
    assert valid_name(topic_of_queue(f"{one}.reply.celery.pidbox"))
    assert topic_of_queue(f"{one}.reply.celery.pidbox").endswith("#ephemeral")
    assert not topic_of_queue(f"{one}x").endswith("#ephemeral")
    assert not topic_of_queue(f"tasks-{one}").endswith("#ephemeral")


def test_an_exchange_is_no_queue():
    """What is told to all goes by a topic that no queue has, and a channel for each who listens."""
    assert "celeryev#ephemeral" == topic_of_exchange("celeryev")
    assert "celeryev.1#ephemeral" == channel_of_listener("celeryev.1")


@given(st.text(max_size=100), st.text(max_size=100))
def test_names_are_valid_and_differ(one: str, other: str):
    """Whatever a queue is called, NSQ takes its topic's name; and no two have the same."""
    for name in (topic_of_queue, topic_of_exchange, channel_of_listener):
        assert valid_name(name(one))
        assert (one == other) == (name(one) == name(other))


def test_uuids_are_recognized():
    """Those that Python makes."""
    assert topic_of_queue(str(uuid4())).endswith("#ephemeral")
