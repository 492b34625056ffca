"""nsqd and clients that do not behave."""

import os
import resource
import struct
import sys
import time
from contextlib import suppress

import pytest

from nsqkit.bench.process import cpu_ns, resident_bytes
from tests.scenarios.conftest import Client, Closed, Peak, command

IDLE = int(os.environ.get("NSQKIT_IDLE_CONNECTIONS", "2000"))
MODES = ["memory", "os", "fsync"]
MEGABYTE = 1 << 20
ROOM = (
    48 * MEGABYTE
)  # what one client may cost beyond its messages: the transport's buffers, the allocator's waste
linux = pytest.mark.skipif(sys.platform != "linux", reason="prlimit and /proc are Linux's")


def fill(client: Client, data: bytes, most: int) -> int:
    """Send over and over what the peer does not take any more after a while; how many bytes it took."""
    client.socket.settimeout(1)
    sent = 0
    view = memoryview(data)
    with suppress(TimeoutError):
        while sent < most:
            sent += client.socket.send(view[sent % len(data) :])
    client.socket.settimeout(20)
    return sent


def test_stop_with_a_client_that_never_reads(launch):
    """A client that takes nothing can't keep nsqd from stopping."""
    nsqd = launch()
    nsqd.connect().publish_many("orders", [b"x" * 100_000] * 50)
    nsqd.consumer("orders")

    assert nsqd.stop() == 0


@linux
@pytest.mark.timeout(120)
def test_a_consumer_that_never_reads(launch):
    """It costs nsqd some buffers, however much waits for it; and when it reads, everything is there."""
    nsqd = launch("--mem-queue-size=10", "--max-body-size=20000000")
    count, size = 1000, 100_000
    peak = Peak(nsqd.pid)
    consumer = nsqd.consumer("orders", ready=count)
    publisher = nsqd.connect()

    for start in range(0, count, 20):
        publisher.publish_many("orders", [b"%06d" % (start + i) + b"x" * size for i in range(20)])

    assert peak.growth() < ROOM
    assert [b"%06d" % number for number in range(count)] == sorted(
        message.body[:6] for message in consumer.messages(count)
    )


