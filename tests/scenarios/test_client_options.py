"""What each option of the client that NSQ's own client has does at a real nsqd: this project's, and NSQ's own.

NSQ's own is tried where NSQ_GO_BIN says that it is. Options that are ours alone are tried in tests/client.
"""

import asyncio
import signal
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any, TypeVar

import pytest

from nsqkit import (
    Consumer,
    ConsumerOptions,
    ConsumerState,
    NotSent,
    OutcomeUnknown,
    Producer,
    ProducerOptions,
)
from nsqkit.errors import MessageTooLarge
from nsqkit.options import declared
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
    take,
)
from tests.scenarios.conftest import WAIT_S

TRIED = {
    *("auth_secret", "tls_v1", "tls_root_ca_file", "tls_insecure_skip_verify", "tls_cert", "tls_key"),
    *("tls_context", "lookupd_poll_interval", "lookupd_poll_jitter", "lookupd_poll_timeout"),
    "skip_lookupd_authorization",
}
"""Options that are tried: these in test_client_original.py and test_client_lookup.py, further ones by tests here."""

OURS = {
    *("reconnect_min", "reconnect_max", "give_up_after", "shutdown_timeout", "backoff_recovery"),
    *("auto_touch", "max_processing_time", "max_body_size", "max_delay", "max_pending", "max_pending_bytes"),
    *("send_timeout", "retries", "retry_unknown", "strategy", "connections_per_nsqd"),
}

Test = TypeVar("Test", bound=Callable[..., None])


def of(*names: str) -> Callable[[Test], Test]:
    """A test of these options."""
    TRIED.update(names)
    return lambda test: test


def test_every_option_is_tried():
    """What has no test is ours alone."""
    options = {one.name for kind in (ConsumerOptions, ProducerOptions) for one in declared(kind)}
    assert options - OURS == TRIED


# -- who it is, and what is agreed on


@of("client_id", "hostname", "user_agent", "topology_region", "topology_zone")
def test_who_it_is(launch_either):
    """Nsqd shows what it was told; where it is told what it does not know, nothing happens."""
    names: dict[str, Any] = {"client_id": "me", "hostname": "here.example", "user_agent": "it/1.0"}
    place: dict[str, Any] = {"topology_region": "north", "topology_zone": "a"}

    client = asyncio.run(exchange(launch_either(), **names, **place))

    assert names == {name: client[name] for name in names}


@of("local_addr")
def test_local_addr(launch_either):
    """Nsqd sees it come from there."""
    client = asyncio.run(exchange(launch_either(), local_addr="127.0.0.5"))

    assert client["remote_address"].startswith("127.0.0.5:")


@of("sample_rate")
def test_sample_rate(launch_either):
    """About so many percent come, and nsqd drops the others."""
    nsqd = launch_either()

    async def run():
        async with Producer(address_of(nsqd)) as producer, consumer_of(nsqd, sample_rate=50) as consumer:
            await consumer.wait_for(ConsumerState.CONSUMING)
            consumer.max_in_flight = 100
            await producer.publish_many(TOPIC, [b"%d" % number for number in range(1000)])

            async def finish():
                async for message in consumer:
                    await message.finish()

            finishing = asyncio.create_task(finish())
            await eventually(nsqd, lambda channel: channel["message_count"] == 1000)
            await settled(nsqd)
            assert (await client_of(nsqd))["sample_rate"] == 50
            await consumer.stop()
            await finishing
            assert 350 < consumer.stats().finished < 650

    asyncio.run(run())


@of("snappy", "deflate", "deflate_level")
@pytest.mark.parametrize("level", [1, 9])
def test_deflate_level(launch_either, level):
    """Nsqd may take a lower one than was asked for, and both use that."""
    client = asyncio.run(exchange(launch_either("--max-deflate-level=9"), deflate=True, deflate_level=level))

    assert (True, False) == (client["deflate"], client["snappy"])


@of("tls_min_version")
def test_tls_min_version(launch_either, certificates):
    """The connection has at least that."""
    nsqd = launch_either(*certificates.flags())

    client = asyncio.run(
        exchange(nsqd, tls_v1=True, tls_root_ca_file=certificates.authority, tls_min_version="tls1.3")
    )

    assert "TLS1.3" == client["tls_version"]


@of("output_buffer_size", "output_buffer_timeout")
@pytest.mark.parametrize("given", [{"output_buffer_timeout": "25ms"}, {"output_buffer_size": -1}], ids=str)
def test_output_buffer(launch_either, given):
    """A message that comes alone is not held for longer than that, or not at all."""
    nsqd = launch_either("--max-output-buffer-timeout=20s")
    options = {"output_buffer_timeout": "20s", **given}

    async def run():
        async with (
            Producer(address_of(nsqd)) as producer,
            consumer_of(nsqd, max_in_flight=5, **options) as consumer,
        ):
            await consumer.wait_for(ConsumerState.CONSUMING)
            published_at = time.monotonic()
            await producer.publish(TOPIC, b"one")
            await take(consumer, 1)
            assert time.monotonic() - published_at < 5

    asyncio.run(run())


