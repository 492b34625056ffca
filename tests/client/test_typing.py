"""What users of the client are told by their type checker: programs of theirs, checked by `mypy --strict`.

A comment after `reveal_type` is the type, one after `# E:` the error that mypy has for the line.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import nsqkit

pytestmark = pytest.mark.timeout(180)  # mypy reads all that the package imports

PACKAGE = Path(nsqkit.__file__).parents[1]
PREFIXES = re.compile(r"\b(builtins|typing|nsqkit(\.\w+)*|datetime|ssl)\.(?=\w)")

RIGHT = """
import asyncio
import ssl
from datetime import timedelta
from pathlib import Path

from nsqkit import (
    Consumer, ConsumerFailed, ConsumerOptions, ConsumerState, Message, NotSent, OutcomeUnknown, Producer,
    ProducerOptions, PublishError, Refused, RequeueMessage, SyncConsumer, SyncProducer,
)
from nsqkit.client.options import BackoffRecovery
from nsqkit.contrib.opentelemetry import TracedProducer, processing, traced


async def publish() -> None:
    async with Producer("a:4150", "b:4150", strategy="sticky", tls_root_ca_file=Path("ca")) as producer:
        reveal_type(producer)  # Producer
        reveal_type(await producer.publish("orders", b"one"))  # None
        await producer.publish("orders", bytearray(b"one"), delay=1.5)
        await producer.publish("orders", memoryview(b"one"), delay="1m30s")
        await producer.publish("orders", b"one", delay=timedelta(minutes=1))
        await producer.publish_many("orders", (b"%d" % number for number in range(3)))
        stats = producer.stats()
        reveal_type(stats.published)  # int
        reveal_type(stats.failures)  # dict[str, str]
        try:
            await producer.publish("orders", b"one")
        except Refused as error:
            reveal_type(error.code)  # str
            reveal_type(error.nsqd)  # str
        except (NotSent, OutcomeUnknown) as error:
            reveal_type(error)  # NotSent | OutcomeUnknown
        except PublishError:
            pass
    options = ProducerOptions(retries=5, send_timeout="2s", tls_context=ssl.create_default_context())
    reveal_type(options.retries)  # int
    reveal_type(options.send_timeout.seconds)  # float
    producer = Producer(lookupd=["a:4161", "b:4161"], options=options)
    await producer.start()
    await producer.close(timeout=1)


async def consume() -> None:
    async with Consumer("orders", "billing", nsqd="a:4150", max_in_flight=50, msg_timeout="1m") as consumer:
        reveal_type(consumer)  # Consumer
        async for message in consumer:
            reveal_type(message)  # Message
            async with message as same:
                reveal_type(same)  # Message
                reveal_type(message.body)  # bytes
                reveal_type(message.id)  # str
                reveal_type(message.attempts)  # int
                reveal_type(message.timestamp)  # int
                reveal_type(message.nsqd)  # str
                reveal_type(message.answered)  # bool
                reveal_type(message.expired)  # bool
                reveal_type(message.json())  # Any
        reveal_type(await consumer.get(timeout=5))  # Message | None
        reveal_type(consumer.state)  # ConsumerState
        reveal_type(await consumer.wait_for(ConsumerState.CONSUMING, ConsumerState.FAILED))  # ConsumerState
        reveal_type(consumer.error)  # Exception | None
        consumer.max_in_flight = 200
        consumer.pause()
        consumer.unpause()
        reveal_type(consumer.stats().connections[0].nsqd)  # str
    async for by_hand in consumer:
        if by_hand.attempts > 3:
            reveal_type(await by_hand.finish())  # None
        elif by_hand.expired:
            await by_hand.touch()
            by_hand.requeue("1m", backoff=False)
        else:
            await by_hand.requeue(timedelta(seconds=3))
    try:
        await consumer.stop(timeout=1)
    except ConsumerFailed:
        pass


async def handle(message: Message) -> int:
    if message.attempts == 1:
        raise RequeueMessage(delay=30, backoff=False)
    return len(message.body)


def compute(message: Message) -> None:
    print(message.body)


async def tell(message: Message) -> None:
    print(message)


def note(state: ConsumerState) -> None:
    print(state.value)


async def run() -> None:
    options = ConsumerOptions(backoff_recovery=BackoffRecovery.IMMEDIATE, max_backoff_duration=0)
    consumer = Consumer("orders", "billing", lookupd="a:4161", handler=handle, concurrency=20, on_state=note)
    told = Consumer("orders", "billing", nsqd="a:4150", handler=handle, on_giving_up=tell)
    other = Consumer("orders", "billing", nsqd=["a:4150"], handler=compute, options=options, on_giving_up=compute)
    method = Consumer("orders", "billing", nsqd=["a:4150"], handler=Handler().handle)
    called = Consumer("orders", "billing", nsqd=["a:4150"], handler=Handler())
    reveal_type(await consumer.run())  # None
    await asyncio.gather(told.run(), other.run(), method.run(), called.run())