@linux
def test_a_client_that_never_reads_its_replies(launch):
    """nsqd stops reading from it, so its replies are bounded; once it reads they come, one for each command."""
    nsqd = launch()
    peak = Peak(nsqd.pid)
    client = nsqd.consumer("orders", ready=0)
    line = b"TOUCH 0123456789abcdef\n"

    sent = fill(client, line * 1000, 200 * MEGABYTE)

    assert sent < 200 * MEGABYTE
    assert peak.growth() < ROOM
    client.socket.settimeout(20)
    for _ in range(sent // len(line)):
        assert client.error() == "E_TOUCH_FAILED TOUCH 0123456789abcdef failed ID not in flight"


def size(number: int) -> bytes:
    """A size as it stands before a body."""
    return struct.pack(">i", number)


BAD: dict[str, tuple[bytes, str | None]] = {
    "magic": (b"  V9", "E_BAD_PROTOCOL"),
    "http": (b"GET / HTTP/1.1\r\n\r\n", "E_BAD_PROTOCOL"),
    "unknown": (b"  V2FROB x\n", "E_INVALID invalid command FROB"),
    "empty line": (b"  V2\n", "E_INVALID invalid command "),
    "binary line": (b"  V2\xff\xfe\x00\n", "E_INVALID invalid command \udcff\udcfe\x00"),
    "no text": (b"  V2PUB \xff\xfe\n", r'E_BAD_TOPIC PUB topic name "\xff\xfe" is not valid'),
    "negative": (b"  V2PUB t\n" + size(-1), "E_BAD_MESSAGE PUB invalid message body size -1"),
    "empty": (b"  V2PUB t\n" + size(0), "E_BAD_MESSAGE PUB invalid message body size 0"),
    "huge": (b"  V2PUB t\n" + size(2**31 - 1), "E_BAD_MESSAGE PUB message too big 2147483647 > 1048576"),
    "huge batch": (b"  V2MPUB t\n" + size(2**31 - 1), "E_BAD_BODY MPUB body too big 2147483647 > 5242880"),
    "huge count": (
        b"  V2MPUB t\n" + size(100) + size(2**31 - 1),
        "E_BAD_BODY MPUB invalid message count 2147483647",
    ),
    "negative in batch": (
        b"  V2MPUB t\n" + size(13) + size(2) + size(1) + b"x" + size(-5),
        "E_BAD_MESSAGE MPUB invalid message(1) body size -5",
    ),
    "no JSON": (
        b"  V2IDENTIFY\n" + size(4) + b"\xff\xfe\xfd\xfc",
        "E_BAD_BODY IDENTIFY failed to decode JSON body",
    ),
    "deep JSON": (
        b"  V2IDENTIFY\n" + size(60_000) + b"[" * 60_000,
        "E_BAD_BODY IDENTIFY failed to decode JSON body",
    ),
    "cut body": (b"  V2PUB t\n" + size(10) + b"abc", "E_BAD_MESSAGE PUB failed to read message body"),
    "cut size": (b"  V2PUB t\n\x00\x00", "E_BAD_MESSAGE PUB failed to read message body size"),
    "cut batch": (
        b"  V2MPUB t\n" + size(100) + size(2) + size(1) + b"x" + size(50) + b"abc",
        "E_BAD_MESSAGE MPUB failed to read message body",
    ),
    "cut line": (b"  V2PUB t", None),
    "long line": (b"  V2" + b"A" * 100_000, None),
    "nothing": (b"", None),
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """An nsqd for tests that leave it as it was."""
    from tests.scenarios.conftest import Daemon

    nsqd = Daemon(tmp_path_factory.mktemp("shared")).start()
    yield nsqd
    nsqd.close()


@pytest.mark.parametrize("what", BAD)
@pytest.mark.parametrize("piece", [1 << 20, 1])
def test_bad_input(shared, what, piece):
    """The exact error or none, then the end, whether it comes at once or byte by byte; others are not disturbed."""
    data, expected = BAD[what]
    client = shared.connect(magic=b"")
    with suppress(Closed):
        for at in range(0, min(len(data), 1000 * piece), piece):
            client.send(data[at : at + piece])
        client.send(data[1000 * piece :])
        if expected is None or "cut" in what:
            client.end()

    if expected is not None:
        assert expected.encode(errors="surrogateescape") == client.frame()[1]
    assert client.closed()
    client.close()
    other = shared.connect()
    other.publish("fine", b"one")
    other.close()


def test_bodies_of_any_bytes(launch):
    """A body is bytes, of which nsqd changes none."""
    nsqd = launch("--mem-queue-size=0")
    bodies = [bytes(range(256)), b"\xff\xfe", b"\n", b"\x00", b"\xed\xa0\x80", b"x" * MEGABYTE]
    nsqd.connect().publish("orders", *bodies)

    assert bodies == [message.body for message in nsqd.consumer("orders").messages(len(bodies))]


@pytest.mark.parametrize("mode", MODES)
def test_half_closed_clients_get_their_replies(launch, mode):
    """`printf ... | nc`: who sends everything and then the end is answered in full."""
    nsqd = launch(f"--durability={mode}")
    client = nsqd.connect()
    client.send(b"".join([command("PUB orders", b"%d" % number) for number in range(1000)]))
    client.end()

    client.ok(1000)

    assert client.closed()
    assert len(nsqd.consumer("orders").messages(1000)) == 1000


def test_many_idle_connections(launch):
    """They are accepted, kept alive and served; what they cost is printed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2 * IDLE:
        pytest.skip(f"the system allows {hard} open files, {IDLE} connections and the tests' own need more")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        nsqd = launch()
        clients = [nsqd.connect() for _ in range(IDLE)]
        for client in clients:
            client.send(command("SUB orders ch") + b"RDY 1\n")
        for client in clients:
            client.ok()
        before, memory = cpu_ns(nsqd.pid), resident_bytes(nsqd.pid)
        time.sleep(1)
        after = cpu_ns(nsqd.pid)
        if before is not None and after is not None and memory is not None:
            spent = (after - before) / 1e6
            print(f"{IDLE} idle connections: {spent:.1f} ms of CPU in a second, {memory / 1e6:.0f} MB")

        nsqd.connect().publish("orders", *[b"%d" % number for number in range(IDLE)])

        assert IDLE == len({client.message().body for client in clients})
        for client in clients:
            client.close()
        assert nsqd.stop() == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