# -- how many, and how long


@of("max_in_flight")
def test_max_in_flight(launch_either):
    """Nsqd is told as much, also later on; 0 pauses."""
    nsqd = launch_either()

    async def run():
        async with Producer(address_of(nsqd)) as producer, consumer_of(nsqd, max_in_flight=7) as consumer:
            await consumer.wait_for(ConsumerState.CONSUMING)
            await producer.publish_many(TOPIC, [b"x"] * 20)
            channel = await eventually(nsqd, lambda channel: channel["in_flight_count"] == 7)
            assert (7, 13) == (channel["clients"][0]["ready_count"], channel["depth"])
            for count in (3, 0, 20):
                consumer.max_in_flight = count
                await eventually(nsqd, partial(is_ready, count))
            await take(consumer, 20)
            await settled(nsqd)

    asyncio.run(run())


def is_ready(count: int, channel: dict[str, Any]) -> bool:
    """Whether nsqd may send so many to its only consumer."""
    return bool(channel["clients"][0]["ready_count"] == count)


@of("msg_timeout")
def test_msg_timeout(launch_either):
    """A message that is not answered comes again after it."""
    nsqd = launch_either()

    async def run():
        async with (
            Producer(address_of(nsqd)) as producer,
            consumer_of(nsqd, msg_timeout="1s", max_in_flight=2) as consumer,
        ):
            await producer.publish(TOPIC, b"one")
            first = await one(consumer)
            came_at = time.monotonic()
            again = await one(consumer)
            assert (first.id, 2) == (again.id, again.attempts)
            assert 0.9 < time.monotonic() - came_at < 10
            assert first.expired
            await again.finish()
            await settled(nsqd)

    asyncio.run(run())


@of("max_msg_size")
def test_max_msg_size(launch_either, caplog):
    """A producer refuses to send more, and a consumer hangs up on what is larger."""
    nsqd = launch_either()

    async def run():
        async with Producer(address_of(nsqd), max_msg_size=500) as producer:
            with pytest.raises(MessageTooLarge, match="max_msg_size"):
                await producer.publish(TOPIC, b"x" * 501)
            await producer.publish(TOPIC, b"x" * 500)
        states: list[ConsumerState] = []
        async with consumer_of(
            nsqd, max_msg_size=400, on_state=states.append, reconnect_min="10ms"
        ) as consumer:
            assert await consumer.get(0.5) is None
            assert states.count(ConsumerState.CONSUMING) > 1
        assert "max_msg_size" in caplog.text

    asyncio.run(run())


@of("max_attempts")
def test_max_attempts(launch_either):
    """So many deliveries, then it is given up."""
    nsqd = launch_either()
    attempts = []

    async def fail(message):
        attempts.append(message.attempts)
        raise ValueError

    async def run():
        async with (
            Producer(address_of(nsqd)) as producer,
            consumer_of(nsqd, handler=fail, max_attempts=2, default_requeue_delay=0, max_backoff_duration=0),
        ):
            await producer.publish(TOPIC, b"bad")
            await eventually(nsqd, lambda channel: channel["requeue_count"] == 2)
            await settled(nsqd)
        assert [1, 2] == attempts

    asyncio.run(run())


@of("default_requeue_delay", "max_requeue_delay")
@pytest.mark.parametrize(
    ("options", "least_s"),
    [
        ({"default_requeue_delay": "300ms"}, (0.3, 0.6)),  # grows with the attempts
        ({"default_requeue_delay": "1m", "max_requeue_delay": "400ms"}, (0.4, 0.4)),
    ],
    ids=["default", "max"],
)
def test_requeue_delay(launch_either, options, least_s):
    """Who says no delay gets this one."""
    nsqd = launch_either()

    async def run():
        async with Producer(address_of(nsqd)) as producer, consumer_of(nsqd, **options) as consumer:
            await producer.publish(TOPIC, b"one")
            message = await one(consumer)
            for least in least_s:
                began = time.monotonic()
                await message.requeue(backoff=False)
                message = await one(consumer)
                assert least - 0.05 < time.monotonic() - began < least + 10
            await message.finish()

    asyncio.run(run())


