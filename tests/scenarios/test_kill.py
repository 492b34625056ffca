"""kill -9 at random moments, and tails of files as a power cut leaves them.

NSQKIT_KILL_ROUNDS is the number of rounds in each mode (10), NSQKIT_KILL_SEED repeats a run that failed.
"""

import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from nsqkit.wire.frames import MESSAGE
from tests.scenarios.conftest import NOTHING, Client, Closed, Daemon, as_message, batch, command, is_sync

ROUNDS = int(os.environ.get("NSQKIT_KILL_ROUNDS", "10"))
SEED = int(os.environ.get("NSQKIT_KILL_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)

TOPIC = "orders"
CHECKPOINT_S = 0.2
ROUND_S = 2.6  # longest time between a start and the kill
BEHIND = 20_000  # messages that publishers may be ahead of consumers

pytestmark = pytest.mark.slow


class Record:
    """What clients know: which publishes were answered OK, and what happened to each message since."""

    def __init__(self, checkpoint: Path):
        self.kept: set[bytes] = set()  # answered OK
        self.seen: set[bytes] = set()  # delivered at least once
        self.finished: dict[
            bytes, int
        ] = {}  # how many checkpoints there were when its FIN had surely been taken
        self.settled: set[bytes] = set()  # finished so long before a kill that it must not come again
        self.again: set[bytes] = set()  # came again all the same
        self._checkpoint = checkpoint
        self._versions: list[int] = []  # of the checkpoint, by when each was written
        self._looking = threading.Lock()

    def checkpoints(self) -> int:
        """How many checkpoints were there so far: at least so many of those that were written."""
        with self._looking:
            with suppress(FileNotFoundError):
                version = self._checkpoint.stat().st_mtime_ns
                if self._versions[-1:] != [version]:
                    self._versions.append(version)
            return len(self._versions)

    def settle(self) -> None:
        """Note what the last checkpoint must know: what was finished when the previous one was there.

        However slow the disk is: a checkpoint is begun when the last one is in its place.
        """
        known = self.checkpoints() - 2
        self.settled |= {body for body, checkpoints in self.finished.items() if checkpoints <= known}
        self.finished.clear()


def publish(client: Client, record: Record, prefix: bytes, many: int) -> None:
    """Publish until the connection breaks: MPUBs of `many`, or 20 PUBs at once if that is 1."""
    serial = 0
    try:
        while True:
            while len(record.kept) - len(record.seen) > BEHIND:
                time.sleep(0.002)
            bodies = [b"%s-%07d" % (prefix, serial + i) + b"." * 80 for i in range(max(many, 20))]
            serial += len(bodies)
            if many > 1:
                client.send(command(f"MPUB {TOPIC}", batch(bodies)))
                client.ok()
                record.kept.update(bodies)
            else:
                client.send(b"".join([command(f"PUB {TOPIC}", body) for body in bodies]))
                for body in bodies:
                    client.ok()
                    record.kept.add(body)
    except Closed:
        return


def consume(client: Client, record: Record, enough: Callable[[], bool]) -> None:
    """Finish whatever comes, until the connection breaks or it is enough. Each heap of FINs is followed by a sync."""
    open_heaps: deque[list[bytes]] = deque()
    try:
        while not enough():
            heap, ids = [], []
            for kind, payload in client.frames():
                if kind == MESSAGE:
                    message = as_message(payload)
                    heap.append(message.body)
                    ids.append(message.id)
                else:
                    assert is_sync(kind, payload), payload
                    record.finished.update(dict.fromkeys(open_heaps.popleft(), record.checkpoints()))
            record.again.update(record.settled.intersection(heap))
            record.seen.update(heap)
            if ids:
                open_heaps.append(heap)
                client.finish(*ids, NOTHING)
    except Closed:
        return


@pytest.mark.parametrize("mode", ["os", "fsync"])
@pytest.mark.timeout(60 + 15 * ROUNDS)
def test_nothing_kept_is_lost_and_nothing_settled_returns(launch, mode):
    """Whatever was answered OK is delivered; what was finished well before a kill is not delivered again."""
    print(f"NSQKIT_KILL_SEED={SEED}")
    chance = random.Random(f"{SEED} {mode}")
    flags = [
        f"--durability={mode}",
        f"--checkpoint-interval={CHECKPOINT_S * 1000:.0f}ms",
        "--sync-timeout=300ms",
    ]
    daemon = launch(*flags, "--max-bytes-per-file=2000000", "--mem-queue-size=2000")
    record = Record(daemon.data_path / TOPIC / "checkpoint")
    for number in range(ROUNDS):
        play_round(daemon, record, number, chance.uniform(0.05, ROUND_S))

    drain(daemon, record)

    assert record.kept
    assert record.settled
    assert set() == record.kept - record.seen
    assert set() == record.again
    print(f"{mode}: {len(record.kept)} kept, {len(record.settled)} settled before a kill")


def play_round(daemon: Daemon, record: Record, number: int, seconds: float) -> None:
    """Full load for so many seconds, a kill, and a start. In the first round some checkpoints are waited for."""
    work = [
        threading.Thread(target=consume, args=(daemon.consumer(TOPIC), record, lambda: False)),
        threading.Thread(target=consume, args=(daemon.consumer(TOPIC), record, lambda: False)),
    ]
    for index, many in enumerate((1, 1, 50, 200)):
        prefix = b"%03d-%d" % (number, index)
        work.append(threading.Thread(target=publish, args=(daemon.connect(), record, prefix, many)))
    for thread in work:
        thread.start()
    time.sleep(seconds)
    while number == 0 and record.checkpoints() < 5:
        time.sleep(0.01)
    daemon.kill()
    for thread in work:
        thread.join()
    record.settle()
    daemon.start()


def drain(daemon: Daemon, record: Record) -> None:
    """Consume until there is nothing more to come."""
    client = daemon.consumer(TOPIC)
    client.socket.settimeout(3)
    try:
        consume(client, record, lambda: False)
    except TimeoutError:
        return


# -- tails

HEADER = 24  # of a log's segment
BODY = 94
ENTRY = 52 + 4 + BODY  # of a log that was published to one by one: a batch's header, a size, a body


def last(directory: Path, pattern: str) -> Path | None:
    """The last file of a kind, by name."""
    found = sorted(directory.glob(pattern))
    return found[-1] if found else None


def cut(path: Path, chance: random.Random) -> int:
    """Take up to 300 bytes from a file's end; how many."""
    size = path.stat().st_size
    taken = min(chance.randint(1, 300), size)
    os.truncate(path, size - taken)
    return taken


def flip(path: Path, chance: random.Random) -> int:
    """Flip one bit of a file's last 300 bytes; 1, as that is what is damaged."""
    raw = bytearray(path.read_bytes())
    at = chance.randrange(max(0, len(raw) - 300), len(raw))
    raw[at] ^= 1 << chance.randrange(8)
    path.write_bytes(raw)
    return 1


@pytest.mark.timeout(60 + 5 * ROUNDS)
@pytest.mark.parametrize("damage", [cut, flip])
def test_damaged_tail_of_the_log(launch, damage):
    """A log whose end was cut or flipped is opened, what is whole in it is delivered, and a line says what is not."""
    print(f"NSQKIT_KILL_SEED={SEED}")
    chance = random.Random(f"{SEED} {damage.__name__}")
    daemon = launch("--sync-timeout=20ms")
    daemon.consumer(TOPIC).close()
    for number in range(ROUNDS):
        bodies = [(b"%d-%d" % (number, i)).ljust(BODY, b".") for i in range(chance.randint(1, 40))]
        daemon.connect().publish(TOPIC, *bodies)
        time.sleep(chance.choice([0, 0, 0.05]))  # maybe the checkpoint says that it is synced
        chance.choice([daemon.stop, daemon.kill])()
        path = last(daemon.data_path / TOPIC, "*.log")
        assert path is not None
        hit = damage(path, chance)
        nothing_left = path.stat().st_size <= HEADER  # as a segment looks that was never written to

        daemon.start()

        came = received(daemon, b"end of %d" % number)
        came = [body for body in came if body in bodies]  # what was finished just before a kill comes again
        assert [body for body in bodies if body in came] == came
        assert len(bodies) - -(-hit // ENTRY) <= len(came)
        if came != bodies and hit % ENTRY and not nothing_left:
            assert any(word in daemon.log() for word in ("cut off", "damaged")), daemon.log()


def received(daemon: Daemon, mark: bytes) -> list[bytes]:
    """Publish a mark, and consume everything up to it."""
    consumer = daemon.consumer(TOPIC)
    daemon.connect().publish(TOPIC, mark)
    bodies: list[bytes] = []
    while mark not in bodies:
        bodies += [message.body for message in consumer.messages(1)]
    consumer.sync()
    consumer.close()
    return bodies[:-1]


@pytest.mark.timeout(60 + 5 * ROUNDS)
@pytest.mark.parametrize("pattern", [f"{TOPIC}/checkpoint", f"{TOPIC}/*.log", "journal/*.journal"])
def test_no_damage_stops_a_start(launch, pattern):
    """Whatever was cut or flipped at the end of whichever file: nsqd starts and serves."""
    print(f"NSQKIT_KILL_SEED={SEED}")
    chance = random.Random(f"{SEED} {pattern}")
    daemon = launch("--durability=fsync", "--checkpoint-interval=10ms", "--sync-timeout=50ms")
    for number in range(ROUNDS):
        consumer = daemon.consumer(TOPIC)
        publisher = daemon.connect()
        publisher.publish(TOPIC, *[b"%d" % i for i in range(chance.randint(1, 100))])
        consumer.messages(1)
        publisher.defer(TOPIC, 60_000, b"later")
        chance.choice([daemon.stop, daemon.kill])()
        path = last(daemon.data_path, pattern)
        if path is not None and path.stat().st_size:
            chance.choice([cut, flip])(path, chance)

        daemon.start()

        received(daemon, b"end of %d" % number)
