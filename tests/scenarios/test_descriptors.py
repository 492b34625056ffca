"""Few descriptors: storage keeps those that it needs, and clients are refused before it has none."""

import resource
import socket
import sys
import time
from contextlib import suppress

import pytest

from tests.scenarios.conftest import Client, Closed, Daemon, command
from tests.scenarios.test_tls import https_port

LIMIT = 200
ROUNDS = 30  # enough for several syncs and checkpoints in between
TOPICS = [f"topic-{number}" for number in range(150)]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the limit is set as on Linux")


@pytest.mark.parametrize("mode", ["memory", "os", "fsync"])
def test_storage_comes_first(make_daemon, mode):
    """With 150 busy topics and more clients than there is room for no write and no sync fails, and nothing is lost."""
    flags = (
        f"--durability={mode}",
        "--mem-queue-size=1",
        "--sync-timeout=20ms",
        "--checkpoint-interval=100ms",
    )
    nsqd = make_daemon(*flags, http=True)
    nsqd.start(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, LIMIT)))
    publisher = nsqd.connect()
    crowd = [nsqd.connect() for _ in range(LIMIT + 50)]
    refused = [client for client in crowd if hung_up(client)]
    assert 50 < len(refused) < LIMIT

    for number in range(ROUNDS):
        publisher.send(b"".join([command(f"PUB {topic}", b"%d" % number) for topic in TOPICS]))
        publisher.ok(len(TOPICS))

    log = nsqd.log()
    assert "ERROR: STORAGE" not in log
    assert "Too many open files" not in log
    assert 1 == log.count("more are refused")
    for client in crowd:
        client.close()
    wait_for_a_place(nsqd)
    assert (200, b"OK") == nsqd.request("GET", "/ping")
    if mode == "memory":
        assert nsqd.stop() == 0
    else:
        nsqd.kill()
    nsqd.start(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, LIMIT)))
    for topic in TOPICS:
        client = nsqd.connect()
        client.subscribe(topic, "ch", 100)
        assert [b"%d" % number for number in range(ROUNDS)] == [
            message.body for message in client.messages(ROUNDS)
        ]
        client.close()
    assert "Too many open files" not in nsqd.log()


def test_handshakes_that_stall(make_daemon, certificates):
    """Who connects to HTTPS and says nothing takes a place as others do; when all are taken more are refused."""
    nsqd = make_daemon(
        *certificates.flags("--https-address=127.0.0.1:0", "--handshake-timeout=1m"), http=True
    )
    nsqd.start(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, LIMIT)))
    publisher = nsqd.connect()
    publisher.publish("orders", b"x")
    port = https_port(nsqd)

    crowd = [socket.create_connection(("127.0.0.1", port)) for _ in range(LIMIT + 50)]

    for client in crowd[-50:]:
        client.settimeout(20)
        with suppress(ConnectionResetError):
            assert client.recv(1) == b""
    publisher.publish("orders", b"x")
    assert "Too many open files" not in nsqd.log()
    for client in crowd:
        client.close()
    wait_for_a_place(nsqd)


def hung_up(client: Client) -> bool:
    """Was it refused? Who is let in gets an answer."""
    try:
        client.send(command("NOP") + command("FIN"))
        client.frame()
    except Closed:
        return True
    return False


def wait_for_a_place(nsqd: Daemon) -> None:
    """Return when clients are let in again."""
    give_up = time.monotonic() + 20
    while hung_up(nsqd.connect()):
        assert time.monotonic() < give_up
