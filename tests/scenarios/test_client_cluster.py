"""The client while nsqds and nsqlookupds are killed: nothing it has confirmed is lost, and max_in_flight holds.

NSQKIT_CLIENT_SECONDS is how long daemons are killed (5), NSQKIT_CLIENT_SEED makes the same choices again.
"""

import asyncio
import os
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest

from nsqkit import Consumer, NotSent, OutcomeUnknown, Producer
from tests.scenarios.cluster_nodes import FAILURES, Faults, Lookupd, Node, Nsqd, get, running

SECONDS: Final = float(os.environ.get("NSQKIT_CLIENT_SECONDS", "5"))
SEED: Final = int(os.environ.get("NSQKIT_CLIENT_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)

TOPIC: Final = "orders"
CHANNEL: Final = "ch"
RATE: Final = 1000  # messages published in a second
TICK_S: Final = 0.01
MAX_IN_FLIGHT: Final = 100
NEARLY: Final = 0.9  # of the rate, over a second
RECOVERY_S: Final = (
    10.0  # from the last restart, which takes a second of it; also with all nsqds down at once
)
GIVE_UP_S: Final = 30.0
LOOK_S: Final = 0.05
OPTIONS: Final[dict[str, Any]] = {
    "lookupd_poll_interval": "500ms",
    "lookupd_poll_timeout": "1s",
    "reconnect_min": "100ms",
    "reconnect_max": "1s",
}


class Flow:
    """What was published, and what came."""

    def __init__(self) -> None:
        self.confirmed = 0  # publish() has returned
        self.owed: set[bytes] = set()  # of these, what has not come
        self.seen: set[bytes] = set()
        self.again = 0
        self.failed: Counter[str] = Counter()
        self.longest_gap_s = 0.0
        self.over = asyncio.Event()  # nothing more is to be published
        self._came: deque[float] = deque(maxlen=round(RATE * NEARLY))  # when, of the last ones
        self._news = asyncio.Event()

    async def publish(self, producer: Producer) -> None:
        """At the rate, whatever becomes of each; returns when all have ended."""
        due = time.monotonic()
        number = 0
        async with asyncio.TaskGroup() as group:
            while not self.over.is_set():
                due += TICK_S
                await asyncio.sleep(max(due - time.monotonic(), 0))
                for _ in range(round(RATE * TICK_S)):
                    number += 1
                    group.create_task(self._publish_one(producer, b"%d" % number))

    async def _publish_one(self, producer: Producer, body: bytes) -> None:
        try:
            await producer.publish(TOPIC, body)
        except (NotSent, OutcomeUnknown) as error:
            self.failed[type(error).__name__] += 1
        else:
            self.confirmed += 1
            if body not in self.seen:
                self.owed.add(body)

    async def consume(self, consumer: Consumer) -> None:
        """Finish whatever comes."""
        async for message in consumer:
            now = time.monotonic()
            if self._came:
                self.longest_gap_s = max(self.longest_gap_s, now - self._came[-1])
            self._came.append(now)
            self.again += message.body in self.seen
            self.seen.add(message.body)
            self.owed.discard(message.body)
            self._news.set()
            await message.finish()

    async def is_up(self, producer: Producer, consumer: Consumer, nsqds: int) -> None:
        """Return when messages come at nearly the rate, from all nsqds. TimeoutError."""
        came = self._came

        def up() -> bool:
            connections = {producer.stats().connections, len(consumer.stats().connections)}
            return connections == {nsqds} and len(came) == came.maxlen and came[-1] - came[0] < 1

        await self._until(up, GIVE_UP_S)

    async def all_came(self) -> None:
        """Return when everything that was confirmed has come, or when it is no use to wait any longer."""
        with suppress(TimeoutError):
            await self._until(lambda: not self.owed, GIVE_UP_S)

    async def _until(self, condition: Callable[[], bool], timeout_s: float) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():
                self._news.clear()
                await self._news.wait()


class Ready:
    """The sum of RDY, as the consumer and as the nsqds say."""

    def __init__(self, consumer: Consumer, nsqds: Sequence[Node]) -> None:
        self.most = 0
        self.most_of_nsqds = 0
        self.looks = 0
        self._consumer = consumer
        self._nsqds = nsqds

    async def watch(self) -> None:
        """Look again and again. What the nsqds say counts if it is the same twice, for they are asked in turn."""
        while True:
            self.most = max(self.most, sum(one.ready for one in self._consumer.stats().connections))
            first = await self._ask()
            if first == await self._ask():
                self.most_of_nsqds = max(self.most_of_nsqds, sum(first))
                self.looks += 1
            await asyncio.sleep(LOOK_S)

    async def _ask(self) -> list[int]:
        return await asyncio.gather(*(self._ask_one(nsqd) for nsqd in self._nsqds))

    async def _ask_one(self, nsqd: Node) -> int:
        try:
            stats = await get(nsqd, f"/stats?format=json&include_mem=false&topic={TOPIC}&channel={CHANNEL}")
        except FAILURES:
            return 0
        channels = [channel for topic in stats["topics"] or [] for channel in topic["channels"]]
        return sum(client["ready_count"] for channel in channels for client in channel["clients"])


@pytest.mark.slow
@pytest.mark.timeout(60 + RECOVERY_S + GIVE_UP_S + SECONDS)
def test_what_is_confirmed_comes_while_daemons_die(tmp_path: Path):
    """Whatever is killed: confirmed messages come, at the old rate soon after, and max_in_flight is never exceeded."""
    print(f"NSQKIT_CLIENT_SEED={SEED}")
    lookupds = [Lookupd(tmp_path / f"nsqlookupd-{number}") for number in range(2)]
    ports = [lookupd.tcp_port for lookupd in lookupds]
    nsqds = [
        Nsqd(tmp_path / f"nsqd-{number}", ports, f"--node-id={number}", "--msg-timeout=2s")
        for number in range(3)
    ]
    with running([*lookupds, *nsqds]):
        flow, ready, recovery_s = asyncio.run(play(nsqds, lookupds))

    missing = flow.owed
    assert not missing, f"{len(missing)} of {flow.confirmed} did not come, such as {sorted(missing)[:20]}"
    assert recovery_s < RECOVERY_S
    assert flow.longest_gap_s < RECOVERY_S
    assert 0 < ready.most <= MAX_IN_FLIGHT
    assert 0 < ready.most_of_nsqds <= MAX_IN_FLIGHT


async def play(nsqds: Sequence[Node], lookupds: Sequence[Node]) -> tuple[Flow, Ready, float]:
    """Load and faults; how long it took after the last restart until messages came from all, at the rate."""
    addresses = [f"127.0.0.1:{lookupd.http_port}" for lookupd in lookupds]
    faults = Faults(nsqds, lookupds, random.Random(SEED))
    flow = Flow()
    async with (
        Producer(lookupd=addresses, **OPTIONS) as producer,
        Consumer(TOPIC, CHANNEL, lookupd=addresses, max_in_flight=MAX_IN_FLIGHT, **OPTIONS) as consumer,
        asyncio.TaskGroup() as group,
    ):
        ready = Ready(consumer, nsqds)
        watching = group.create_task(ready.watch())
        consuming = group.create_task(flow.consume(consumer))
        publishing = group.create_task(flow.publish(producer))
        await flow.is_up(producer, consumer, len(nsqds))
        flow.longest_gap_s = 0.0
        await faults.strike(SECONDS)
        await flow.is_up(producer, consumer, len(nsqds))
        recovery_s = time.monotonic() - faults.last_repair_at
        flow.over.set()
        await publishing
        await flow.all_came()
        watching.cancel()
        consuming.cancel()
    print(f"{sum(faults.counts.values())} faults: {dict(faults.counts)}")
    print(
        f"{flow.confirmed} confirmed, {dict(flow.failed)} not; {len(flow.seen)} came, {flow.again} came again"
    )
    print(f"rate back {recovery_s:.1f} s after the last restart; longest gap {flow.longest_gap_s:.1f} s")
    print(
        f"RDY at most {ready.most} in the consumer, {ready.most_of_nsqds} in the nsqds, {ready.looks} looks"
    )
    return flow, ready, recovery_s
