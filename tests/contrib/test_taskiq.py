"""taskiq's receiver, as its worker runs it, on a broker of ours and a real nsqd."""

import asyncio
import time
from contextlib import asynccontextmanager

import pytest
from taskiq import Context, SimpleRetryMiddleware, SmartRetryMiddleware, TaskiqDepends
from taskiq.acks import AcknowledgeType
from taskiq.exceptions import SendTaskError
from taskiq.receiver import Receiver

from nsqkit import Consumer, OptionError
from nsqkit.contrib.taskiq import NsqBroker

WITHIN_S = 20


@asynccontextmanager
async def working(broker, **more):
    """A worker; at the end it is told to stop, and waited for."""
    finish = asyncio.Event()
    receiver = Receiver(broker, max_async_tasks=10, run_startup=False, **more)
    worker = asyncio.create_task(receiver.listen(finish))
    try:
        yield finish
    finally:
        finish.set()
        await worker


@asynccontextmanager
async def started(broker):
    """The broker, from startup to shutdown."""
    await broker.startup()
    try:
        async with asyncio.timeout(WITHIN_S):
            yield broker
    finally:
        await broker.shutdown()


async def until(condition):
    """Return when it is so."""
    async with asyncio.timeout(WITHIN_S):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110 - nsqd tells nobody
            await asyncio.sleep(0.01)


def test_a_task_is_run_and_finished(nsqd):
    """A task that was sent runs in the worker with its arguments, and nothing of it is left."""

    async def play():
        broker = NsqBroker(nsqd.address, topic="tasks", channel="workers")
        results: asyncio.Queue[int] = asyncio.Queue()

        @broker.task("add")
        async def add(one: int, two: int) -> None:
            results.put_nowait(one + two)

        async with started(broker), working(broker):
            await add.kiq(1, two=2)
            assert 3 == await results.get()
        channel = nsqd.channel("tasks", "workers")
        assert (1, 0, 0, 0) == (
            channel["message_count"],
            channel["depth"],
            channel["in_flight_count"],
            channel["requeue_count"],
        )

    asyncio.run(play())


def test_max_in_flight_bounds_what_a_worker_has(nsqd):
    """A worker of 2 has 2 of 5 tasks, the others wait at nsqd; when it stops it finishes these and takes no other."""

    async def play():
        broker = NsqBroker(nsqd.address, max_in_flight=2)
        release = asyncio.Event()
        begun = []

        @broker.task("wait")
        async def wait(number: int) -> None:
            begun.append(number)
            await release.wait()

        async with started(broker):
            for number in range(5):
                await wait.kiq(number)
            async with working(broker) as finish:
                await until(lambda: len(begun) == 2)
                assert (2, 3) == counts(nsqd, "in_flight_count", "depth")
                finish.set()
                await until(lambda: counts(nsqd, "clients")[0][0]["state"] == 4)  # it wants no more
                release.set()
        assert 2 == len(begun)
        assert (0, 3) == counts(nsqd, "in_flight_count", "depth")

    asyncio.run(play())


def test_what_waits_in_a_stopping_worker_goes_back_at_once(nsqd):
    """Of 6 tasks a worker that runs 1 at a time has all; told to stop, it gives back at once what it has not begun."""

    async def play():
        broker = NsqBroker(nsqd.address)
        release = asyncio.Event()

        @broker.task("wait")
        async def wait() -> None:
            await release.wait()

        finish = asyncio.Event()
        async with started(broker):
            for _ in range(6):
                await wait.kiq()
            receiver = Receiver(broker, max_async_tasks=1, run_startup=False)
            worker = asyncio.create_task(receiver.listen(finish))
            await until(lambda: counts(nsqd, "in_flight_count") == (6,))
            finish.set()
            await until(lambda: counts(nsqd, "in_flight_count", "depth") == (1, 5))
            release.set()
            await worker
        assert (0, 5) == counts(nsqd, "in_flight_count", "depth")

    asyncio.run(play())


def test_what_was_not_acknowledged_comes_again(nsqd):
    """A task that must acknowledge itself and did not is there for the next worker after a shutdown."""

    async def play():
        for attempt in (1, 2):
            broker = NsqBroker(nsqd.address)
            acknowledged = asyncio.Event()

            @broker.task("careful", ack_type="manual")
            async def careful(context: Context = TaskiqDepends()) -> None:  # noqa: B008 - taskiq's way
                if attempt == 2:  # noqa: B023 - it runs in this pass of the loop
                    await context.ack()
                acknowledged.set()  # noqa: B023

            async with started(broker):
                if attempt == 1:
                    await careful.kiq()
                async with working(broker):
                    await acknowledged.wait()
            await until(lambda left=2 - attempt: counts(nsqd, "depth", "in_flight_count") == (left, 0))

    asyncio.run(play())


@pytest.mark.parametrize("ack", [AcknowledgeType.WHEN_RECEIVED, AcknowledgeType.WHEN_EXECUTED])
def test_when_a_task_is_acknowledged(nsqd, ack):
    """With when_received a task is finished while it runs, with when_executed only afterwards."""

    async def play():
        broker = NsqBroker(nsqd.address)
        begun, release = asyncio.Event(), asyncio.Event()

        @broker.task("wait")
        async def wait() -> None:
            begun.set()
            await release.wait()

        async with started(broker), working(broker, ack_type=ack):
            await wait.kiq()
            await begun.wait()
            early = ack is AcknowledgeType.WHEN_RECEIVED
            await until(lambda: counts(nsqd, "in_flight_count") == (0 if early else 1,))
            release.set()
            await until(lambda: counts(nsqd, "in_flight_count") == (0,))

    asyncio.run(play())


