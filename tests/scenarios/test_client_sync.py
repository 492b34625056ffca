"""The blocking clients, against a real nsqd: threads, forks, interruptions, and the end of the interpreter."""

import os
import signal
import subprocess
import sys
import textwrap
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


def address_of(daemon):
    """As clients are told it."""
    host, port = daemon.address
    return f"{host}:{port}"


WAIT_S = 20


@pytest.fixture
def nsqd(launch):
    """The address of one."""
    return address_of(launch())


def run(program: str, nsqd: str) -> str:
    """What a program prints that has `nsqd`, the address of one. It must end well, and in time."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), nsqd],
        stdout=subprocess.PIPE,
        text=True,
        timeout=WAIT_S,
        check=True,
    )
    return done.stdout


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
try:
    print("ready", flush=True)
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


def test_threads_share_a_producer_and_a_consumer(launch):
    """What eight threads publish, one by one and in batches, two threads get, each message once."""
    nsqd = address_of(launch())
    got: list[bytes] = []

    def publish(number: int) -> None:
        for count in range(20):
            producer.publish("orders", b"%d %d" % (number, count))
        producer.publish_many("orders", [b"%d many %d" % (number, count) for count in range(20)])

    def consume() -> None:
        for message in consumer:
            with message:
                got.append(message.body)

    with SyncProducer(nsqd) as producer, SyncConsumer("orders", "c", nsqd=nsqd, max_in_flight=9) as consumer:
        threads = [threading.Thread(target=publish, args=(number,)) for number in range(8)]
        consumers = [threading.Thread(target=consume) for _ in range(2)]
        for thread in [*threads, *consumers]:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
        while len(got) < 8 * 40:
            consumers[0].join(0.01)
        assert (8 * 21, 0) == (producer.stats().published, producer.stats().pending)  # a batch counts once
        consumer.close()
        for thread in consumers:
            thread.join(WAIT_S)
            assert not thread.is_alive()

    assert len(set(got)) == len(got) == 8 * 40
    with pytest.raises(NotSent, match="closed"):
        producer.publish("orders", b"too late")


def test_a_producer_goes_on_in_a_forked_child_and_in_its_parent(launch):
    """The child publishes by connections of its own, ends as any program does, and leaves the parent's alone."""
    nsqd = launch()
    printed = run(
        """
        import gc, os, sys, warnings
        from nsqkit import SyncProducer

        warnings.simplefilter("ignore", DeprecationWarning)
        producer = SyncProducer(sys.argv[1])
        producer.publish("orders", b"parent, before")
        child = os.fork()
        if child == 0:
            producer.publish("orders", b"child")
            assert producer.stats().published == 1
            del producer
            gc.collect()
            sys.exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        producer.publish("orders", b"parent, after")
        stats = producer.stats()
        producer.close()
        print(stats.published, stats.connections)
        """,
        address_of(nsqd),
    )

    assert printed.split() == ["2", "1"]
    consumer = nsqd.consumer("orders", "c")
    assert {b"parent, before", b"child", b"parent, after"} == {consumer.message().body for _ in range(3)}


def test_a_consumer_belongs_to_its_process(launch):
    """In a child it raises, and leaving its blocks there takes nothing away from the parent."""
    nsqd = launch()
    nsqd.connect().publish("orders", b"one")
    printed = run(
        """
        import os, sys, warnings
        from nsqkit import ConsumerFailed, SyncConsumer

        warnings.simplefilter("ignore", DeprecationWarning)
        child = None
        with SyncConsumer("orders", "c", nsqd=sys.argv[1]) as consumer:
            message = consumer.get()
            with message:
                child = os.fork()
                if child == 0:
                    for forbidden in (consumer.get, message.finish, message.touch, consumer.stats):
                        try:
                            forbidden()
                        except ConsumerFailed as error:
                            assert "forked" in str(error)
                        else:
                            os._exit(1)
            if child == 0:
                sys.exit(7)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            print(code, message.answered, consumer.stats().finished)
        """,
        address_of(nsqd),
    )

    assert printed.split() == ["7", "True", "1"]


