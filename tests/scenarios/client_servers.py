"""What the scenarios of the client look at and make: what nsqd says of its clients, and an exchange of messages."""

import asyncio
import json
from collections.abc import Callable
from typing import Any, Final

from nsqkit import Consumer, Message, Producer
from tests.scenarios.conftest import WAIT_S, Daemon

TOPIC: Final = "orders"
CHANNEL: Final = "ch"


def address_of(nsqd: Daemon) -> str:
    """As the client takes it."""
    assert isinstance(nsqd.address, tuple)
    host, port = nsqd.address
    return f"{host}:{port}"


def consumer_of(nsqd: Daemon, **options: Any) -> Consumer:
    """A consumer of the channel, on this nsqd."""
    return Consumer(TOPIC, CHANNEL, nsqd=address_of(nsqd), **options)


async def stats_of(nsqd: Daemon) -> dict[str, Any]:
    """What nsqd says of the channel; empty if it is not there."""
    path = f"/stats?format=json&include_mem=false&topic={TOPIC}&channel={CHANNEL}"
    status, body = await asyncio.to_thread(nsqd.request, "GET", path)
    assert status == 200
    channels = [channel for topic in json.loads(body)["topics"] or [] for channel in topic["channels"]]
    found: dict[str, Any] = channels[0] if channels else {}
    return found


async def client_of(nsqd: Daemon) -> dict[str, Any]:
    """What nsqd says of its only consumer."""
    (client,) = (await stats_of(nsqd))["clients"]
    found: dict[str, Any] = client
    return found


async def eventually(nsqd: Daemon, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """What nsqd says of the channel, when it is so. TimeoutError."""
    async with asyncio.timeout(WAIT_S):
        while not (channel := await stats_of(nsqd)) or not condition(channel):  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.02)
        return channel


async def settled(nsqd: Daemon) -> dict[str, Any]:
    """What nsqd says of the channel, when nothing waits and nothing is in flight."""
    return await eventually(
        nsqd, lambda one: not one["depth"] + one["in_flight_count"] + one["deferred_count"]
    )


async def one(consumer: Consumer) -> Message:
    """The next message."""
    message = await consumer.get(WAIT_S)
    assert message is not None
    return message


async def take(consumer: Consumer, count: int) -> list[bytes]:
    """Finish so many messages; their bodies as they came."""
    bodies: list[bytes] = []
    while len(bodies) < count:
        message = await one(consumer)
        bodies.append(message.body)
        await message.finish()
    return bodies


async def exchange(nsqd: Daemon, *, count: int = 200, **options: Any) -> dict[str, Any]:
    """Publish and consume with these options of both; what nsqd then says of the consumer."""
    bodies = [b"%d " % number * 50 for number in range(count)]
    async with (
        Producer(address_of(nsqd), **options) as producer,
        consumer_of(nsqd, max_in_flight=20, **options) as consumer,
    ):
        await asyncio.gather(*(producer.publish(TOPIC, body) for body in bodies[: count // 2]))
        await producer.publish_many(TOPIC, bodies[count // 2 :])
        assert sorted(bodies) == sorted(await take(consumer, count))
        channel = await settled(nsqd)
        assert (0, 0) == (channel["requeue_count"], channel["timeout_count"])
        return await client_of(nsqd)
