"""dramatiq's worker, on a broker of ours and a real nsqd."""

import threading
import time
from contextlib import contextmanager

import dramatiq
import pytest
from dramatiq.common import current_millis
from dramatiq.errors import ConnectionClosed, QueueJoinTimeout, QueueNotFound
from dramatiq.middleware import Retries

from nsqkit import BadDelay, BadTopicName, OptionError, SyncConsumer, SyncProducer
from nsqkit.contrib.dramatiq import NsqBroker

WITHIN_S = 20
WITHIN_MS = WITHIN_S * 1000


@pytest.fixture
def broker(nsqd):
    """A broker whose retries come soon."""
    broker = NsqBroker(
        nsqd.address, http=nsqd.http_address, middleware=[Retries(min_backoff=1, max_backoff=2)]
    )
    yield broker
    broker.close()


@contextmanager
def working(broker, threads=2):
    """A worker."""
    worker = dramatiq.Worker(broker, worker_timeout=100, worker_threads=threads)
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()


def until(condition):
    """Return when it is so."""
    end = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def counts(nsqd, *names, queue="default"):
    """These figures of the channel of a queue; None while there is no channel."""
    channel = nsqd.channel(queue, "dramatiq")
    return tuple(channel.get(name) for name in names)


def test_a_message_is_processed_and_finished(nsqd, broker):
    """What is sent to an actor is processed with its arguments, and join returns when nothing of it is left."""
    seen = []

    @dramatiq.actor(broker=broker)
    def add(one, two):
        seen.append(one + two)

    with working(broker):
        for number in range(20):
            add.send(number, two=1)
        broker.join("default", timeout=WITHIN_MS)

    assert list(range(1, 21)) == sorted(seen)
    assert (20, 0, 0, 0, 0) == counts(
        nsqd, "message_count", "depth", "in_flight_count", "requeue_count", "timeout_count"
    )


def test_each_queue_is_a_topic(nsqd, broker):
    """Actors of two queues get what was sent to theirs."""
    seen = []

    @dramatiq.actor(broker=broker, queue_name="one")
    def one():
        seen.append("one")

    @dramatiq.actor(broker=broker, queue_name="two")
    def two():
        seen.append("two")

    with working(broker):
        one.send()
        two.send()
        broker.join("one", timeout=WITHIN_MS)
        broker.join("two", timeout=WITHIN_MS)

    assert ["one", "two"] == sorted(seen)
    assert (1, 1) == (nsqd.topic("one")["message_count"], nsqd.topic("two")["message_count"])
    assert {"one", "two"} == broker.get_declared_queues()
    assert set() == broker.get_declared_delay_queues()


def test_prefetch_bounds_what_a_worker_has(nsqd, broker):
    """A worker of 1 thread has 2 of 5 messages; told to stop it ends the one it is at and gives the other back."""
    begun, release = threading.Event(), threading.Event()
    seen = []

    @dramatiq.actor(broker=broker)
    def wait(number):
        seen.append(number)
        begun.set()
        release.wait(WITHIN_S)

    for number in range(5):
        wait.send(number)
    with working(broker, threads=1) as worker:
        assert begun.wait(WITHIN_S)
        until(lambda: counts(nsqd, "in_flight_count", "depth") == (2, 3))
        stopping = threading.Thread(target=worker.stop)
        stopping.start()
        until(lambda: not worker.workers[0].running)
        release.set()
        stopping.join()

    assert 1 == len(seen)
    until(lambda: counts(nsqd, "in_flight_count", "depth") == (0, 4))


def test_no_acknowledgement_is_lost_at_shutdown(nsqd, broker):
    """Each message of a worker that stops amid 500 is either processed and finished, or there for the next one."""
    seen = []

    @dramatiq.actor(broker=broker)
    def note(number):
        seen.append(number)

    for number in range(500):
        note.send(number)
    while len(seen) < 500:
        before = len(seen)
        with working(broker, threads=4):
            until(lambda before=before: len(seen) > min(before + 100, 499))

    broker.join("default", timeout=WITHIN_MS)
    assert list(range(500)) == sorted(seen)
    assert (0,) == counts(nsqd, "timeout_count")


