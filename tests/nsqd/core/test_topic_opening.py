"""A topic whose log is opened in a thread, when something is published."""

import pytest

from nsqkit.nsqd.core.batch import FAILED, KEPT, PENDING
from nsqkit.nsqd.core.topic import EXITING

pytestmark = pytest.mark.parametrize("flavour", ["memory", "os"], indirect=True)


@pytest.fixture
def opening(node, publish):
    """A topic with one channel; its log is wanted, and a message waits for that. Returns the topic and the batch."""
    node.storage.later = True
    node.channel("t", "c")
    return node.topic("t"), publish("t", b"one")


def test_a_publish_waits_for_the_log(node, publish, opening):
    """Nothing is kept or delivered before it is open, and then everything in its order."""
    topic, first = opening
    consumer = node.client().subscribe("t", "c").ready(10)
    second = publish("t", b"two")

    assert ([topic], [], 0) == (node.broker.unopened, consumer.bodies(), topic.message_count)
    assert (PENDING, PENDING) == (first.state, second.state)
    node.log("t").later = False
    topic.log_opened("")
    node.turn()

    assert [b"one", b"two"] == consumer.bodies()
    assert KEPT == publish("t", b"three").state


def test_nothing_published_needs_no_log(node):
    """Making topics and channels opens nothing."""
    node.storage.later = True
    node.channel("t", "c").pause(paused=True)
    node.turn()

    assert [] == node.broker.unopened


def test_a_log_that_can_not_be_opened(node, publish, opening):
    """What waited for it fails, the health says why, and the next publish tries again."""
    topic, first = opening
    topic.log_opened("no space")

    assert (FAILED, "no space", "no space") == (first.state, first.cause, node.broker.health.text())
    node.broker.unopened.clear()
    publish("t", b"two")
    assert [topic] == node.broker.unopened


def test_the_topic_is_deleted_meanwhile(node, opening):
    """The publish fails, and nothing more is wanted of the log."""
    topic, first = opening
    node.broker.delete_topic("t")
    topic.log_opened("")
    node.turn()

    assert (FAILED, EXITING) == (first.state, first.cause)


def test_the_broker_stops_meanwhile(node, opening):
    """The publish fails, whether the log is opened after that or not."""
    topic, first = opening
    node.broker.hang_up_all()
    node.turn()

    assert (FAILED, EXITING) == (first.state, first.cause)
    topic.log_opened("")
    node.turn()
    assert 0 == topic.message_count
