"""The nsqd program as its operators and its worst clients meet it: signals, restarts, limits, a full disk."""

import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress

import pytest

from tests.scenarios.conftest import Client, Closed, command, program

IDLE = int(os.environ.get("NSQKIT_IDLE_CONNECTIONS", "2000"))
MODES = ["memory", "os", "fsync"]
MEGABYTE = 1 << 20
linux = pytest.mark.skipif(sys.platform != "linux", reason="prlimit and /proc are Linux's")


# -- stopping and starting


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("mode", MODES)
def test_a_signal_stops_it_and_everything_is_kept(launch, mode, number):
    """SIGTERM and SIGINT end it with 0 while clients are connected; ready, in flight, deferred: all is there again."""
    nsqd = launch(f"--durability={mode}", "--mem-queue-size=50")
    consumer = nsqd.consumer("orders", ready=2)
    publisher = nsqd.connect()
    publisher.publish("orders", *[b"%d" % number for number in range(200)])
    publisher.publish("unread", b"nobody subscribed")
    flying = {consumer.message().body, consumer.message().body}
    publisher.defer("orders", 100, b"deferred")

    assert nsqd.stop(number) == 0

    assert consumer.closed()
    assert "NSQ: bye" in nsqd.log()
    nsqd.start()
    attempts = {message.body: message.attempts for message in nsqd.consumer("orders").messages(201)}
    assert set(attempts) == {b"deferred", *[b"%d" % number for number in range(200)]}
    assert {body for body, count in attempts.items() if count == 2} == flying
    assert [b"nobody subscribed"] == [message.body for message in nsqd.consumer("unread").messages(1)]


@pytest.mark.parametrize("mode", MODES)
def test_what_was_answered_before_a_stop_is_kept(launch, mode):
    """A publisher at work while nsqd stops: each OK it got stands for a message that is there afterwards."""
    nsqd = launch(f"--durability={mode}")
    publisher = nsqd.connect()
    publisher.socket.settimeout(0)
    publisher.socket.send(b"".join([command("PUB orders", b"%d" % number) for number in range(20_000)]))
    publisher.socket.settimeout(20)
    publisher.ok()

    assert nsqd.stop() == 0

    answered = 1 + count_oks(publisher)
    nsqd.start()
    got = {message.body for message in nsqd.consumer("orders").messages(answered)}
    assert {b"%d" % number for number in range(answered)} <= got


def count_oks(client: Client) -> int:
    """How many OKs come before the end; the last word may be that nsqd is stopping."""
    count = 0
    with suppress(Closed):
        while (payload := client.frame()[1]) == b"OK":
            count += 1
        assert payload == b"E_PUB_FAILED PUB failed exiting"
    return count


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_delay_outlasts_the_process(launch, end):
    """A deferred message is due when it was due, and has not been delivered before; so is one given back with REQ."""
    nsqd = launch("--checkpoint-interval=20ms")
    consumer = nsqd.consumer("orders")
    publisher = nsqd.connect()
    before = time.monotonic()
    publisher.defer("orders", 1500, b"deferred")
    publisher.publish("orders", b"given back")
    consumer.requeue(consumer.message().id, 1500)
    consumer.sync()
    time.sleep(0.2)  # let a checkpoint know of the REQ

    getattr(nsqd, end)()

    nsqd.start()
    consumer = nsqd.consumer("orders")
    came = sorted((message.body, message.attempts) for message in consumer.messages(2))
    assert time.monotonic() - before >= 1.5
    assert [(b"deferred", 1), (b"given back", 2)] == came


def test_in_flight_messages_come_back_with_their_attempts(launch):
    """What was in flight at a kill is ready at once, and the attempts go on counting."""
    nsqd = launch("--checkpoint-interval=20ms")
    nsqd.connect().publish("orders", b"one")
    for attempt in (1, 2, 3):
        message = nsqd.consumer("orders").message()
        assert (b"one", attempt) == (message.body, message.attempts)
        time.sleep(0.2)  # let a checkpoint know of the delivery
        nsqd.kill()
        nsqd.start()


def test_restart_right_after_a_kill(launch):
    """Neither the port nor the lock outlives the process, though clients are connected."""
    nsqd = launch()
    for _ in range(5):
        nsqd.consumer("orders")
        address = nsqd.address
        nsqd.kill()
        nsqd.start()
        assert nsqd.address == address


# -- when it can't start


def run(*flags: str) -> subprocess.CompletedProcess[str]:
    """Run an nsqd that ends by itself."""
    return subprocess.run([*program(), *flags], capture_output=True, text=True, timeout=20, check=False)


def test_the_data_path_belongs_to_one_process(launch):
    """A second nsqd on the same data path says so and exits with 1; the first one does not notice."""
    nsqd = launch()

    second = run("--tcp-address=127.0.0.1:0", "--http-address=", f"--data-path={nsqd.data_path}")

    assert second.returncode == 1
    assert (
        "FATAL: failed to instantiate nsqd - failed to lock data-path:"
        f" cannot flock directory {nsqd.data_path} - " in second.stderr
    )
    assert "(possibly in use by another instance of nsqd)" in second.stderr
    nsqd.connect().publish("orders", b"still there")


def test_an_address_in_use(launch, tmp_path):
    """An address that another process listens on is a clear error."""
    host, port = launch().address
    (tmp_path / "other").mkdir()

    second = run(f"--tcp-address={host}:{port}", "--http-address=", f"--data-path={tmp_path / 'other'}")

    assert second.returncode == 1
    assert f"failed to instantiate nsqd - listen ({host}:{port}) failed - " in second.stderr
    assert "ddress already in use" in second.stderr


