"""The client against a real nsqd: this project's, and NSQ's own where NSQ_GO_BIN says that it is.

What each option does is in test_client_options.py.
"""

import asyncio
import http.server
import json
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from nsqkit import (
    Consumer,
    ConsumerFailed,
    ConsumerState,
    NotSent,
    OutcomeUnknown,
    Producer,
    Refused,
)
from tests.scenarios.client_servers import (
    CHANNEL,
    TOPIC,
    address_of,
    client_of,
    consumer_of,
    eventually,
    exchange,
    one,
    settled,
    stats_of,
    take,
)
from tests.scenarios.conftest import WAIT_S

HIGHEST_ID = 16**16


def test_messages_come_as_they_were_published(launch_either):
    """PUBs under way at once and an MPUB: each message comes once, with what nsqd says of it."""
    nsqd = launch_either()

    async def run():
        began = time.time_ns()
        async with Producer(address_of(nsqd)) as producer, consumer_of(nsqd) as consumer:
            await producer.publish(TOPIC, bytearray(b"one"))
            message = await one(consumer)
            assert (b"one", 1, TOPIC, CHANNEL) == (
                message.body,
                message.attempts,
                message.topic,
                message.channel,
            )
            assert 0 <= int(message.id, 16) < HIGHEST_ID
            assert len(message.id) == 16
            assert began <= message.timestamp <= time.time_ns()
            assert address_of(nsqd) == message.nsqd
            await message.finish()
        await exchange(nsqd, count=1000)

    asyncio.run(run())


def test_requeued_messages_come_again(launch_either):
    """At once or after a delay, with one attempt more; so does what a handler fails at, until max_attempts."""
    nsqd = launch_either()
    attempts, gone = [], asyncio.Event()

    async def fail(message):
        attempts.append(message.attempts)
        raise ValueError("a handler's bug")

    def give_up(_):
        gone.set()

    async def run():
        async with Producer(address_of(nsqd)) as producer:
            async with consumer_of(nsqd) as consumer:
                await producer.publish(TOPIC, b"again")
                first = await one(consumer)
                await first.requeue(0, backoff=False)
                second = await one(consumer)
                requeued_at = time.monotonic()
                await second.requeue("600ms", backoff=False)
                third = await one(consumer)
                assert time.monotonic() - requeued_at > 0.55
                assert {first.id} == {second.id, third.id}
                assert [1, 2, 3] == [first.attempts, second.attempts, third.attempts]
                await third.finish()
            async with consumer_of(
                nsqd,
                handler=fail,
                on_giving_up=give_up,
                max_attempts=3,
                default_requeue_delay="20ms",
                backoff_multiplier="10ms",
            ):
                await producer.publish(TOPIC, b"bad")
                async with asyncio.timeout(WAIT_S):
                    await gone.wait()
                channel = await settled(nsqd)
        assert [1, 2, 3] == attempts
        assert channel["requeue_count"] == 5

    asyncio.run(run())


def test_deferred_messages_come_when_they_are_due(launch_either):
    """Not before the delay, while others overtake them."""
    nsqd = launch_either()

    async def run():
        async with Producer(address_of(nsqd)) as producer, consumer_of(nsqd, max_in_flight=5) as consumer:
            await consumer.wait_for(ConsumerState.CONSUMING)
            published_at = time.monotonic()
            await producer.publish(TOPIC, b"later", delay=0.7)
            await producer.publish(TOPIC, b"now")
            assert [b"now", b"later"] == await take(consumer, 2)
            assert time.monotonic() - published_at > 0.65

    asyncio.run(run())


def test_touched_messages_are_nobody_elses(launch_either):
    """By hand or by `async with`, a message worked on for longer than its time does not come again; else it does."""
    nsqd = launch_either()

    async def run():
        async with (
            Producer(address_of(nsqd)) as producer,
            consumer_of(nsqd, msg_timeout="1s", max_in_flight=2) as consumer,
        ):
            await producer.publish(TOPIC, b"by hand")
            message = await one(consumer)
            for _ in range(3):
                assert await consumer.get(0.6) is None
                await message.touch()
            await message.finish()

            await producer.publish(TOPIC, b"by itself")
            message = await one(consumer)
            async with message:
                assert await consumer.get(2.2) is None
            assert (await settled(nsqd))["timeout_count"] == 0

            await producer.publish(TOPIC, b"not at all")
            message = await one(consumer)
            again = await one(consumer)
            assert (message.id, 2) == (again.id, again.attempts)
            await again.finish()
            assert (await settled(nsqd))["timeout_count"] == 1

    asyncio.run(run())


