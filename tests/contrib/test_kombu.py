"""The transport under kombu itself: every kind of exchange, every answer, and what it says when something can't be."""

import logging
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from kombu import Connection, Consumer, Exchange, Message, Queue
from kombu.exceptions import OperationalError

from nsqkit.client.sync import SyncProducer
from nsqkit.contrib.kombu import Transport, channel
from nsqkit.errors import BadDelay, OptionError, Refused
from tests.contrib.conftest import Broker

WAIT_S = 20.0
NO_MORE_S = 0.1  # for what would come at once, if it came


@pytest.fixture
def connect(nsqd: Broker) -> Iterator[Callable[..., Connection]]:
    """Gives connections to the nsqd, with these transport_options."""
    connections: list[Connection] = []

    def make(**options: Any) -> Connection:
        connections.append(
            Connection(
                f"nsq://{nsqd.address}",
                transport="nsqkit.contrib.kombu:Transport",
                transport_options=options,
            )
        )
        return connections[-1]

    yield make
    for connection in connections:
        connection.release()


class Reader:
    """Consumes queues by a connection, and keeps what came."""

    def __init__(
        self, connection: Connection, *queues: Queue, prefetch: int = 0, no_ack: bool = False
    ) -> None:
        self.connection = connection
        self.channel = connection.channel()
        self.got: list[Message] = []
        self.consumer = Consumer(
            self.channel, queues, on_message=self.got.append, no_ack=no_ack, prefetch_count=prefetch or None
        )
        self.consumer.consume()

    def take(self, count: int = 1) -> list[Message]:
        """The next ones."""
        before = len(self.got)
        while len(self.got) < before + count:
            self.connection.drain_events(timeout=WAIT_S)
        return self.got[before:]

    def nothing_comes(self) -> bool:
        """Whether it is so, for a moment."""
        try:
            self.connection.drain_events(timeout=NO_MORE_S)
        except TimeoutError:
            return True
        return False


def publish(connection: Connection, body: Any, **where: Any) -> None:
    """One message."""
    with connection.channel() as channel:
        channel.Producer(serializer="json").publish(body, **where)


def until(condition: Callable[[], bool]) -> None:
    """Return when it is so."""
    give_up = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def test_a_queue(connect: Callable[..., Connection], nsqd: Broker) -> None:
    """What is published to a queue comes once, is gone when acknowledged, and a rejected one comes again, or not."""
    queue = Queue("books")
    reader = Reader(connect(), queue)
    publish(connect(), {"title": "one"}, routing_key="books")

    (first,) = reader.take()
    assert {"title": "one"} == first.decode()
    assert not first.delivery_info["redelivered"]
    first.requeue()
    (again,) = reader.take()
    assert again.delivery_info["redelivered"]
    again.ack()
    publish(connect(), {"title": "two"}, routing_key="books")
    reader.take()[0].reject()

    assert reader.nothing_comes()
    until(lambda: nsqd.channel("books", "celery")["in_flight_count"] == 0)
    assert 0 == nsqd.channel("books", "celery")["depth"]


def test_what_a_closed_connection_had(connect: Callable[..., Connection], nsqd: Broker) -> None:
    """Acknowledgements given just before the end are kept; what was not acknowledged comes to another, at once."""
    queue = Queue("books")
    connection = connect()
    reader = Reader(connection, queue, prefetch=2)
    for number in range(4):
        publish(connect(), number, routing_key="books")
    done, undone = reader.take(2)
    done.ack()
    connection.release()

    others = Reader(connect(), queue).take(3)

    assert {0, 1, 2, 3} - {done.decode()} == {message.decode() for message in others}
    assert undone.decode() in {message.decode() for message in others}
    assert 0 == nsqd.channel("books", "celery")["timeout_count"]


def test_a_cancelled_consumer(connect: Callable[..., Connection], nsqd: Broker) -> None:
    """It gets no more, but may acknowledge what it has; then its connection ends."""
    reader = Reader(connect(), Queue("books"), prefetch=1)
    publish(connect(), 1, routing_key="books")
    (message,) = reader.take()

    reader.consumer.cancel()
    publish(connect(), 2, routing_key="books")
    assert reader.nothing_comes()
    message.ack()

    until(lambda: nsqd.channel("books", "celery")["client_count"] == 0)
    assert (1, 0) == (
        nsqd.channel("books", "celery")["depth"],
        nsqd.channel("books", "celery")["in_flight_count"],
    )


