"""A kombu connection to NSQ: where it leads, how much is under way, and who has it after a fork."""

import os
import time
from contextlib import ExitStack
from typing import Any

import pytest
from kombu import Connection, Consumer, Exchange, Producer, Queue

import nsqkit.contrib.kombu.transport
from nsqkit.errors import ConsumerFailed, OptionError

WAIT_S = 20


def until(condition):
    """Return when it is so."""
    give_up = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < give_up, condition
        time.sleep(0.005)


@pytest.fixture
def connect(nsqd):
    """Gives connections to nsqd, with these transport options."""
    with ExitStack() as stack:

        def connect(**options):
            return stack.enter_context(Connection(f"nsq://{nsqd.address}", transport_options=options))

        yield connect


class Taker:
    """A consumer that keeps what it is given."""

    def __init__(self, connection, *queues, prefetch=0, **more):
        self.connection = connection
        self.channel = connection.channel()
        self.messages: list[Any] = []
        self.consumer = Consumer(
            self.channel, queues, on_message=self.messages.append, prefetch_count=prefetch or None, **more
        )
        self.consumer.consume()

    def take(self, count=1):
        """Drain until there are so many; their payloads."""
        while len(self.messages) < count:
            self.connection.drain_events(timeout=WAIT_S)
        return [message.payload for message in self.messages]


def send(connection, *bodies, **more):
    """Publish each of them."""
    with connection.channel() as channel:
        producer = Producer(channel)
        for body in bodies:
            producer.publish(body, **more)


def to(name):
    """Where a queue of this name is published to."""
    queue = Queue(name, Exchange(name), routing_key=name)
    return {"exchange": queue.exchange, "routing_key": name, "declare": [queue]}


def test_a_message_is_acknowledged_or_comes_again(nsqd, connect):
    """ack is FIN; reject is FIN, and REQ if it is to come again, which the message then says."""
    connection = connect()
    send(connection, "done", "bad", "again", **to("q"))
    taker = Taker(connection, Queue("q"))
    assert ["again", "bad", "done"] == sorted(taker.take(3))

    for message in taker.messages:
        assert not message.delivery_info["redelivered"]
        {"done": message.ack, "bad": message.reject, "again": message.requeue}[message.payload]()
    taker.messages.clear()

    assert ["again"] == taker.take()
    assert taker.messages[0].delivery_info["redelivered"]
    taker.messages[0].ack()
    until(lambda: nsqd.channel("q", "celery")["in_flight_count"] == 0)
    assert 1 == nsqd.channel("q", "celery")["requeue_count"]
    assert 0 == nsqd.channel("q", "celery")["depth"]


def test_prefetch_is_what_is_under_way(nsqd, connect):
    """nsqd has no more under way than kombu may have, which may change; what is acknowledged makes room."""
    connection = connect()
    send(connection, *range(10), **to("q"))
    taker = Taker(connection, Queue("q"), prefetch=2)

    taker.take(2)
    with pytest.raises(TimeoutError):
        connection.drain_events(timeout=0.05)
    assert 2 == nsqd.channel("q", "celery")["in_flight_count"]
    taker.messages[0].ack()
    taker.take(3)
    taker.consumer.qos(prefetch_count=5)
    taker.take(6)

    assert 5 == nsqd.channel("q", "celery")["in_flight_count"]
    assert 4 == nsqd.channel("q", "celery")["depth"]


def test_more_queues_than_prefetch(nsqd, connect):
    """One message of three queues is under way, the others wait in nsqd for whoever is free; each comes in the end."""
    connection = connect()
    queues = ["one", "two", "three"]
    for name in queues:
        send(connection, name, **to(name))
    taker = Taker(connection, *map(Queue, queues), prefetch=1)

    for number in range(1, 4):
        taker.take(number)
        until(lambda: sum(nsqd.channel(name, "celery")["in_flight_count"] for name in queues) == 1)
        until(lambda n=number: sum(nsqd.channel(name, "celery")["depth"] for name in queues) == 3 - n)
        taker.messages[-1].ack()

    assert sorted(queues) == sorted(message.payload for message in taker.messages)


def test_a_cancelled_consumer_may_go_on(connect):
    """Consuming again takes up the connection, or makes another one."""
    connection = connect()
    taker = Taker(connection, Queue("q"), prefetch=5)
    for number in range(2):
        send(connection, number, **to("q"))
        taker.take(number + 1)
        taker.consumer.cancel()
        if number:
            taker.messages[0].ack()
        taker.consumer.consume()

    assert [0, 1] == [message.payload for message in taker.messages[:2]]