@pytest.mark.parametrize(
    "layers", ["tls_v1", "snappy", "deflate", "tls_v1 snappy", "tls_v1 deflate"], ids=str.split
)
def test_layers(launch_either, certificates, layers):
    """Each layer, and compression under TLS: messages come whole, and nsqd says what the connection has."""
    nsqd = launch_either(*certificates.flags())
    options = dict.fromkeys(layers.split(), True) | {"tls_root_ca_file": certificates.authority}

    client = asyncio.run(exchange(nsqd, **options))

    assert [one in layers for one in ("tls", "snappy", "deflate")] == [
        client[one] for one in ("tls", "snappy", "deflate")
    ]


def test_tls_with_a_clients_certificate(launch_either, certificates):
    """nsqd demands one that it can verify: with it messages go through, without it or with another they do not."""
    nsqd = launch_either(
        *certificates.flags(
            f"--tls-root-ca-file={certificates.authority}",
            "--tls-client-auth-policy=require-verify",
            "--tls-required=tcp-https",
        )
    )
    options = {"tls_v1": True, "tls_root_ca_file": certificates.authority}
    good = {"tls_cert": certificates.client.certificate, "tls_key": certificates.client.key}
    rogue = {"tls_cert": certificates.rogue.certificate, "tls_key": certificates.rogue.key}

    assert asyncio.run(exchange(nsqd, **options, **good))["tls"]
    assert asyncio.run(exchange(nsqd, tls_v1=True, tls_context=certificates.trusting(certificates.client)))[
        "tls"
    ]
    for pair in ({}, rogue):
        assert "TLS" in asyncio.run(failure(nsqd, **options, **pair))


def test_tls_that_is_not_there_or_not_trusted(launch_either, certificates):
    """An nsqd without TLS, or with a certificate that nobody vouches for, gets no message."""
    plain, strange = launch_either(), launch_either(*certificates.flags())

    assert "does not offer TLS" in asyncio.run(failure(plain, tls_v1=True))
    assert "certificate" in asyncio.run(failure(strange, tls_v1=True))
    assert asyncio.run(exchange(strange, tls_v1=True, tls_insecure_skip_verify=True))["tls"]


async def failure(nsqd, **options):
    """Why a consumer gives up, which a producer then says too. No message gets through."""
    before = (await stats_of(nsqd)).get("message_count")
    async with consumer_of(nsqd, **options) as consumer:
        async with asyncio.timeout(WAIT_S):
            with pytest.raises(ConsumerFailed) as failed:
                await consumer.get()
    async with Producer(address_of(nsqd), send_timeout=0.5, **options) as producer:
        with pytest.raises(NotSent, match=address_of(nsqd)):
            await producer.publish(TOPIC, b"one")
    assert before == (await stats_of(nsqd)).get("message_count")
    return str(failed.value)


# -- AUTH


class AuthServer(http.server.ThreadingHTTPServer):
    """Lets who has the secret publish and consume, on one topic."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), AuthAnswer)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def flag(self) -> str:
        """What nsqd is told."""
        return f"--auth-http-address=127.0.0.1:{self.server_address[1]}"

    def close(self) -> None:
        """Stop."""
        self.shutdown()
        self._thread.join()
        self.server_close()


class AuthAnswer(http.server.BaseHTTPRequestHandler):
    """One question."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer."""
        known = parse_qs(urlsplit(self.path).query)["secret"] == ["open sesame"]
        rule = {"topic": f"^{TOPIC}$", "channels": [".*"], "permissions": ["publish", "subscribe"]}
        answer = {"ttl": 60, "identity": "ali", "identity_url": "", "authorizations": [rule] if known else []}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def auth_server() -> Iterator[AuthServer]:
    """A running one."""
    one = AuthServer()
    yield one
    one.close()


def test_auth(launch_either, auth_server):
    """With the secret messages go through, but not to a topic that it does not allow."""
    nsqd = launch_either(auth_server.flag)

    async def run():
        assert (await exchange(nsqd, auth_secret="open sesame"))["auth_identity"] == "ali"
        async with Producer(address_of(nsqd), auth_secret="open sesame") as producer:
            with pytest.raises(Refused) as refused:
                await producer.publish("forbidden", b"one")
            assert refused.value.code == "E_UNAUTHORIZED"
            await producer.publish(TOPIC, b"it goes on")

    asyncio.run(run())