def test_one_queue_may_use_what_others_do_not(connect: Callable[..., Connection], nsqd: Broker) -> None:
    """With two queues one gets all while nothing comes by the other, whose first message then waits for room."""
    reader = Reader(connect(), Queue("busy"), Queue("idle"), prefetch=4)
    for number in range(6):
        publish(connect(), number, routing_key="busy")
    held = reader.take(4)
    publish(connect(), "other", routing_key="idle")
    assert reader.nothing_comes()
    assert (1, 0) == (
        nsqd.channel("idle", "celery")["depth"],
        nsqd.channel("idle", "celery")["in_flight_count"],
    )

    for message in held:
        message.ack()

    assert {4, 5, "other"} == {message.decode() for message in reader.take(3)}
    assert 0 == nsqd.channel("busy", "celery")["requeue_count"]


def test_more_queues_than_messages_to_have(connect: Callable[..., Connection], nsqd: Broker) -> None:
    """Each message comes, one at a time, and others may have what waits meanwhile."""
    queues = [Queue(f"q{number}") for number in range(3)]
    for queue in queues:
        for _ in range(3):
            publish(connect(), queue.name, routing_key=queue.name)
    reader = Reader(connect(), *queues, prefetch=1)

    for _ in range(9):
        (message,) = reader.take()
        assert reader.nothing_comes()
        assert 1 == sum(nsqd.channel(queue.name, "celery")["in_flight_count"] for queue in queues)
        message.ack()

    assert {"q0": 3, "q1": 3, "q2": 3} == Counter(message.decode() for message in reader.got)


def test_a_fanout_exchange(connect: Callable[..., Connection], nsqd: Broker) -> None:
    """Each queue bound to it gets its own copy."""
    exchange = Exchange("news", "fanout")
    readers = [
        Reader(connect(), Queue(f"worker{number}@here", exchange, auto_delete=True), no_ack=True)
        for number in (1, 2)
    ]
    until(lambda: len(nsqd.topic("news#ephemeral").get("channels", ())) == 2)

    publish(connect(), "read all about it", exchange=exchange, declare=[exchange])

    assert [["read all about it"]] * 2 == [[message.decode() for message in each.take()] for each in readers]
    assert all(each.nothing_comes() for each in readers)


