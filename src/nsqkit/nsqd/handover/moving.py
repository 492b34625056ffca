"""Moving in: what an NSQ 1.3 left in the data path becomes part of the topic logs. Nothing is lost or overwritten.

nsqd.dat is NSQ's own file and is read as it is. Queues (`<topic>[:<channel>].diskqueue.*`) are appended to the topic's
log, owed by who had them; then the old files go to `imported/`. A crash on the way imports again: second deliveries, no
loss.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from nsqkit.log import Log
from nsqkit.nsqd.core.batch import KEPT, Batch
from nsqkit.nsqd.core.broker import Broker
from nsqkit.nsqd.core.ledger import record
from nsqkit.nsqd.core.owed import TopicOwed
from nsqkit.nsqd.core.queue import ReadyQueue
from nsqkit.nsqd.core.store import StoreError
from nsqkit.nsqd.core.topic import Topic
from nsqkit.nsqd.datapath import IMPORTED
from nsqkit.nsqd.handover.diskqueue import Queue, QueueReader, StoredMessage, queue_files
from nsqkit.nsqd.storage.files import FileStorage
from nsqkit.wire.message import Message

BLOCK: Final = 1 << 20  # bytes imported between two writes


def import_queues(
    data_path: str, queues: Sequence[Queue], broker: Broker, storage: FileStorage, log: Log, now: int
) -> int:
    """Take over these queues that NSQ left; returns how many messages came along. StoreError, OSError."""
    total = 0
    for queue in queues:
        if queue.channel is not None:
            broker.topic(queue.topic).channel(queue.channel, now)  # it gets what waits in the topic, too
    for queue in queues:
        topic = broker.topic(queue.topic)
        _checkpoint(topic, storage)  # without one, a start after a crash would give copies to every channel
        count, problems = _import_queue(data_path, queue, broker, storage, now)
        for problem in problems:
            log.warning(f"IMPORT: {problem}")
        _checkpoint(topic, storage)
        _set_aside(data_path, queue)
        log.info(
            f"IMPORT: {count} messages of {queue.name} taken over from NSQ; its files are in {IMPORTED}/"
        )
        total += count
    return total


def _checkpoint(topic: Topic, storage: FileStorage) -> None:
    """Write down what the topic owes, and return when it is as safe as the copies it names. StoreError."""
    if topic.store is not None:
        topic.store.checkpoint(record(TopicOwed(topic, topic.store)))
    for job in storage.take_jobs():
        job.run()
        job.finish()
        if job.error:
            raise StoreError(job.error)


def _import_queue(
    data_path: str, queue: Queue, broker: Broker, storage: FileStorage, now: int
) -> tuple[int, list[str]]:
    topic = broker.topic(queue.topic)
    ready = topic.waiting
    channel = None
    if queue.channel is not None:
        channel = topic.channel(queue.channel, now)
        ready = channel.queue
    store = topic.store
    if store is None:
        return 0, [f"{queue.name}: ephemeral, and so not taken over"]
    size = count = 0
    pending: list[tuple[Batch, int]] = []
    with QueueReader(data_path, queue.name, max(broker.settings.max_msg_size, BLOCK)) as reader:
        while (message := reader.next()) is not None:
            batch = _batch(message, broker, now)
            store.append(batch)
            pending.append((batch, message.attempts))
            count += 1
            size += len(message.body)
            if size >= BLOCK:
                storage.shared.guard(size)
                store.write()
                _owe(ready, pending, tried=channel is not None)
                size = 0
                pending = []
        storage.shared.guard(size)
        store.write()
        _owe(ready, pending, tried=channel is not None)
        problems = list(reader.problems)
    if channel is not None:
        channel.entered_count += count
        channel.want_dispatch()
    else:
        topic.release_waiting(now)
    return count, problems


def _batch(message: StoredMessage, broker: Broker, now: int) -> Batch:
    batch = Batch(len(message.body).to_bytes(4, "big") + message.body, 1, message.timestamp, 0, None)
    try:
        number = int(message.id, 16)
    except ValueError:
        number = -1
    if f"{number:016x}".encode() != message.id or not 0 <= number < 1 << 63:
        number = broker.ids.take(1, now)  # an id that is none: the damage of a file, or of another program
    batch.first_id = number
    batch.carried = True
    batch.state = KEPT
    return batch


def _owe(ready: ReadyQueue, pending: list[tuple[Batch, int]], *, tried: bool) -> None:
    """Let a queue have what was written. What waits in a topic was never tried, whatever its records say."""
    for batch, attempts in pending:
        if attempts and tried:
            message = Message(b"", batch.timestamp, attempts, b"", batch.first_position)
            message.loaded = False
            ready.put_matured(message)
        else:
            ready.put_extent(batch.first_position, batch.first_position + 1, batch.timestamp)


def _set_aside(data_path: str, queue: Queue) -> None:
    target = os.path.join(data_path, IMPORTED)
    with suppress(FileExistsError):
        os.mkdir(target, 0o700)
    for name in queue_files(data_path, queue.name):
        path = os.path.join(target, name)
        number = 1
        while os.path.exists(path):  # from a time before: somebody moved back and forth
            number += 1
            path = os.path.join(target, f"{name}.{number}")
        os.rename(os.path.join(data_path, name), path)