def test_a_delay_is_kept_by_nsqd(nsqd, broker):
    """A delayed message is with nsqd until it is due, and goes to no worker's memory."""
    times = []

    @dramatiq.actor(broker=broker)
    def later():
        times.append(time.monotonic())

    with working(broker):
        begun = time.monotonic()
        later.send_with_options(delay=400)
        until(lambda: counts(nsqd, "deferred_count", "in_flight_count") == (1, 0))
        broker.join("default", timeout=WITHIN_MS)

    assert times[0] - begun > 0.39


def test_a_long_delay_is_kept_in_steps(nsqd):
    """A delay above max_delay is kept: the message comes when it is due, and no sooner."""
    broker = NsqBroker(nsqd.address, http=nsqd.http_address, max_delay=0.2)
    times = []

    @dramatiq.actor(broker=broker)
    def later():
        times.append(current_millis())

    with working(broker):
        begun = current_millis()
        later.send_with_options(delay=700)
        broker.join("default", timeout=WITHIN_MS)
    broker.close()

    assert times[0] - begun >= 700
    assert counts(nsqd, "message_count") >= (4,)


def test_max_delay_must_not_exceed_nsqds_limit(nsqd):
    """What nsqd refuses for its delay is an error that names the option of both sides."""
    broker = NsqBroker(nsqd.address, max_delay=7200)
    later = dramatiq.actor(broker=broker, actor_name="later")(lambda: None)

    with pytest.raises(
        BadDelay, match="max_delay is above nsqd's --max-req-timeout.*DPUB timeout 7200000 out of"
    ):
        later.send_with_options(delay=8_000_000)
    broker.close()


def test_a_message_that_fails_is_retried_and_then_a_dead_letter(nsqd, broker):
    """After its retries a message is in the topic .XQ, with its traceback, and nothing of it is in the queue."""
    attempts = []

    @dramatiq.actor(broker=broker, max_retries=2)
    def fail(number):
        attempts.append(number)
        raise LookupError("no such book")

    with working(broker):
        fail.send(7)
        broker.join("default", timeout=WITHIN_MS)

    assert [7, 7, 7] == attempts
    with SyncConsumer("default.XQ", "look", nsqd=nsqd.address) as letters:
        letter = letters.get(WITHIN_S)
        assert letter is not None
        message = dramatiq.Message.decode(letter.body)
        letter.finish()
    assert ("fail", (7,)) == (message.actor_name, message.args)
    assert "no such book" in message.options["traceback"]


def test_what_cannot_be_read_or_has_no_actor_is_a_dead_letter(nsqd, broker):
    """A body that is no message of dramatiq, and a message for an actor nobody knows, go to the topic .XQ."""
    broker.declare_queue("default")
    stranger: dramatiq.Message[None] = dramatiq.Message("default", "stranger", (), {}, {})
    with SyncProducer(nsqd.address) as producer:
        producer.publish("default", b"nonsense")
    broker.enqueue(stranger)

    with working(broker):
        until(lambda: nsqd.topic("default.XQ").get("depth") == 2)
        broker.join("default", timeout=WITHIN_MS)


def test_a_retry_that_cannot_be_published_is_not_lost(nsqd, broker):
    """If the message can't be enqueued anew after a failure, it is given back, and comes again."""
    seen = []

    @dramatiq.actor(broker=broker)
    def fail_once():
        seen.append(1)
        if len(seen) == 1:
            raise LookupError

    real = broker.publish

    def refuse(queue_name, body, delay_ms):
        broker.publish = real
        raise ConnectionClosed("no nsqd")

    fail_once.send()
    broker._consumer_options["default_requeue_delay"] = 0.05
    broker._consumer_options["max_backoff_duration"] = 0
    broker.publish = refuse
    with working(broker):
        until(lambda: len(seen) == 2)
        broker.join("default", timeout=WITHIN_MS)

    assert (1, 1) == counts(nsqd, "requeue_count", "message_count")