def test_what_was_said_before(
    connect: Callable[..., Connection], nsqd: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who begins to listen is not told what was said when nobody did."""
    monkeypatch.setattr(channel, "STALE_NS", 0)
    exchange = Exchange("news", "fanout")
    publish(connect(), "old", exchange=exchange, declare=[exchange])
    reader = Reader(connect(), Queue("ears", exchange, auto_delete=True))
    until(lambda: nsqd.topic("news#ephemeral")["channels"] != [])

    publish(connect(), "new", exchange=exchange, declare=[exchange])

    assert ["new"] == [message.decode() for message in reader.take()]


def test_a_topic_exchange_that_is_listened_to(connect: Callable[..., Connection], nsqd: Broker) -> None:
    """Who listens elsewhere gets what fits its pattern."""
    exchange = Exchange("events", "topic")
    reader = Reader(connect(), Queue("ears", exchange, routing_key="task.#", auto_delete=True), no_ack=True)
    until(lambda: len(nsqd.topic("events#ephemeral").get("channels", ())) == 1)

    for key in ("worker.online", "task.received", "task.done.well"):
        publish(connect(), key, exchange=exchange, routing_key=key, declare=[exchange])

    assert ["task.received", "task.done.well"] == [message.decode() for message in reader.take(2)]
    assert reader.nothing_comes()


def test_a_topic_exchange_with_queues_that_stay(connect: Callable[..., Connection]) -> None:
    """Each queue that matches gets a copy, whether somebody consumes it or not."""
    exchange = Exchange("goods", "topic")
    books, all_goods = (
        Queue(name, exchange, routing_key=key) for name, key in (("books", "book.*"), ("all", "#"))
    )

    publish(connect(), "a pen", exchange=exchange, routing_key="pen", declare=[books, all_goods])
    publish(connect(), "a book", exchange=exchange, routing_key="book.new", declare=[books, all_goods])

    assert ["a book"] == [message.decode() for message in Reader(connect(), books).take()]
    assert ["a book", "a pen"] == sorted(message.decode() for message in Reader(connect(), all_goods).take(2))


def test_a_task_that_is_due_later(connect: Callable[..., Connection], nsqd: Broker) -> None:
    """It waits in nsqd, not here, and has no `eta` when it comes."""
    reader = Reader(connect(), Queue("books"))
    eta = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()

    publish(connect(), "later", routing_key="books", headers={"eta": eta})
    until(lambda: nsqd.channel("books", "celery").get("deferred_count") == 1)
    (message,) = reader.take()

    assert datetime.now(UTC) >= datetime.fromisoformat(eta) - timedelta(milliseconds=50)
    assert message.headers["eta"] is None


def test_a_delay_beyond_the_limit(connect: Callable[..., Connection]) -> None:
    """It is refused here by `max_delay`, naming it and nsqd's option, and by nsqd if that allows less."""
    eta = (datetime.now(UTC) + timedelta(hours=2)).isoformat()

    with pytest.raises(BadDelay, match="at most 3600 s.*--max-req-timeout.*max_delay"):
        publish(connect(), "later", routing_key="books", headers={"eta": eta})
    with pytest.raises(Refused, match="E_INVALID DPUB timeout 7[0-9]{6} out of range 0-3600000"):
        publish(connect(max_delay="24h"), "later", routing_key="books", headers={"eta": eta})


def test_priorities(connect: Callable[..., Connection], caplog: pytest.LogCaptureFixture) -> None:
    """They are ignored, with one warning for a process."""
    Transport._warned = False
    for number in range(3):
        publish(connect(), number, routing_key="books", priority=number)

    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert ["NSQ has no priorities: those of tasks are ignored"] == warnings
    assert {0, 1, 2} == {message.decode() for message in Reader(connect(), Queue("books")).take(3)}


def test_what_is_none_of_kombus(
    connect: Callable[..., Connection], nsqd: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    """It is dropped with an ERROR, and the next message comes."""
    reader = Reader(connect(), Queue("books"))
    with SyncProducer(nsqd.address) as producer:
        for body in (b"\xff", b"[]", b"{}"):
            producer.publish("books", body)
    publish(connect(), "a task", routing_key="books")

    assert ["a task"] == [message.decode() for message in reader.take()]
    until(lambda: nsqd.channel("books", "celery")["in_flight_count"] == 1)
    assert 3 == sum("is dropped, it is none of kombu's" in record.message for record in caplog.records)


def test_counting_and_purging(connect: Callable[..., Connection], nsqd: Broker) -> None:
    """They go by nsqd's HTTP; without its address a queue seems empty, and purging it is an error that says why."""
    for number in range(3):
        publish(connect(), number, routing_key="books")
    blind = Queue("books")(connect().channel())
    seeing = Queue("books")(connect(nsqd_http=nsqd.http_address).channel())

    assert 0 == blind.queue_declare(passive=True).message_count
    with pytest.raises(NotImplementedError, match="nsqd_http in broker_transport_options"):
        blind.purge()
    assert 3 == seeing.queue_declare(passive=True).message_count
    assert 3 == seeing.purge()
    assert 0 == seeing.queue_declare(passive=True).message_count


def test_fetching_one_message(connect: Callable[..., Connection]) -> None:
    """It can't be had, and says so."""
    with pytest.raises(NotImplementedError, match="consume 'books'"):
        Queue("books")(connect().channel()).get()


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"max_delya": 5}, "broker_transport_options has max_delya, which nsqkit does not know"),
        ({"max_in_flight": 5}, "set worker_prefetch_multiplier instead"),
        ({"max_delay": "soon"}, "max_delay: "),
        ({"msg_timeout": -1}, "msg_timeout must be at least 0"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], what: str) -> None:
    """They are refused when they are first looked at, by their names."""
    connection = Connection("nsq://127.0.0.1:1", transport=Transport, transport_options=options)

    with pytest.raises(OptionError, match=what):
        connection.connect()


def test_no_nsqd() -> None:
    """A publish fails after `send_timeout`, with an error of kombu's that says why, so Celery can try it again."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"  # nobody listens there
        with Connection(
            f"nsq://{address}", transport=Transport, transport_options={"send_timeout": 0.05}
        ) as connection:
            producer = connection.Producer(serializer="json")

            with pytest.raises(OperationalError, match=f"no connection to an nsqd .*{address}.*send_timeout"):
                producer.publish("lost", routing_key="books", retry=True, retry_policy={"max_retries": 0})


def test_connections_that_are_only_looked_at_hold_nothing() -> None:
    """Celery makes connections to ask for the kind of their transport, and never closes them."""
    before = len(os.listdir("/proc/self/fd"))
    kinds = [Connection("nsq://127.0.0.1:1", transport=Transport).transport.driver_type for _ in range(10)]

    assert ["nsq"] * 10 == kinds
    assert before == len(os.listdir("/proc/self/fd"))