def test_version_line():
    """`--version` is one line: NSQ's, which clients parse, with ours after it."""
    ran = run("--version")

    assert ran.returncode == 0
    assert re.fullmatch(
        r"nsqd v1\.3\.0 \(built w/python3\.\d+\.\d+\) nsqkit \d+\.\d+\.\d+ (compiled|pure)\n", ran.stdout
    )
    assert ran.stderr == ""


# -- where it listens, and where it logs


def short_path() -> tempfile.TemporaryDirectory[str]:
    """A directory for sockets, whose paths may have about 100 characters."""
    return tempfile.TemporaryDirectory(prefix="nsqkit-")


def test_unix_socket(make_daemon):
    """A path instead of host:port is a unix socket. A file left by a kill is in nobody's way."""
    with short_path() as directory:
        nsqd = make_daemon()
        nsqd.address = f"{directory}/nsqd.sock"
        nsqd.start()
        nsqd.connect().publish("orders", b"one")
        nsqd.kill()
        assert os.path.exists(nsqd.address)

        nsqd.start()

        assert [b"one"] == [message.body for message in nsqd.consumer("orders").messages(1)]
        assert nsqd.stop() == 0
        assert not os.path.exists(nsqd.address)


def connect_when_ready(address: str) -> Client:
    """Connect to what says nothing when it is ready."""
    give_up = time.monotonic() + 20
    while True:
        with suppress(FileNotFoundError, ConnectionRefusedError):
            return Client(address)
        assert time.monotonic() < give_up
        time.sleep(0.01)


def test_closed_stderr(make_daemon):
    """`nsqd 2>&-` runs, and its files hold messages, not log lines."""
    with short_path() as directory:
        nsqd = make_daemon()
        nsqd.address = f"{directory}/nsqd.sock"
        shell = ["/bin/sh", "-c", 'exec "$@" 0<&- 1>&- 2>&-', "sh", *nsqd.arguments()]
        nsqd.arguments = lambda: shell
        nsqd.spawn()
        client = connect_when_ready(nsqd.address)

        client.publish("orders", b"one")

        client.close()
        assert nsqd.stop() == 0
        assert nsqd.log() == ""
        for path in nsqd.data_path.rglob("*"):
            assert path.is_dir() or b"INFO" not in path.read_bytes()


def test_broken_stderr(make_daemon):
    """Who read the log is gone: nsqd goes on, and stops with 0 when it is told to."""
    nsqd = make_daemon()
    reading, writing = os.pipe()
    nsqd.spawn(stderr=writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as lines:
        for line in lines:
            if b"TCP: listening on " in line:
                nsqd.address = ("127.0.0.1", int(line.rpartition(b":")[2]))
                break

    nsqd.connect().publish("orders", b"one")

    assert nsqd.stop() == 0


@pytest.mark.parametrize("blocking", [True, False])
def test_full_stderr(make_daemon, blocking):
    """A pipe that nobody empties does not stop it, nor keep it from stopping: the log's reader may hang."""
    nsqd = make_daemon("--log-level=debug")
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 65536)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"x")
    os.set_blocking(writing, blocking)
    try:
        with short_path() as directory:
            nsqd.address = f"{directory}/nsqd.sock"
            nsqd.spawn(stderr=writing)
            client = connect_when_ready(nsqd.address)
            client.publish("orders", b"one")
            client.close()
            assert nsqd.stop() == 0
    finally:
        os.close(writing)
        os.close(reading)


# -- a full disk


@linux
@pytest.mark.parametrize("mode", ["os", "fsync"])
def test_full_disk(make_daemon, mode):
    """Publishes fail with the disk's words and nothing else does; with room again, /ping says OK by itself."""
    nsqd = make_daemon(f"--durability={mode}", "--mem-queue-size=100", http=True)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    nsqd.start(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (MEGABYTE, hard)))
    kept: list[bytes] = []
    error = publish_until_error(nsqd.connect(), kept)

    assert re.fullmatch(r"E_PUB_FAILED PUB failed \S+: File too large", error)
    assert kept
    status, text = nsqd.request("GET", "/ping")
    assert (500, b"NOK - ") == (status, text[:6])
    consumer = nsqd.consumer("orders", "early", ready=1)
    assert consumer.message().body == kept[0]

    resource.prlimit(nsqd.pid, resource.RLIMIT_FSIZE, (hard, hard))
    deadline = time.monotonic() + 20
    while nsqd.request("GET", "/ping") != (200, b"OK"):  # by itself: nobody publishes to who is unhealthy
        assert time.monotonic() < deadline
        time.sleep(0.05)
    nsqd.connect().publish("orders", b"there is room again")
    assert nsqd.request("GET", "/ping") == (200, b"OK")
    kept.append(b"there is room again")

    consumer.finish()
    nsqd.kill()
    nsqd.start()
    missing = set(kept)
    consumer = nsqd.consumer("orders", "early")
    while missing:  # and what got no OK may be there as well
        missing.discard(consumer.messages(1)[0].body)


def publish_until_error(client: Client, kept: list[bytes]) -> str:
    """Publish one by one until that fails; the error."""
    while True:
        body = b"%06d" % len(kept) + b"x" * 4000
        client.send(command("PUB orders", body))
        kind, payload = client.frame()
        if kind == 1:
            assert client.closed()
            return payload.decode()
        kept.append(body)