def test_a_long_task_is_touched(nsqd):
    """A task that runs longer than msg_timeout runs once, as its message is touched meanwhile."""

    async def play():
        broker = NsqBroker(nsqd.address, msg_timeout=1)
        runs = []
        release = asyncio.Event()

        @broker.task("long")
        async def long() -> None:
            runs.append(1)
            await release.wait()

        async with started(broker), working(broker):
            await long.kiq()
            await until(lambda: runs)
            start = time.monotonic()
            await until(lambda: time.monotonic() - start > 1.5)
            release.set()
        assert (1, 0) == (len(runs), *counts(nsqd, "timeout_count"))

    asyncio.run(play())


@pytest.mark.parametrize("delay", [0.3, "300ms", "0.3"])
def test_a_delay_is_kept_by_nsqd(nsqd, delay):
    """The label delay, in seconds or as text, delays a task."""

    async def play():
        broker = NsqBroker(nsqd.address)
        done = asyncio.Event()

        @broker.task("later")
        async def later() -> None:
            done.set()

        async with started(broker), working(broker):
            begun = time.monotonic()
            await later.kicker().with_labels(delay=delay).kiq()
            await done.wait()
            assert time.monotonic() - begun > 0.29

    asyncio.run(play())


@pytest.mark.parametrize(
    "middleware",
    [
        SimpleRetryMiddleware(default_retry_label=True),
        SmartRetryMiddleware(default_retry_label=True, default_delay=0.1),
    ],
)
def test_retries(nsqd, middleware):
    """taskiq's retries work: at once, or after a delay that nsqd keeps."""

    async def play():
        broker = NsqBroker(nsqd.address).with_middlewares(middleware)
        middleware.set_broker(broker)
        times = []
        done = asyncio.Event()

        @broker.task("fails once")
        async def fails_once() -> None:
            times.append(time.monotonic())
            if len(times) == 1:
                raise RuntimeError
            done.set()

        async with started(broker), working(broker):
            await fails_once.kiq()
            await done.wait()
        assert times[1] - times[0] > (0.09 if isinstance(middleware, SmartRetryMiddleware) else 0)
        assert (2, 0) == counts(nsqd, "message_count", "depth")

    asyncio.run(play())


def test_what_cannot_be_sent_says_why(nsqd):
    """With a delay above nsqd's limit, or that is none, and before startup, the error has the reason."""

    async def play():
        broker = NsqBroker(nsqd.address)
        task = broker.register_task(test_retries, "task")
        with pytest.raises(SendTaskError) as error:
            await task.kiq()
        assert "startup" in str(error.value.__cause__)
        async with started(broker):
            for delay, words in (
                (
                    3601,
                    "a delay of 1h0m1s is not within 0 and max_delay (1h0m0s); nsqd's limit is --max-req-timeout",
                ),
                ("61m", "a delay of 1h1m0s"),
                ("soon", "a delay of 'soon'"),
                ("nan", "a delay of nan"),
                (-1, "a delay of -1s"),
            ):
                with pytest.raises(SendTaskError) as error:
                    await task.kicker().with_labels(delay=delay).kiq()
                assert words in str(error.value.__cause__)

    asyncio.run(play())


def test_options_go_where_they_belong(nsqd):
    """Options of producers, of consumers and of both are taken; a wrong one, an unknown one or no address is not."""
    NsqBroker(nsqd.address, retries=1, max_attempts=3, snappy=True)

    with pytest.raises(OptionError, match="max_in_flight"):
        NsqBroker(nsqd.address, max_in_flight=-1)
    with pytest.raises(OptionError, match="retries"):
        NsqBroker(nsqd.address, retries=-1)
    with pytest.raises(TypeError, match="nonsense"):
        NsqBroker(nsqd.address, nonsense=1)  # type: ignore[call-arg]
    with pytest.raises(OptionError, match="nsqd"):
        NsqBroker()


def test_a_task_that_always_kills_its_worker_ends(nsqd):
    """A message that was delivered more than max_attempts times is finished without being run."""

    async def play():
        async with Consumer("taskiq", "taskiq", nsqd=nsqd.address) as consumer:
            broker = NsqBroker(nsqd.address, max_attempts=2)
            runs = []

            @broker.task("never")
            async def never() -> None:
                runs.append(1)

            async with started(broker):
                await never.kiq()
                for _ in range(2):
                    message = await consumer.get(WITHIN_S)
                    assert message is not None
                    message.requeue(0, backoff=False)
                await consumer.stop()
                async with working(broker):
                    await until(lambda: counts(nsqd, "depth", "in_flight_count") == (0, 0))
        assert [] == runs

    asyncio.run(play())


def test_what_is_never_acknowledged_is_forgotten(nsqd):
    """The broker holds no task that nsqd has given to somebody else meanwhile, as it was never acknowledged."""

    async def play():
        broker = NsqBroker(nsqd.address, msg_timeout=1, auto_touch=False)
        runs = []

        @broker.task("careless", ack_type="manual")
        async def careless() -> None:
            runs.append(1)

        async with started(broker), working(broker):
            await careless.kiq()
            await until(lambda: len(runs) == 3)
            assert len(broker._taken) < 3  # the one before may be so late that nsqd's clock is ahead of ours

    asyncio.run(play())


def counts(nsqd, *names):
    """These figures of the channel of tasks; None while there is no channel."""
    channel = nsqd.channel("taskiq", "taskiq")
    return tuple(channel.get(name) for name in names)
