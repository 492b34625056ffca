"""What is finished gives its space back, while nsqd runs, when it stops, and when it starts."""

import json
import resource
import sys
import time
from collections.abc import Callable

import pytest

from faults.machine import small_disk
from tests.scenarios.conftest import Client, Closed, Daemon, command

linux = pytest.mark.skipif(sys.platform != "linux", reason="prlimit is Linux's")
MODES = ["memory", "os", "fsync"]
MEGABYTE = 1 << 20
BODIES = [b"%03d" % number + b"x" * 20_000 for number in range(200)]  # 4 MB
LITTLE = 100_000


def taken(nsqd: Daemon) -> int:
    """Bytes in the files of the topic."""
    return sum(path.stat().st_size for path in (nsqd.data_path / "orders").iterdir())


def wait_until(true: Callable[[], bool]) -> None:
    """Return when it is, soon."""
    give_up = time.monotonic() + 20
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.01)


@pytest.mark.parametrize("mode", MODES)
def test_finished_messages_take_no_space(launch, mode):
    """When the last message is finished, or the channel is emptied, the files are small within moments."""
    nsqd = launch(f"--durability={mode}", "--mem-queue-size=10", http=True)
    consumer = nsqd.consumer("orders")
    publisher = nsqd.connect()
    publisher.publish_many("orders", BODIES)
    if mode != "memory":
        assert taken(nsqd) > 4_000_000
    consumer.messages(len(BODIES))
    consumer.sync()
    wait_until(lambda: taken(nsqd) < LITTLE)

    consumer.ready(0)
    publisher.publish_many("orders", BODIES)
    assert nsqd.request("POST", "/channel/empty?topic=orders&channel=ch")[0] == 200
    wait_until(lambda: taken(nsqd) < LITTLE)

    publisher.publish("orders", b"one more")
    nsqd.kill()
    nsqd.start()
    if mode != "memory":
        assert nsqd.consumer("orders").message().body == b"one more"


def test_a_stop_gives_space_back(launch):
    """What was finished just before it takes no space after it."""
    nsqd = launch("--checkpoint-interval=1h")
    consumer = nsqd.consumer("orders")
    nsqd.connect().publish_many("orders", BODIES)
    consumer.messages(len(BODIES))
    consumer.sync()
    assert taken(nsqd) > 4_000_000

    assert nsqd.stop() == 0

    assert taken(nsqd) < LITTLE


def test_a_start_gives_space_back(launch):
    """So does a segment whose removal a power cut has undone, without anything happening to the topic."""
    nsqd = launch("--checkpoint-interval=1h")
    consumer = nsqd.consumer("orders")
    nsqd.connect().publish_many("orders", BODIES)
    consumer.messages(len(BODIES))
    consumer.sync()
    segment = next((nsqd.data_path / "orders").glob("*.log"))
    finished = segment.read_bytes()
    assert nsqd.stop() == 0
    segment.write_bytes(finished)
    assert taken(nsqd) > 4_000_000

    nsqd.flags = ["--checkpoint-interval=100ms"]
    nsqd.start()

    wait_until(lambda: taken(nsqd) < LITTLE)


@linux
@pytest.mark.parametrize("mode", ["os", "fsync"])
def test_a_full_disk_empties(make_daemon, mode):
    """Where no publish succeeds any more, consuming what is there makes room for the next."""
    nsqd = make_daemon(f"--durability={mode}", "--mem-queue-size=10")
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    nsqd.start(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (3 * MEGABYTE, hard)))
    consumer = nsqd.consumer("orders")
    kept = 0
    publisher = nsqd.connect()
    while publish(publisher, b"x" * 100_000):
        kept += 1
    assert kept > 10

    consumer.messages(kept)
    consumer.sync()

    wait_until(lambda: publish(nsqd.connect(), b"there is room again"))
    assert consumer.messages(1)[0].body == b"there is room again"


def publish(client: Client, body: bytes) -> bool:
    """Was it kept?"""
    try:
        client.send(command("PUB orders", body))
        return client.frame() == (0, b"OK")
    except Closed:
        return False


@pytest.mark.parametrize("mode", ["os", "fsync"])
def test_a_volume_without_a_byte_left(make_daemon, tmp_path, mode):
    """Without a reserve, and with the last byte taken by somebody else: finishing makes room, also after a kill."""
    volume = tmp_path / "volume"
    with small_disk(volume, 8 * MEGABYTE) as disk:
        if disk is None:
            pytest.skip("nothing may be mounted here")
        nsqd = make_daemon(f"--durability={mode}", "--min-free-space=0", "--mem-queue-size=10", http=True)
        nsqd.data_path = volume
        nsqd.start()
        nsqd.consumer("orders").ready(0)
        publisher = nsqd.connect()
        kept = 0
        while publish(publisher, b"x" * 100_000):
            kept += 1
        assert kept > 10
        disk.fill(0)
        nsqd.kill()
        nsqd.start()

        (topic,) = json.loads(nsqd.request("GET", "/stats?format=json")[1])["topics"]
        owed = topic["channels"][0]["depth"]  # what was refused for want of a journal may be in the log
        assert owed >= kept
        consumer = nsqd.consumer("orders")
        consumer.messages(owed)
        consumer.sync()

        wait_until(lambda: taken(nsqd) < LITTLE)
        wait_until(lambda: publish(nsqd.connect(), b"there is room again"))
        assert consumer.messages(1)[0].body == b"there is room again"
        consumer.sync()
        wait_until(lambda: nsqd.request("GET", "/ping")[0] == 200)
        nsqd.connect().publish("orders", b"still there after a kill")
        nsqd.kill()
        nsqd.start()
        consumer = nsqd.consumer("orders")
        while consumer.messages(1)[0].body != b"still there after a kill":
            pass  # what was finished just before the kill may come again
        assert "damage" not in nsqd.log()
        nsqd.stop()