class Handler:
    async def handle(self, message: Message) -> None:
        print(message)

    async def __call__(self, message: Message) -> None:
        print(message)


def block() -> None:
    with SyncProducer("a:4150", retries=1) as producer:
        producer.publish("orders", b"one", delay=3)
        producer.publish_many("orders", [b"one"])
        reveal_type(producer.stats().connections)  # int
    with SyncConsumer("orders", "billing", nsqd="a:4150") as consumer:
        for message in consumer:
            with message:
                reveal_type(message.body)  # bytes
        found = consumer.get(1.5)
        if found is not None:
            found.requeue(timedelta(seconds=1))
        reveal_type(consumer.state)  # ConsumerState


async def trace() -> None:
    async with TracedProducer("a:4150", retries=1) as producer:
        reveal_type(producer)  # TracedProducer
        await producer.publish("orders", b"one", delay="1s")
    consumer = Consumer("orders", "billing", nsqd="a:4150", handler=traced(handle, context_of=lambda message: None))
    while (message := await consumer.get()) is not None:
        with processing(message) as span:
            span.set_attribute("book", message.json()["book"])
"""

WRONG = """
from nsqkit import Consumer, ConsumerState, Message, Producer, ProducerOptions, SyncConsumer


async def wrong() -> None:
    producer = Producer("a:4150", strategy="best")  # E: arg-type
    Producer("a:4150", nonsense=1)  # E: call-arg
    Producer("a:4150", max_in_flight=1)  # E: call-arg
    Producer("a:4150", retries="3")  # E: arg-type
    Producer(["a:4150"])  # E: arg-type
    ProducerOptions(nonsense=1)  # E: call-arg
    await producer.publish("orders", "text")  # E: arg-type
    await producer.publish(b"orders", b"one")  # E: arg-type
    await producer.publish("orders", b"one", 30)  # E: call-arg
    await producer.publish_many("orders", ["text"])  # E: list-item
    consumer = Consumer("orders", "billing", nsqd="a:4150", handler=lambda: None)  # E: arg-type
    Consumer("orders", "billing", "a:4150")  # E: call-arg
    Consumer("orders", "billing", nsqd="a:4150", backoff_recovery="never")  # E: arg-type
    Consumer("orders", "billing", nsqd="a:4150", retries=1)  # E: call-arg
    message = await consumer.get()
    print(message.body)  # E: union-attr
    for each in consumer:  # E: attr-defined
        pass
    consumer.state = ConsumerState.STOPPED  # E: misc


def also_wrong(message: Message) -> None:
    message.attempts = 1  # E: misc
    message.nonsense  # E: attr-defined
    with message:  # E: attr-defined
        pass
    SyncConsumer("orders", "billing", nsqd="a:4150", handler=print)  # E: call-arg


class Own(Message):  # E: misc
    pass
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Where programs are, and what mypy remembers of the package."""
    return tmp_path_factory.mktemp("programs")


def test_types_are_precise(directory):
    """A program that uses every part of the client passes, and each value has the type that its comment says."""
    found = check(directory, RIGHT)

    wanted = {
        number: line.partition("  # ")[2]
        for number, line in enumerate(RIGHT.splitlines(), 1)
        if "reveal_type(" in line
    }
    revealed = {
        number: PREFIXES.sub("", text.removeprefix('Revealed type is "').removesuffix('"'))
        for number, kind, text in found
        if kind == "note"
    }
    assert [] == [one for one in found if one[1] == "error"]
    assert wanted == revealed
    assert len(wanted) > 30


def test_mistakes_are_found(directory):
    """Each mistake of a program is an error in its line, and there is no other."""
    found = check(directory, WRONG)

    wanted = [
        (number, line.partition("# E: ")[2])
        for number, line in enumerate(WRONG.splitlines(), 1)
        if "# E: " in line
    ]
    errors = [
        (number, text.rpartition("[")[2].rstrip("]")) for number, kind, text in found if kind == "error"
    ]
    assert wanted == sorted(set(errors))


def check(directory, program):
    """What mypy says of a program: line, kind and text of each. It finds nsqkit where these tests find it."""
    file = directory / "program.py"
    file.write_text(program)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-error-summary", file.name]
    command += [
        "--follow-imports=silent",
        "--show-error-codes",
        "--cache-dir",
        str(directory / "cache"),
        "--no-pretty",
    ]
    installed = "site-packages" in PACKAGE.parts
    result = subprocess.run(
        command,
        cwd=directory,
        env=None if installed else {"MYPYPATH": str(PACKAGE)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "" == result.stderr
    lines = [re.fullmatch(r"program\.py:(\d+): (\w+): (.*)", line) for line in result.stdout.splitlines()]
    assert all(lines), result.stdout
    return [(int(line[1]), line[2], line[3]) for line in lines if line]
