"""The client while its nsqd is killed and started again, and again.

NSQKIT_CLIENT_KILLS is how often (5).
"""

import asyncio
import os
import random
import time
from typing import Any, Final

import pytest

from nsqkit import Consumer, ConsumerFailed, ConsumerState, Producer
from tests.scenarios.client_servers import CHANNEL, TOPIC, address_of
from tests.scenarios.cluster_nodes import HOST, free_port
from tests.scenarios.conftest import WAIT_S, Daemon

KILLS: Final = int(os.environ.get("NSQKIT_CLIENT_KILLS", "5"))
RECONNECT_MIN_S: Final = 0.05
RECONNECT_MAX_S: Final = 0.4
DOWN_S: Final = (0.0, 0.6)
SLACK_S: Final = 3.0  # for a busy machine
GIVE_UP_S: Final = 0.4


@pytest.mark.slow
@pytest.mark.timeout(60 + 3 * KILLS)
def test_iteration_goes_on_after_each_kill(launch_either):
    """Producer and `async for` go on within reconnect_max of the restart, however often, and nothing piles up."""
    nsqd = launch_either()
    nsqd.kill()
    nsqd.address, nsqd.http_address = (HOST, free_port()), (HOST, free_port())  # which nobody takes meanwhile
    nsqd.start()
    took = asyncio.run(survive(nsqd))
    print(
        f"{KILLS} kills; until the next message at most {max(took):.2f} s, median {sorted(took)[KILLS // 2]:.2f} s"
    )
    assert max(took) < RECONNECT_MAX_S + SLACK_S
    assert sorted(took)[KILLS // 2] < 2 * RECONNECT_MAX_S


async def survive(nsqd: Daemon) -> list[float]:
    """Seconds from each restart until a message got through."""
    address = address_of(nsqd)
    states: list[ConsumerState] = []
    took = []
    chance = random.Random(KILLS)
    options: dict[str, Any] = {"reconnect_min": RECONNECT_MIN_S, "reconnect_max": RECONNECT_MAX_S}
    async with (
        Producer(address, send_timeout=WAIT_S, **options) as producer,
        Consumer(
            TOPIC, CHANNEL, nsqd=address, max_in_flight=10, on_state=states.append, **options
        ) as consumer,
    ):
        await pass_one(producer, consumer, b"first")
        before = len(asyncio.all_tasks()), open_files()
        for number in range(KILLS):
            await asyncio.to_thread(nsqd.kill)
            await asyncio.sleep(chance.uniform(*DOWN_S))
            await asyncio.to_thread(nsqd.start)
            began = time.monotonic()
            await pass_one(producer, consumer, b"%d" % number)
            took.append(time.monotonic() - began)
        assert before == (len(asyncio.all_tasks()), open_files())
    turns = [ConsumerState.CONNECTING, ConsumerState.CONSUMING] * (KILLS + 1)
    assert [*turns, ConsumerState.STOPPING, ConsumerState.STOPPED] == states
    return took


async def pass_one(producer: Producer, consumer: Consumer, body: bytes) -> None:
    """Publish a message and take it; earlier ones may come again."""
    async with asyncio.timeout(WAIT_S):
        await producer.publish(TOPIC, body)
        async for message in consumer:
            await message.finish()
            if message.body == body:
                return


def open_files() -> int:
    """How many file descriptors this process has."""
    return len(os.listdir("/dev/fd"))


@pytest.mark.parametrize("style", ["iteration", "get", "handler"])
def test_it_gives_up_when_told_to(launch_either, style):
    """Without an nsqd for give_up_after the consumer fails, and says so to whoever waits for messages."""
    nsqd = launch_either()
    asyncio.run(lose(nsqd, style))


async def lose(nsqd: Daemon, style: str) -> None:
    """Kill it for good."""
    taken: asyncio.Queue[bytes] = asyncio.Queue()

    async def take(message):
        taken.put_nowait(message.body)

    async with Consumer(
        TOPIC,
        CHANNEL,
        nsqd=address_of(nsqd),
        handler=take if style == "handler" else None,
        give_up_after=GIVE_UP_S,
        reconnect_min=RECONNECT_MIN_S,
        reconnect_max=RECONNECT_MAX_S,
    ) as consumer:
        await consumer.wait_for(ConsumerState.CONSUMING)
        began = time.monotonic()  # the client may hear of the end before the kill returns
        await asyncio.to_thread(nsqd.kill)
        with pytest.raises(ConsumerFailed, match=address_of(nsqd)):
            async with asyncio.timeout(WAIT_S):
                await wait_for_message(consumer, style)
        assert GIVE_UP_S * 0.9 < time.monotonic() - began < GIVE_UP_S + SLACK_S
        assert ConsumerState.FAILED is consumer.state
        assert isinstance(consumer.error, ConsumerFailed)
    assert ConsumerState.FAILED is consumer.state
    assert taken.empty()


async def wait_for_message(consumer: Consumer, style: str) -> None:
    """In one of the ways that there are."""
    if style == "iteration":
        async for _ in consumer:
            raise AssertionError("nobody published")
    elif style == "get":
        await consumer.get()
    else:
        await consumer.run()
