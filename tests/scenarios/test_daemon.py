"""The nsqd program as its operators and its worst clients meet it: signals, restarts, limits, a full disk."""

import asyncio
import os
import re
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest
import uvloop

from nsqkit.bench.process import cpu_ns, resident_bytes
from nsqkit.errors import MessageTooLarge, NotKept
from nsqkit.log import Log
from nsqkit.nsqd.daemon import Nsqd
from nsqkit.nsqd.options import NsqdOptions
from nsqkit.version import compiled
from tests.scenarios.conftest import Client, Closed, Peak, command, program

IDLE = int(os.environ.get("NSQKIT_IDLE_CONNECTIONS", "2000"))
MODES = ["memory", "os", "fsync"]
MEGABYTE = 1 << 20
ROOM = (
    48 * MEGABYTE
)  # what one client may cost beyond its messages: buffers of the transport, the allocator's waste

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


# -- clients that do not behave


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


# -- inside another program


@pytest.mark.parametrize("loop", [asyncio.run, uvloop.run])
def test_embedded(tmp_path, loop):
    """Two of them in one event loop, of either kind; they give everything back when they stop, and start again."""
    loop(two_embedded(tmp_path))


async def two_embedded(tmp_path: Path) -> None:
    """Publish to one nsqd, read from it, publish that to another; twice."""
    lines: list[str] = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    for _ in range(2):
        async with embedded(tmp_path / "one", lines) as one, embedded(tmp_path / "two", lines) as two:
            assert one.tcp_port != two.tcp_port
            await asyncio.to_thread(pass_on, one.tcp_port, two.tcp_port)
            waiting = asyncio.create_task(one.wait())
            await asyncio.sleep(0)
            assert not waiting.done()
        await waiting
        with pytest.raises(ConnectionRefusedError):
            Client(("127.0.0.1", one.tcp_port))
    assert 4 == sum("NSQ: bye" in line for line in lines)


def test_an_embedding_program_publishes(tmp_path):
    """Bodies published from inside are delivered, a deferred one later; an nsqd that does not run takes none."""
    asyncio.run(publish_embedded(tmp_path))


async def publish_embedded(tmp_path: Path) -> None:
    """Publish three messages to a consumer beside us."""
    lines: list[str] = []
    nsqd = embedded(tmp_path, lines)
    with pytest.raises(NotKept, match="nsqd is not running"):
        await nsqd.publish("orders", b"x")
    async with nsqd:
        begun = time.monotonic()
        await nsqd.publish("orders", b"later", delay=0.3)
        await nsqd.publish("orders", b"one", bytearray(b"two"))
        with pytest.raises(MessageTooLarge):
            await nsqd.publish("orders", bytes(nsqd.options.max_msg_size + 1))
        bodies = await asyncio.to_thread(consume, nsqd.tcp_port, 3)
        assert time.monotonic() - begun > 0.29
    assert [b"one", b"two", b"later"] == bodies
    with pytest.raises(NotKept, match="nsqd is not running"):
        await nsqd.publish("orders", b"x")
    assert compiled() != any("WARNING: BUILD: nsqd is not compiled" in line for line in lines)


def consume(port: int, count: int) -> list[bytes]:
    """The next bodies of topic orders."""
    client = Client(("127.0.0.1", port))
    client.subscribe("orders", "ch")
    bodies = [message.body for message in client.messages(count)]
    client.close()
    return bodies


def embedded(path: Path, lines: list[str]) -> Nsqd:
    """An nsqd that says to `lines` what it has to say."""
    options = NsqdOptions(data_path=path, tcp_address="127.0.0.1:0", http_address="")
    return Nsqd(options, Log("", write=lines.append))


def pass_on(source: int, target: int) -> None:
    """Publish to the one, consume that, and publish it to the other; consume it there."""
    clients = [Client(("127.0.0.1", port)) for port in (source, source, target, target)]
    try:
        clients[0].publish("orders", b"one", b"two")
        clients[1].subscribe("orders", "ch")
        bodies = [message.body for message in clients[1].messages(2)]
        clients[1].sync()
        clients[2].publish("orders", *bodies)
        clients[3].subscribe("orders", "ch")
        assert [b"one", b"two"] == [message.body for message in clients[3].messages(2)]
        clients[3].sync()
    finally:
        for client in clients:
            client.close()
