"""The load of test_cluster.py: publishers that count what they got an OK for, and a consumer that asks nsqlookupds.

They are asyncio's and speak bytes. Nothing they do depends on a daemon being alive: whatever breaks is begun anew.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from nsqkit.wire.frames import ERROR, HEARTBEAT, MESSAGE, RESPONSE, FrameReader
from tests.scenarios.cluster_nodes import FAILURES, HOST, Node, get, request
from tests.scenarios.conftest import as_message, batch, command

CHANNEL: Final = "ch"
STEADY: Final = 3  # topics that are there from the beginning
YOUNG: Final = 3  # of the later ones that many are published to
NEW_TOPIC_S: Final = 2.0  # from one new topic to the next
ANSWER_S: Final = 20.0
POLL_S: Final = 1.0
READY: Final = 100
MAX_DELAY_MS: Final = 3000
EARLY_S: Final = (
    0.05  # that a deferred message may come before its time: clocks are read at different moments
)


class Record:
    """What was published and what has come. Bodies begin with their topic and are unique."""

    def __init__(self) -> None:
        self.topics = [f"steady-{number}" for number in range(STEADY)]
        self.sent: set[bytes] = set()
        self.owed: dict[bytes, str] = {}  # answered OK, by whom
        self.due: dict[bytes, float] = {}  # not to come before this moment
        self.seen: set[bytes] = set()
        self.again = 0  # deliveries of what had been finished
        self.surprises: list[str] = []  # whatever no fault explains
        self.slowest_s = 0.0  # answer to a publish

    def choose_topic(self, chance: random.Random) -> str:
        """An old topic or a young one."""
        young = self.topics[STEADY:][-YOUNG:]
        return chance.choice(young if young and chance.random() < 0.4 else self.topics[:STEADY])

    def body(self, topic: str, chance: random.Random) -> bytes:
        """A body that there was not before."""
        body = b"%b %d " % (topic.encode(), len(self.sent)) + b"." * chance.randrange(200)
        self.sent.add(body)
        return body

    def owe(self, bodies: Sequence[bytes], nsqd: Node) -> None:
        """They were answered OK."""
        self.owed.update(dict.fromkeys(bodies, nsqd.name))

    def see(self, topic: str, body: bytes) -> None:
        """It came, and was finished."""
        if body in self.seen:
            self.again += 1
        elif body not in self.sent or not body.startswith(b"%b " % topic.encode()):
            self.surprises.append(f"{topic} brought {body!r}, which nobody published there")
        elif time.monotonic() < self.due.get(body, 0) - EARLY_S:
            self.surprises.append(f"{topic} brought {body!r} before its time")
        self.seen.add(body)

    def missing(self) -> list[str]:
        """What is owed and has not come: topic and serial, and who answered OK."""
        lost = [body for body in self.owed if body not in self.seen]
        return [f"{body.rstrip(b'.').decode()}OK'd by {self.owed[body]}" for body in lost]

    async def all_came(self, give_up_at: float) -> None:
        """Return when nothing is missing any more, or at `give_up_at`."""
        while True:
            if not self.missing() or time.monotonic() > give_up_at:
                return
            await asyncio.sleep(0.1)


class Wire:
    """A V2 connection that answers heartbeats."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._frames = FrameReader()

    @staticmethod
    async def open(port: int) -> "Wire":
        """Connect and greet. FAILURES."""
        wire = Wire(*await asyncio.open_connection(HOST, port))
        wire.send(b"  V2")
        return wire

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self._writer.write(data)

    async def frames(self) -> list[tuple[int, bytes]]:
        """What comes next, if anything but a heartbeat. FAILURES."""
        await self._writer.drain()
        chunk = await self._reader.read(1 << 16)
        if not chunk:
            raise EOFError
        frames = self._frames.feed(chunk)
        if (RESPONSE, HEARTBEAT) in frames:
            self.send(b"NOP\n")
        return [frame for frame in frames if frame != (RESPONSE, HEARTBEAT)]

    def close(self) -> None:
        """Hang up."""
        self._writer.transport.abort()


# -- publishing


async def make_topics(lookupds: Sequence[Node], record: Record, stop: asyncio.Event) -> None:
    """Have a new topic to publish to every NEW_TOPIC_S, and its channel known to those nsqlookupds that live."""
    while not stop.is_set():
        await asyncio.sleep(NEW_TOPIC_S)
        topic = f"new-{len(record.topics) - STEADY}"
        for lookupd in lookupds:
            with suppress(*FAILURES):
                await request(lookupd, "POST", f"/channel/create?topic={topic}&channel={CHANNEL}")
        record.topics.append(topic)


async def publish(nsqds: Sequence[Node], record: Record, chance: random.Random, stop: asyncio.Event) -> None:
    """PUB, MPUB and DPUB; after a while, and when a connection breaks, at another nsqd."""
    while not stop.is_set():
        nsqd = chance.choice(nsqds)
        with suppress(*FAILURES):
            wire = await Wire.open(nsqd.tcp_port)
            try:
                for _ in range(chance.randint(10, 100)):
                    async with asyncio.timeout(ANSWER_S):
                        await _publish_some(wire, nsqd, record, chance)
                    await asyncio.sleep(chance.uniform(0.02, 0.06))
                    if stop.is_set():
                        break
            finally:
                wire.close()
        await asyncio.sleep(chance.uniform(0.02, 0.1))