def test_what_an_interrupted_get_would_have_had_comes_to_the_next_one(launch):
    """Ctrl-C in the midst of a `get` takes no message away, and the consumer and producer go on."""
    nsqd = launch()
    printed = run(
        """
        import os, signal, sys, threading
        from nsqkit import SyncConsumer, SyncProducer

        with SyncProducer(sys.argv[1]) as producer, SyncConsumer("orders", "c", nsqd=sys.argv[1]) as consumer:
            interruptions = 0
            for number in range(20):
                threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGINT)).start()
                try:
                    while True:
                        consumer.get()
                except KeyboardInterrupt:
                    interruptions += 1
            producer.publish("orders", b"one")
            message = consumer.get(15)
            message.finish()
            print(interruptions, message.body.decode(), message.attempts)
        """,
        address_of(nsqd),
    )

    assert printed.split() == ["20", "one", "1"]


def test_the_end_of_the_interpreter_closes_what_is_open(launch):
    """A program that closes nothing ends by itself, and what it has not worked on goes to others at once."""
    nsqd = launch("--msg-timeout=60s")
    for number in range(3):
        nsqd.connect().publish("orders", b"%d" % number)
    printed = run(
        """
        import sys
        from nsqkit import SyncConsumer, SyncProducer

        producer = SyncProducer(sys.argv[1])
        producer.publish("else", b"one")
        consumer = SyncConsumer("orders", "c", nsqd=sys.argv[1], max_in_flight=3)
        consumer.get().finish()
        print("end")
        """,
        address_of(nsqd),
    )

    assert printed == "end\n"
    consumer = nsqd.consumer("orders", "c")
    assert {b"1", b"2"} == {consumer.message().body for _ in range(2)}


def test_a_publish_that_is_interrupted_is_given_up(launch):
    """Ctrl-C while nsqd does not answer ends the wait at once, and nothing of it is left when nsqd is back."""
    nsqd = launch()
    with SyncProducer(address_of(nsqd)) as producer:
        producer.publish("orders", b"one")
        os.kill(nsqd.pid, signal.SIGSTOP)
        try:
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
            with pytest.raises(KeyboardInterrupt):
                producer.publish("orders", b"two")
        finally:
            os.kill(nsqd.pid, signal.SIGCONT)
        producer.publish("orders", b"three")
        assert producer.stats().pending == 0


def test_the_end_does_not_wait_for_long(launch):
    """Neither for who works on a message in another thread, nor for an nsqd that does not answer."""
    began = time.monotonic()
    printed = run(
        """
        import sys, threading
        from nsqkit import SyncConsumer, SyncProducer

        def work():
            with consumer.get():
                working.set()
                threading.Event().wait()

        working = threading.Event()
        producer = SyncProducer(sys.argv[1])
        producer.publish("orders", b"one")
        consumer = SyncConsumer("orders", "c", nsqd=sys.argv[1])
        threading.Thread(target=work, daemon=True).start()
        assert working.wait(10)
        print("end")
        """,
        address_of(launch()),
    )

    assert printed == "end\n"
    assert time.monotonic() - began < 15


def test_who_gives_up_on_a_message_may_publish_it_elsewhere(nsqd):
    """It is called in a thread, so it may use blocking clients; then the message is finished."""
    states: list[ConsumerState] = []
    with (
        SyncProducer(nsqd) as producer,
        SyncConsumer(
            "orders",
            "billing",
            nsqd=nsqd,
            max_attempts=1,
            on_giving_up=lambda message: producer.publish("dead", message.body),
            on_state=states.append,
        ) as consumer,
        SyncConsumer("dead", "all", nsqd=nsqd) as dead,
    ):
        producer.publish("orders", b"poison")
        first = consumer.get(20)
        assert first is not None
        first.requeue(0, backoff=False)
        producer.publish("orders", b"good")
        second = consumer.get(20)
        assert second is not None
        assert second.body == b"good"
        second.finish()
        buried = dead.get(20)
        assert buried is not None
        assert buried.body == b"poison"
        buried.finish()
        assert consumer.stats().given_up == 1
    assert states[0] is ConsumerState.CONNECTING
    assert states[-1] is ConsumerState.STOPPED
