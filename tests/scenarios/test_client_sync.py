"""The blocking clients, against a real nsqd."""

import os
import subprocess
import sys
import threading
import time

import pytest

from nsqkit import (
    AlreadyAnswered,
    ConsumerFailed,
    ConsumerState,
    EmptyMessage,
    NotSent,
    OptionError,
    RequeueMessage,
    SyncConsumer,
    SyncProducer,
)


@pytest.fixture
def nsqd(launch):
    """The address of one."""
    host, port = launch().address
    return f"{host}:{port}"


def test_what_is_published_is_consumed(nsqd):
    """One at a time, many, and later; in a block, and by hand."""
    with SyncProducer(nsqd) as producer:
        producer.publish("orders", b"one")
        producer.publish_many("orders", [b"two", b"three"])
        producer.publish("orders", b"late", delay=0.05)
        assert 3 == producer.stats().published
    with SyncConsumer("orders", "billing", nsqd=nsqd, max_in_flight=10) as consumer:
        seen = []
        for message in consumer:
            with message:
                seen.append(message.body)
            assert message.answered
            if len(seen) == 4:
                break
        assert [b"late", b"one", b"three", b"two"] == sorted(seen)
        assert consumer.get(timeout=0.01) is None
        assert ConsumerState.CONSUMING is consumer.state
        assert 4 == consumer.stats().finished
        consumer.max_in_flight = 0
        assert 0 == consumer.max_in_flight
    assert consumer.get() is None


def test_answers_are_those_of_a_message(nsqd):
    """And errors, too."""
    with SyncProducer(nsqd) as producer, SyncConsumer("orders", "billing", nsqd=nsqd) as consumer:
        producer.publish("orders", b'{"a": 1}')
        message = consumer.get()
        assert message is not None
        assert ({"a": 1}, 1, "orders", "billing", nsqd, 16) == (
            message.json(), message.attempts, message.topic, message.channel, message.nsqd, len(message.id),
        )  # fmt: skip
        assert abs(time.time_ns() - message.timestamp) < 60e9
        message.touch()
        with pytest.raises(ValueError):
            message.requeue("soon")
        message.requeue(0, backoff=False)
        again = consumer.get()
        assert again is not None
        assert (message.id, 2) == (again.id, again.attempts)
        again.finish()
        with pytest.raises(AlreadyAnswered):
            again.finish()
        producer.publish("orders", b"x")
        third = consumer.get()
        assert third is not None
        with third:
            raise RequeueMessage(delay=0, backoff=False)
        fourth = consumer.get()
        assert fourth is not None
        with pytest.raises(KeyError), fourth:
            raise KeyError
        assert ConsumerState.BACKOFF is consumer.state
        with pytest.raises(EmptyMessage):
            producer.publish("orders", b"")


def test_many_threads_share_one(nsqd):
    """Their publishes go over one connection."""
    with SyncProducer(nsqd) as producer:

        def publish():
            for _ in range(50):
                producer.publish("orders", b"x")

        threads = [threading.Thread(target=publish) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (400, 1) == (producer.stats().published, producer.stats().connections)


def test_closing_wakes_who_waits(nsqd):
    """Iteration in another thread ends."""
    consumer = SyncConsumer("orders", "billing", nsqd=nsqd)
    ended = threading.Event()

    def consume():
        for _ in consumer:
            pass
        ended.set()

    thread = threading.Thread(target=consume)
    with consumer:
        thread.start()
    assert ended.wait(20)
    thread.join()


def test_a_closed_producer_says_so(nsqd):
    """It sends nothing, and closing it again does nothing."""
    producer = SyncProducer(nsqd)
    producer.close()
    producer.close()
    with pytest.raises(NotSent, match="closed"):
        producer.publish("orders", b"x")


def test_options_are_checked_at_once():
    """Not in the thread, and not later."""
    with pytest.raises(OptionError):
        SyncProducer()
    with pytest.raises(OptionError):
        SyncConsumer("orders", "billing", nsqd="n:1", max_in_flight=-1)


def test_a_consumer_that_gives_up_raises():
    """As the asyncio one does."""
    with (
        SyncConsumer("orders", "billing", nsqd="127.0.0.1:1", give_up_after="50ms") as consumer,
        pytest.raises(ConsumerFailed, match="give_up_after"),
    ):
        consumer.get()


_FORK = """
import os, sys, warnings
from nsqkit import ConsumerFailed, SyncConsumer, SyncProducer
warnings.simplefilter("ignore")  # Python 3.12 warns of forks beside threads
producer = SyncProducer(sys.argv[1])
consumer = SyncConsumer("orders", "billing", nsqd=sys.argv[1], max_in_flight=5)
producer.publish("orders", b"parent")
message = consumer.get()
child = os.fork()
if not child:
    producer.publish("orders", b"child")
    try:
        consumer.get()
    except ConsumerFailed as error:
        assert "make one in each process" in str(error), error
    else:
        raise SystemExit("the child could use its parent's consumer")
    consumer.close()
    assert 1 == producer.stats().published
    producer.close()
    raise SystemExit(0)
_, status = os.waitpid(child, 0)
assert status == 0, status
producer.publish("orders", b"after")
message.finish()
assert {b"child", b"after"} == {one.body for one in (consumer.get(), consumer.get())}
assert 2 == producer.stats().published
print("well")
"""


def test_a_child_begins_anew(nsqd):
    """It publishes over a connection of its own; the parent goes on with his, and both end."""
    done = subprocess.run(
        [sys.executable, "-c", _FORK, nsqd], capture_output=True, text=True, timeout=20, check=False
    )

    assert ("well\n", 0) == (done.stdout, done.returncode), done.stderr


_EXIT = """
import sys
from nsqkit import SyncConsumer, SyncProducer
producer = SyncProducer(sys.argv[1])
producer.publish("orders", b"x")
consumer = SyncConsumer("orders", "billing", nsqd=sys.argv[1])
consumer.get().finish()
"""


def test_a_program_may_end_without_closing(nsqd):
    """What was answered arrives, and nothing hangs."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _EXIT, nsqd],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )

    assert (0, "") == (done.returncode, done.stderr)
    with SyncConsumer("orders", "billing", nsqd=nsqd) as consumer:
        assert consumer.get(timeout=0.3) is None


_INTERRUPTED = """
import signal, sys
from nsqkit import SyncConsumer
consumer = SyncConsumer("orders", "billing", nsqd=sys.argv[1])
consumer.get(timeout=0.01)
print("ready", flush=True)
try:
    consumer.get()
except KeyboardInterrupt:
    print("interrupted", consumer.state.value, flush=True)
consumer.close()
print(consumer.state.value)
"""


def test_control_c_interrupts_who_waits(nsqd):
    """And the consumer can be used, or closed, as before."""
    with subprocess.Popen(
        [sys.executable, "-c", _INTERRUPTED, nsqd], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert "ready\n" == process.stdout.readline()
        os.kill(process.pid, 2)
        out, errors = process.communicate(timeout=20)

    assert out.splitlines()[-1] == "stopped", errors
    assert out.startswith("interrupted")