async def _publish_some(wire: Wire, nsqd: Node, record: Record, chance: random.Random) -> None:
    """Some PUBs at once, an MPUB or a DPUB; each OK makes its messages owed."""
    topic = record.choose_topic(chance)
    kind = chance.choice(["PUB", "MPUB", "DPUB"])
    bodies = [record.body(topic, chance) for _ in range(1 if kind == "DPUB" else chance.randint(1, 20))]
    if kind == "MPUB":
        waiting = deque([bodies])
        wire.send(command(f"MPUB {topic}", batch(bodies)))
    elif kind == "PUB":
        waiting = deque([[body] for body in bodies])
        wire.send(b"".join([command(f"PUB {topic}", body) for body in bodies]))
    else:
        waiting = deque([bodies])
        delay_ms = chance.randint(1, MAX_DELAY_MS)
        record.due[bodies[0]] = time.monotonic() + delay_ms / 1000
        wire.send(command(f"DPUB {topic} {delay_ms}", bodies[0]))
    began = time.monotonic()
    while waiting:
        for frame in await wire.frames():
            if frame == (RESPONSE, b"OK"):
                record.owe(waiting.popleft(), nsqd)
            else:
                record.surprises.append(f"{nsqd} answered {kind} {frame}")
                waiting.popleft()
    record.slowest_s = max(record.slowest_s, time.monotonic() - began)


async def publish_over_http(
    nsqds: Sequence[Node], record: Record, chance: random.Random, stop: asyncio.Event
) -> None:
    """POST /pub, one after the other, each at another nsqd."""
    while not stop.is_set():
        nsqd = chance.choice(nsqds)
        topic = record.choose_topic(chance)
        body = record.body(topic, chance)
        target = f"/pub?topic={topic}"
        if chance.random() < 0.1:
            delay_ms = chance.randint(1, MAX_DELAY_MS)
            record.due[body] = time.monotonic() + delay_ms / 1000
            target += f"&defer={delay_ms}"
        with suppress(*FAILURES):
            answer = await request(nsqd, "POST", target, body)
            if answer == (200, b"OK"):
                record.owe([body], nsqd)
            else:
                record.surprises.append(f"{nsqd} answered {target} {answer}")
        await asyncio.sleep(chance.uniform(0.02, 0.06))


# -- consuming


class Consumer:
    """Has a connection for each topic at each nsqd that an nsqlookupd names.

    Some messages are requeued at first, some left to their timeout, and connections are closed with messages in flight.
    """

    def __init__(self, lookupds: Sequence[Node], record: Record, chance: random.Random) -> None:
        self._lookupds = lookupds
        self._record = record
        self._chance = chance
        self._connected: set[tuple[str, int]] = set()  # topic, port
        self._work: asyncio.TaskGroup

    async def run(self) -> None:
        """Consume until cancelled."""
        async with asyncio.TaskGroup() as self._work:
            for lookupd in self._lookupds:
                self._work.create_task(self._discover(lookupd))

    async def _discover(self, lookupd: Node) -> None:
        while True:
            with suppress(*FAILURES):
                for topic in list(self._record.topics):
                    answer = await get(lookupd, f"/lookup?topic={topic}") or {"producers": []}
                    for producer in answer["producers"]:
                        self._connect(topic, producer["tcp_port"])
            await asyncio.sleep(POLL_S)

    def _connect(self, topic: str, port: int) -> None:
        if (topic, port) not in self._connected:
            self._connected.add((topic, port))
            self._work.create_task(self._consume(topic, port))

    async def _consume(self, topic: str, port: int) -> None:
        """One connection, until it breaks or its time has come."""
        with suppress(*FAILURES):
            wire = await Wire.open(port)
            try:
                wire.send(command(f"SUB {topic} {CHANNEL}") + b"RDY %d\n" % READY)
                async with asyncio.timeout(self._chance.uniform(5, 40)):
                    while True:
                        for kind, payload in await wire.frames():
                            self._take(topic, kind, payload, wire.send)
            finally:
                wire.close()
        self._connected.discard((topic, port))

    def _take(self, topic: str, kind: int, payload: bytes, send: Callable[[bytes], None]) -> None:
        if kind == MESSAGE:
            message = as_message(payload)
            fate = self._chance.random() if message.attempts == 1 else 1.0
            if fate < 0.02:
                send(b"REQ %b %d\n" % (message.id, self._chance.randint(0, 1000)))
            elif fate > 0.021:  # one in a thousand is left to its timeout
                send(b"FIN %b\n" % message.id)
                self._record.see(topic, message.body)
        elif kind == ERROR and not payload.startswith((b"E_FIN_FAILED", b"E_REQ_FAILED")):
            self._record.surprises.append(f"a consumer of {topic} was told {payload!r}")