def test_without_acknowledgement(nsqd, connect):
    """What needs none is finished when it is handed over."""
    connection = connect()
    send(connection, "one", **to("q"))
    taker = Taker(connection, Queue("q"), no_ack=True)

    assert ["one"] == taker.take()
    until(lambda: nsqd.channel("q", "celery")["in_flight_count"] == 0)
    assert 0 == nsqd.channel("q", "celery")["depth"]


def test_a_direct_exchange_nobody_declared(connect):
    """The routing key is the queue then."""
    send(connect(), "one", exchange="", routing_key="q")
    send(connect(), "two", exchange=Exchange("unknown"), routing_key="q")

    assert ["one", "two"] == sorted(Taker(connect(), Queue("q")).take(2))


def test_an_answer_of_http_that_is_an_error(nsqd, connect, monkeypatch):
    """It is an OSError with the address and the status."""
    queue = Queue("a b", channel=connect(nsqd_http=nsqd.http_address).channel())
    monkeypatch.setattr("nsqkit.contrib.kombu.names.topic_of_queue", lambda name: name)

    with pytest.raises(OSError, match=r"nsqd 127.0.0.1:\d+ answered 400 to "):
        queue.purge()


def test_a_queue_is_deleted_here(nsqd, connect):
    """It is consumed no more, and not bound any more; its topic stays."""
    connection = connect()
    exchange = Exchange("e", "topic")
    queue = Queue("q", exchange, routing_key="#")
    taker = Taker(connection, queue)
    until(lambda: nsqd.channel("q", "celery").get("client_count") == 1)

    taker.channel.queue_delete("q")

    until(lambda: nsqd.channel("q", "celery")["client_count"] == 0)
    assert [] == list(taker.channel.list_bindings())


def test_a_consumer_that_gives_up_is_an_error_of_the_connection(connect):
    """So Celery sees it, and connects again."""
    connection = connect(tls_v1=True)  # which this nsqd does not offer
    taker = Taker(connection, Queue("q"))

    with pytest.raises(connection.connection_errors) as caught:
        taker.take()
    assert isinstance(caught.value, ConsumerFailed)


def test_a_child_has_connections_of_its_own(nsqd, connect):
    """With the parent's connection a child publishes and consumes; the parent's consumer does not notice."""
    connection = connect()
    taker = Taker(connection, Queue("q"))
    until(lambda: nsqd.channel("q", "celery").get("client_count") == 1)

    child = os.fork()
    if not child:
        code = 1
        try:
            send(connection, "from the child", **to("q"))
            send(connection, "to the child", **to("r"))
            code = 0 if Taker(connection, Queue("r")).take() == ["to the child"] else 2
        finally:
            os._exit(code)

    assert (child, 0) == os.waitpid(child, 0)
    assert ["from the child"] == taker.take()
    taker.messages[0].ack()
    until(lambda: nsqd.channel("q", "celery")["in_flight_count"] == 0)


def test_where_nsqds_are(nsqd):
    """Every URL counts, the port is 4150 unless said, and no host means localhost, or nobody with a lookupd."""

    def nsqds(url, **options):
        with Connection(url, transport_options=options) as connection:
            return connection.transport._nsqds

    assert ["a:1", "b:4150"] == nsqds("nsq://a:1;nsq://b")
    assert ["[::1]:4150"] == nsqds("nsq://[::1]")
    assert ["localhost:4150"] == nsqds("nsq://")
    assert [] == nsqds("nsq://", lookupd="lookup:4161")


@pytest.mark.parametrize(
    ("ssl", "options"),
    [
        (False, (False, "", "")),
        (True, (True, "", "")),
        ({"ca_certs": "ca.pem", "certfile": "c.pem", "keyfile": "k.pem"}, (True, "ca.pem", "c.pem")),
    ],
)
def test_tls(ssl, options):
    """`broker_use_ssl` turns it on, in the words of Python's ssl."""
    with Connection("nsq://", ssl=ssl) as connection:
        for one in (connection.transport._producer_options, connection.transport._consumer_options):
            assert options == (one.tls_v1, str(one.tls_root_ca_file), str(one.tls_cert))


def test_threads_that_are_none(monkeypatch):
    """Under gevent it refuses to work, instead of hanging."""
    monkeypatch.setattr(nsqkit.contrib.kombu.transport, "detect_environment", lambda: "gevent")

    with pytest.raises(OptionError, match="gevent"), Connection("nsq://") as connection:
        assert connection.transport