@of("backoff_multiplier", "backoff_strategy", "max_backoff_duration")
@pytest.mark.parametrize(
    ("options", "pauses"),
    [
        ({"backoff_multiplier": "200ms"}, True),
        ({"backoff_multiplier": "200ms", "backoff_strategy": "full_jitter"}, True),
        ({"backoff_multiplier": "1h", "max_backoff_duration": "300ms"}, True),
        ({"max_backoff_duration": 0}, False),
    ],
    ids=["multiplier", "strategy", "max", "none"],
)
def test_backoff(launch_either, options, pauses):
    """A failure has nsqd send nothing for a while, then one message, and after a success as before."""
    nsqd = launch_either()
    states: list[ConsumerState] = []

    async def run():
        async with (
            Producer(address_of(nsqd)) as producer,
            consumer_of(nsqd, max_in_flight=5, on_state=states.append, **options) as consumer,
        ):
            await producer.publish_many(TOPIC, [b"x"] * 50)
            bad = await one(consumer)
            failed_at = time.monotonic()
            await bad.requeue(0)
            if pauses:
                await eventually(nsqd, partial(is_ready, 0))
            await take(consumer, 50)
            await eventually(nsqd, partial(is_ready, 5))
            if pauses and "backoff_strategy" not in options:
                assert time.monotonic() - failed_at > 0.28
        assert pauses == (ConsumerState.BACKOFF in states)

    asyncio.run(run())


@of("low_rdy_idle_timeout", "low_rdy_timeout", "rdy_redistribute_interval")
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_low_rdy(launch_either, busy):
    """With one slot for two nsqds, none is left out: the slot leaves one that has nothing, or has had it for long."""
    nsqds = [launch_either(), launch_either()]
    option = "low_rdy_timeout" if busy else "low_rdy_idle_timeout"

    async def run():
        addresses = [address_of(nsqd) for nsqd in nsqds]
        options: dict[str, Any] = {option: "1s", "rdy_redistribute_interval": "100ms"}
        async with Consumer(TOPIC, CHANNEL, nsqd=addresses, max_in_flight=1, **options) as consumer:
            for round_ in range(4):
                address = addresses[round_ % 2]
                async with asyncio.TaskGroup() as group:
                    if busy:
                        other = group.create_task(flood(addresses[1 - round_ % 2]))
                    async with Producer(address) as producer:
                        await producer.publish(TOPIC, b"wanted")
                    await found(consumer, b"wanted")
                    if busy:
                        other.cancel()

    async def found(consumer, body):
        while await take(consumer, 1) != [body]:
            pass

    async def flood(address):
        async with Producer(address) as producer:
            while True:
                await producer.publish(TOPIC, b"other")
                await asyncio.sleep(0.005)

    asyncio.run(run())


# -- when nsqd is frozen, or is none


@of("heartbeat_interval")
def test_heartbeat_interval(launch_either):
    """An nsqd from which nothing comes for two of them is left; when it is back, so is the consumer."""
    nsqd = launch_either()

    async def run():
        async with consumer_of(nsqd, heartbeat_interval="1s", reconnect_min="100ms") as consumer:
            await consumer.wait_for(ConsumerState.CONSUMING)
            nsqd.send_signal(signal.SIGSTOP)
            frozen_at = time.monotonic()
            async with asyncio.timeout(WAIT_S):
                await consumer.wait_for(ConsumerState.CONNECTING)
            assert 0.9 < time.monotonic() - frozen_at
            nsqd.send_signal(signal.SIGCONT)
            async with asyncio.timeout(WAIT_S):
                await consumer.wait_for(ConsumerState.CONSUMING)

    asyncio.run(run())


@of("write_timeout")
def test_write_timeout(launch_either, caplog):
    """An nsqd that takes nothing is left with what it was sent; when it is back, publishing goes on."""
    nsqd = launch_either()

    async def run():
        async with Producer(
            address_of(nsqd), write_timeout="300ms", retries=0, send_timeout="1s", reconnect_min="50ms"
        ) as producer:
            await producer.publish(TOPIC, b"one")
            nsqd.send_signal(signal.SIGSTOP)
            publishes = [producer.publish(TOPIC, b"x" * 1_000_000) for _ in range(20)]
            async with asyncio.timeout(WAIT_S):
                outcomes = await asyncio.gather(*publishes, return_exceptions=True)
            assert {type(outcome) for outcome in outcomes} <= {OutcomeUnknown, NotSent}
            assert "write_timeout" in caplog.text
            nsqd.send_signal(signal.SIGCONT)
            async with asyncio.timeout(WAIT_S):
                while True:
                    try:
                        await producer.publish(TOPIC, b"two")
                        break
                    except NotSent:
                        continue

    asyncio.run(run())


@of("dial_timeout")
def test_dial_timeout():
    """An address from which nothing comes, not even a no."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(2):  # fill the queue, so that the next one is not answered
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())

        assert "dial_timeout" in asyncio.run(why_not(listener, dial_timeout="200ms"))


@of("read_timeout")
def test_read_timeout():
    """Somebody who takes the connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        reason = asyncio.run(why_not(listener, read_timeout="200ms", heartbeat_interval="100ms"))

    assert "read_timeout" in reason


async def why_not(listener: socket.socket, **options: Any) -> str:
    """Why a publish was not sent."""
    port = listener.getsockname()[1]
    async with Producer(f"127.0.0.1:{port}", send_timeout=1, **options) as producer:
        with pytest.raises(NotSent) as failed:
            await producer.publish(TOPIC, b"one")
    return str(failed.value)