def test_a_long_message_is_touched(nsqd):
    """A message that takes longer than msg_timeout is processed once; so is one that waits for it in the worker."""
    broker = NsqBroker(nsqd.address, http=nsqd.http_address, msg_timeout=1)
    seen = []
    release = threading.Event()

    @dramatiq.actor(broker=broker)
    def wait(number):
        seen.append(number)
        release.wait(WITHIN_S)

    with working(broker, threads=1):
        wait.send(1)
        wait.send(2)
        until(lambda: counts(nsqd, "in_flight_count") == (2,))
        begun = time.monotonic()
        until(lambda: time.monotonic() - begun > 1.5)
        release.set()
        broker.join("default", timeout=WITHIN_MS)
    broker.close()

    assert [1, 2] == sorted(seen)
    assert (0,) == counts(nsqd, "timeout_count")


def test_flush_drops_everything(nsqd, broker):
    """What waits in the queue, in its channel and among dead letters is dropped."""
    task = dramatiq.actor(broker=broker, actor_name="task")(lambda: None)
    with working(broker):
        task.send()
        broker.join("default", timeout=WITHIN_MS)
    for _ in range(3):
        task.send()
    broker.publish("default.XQ", b"dead", 0)
    assert (3,) == counts(nsqd, "depth")

    broker.flush_all()

    assert (0,) == counts(nsqd, "depth")
    assert 0 == nsqd.topic("default.XQ")["depth"]


def test_join_gives_up(nsqd, broker):
    """join raises when the time is over, and for a queue that was never declared; without `http` it says so."""
    task = dramatiq.actor(broker=broker, actor_name="task")(lambda: None)
    task.send()

    with pytest.raises(QueueJoinTimeout):
        broker.join("default", timeout=50)
    with pytest.raises(QueueNotFound):
        broker.join("other")
    with pytest.raises(QueueNotFound):
        broker.flush("other")
    with pytest.raises(QueueNotFound):
        broker.consume("other")
    other = NsqBroker(nsqd.address)
    other.declare_queue("default")
    with pytest.raises(OptionError, match="http="):
        other.join("default")


def test_without_nsqd_sending_and_working_are_errors_of_dramatiq():
    """With no nsqd there, send raises ConnectionClosed, and so does a consumer that has given up."""
    broker = NsqBroker("127.0.0.1:1", send_timeout=0.1, retries=0, give_up_after=0.1)
    task = dramatiq.actor(broker=broker, actor_name="task")(lambda: None)

    with pytest.raises(ConnectionClosed, match="it was not sent"):
        task.send()
    consumer = broker.consume("default", timeout=WITHIN_MS)
    with pytest.raises(ConnectionClosed, match="given up"):
        next(consumer)
    consumer.close()
    broker.close()


def test_names_and_options_are_checked(nsqd):
    """A queue whose name is no topic's, an unknown option and a wrong one are refused."""
    broker = NsqBroker(nsqd.address, retries=1, max_attempts=3)

    with pytest.raises(OptionError, match="1 to 61 characters"):
        broker.declare_queue("x" * 62)
    with pytest.raises(BadTopicName):
        broker.enqueue(dramatiq.Message("no topic", "task", (), {}, {}))
    with pytest.raises(OptionError, match="max_in_flight"):
        NsqBroker(nsqd.address, max_in_flight=-1)
    with pytest.raises(TypeError, match="nonsense"):
        NsqBroker(nsqd.address, nonsense=1)  # type: ignore[call-arg]
    with pytest.raises(OptionError, match="nsqd"):
        NsqBroker()
    broker.close()


def test_a_message_wakes_who_waits(nsqd, broker):
    """Who waits has a message when it comes, and None when none came in time; what is given back comes again."""
    broker.declare_queue("default")
    consumer = broker.consume("default", timeout=50)
    assert next(consumer) is None
    consumer._timeout = WITHIN_S
    message: dramatiq.Message[None] = dramatiq.Message("default", "task", (), {}, {})
    later = threading.Timer(0.1, broker.enqueue, [message])
    later.start()

    begun = time.monotonic()
    received = next(consumer)
    assert time.monotonic() - begun < WITHIN_S / 2
    assert received.message_id == message.message_id
    consumer.requeue([received])
    again = next(consumer)
    assert (message.message_id, 2) == (again.message_id, again.received.attempts)
    consumer.ack(again)
    consumer.close()
    assert (0, 0) == counts(nsqd, "depth", "in_flight_count")