@pytest.mark.parametrize("secret", ["", "open barley"])
def test_auth_without_the_secret(launch_either, auth_server, secret):
    """The consumer fails for good, and the producer says why."""
    nsqd = launch_either(auth_server.flag)

    assert "AUTH" in asyncio.run(failure(nsqd, auth_secret=secret))


# -- when things go wrong


def test_a_refused_publish_is_told_from_its_neighbours(launch_either):
    """nsqd hangs up on one that is too large: that is refused, those behind it are unknown, and publishing goes on."""
    nsqd = launch_either("--max-msg-size=1000")

    async def run():
        async with Producer(address_of(nsqd)) as producer:
            await producer.publish(TOPIC, b"x" * 1000)
            publishes = [producer.publish(TOPIC, body) for body in (b"before", b"x" * 1001, b"behind")]
            before, large, behind = await asyncio.gather(*publishes, return_exceptions=True)
            assert before is None
            assert isinstance(large, Refused)
            assert large.code == "E_BAD_MESSAGE"
            assert isinstance(behind, OutcomeUnknown)
            await producer.publish(TOPIC, b"after")

    asyncio.run(run())


def test_a_stopped_consumer_gives_back_what_it_has_not_begun(launch_either):
    """What was received and not handed out is there for others at once, and what was is waited for."""
    nsqd = launch_either()

    async def run():
        async with Producer(address_of(nsqd)) as producer:
            await producer.publish_many(TOPIC, [b"%d" % number for number in range(10)])
        consumer = consumer_of(nsqd, max_in_flight=10)
        await consumer.start()
        first = await one(consumer)
        await eventually(nsqd, lambda channel: channel["in_flight_count"] == 10)
        async with first:
            stopping = asyncio.create_task(consumer.stop())
            await consumer.wait_for(ConsumerState.STOPPING)
        await stopping
        async with consumer_of(nsqd, max_in_flight=10) as other:
            bodies = await take(other, 9)
        assert [first.body, *sorted(bodies)] == [b"%d" % number for number in range(10)]
        assert (await settled(nsqd))["timeout_count"] == 0

    asyncio.run(run())


def test_an_idle_connection_is_kept(launch_either):
    """Heartbeats are answered, by who publishes and by who consumes, so nobody hangs up."""
    nsqd = launch_either()

    async def run():
        options: dict[str, Any] = {"heartbeat_interval": "1s"}
        async with (
            Producer(address_of(nsqd), **options) as producer,
            consumer_of(nsqd, **options) as consumer,
        ):
            await producer.publish(TOPIC, b"one")
            await take(consumer, 1)
            since = (await client_of(nsqd))["connect_ts"]
            assert await consumer.get(3.2) is None
            await producer.publish(TOPIC, b"two")
            await take(consumer, 1)
            assert since == (await client_of(nsqd))["connect_ts"]
            assert {} == producer.stats().failures

    asyncio.run(run())


def test_two_consumers_share_a_channel_and_two_channels_do_not(launch_either):
    """Each message goes to one of a channel's consumers, and to every channel."""
    nsqd = launch_either()

    async def run():
        address = address_of(nsqd)
        async with (
            Producer(address) as producer,
            consumer_of(nsqd, max_in_flight=5) as one,
            consumer_of(nsqd, max_in_flight=5) as two,
            Consumer(TOPIC, "other", nsqd=address, max_in_flight=5) as other,
        ):
            for consumer in (one, two, other):
                await consumer.wait_for(ConsumerState.CONSUMING)
            bodies = [b"%02d" % number for number in range(100)]
            await producer.publish_many(TOPIC, bodies)
            assert bodies == sorted(await take(other, 100))
            taken: list[bytes] = []

            async def some(consumer):
                async for message in consumer:
                    taken.append(message.body)
                    await message.finish()

            tasks = [asyncio.create_task(some(one)), asyncio.create_task(some(two))]
            await settled(nsqd)
            await one.stop()
            await two.stop()
            await asyncio.gather(*tasks)
            assert bodies == sorted(taken)

    asyncio.run(run())
