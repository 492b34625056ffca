"""One client, in a process of its own: publishes or consumes, and prints what CPU time of this process it took.

    python bench/client_worker.py <way> <loop> <port> <topic> <warm> <count>

`bench/clients.py` runs it, with the interpreter of an environment that has the client and uvloop, so only the client
that is asked for is imported. A way is how the client's own documents say that it is done. The first `warm` messages
are not measured. Prints a JSON object: seconds, and CPU seconds of all threads.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

IN_FLIGHT = 100  # publishes
MAX_IN_FLIGHT = 1000  # messages
BODY = bytes(range(200))
CHANNEL = "ch"


@dataclass
class Task:
    """What is to be done, and the window that is measured."""

    port: int
    topic: str
    warm: int
    count: int
    taken: int = 0

    def __post_init__(self) -> None:
        self.over = asyncio.get_running_loop().create_future()

    @property
    def address(self) -> str:
        """The nsqd."""
        return f"127.0.0.1:{self.port}"

    def begin(self) -> None:
        """What was done so far does not count."""
        self._at, self._cpu = time.perf_counter(), time.process_time()

    def end(self) -> None:
        """Print the figures."""
        cpu, at = time.process_time() - self._cpu, time.perf_counter() - self._at
        print(json.dumps({"seconds": at, "cpu_s": cpu}), flush=True)

    def took(self) -> bool:
        """One more message was finished; is it enough?"""
        self.taken += 1
        if self.taken == self.warm:
            self.begin()
        if self.taken != self.warm + self.count:
            return False
        self.end()
        self.over.set_result(None)
        return True

    async def finish_reaches_nsqd(self) -> None:
        """The last ones are under way when the window ends."""
        await self.over
        await asyncio.sleep(0.2)


async def publish_from_tasks(task: Task, publish: Callable[[str, bytes], Awaitable[object]]) -> None:
    """Await publish after publish, in so many tasks."""

    async def some(count: int) -> None:
        for _ in range(count):
            await publish(task.topic, BODY)

    await asyncio.gather(*(some(task.warm // IN_FLIGHT) for _ in range(IN_FLIGHT)))
    task.begin()
    await asyncio.gather(*(some(task.count // IN_FLIGHT) for _ in range(IN_FLIGHT)))
    task.end()


# -- nsqkit


async def nsqkit_publish(task: Task) -> None:
    """await publish()"""
    from nsqkit import Producer

    async with Producer(task.address) as producer:
        await publish_from_tasks(task, producer.publish)


async def nsqkit_iterate(task: Task) -> None:
    """async for, await finish()"""
    from nsqkit import Consumer

    async with Consumer(task.topic, CHANNEL, nsqd=task.address, max_in_flight=MAX_IN_FLIGHT) as consumer:
        async for message in consumer:
            await message.finish()
            if task.took():
                break
        await task.finish_reaches_nsqd()


async def nsqkit_handler(task: Task) -> None:
    """async def handler(message)"""
    from nsqkit import Consumer, Message

    async def handle(_: Message) -> None:
        task.took()

    async with Consumer(
        task.topic, CHANNEL, nsqd=task.address, handler=handle, max_in_flight=MAX_IN_FLIGHT
    ) as consumer:
        running = asyncio.ensure_future(consumer.run())
        await task.finish_reaches_nsqd()
        await consumer.stop()
        await running


# -- pynsq


async def pynsq_publish(task: Task) -> None:
    """pub(callback=), the next one from the callback"""
    import nsq

    writer = nsq.Writer([task.address])
    while not writer.conns:  # noqa: ASYNC110 - it tells nobody when it is connected
        await asyncio.sleep(0.01)
    left = answers = 0
    done: Any = None

    def answered(_: object, data: object) -> None:
        nonlocal answers
        assert data == b"OK", data
        answers += 1
        publish()
        if answers == wanted:
            done.set_result(None)

    def publish() -> None:
        nonlocal left
        if left:
            left -= 1
            writer.pub(task.topic, BODY, answered)

    for wanted in (task.warm, task.count):
        task.begin()
        left, answers, done = wanted, 0, asyncio.get_running_loop().create_future()
        for _ in range(IN_FLIGHT):
            publish()
        await done
    task.end()


async def pynsq_handler(task: Task) -> None:
    """def handler(message), which returns True"""
    import nsq

    def handle(_: object) -> bool:
        task.took()
        return True

    nsq.Reader(
        topic=task.topic,
        channel=CHANNEL,
        message_handler=handle,
        nsqd_tcp_addresses=[task.address],
        max_in_flight=MAX_IN_FLIGHT,
    )
    await task.finish_reaches_nsqd()


# -- asyncnsq


async def asyncnsq_publish(task: Task) -> None:
    """await pub()"""
    import asyncnsq

    writer = await asyncnsq.create_writer(host="127.0.0.1", port=task.port)
    await publish_from_tasks(task, writer.pub)
    writer.close()


async def _asyncnsq_reader(task: Task) -> Any:
    import asyncnsq

    return await asyncnsq.create_reader(nsqd_tcp_addresses=[task.address], max_in_flight=MAX_IN_FLIGHT)


async def asyncnsq_iterate(task: Task) -> None:
    """async for, await fin()"""
    reader = await _asyncnsq_reader(task)
    await reader.subscribe(task.topic, CHANNEL)
    async for message in reader.messages():
        await message.fin()
        if task.took():
            break
    await task.finish_reaches_nsqd()
    reader.close()


async def asyncnsq_handler(task: Task) -> None:
    """def handler(message), through the queue"""
    await _asyncnsq_handler(task, direct=False)


async def asyncnsq_direct(task: Task) -> None:
    """def handler(message), direct=True"""
    await _asyncnsq_handler(task, direct=True)


async def _asyncnsq_handler(task: Task, *, direct: bool) -> None:
    reader = await _asyncnsq_reader(task)
    reader.set_message_handler(lambda _: task.took(), direct=direct)
    await reader.subscribe(task.topic, CHANNEL)
    await task.finish_reaches_nsqd()
    reader.close()


# -- ansq


async def ansq_publish(task: Task) -> None:
    """await pub()"""
    import ansq

    writer = await ansq.create_writer(nsqd_tcp_addresses=[task.address])
    await publish_from_tasks(task, writer.pub)
    await writer.close()


async def ansq_iterate(task: Task) -> None:
    """async for, await fin(), on a connection: a reader has no max_in_flight"""
    from ansq.tcp.connection import open_connection

    connection = await open_connection("127.0.0.1", task.port)
    await connection.subscribe(task.topic, CHANNEL, MAX_IN_FLIGHT)
    async for message in connection.messages():
        await message.fin()
        if task.took():
            break
    await task.finish_reaches_nsqd()
    await connection.close()


WAYS: dict[str, Callable[[Task], Awaitable[None]]] = {
    function.__name__: function
    for function in (
        nsqkit_publish,
        nsqkit_iterate,
        nsqkit_handler,
        pynsq_publish,
        pynsq_handler,
        asyncnsq_publish,
        asyncnsq_iterate,
        asyncnsq_handler,
        asyncnsq_direct,
        ansq_publish,
        ansq_iterate,
    )
}


def main(way: str, loop: str, port: str, topic: str, warm: str, count: str) -> None:
    """Do it, on that kind of loop."""

    async def run() -> None:
        await WAYS[way](Task(int(port), topic, int(warm), int(count)))

    if loop == "uvloop":
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run())
    else:
        asyncio.run(run())


if __name__ == "__main__":
    main(*sys.argv[1:])
