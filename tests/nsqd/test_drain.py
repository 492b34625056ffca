"""Taking a node out of service, with a clock that the test sets."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from nsqkit.log import Log
from nsqkit.nsqd.core.broker import Broker
from nsqkit.nsqd.core.settings import SECOND, Settings
from nsqkit.nsqd.core.store import StoreError
from nsqkit.nsqd.drain import Drain, owed
from nsqkit.web.long_answer import Slices

NOW = 1_700_000_000 * SECOND
DUE = NOW + 3600 * SECOND


class Scene:
    """A broker that drains. `then` is done when nothing can be done but wait; a look takes a second."""

    def __init__(self) -> None:
        self.broker = Broker(Settings(), None)
        self.now = NOW
        self.then: list[Callable[[], object]] = []
        self.lines: list[str] = []
        self.over = asyncio.Event()
        log = Log(write=self.lines.append)
        self.drain = Drain(self.broker, log, Slices(), lambda: self.now, self.over.set, self.sleep)

    def publish(self, topic: str, count: int = 1, due: int = 0) -> None:
        """Publish something."""
        data = (1).to_bytes(4, "big") + b"x"
        self.broker.topic(topic).publish(data * count, count, due, None, NOW)

    def work(self) -> None:
        """A turn."""
        self.broker.work(self.now)

    async def sleep(self, _: float) -> None:
        """Do what comes next."""
        self.now += SECOND
        if self.then:
            self.then.pop(0)()
        await asyncio.sleep(0)

    def said(self) -> list[str]:
        """What was logged."""
        return [line.split(" ", 2)[2].rstrip() for line in self.lines]


@pytest.fixture
def play() -> Callable[..., None]:
    """Runs a test's coroutine function with a scene; at the end the drain must be over."""

    def run(scenario: Callable[[Scene], Awaitable[None]]) -> None:
        async def main() -> None:
            scene = Scene()
            await scenario(scene)
            async with asyncio.timeout(10):
                await scene.over.wait()

        asyncio.run(main())

    return run


def test_nothing_is_left(play):
    """Then it is over at once."""

    async def scenario(scene: Scene) -> None:
        scene.broker.topic("t").channel("c", NOW)
        scene.drain.begin(0)
        await scene.over.wait()
        assert [
            "INFO: DRAIN: publishes are refused; nsqd ends when every message is finished",
            "INFO: DRAIN: every message is finished, after 0s",
        ] == scene.said()

    play(scenario)


def test_it_is_over_when_every_message_is_gone(play):
    """Those that wait in a topic, in a channel, or for their time, and those that no turn has seen yet."""

    async def scenario(scene: Scene) -> None:
        broker = scene.broker
        topics = [broker.topic(name) for name in "abc"]
        channel = topics[1].channel("c", NOW)
        scene.publish("a")
        scene.publish("b", 2)
        scene.publish("b", 1, DUE)
        scene.work()
        scene.publish("c")
        scene.drain.begin(0)
        assert [(1, 0, 0), (0, 0, 0)] == [owed(one) for one in topics[:2]]
        assert (2, 0, 1) == owed(channel)
        seen: list[bool] = []

        def step(act: Callable[[], object]) -> Callable[[], None]:
            return lambda: (seen.append(scene.over.is_set()), act())[0]  # type: ignore[func-returns-value]

        scene.then = [
            step(scene.work),
            step(topics[0].empty),
            step(channel.empty),
            step(topics[2].empty),
        ]
        await scene.over.wait()
        assert [False] * 4 == seen
        assert scene.said()[-1].startswith("INFO: DRAIN: every message is finished, after ")

    play(scenario)


def test_what_waits_for_its_log_is_waited_for(play):
    """It was published before the drain began, so it will be kept and has to be delivered."""

    async def scenario(scene: Scene) -> None:
        topic = scene.broker.topic("t")
        topic.opening = True
        seen: list[bool] = []

        def opened() -> None:
            seen.append(scene.over.is_set())
            topic.opening = False

        scene.drain.begin(0)
        scene.then = [opened]
        await scene.over.wait()
        assert [False] == seen

    play(scenario)


def test_what_is_deleted_is_not_waited_for(play):
    """A topic or channel that goes takes its messages along."""

    async def scenario(scene: Scene) -> None:
        topic = scene.broker.topic("t")
        topic.channel("c", NOW)
        scene.publish("t")
        scene.publish("u")
        scene.work()
        scene.drain.begin(0)
        scene.then = [lambda: topic.delete_channel("c"), lambda: scene.broker.delete_topic("u")]
        await scene.over.wait()

    play(scenario)


def test_a_deferred_message_does_not_hold_it_for_longer_than_wanted(play):
    """When the time is over, it ends, and says how many are left of which kind."""

    async def scenario(scene: Scene) -> None:
        scene.broker.topic("a").channel("c", NOW)
        scene.publish("a", 5, DUE)
        scene.work()
        scene.publish("a", 3)
        scene.publish("b", 2)
        scene.work()
        scene.drain.begin(60 * SECOND)
        await scene.over.wait()
        assert scene.now == NOW + 60 * SECOND
        assert [
            "INFO: DRAIN: publishes are refused; nsqd ends when every message is finished, or in 1m0s",
            (
                "WARNING: DRAIN: --drain-timeout is over, and 10 messages are left: 5 waiting, 0 in flight, 5 deferred;"
                " but for ephemeral ones they are kept, and delivered after the next start"
            ),
        ] == scene.said()

    play(scenario)


def test_many_are_looked_at_in_slices(play):
    """No pass of the loop looks at more than a hundred topics and channels."""

    async def scenario(scene: Scene) -> None:
        for number in range(250):
            scene.broker.topic(f"t{number}")
        passes = 0

        async def count() -> None:
            nonlocal passes
            while not scene.over.is_set():
                passes += 1
                await asyncio.sleep(0)

        scene.drain.begin(0)
        await count()
        assert passes >= 3

    play(scenario)


def test_a_defect_does_not_keep_the_daemon(play):
    """It is said, and the daemon may stop."""

    async def scenario(scene: Scene) -> None:
        def crash() -> None:
            raise RuntimeError("oops")

        scene.publish("t")
        scene.work()
        scene.then = [crash]
        scene.drain.begin(0)
        await scene.over.wait()
        assert "ERROR: DRAIN: a defect of ours: RuntimeError('oops')" == scene.said()[-1]

    play(scenario)


def test_a_daemon_that_stops_looks_no_more(play):
    """The drain has no say any more."""

    async def scenario(scene: Scene) -> None:
        scene.drain.stop()
        scene.publish("t")
        scene.work()
        scene.drain.begin(0)
        await asyncio.sleep(0)
        scene.drain.stop()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not scene.over.is_set()
        scene.over.set()

    play(scenario)


def test_a_draining_broker_takes_nothing():
    """Neither a message nor a new topic; what is there goes on."""
    broker = Broker(Settings(), None)
    topic = broker.topic("t")
    broker.draining = True

    with pytest.raises(StoreError, match="^draining$"):
        topic.publish(b"\0\0\0\1x", 1, 0, None, NOW)
    with pytest.raises(StoreError, match="^draining$"):
        broker.topic("new")
    assert topic is broker.topic("t")
