"""What a scenario is played with: the real program as a process of its own, and a client that blocks.

`launch` starts an nsqd on a free port, with a data path of its own. The daemon can be told to stop, killed, and
started again on the same port and path. `connect` gives a client that answers heartbeats and fails by a timeout.
"""

import http.client
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from nsqkit.wire.frames import ERROR, HEARTBEAT, MESSAGE, RESPONSE, FrameReader

ORIGINAL = os.environ.get("NSQ_GO_BIN", "")  # the directory with the programs of NSQ's own, if they are there
WAIT_S = 20.0  # for what takes milliseconds, unless the machine is busy with other things
SUBSCRIBE_RDY = 2500


def program() -> list[str]:
    """The installed `nsqd`, or the module when there is none beside the interpreter."""
    installed = Path(sys.executable).with_name("nsqd")
    return [str(installed)] if installed.exists() else [sys.executable, "-m", "nsqkit.nsqd.cli"]


class Message(NamedTuple):
    """A delivery."""

    id: bytes
    attempts: int
    timestamp: int
    body: bytes


class Closed(Exception):
    """The peer hung up."""


class Client:
    """A V2 connection. `encode` and `decode` are what IDENTIFY may put between it and the socket."""

    def __init__(self, address: tuple[str, int] | str, *, magic: bytes = b"  V2", timeout: float = WAIT_S):
        self.socket = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        self.socket.settimeout(timeout)
        self.encode: Callable[[bytes], bytes] = bytes
        self.decode: Callable[[bytes], bytes] = bytes
        self._reader = FrameReader()
        self._frames: deque[tuple[int, bytes]] = deque()
        try:
            self.socket.connect(address)
            self.send(magic)
        except BaseException:
            self.socket.close()
            raise

    def close(self) -> None:
        """Hang up."""
        self.socket.close()

    def reset(self) -> None:
        """Hang up as a machine does that lost its power: nothing more is read, nothing is waited for."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    # -- out

    def send(self, data: bytes) -> None:
        """Send bytes, through the codec if there is one. Closed."""
        try:
            self.socket.sendall(self.encode(data))
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Closed(str(error)) from None

    def end(self) -> None:
        """Send no more; still listen."""
        self.socket.shutdown(socket.SHUT_WR)

    def ready(self, count: int) -> None:
        """RDY."""
        self.send(b"RDY %d\n" % count)

    def finish(self, *ids: bytes) -> None:
        """FIN each of them."""
        self.send(b"".join([b"FIN %s\n" % one for one in ids]))

    def requeue(self, id: bytes, delay_ms: int) -> None:
        """REQ."""
        self.send(b"REQ %s %d\n" % (id, delay_ms))

    # -- in

    def fill(self) -> None:
        """Take one chunk from the socket. Closed."""
        try:
            chunk = self.socket.recv(1 << 18)
        except ConnectionResetError as error:
            raise Closed(str(error)) from None
        if not chunk:
            raise Closed
        for frame in self._reader.feed(self.decode(chunk)):
            if frame == (RESPONSE, HEARTBEAT):
                self.send(b"NOP\n")
            else:
                self._frames.append(frame)

    def frame(self) -> tuple[int, bytes]:
        """The next frame that is no heartbeat. Closed."""
        while not self._frames:
            self.fill()
        return self._frames.popleft()

    def frames(self) -> list[tuple[int, bytes]]:
        """At least one frame, and what came with it. Closed."""
        while not self._frames:
            self.fill()
        taken = list(self._frames)
        self._frames.clear()
        return taken

    def reply(self) -> bytes:
        """The payload of the next frame, which must be a response."""
        kind, payload = self.frame()
        assert kind == RESPONSE, f"a response was expected, not {payload!r}"
        return payload

    def ok(self, count: int = 1) -> None:
        """That many OKs."""
        for _ in range(count):
            assert self.reply() == b"OK"

    def error(self) -> str:
        """The text of the next frame, which must be an error."""
        kind, payload = self.frame()
        assert kind == ERROR, f"an error was expected, not {payload!r}"
        return payload.decode()

    def message(self) -> Message:
        """The next frame, which must be a message."""
        kind, payload = self.frame()
        assert kind == MESSAGE, f"a message was expected, not {payload!r}"
        return as_message(payload)

    def messages(self, count: int) -> list[Message]:
        """That many messages, each finished as it comes."""
        taken = []
        for _ in range(count):
            taken.append(self.message())
            self.finish(taken[-1].id)
        return taken

    def closed(self) -> bool:
        """True when the peer hangs up without another word."""
        try:
            kind, payload = self.frame()
        except Closed:
            return True
        raise AssertionError(f"the end was expected, not {kind} {payload!r}")

    def silent(self, seconds: float) -> bool:
        """True when no frame comes for so long."""
        before = self.socket.gettimeout()
        self.socket.settimeout(seconds)
        try:
            kind, payload = self.frame()
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(before)
        raise AssertionError(f"silence was expected, not {kind} {payload!r}")

    # -- whole exchanges

    def identify(self, document: str) -> bytes:
        """IDENTIFY with this JSON, as the first command; the reply. What comes after it may be compressed."""
        self.send(command("IDENTIFY", body=document.encode()))
        (size,) = struct.unpack(">i", self.socket.recv(4, socket.MSG_WAITALL))
        return self.socket.recv(size, socket.MSG_WAITALL)[4:]

    def publish(self, topic: str, *bodies: bytes) -> None:
        """PUB each of them, at once, and wait for the OKs."""
        self.send(b"".join([command(f"PUB {topic}", body=body) for body in bodies]))
        self.ok(len(bodies))

    def publish_many(self, topic: str, bodies: Sequence[bytes]) -> None:
        """MPUB them, and wait for the OK."""
        self.send(command(f"MPUB {topic}", body=batch(bodies)))
        self.ok()

    def defer(self, topic: str, delay_ms: int, body: bytes) -> None:
        """DPUB, and wait for the OK."""
        self.send(command(f"DPUB {topic} {delay_ms}", body=body))
        self.ok()

    def subscribe(self, topic: str, channel: str, ready: int = SUBSCRIBE_RDY) -> None:
        """SUB, wait for the OK, RDY."""
        self.send(command(f"SUB {topic} {channel}"))
        self.ok()
        self.ready(ready)

    def sync(self) -> None:
        """Return when everything sent before was executed: a FIN of nothing is answered. For subscribed clients."""
        self.send(b"FIN %s\n" % NOTHING)
        kind, payload = self.frame()
        assert is_sync(kind, payload), f"not the answer to a FIN of nothing: {payload!r}"


NOTHING = b"nothing-of-this!"  # 16 bytes, as an id has, and none


def is_sync(kind: int, payload: bytes) -> bool:
    """Is this the answer that `Client.sync` waits for?"""
    return kind == ERROR and payload.startswith(b"E_FIN_FAILED FIN %s " % NOTHING)


def as_message(payload: bytes) -> Message:
    """The message in a frame's payload."""
    timestamp, attempts, message_id = struct.unpack_from(">qH16s", payload)
    return Message(message_id, attempts, timestamp, payload[26:])


def command(line: str, body: bytes | None = None) -> bytes:
    """A command, with its body after its size."""
    sized = b"" if body is None else struct.pack(">i", len(body)) + body
    return line.encode() + b"\n" + sized


def batch(bodies: Sequence[bytes]) -> bytes:
    """The body of an MPUB."""
    return struct.pack(">i", len(bodies)) + b"".join([struct.pack(">i", len(b)) + b for b in bodies])


class Daemon:
    """One nsqd, over all its lives. `flags` may be changed between them."""

    def __init__(self, directory: Path, *flags: str, http: bool = False):
        self.directory = directory
        self.data_path = directory / "data"
        self.data_path.mkdir(parents=True)
        self.program = program()
        self.flags = list(flags)
        self.address: tuple[str, int] | str = ("127.0.0.1", 0)
        self.http_address: tuple[str, int] | None = ("127.0.0.1", 0) if http else None
        self._log_path = directory / "log"
        self._log_path.touch()
        self._clients: list[Client] = []
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process that runs."""
        assert self._process is not None
        return self._process.pid

    def arguments(self) -> list[str]:
        """The command line."""
        tcp = self.address if isinstance(self.address, str) else f"{self.address[0]}:{self.address[1]}"
        http = f"{self.http_address[0]}:{self.http_address[1]}" if self.http_address else ""
        fixed = [f"--tcp-address={tcp}", f"--http-address={http}", f"--data-path={self.data_path}"]
        return [*self.program, *fixed, *self.flags]

    def spawn(self, **popen: Any) -> None:
        """Start the process, and do not wait."""
        assert self._process is None
        with self._log_path.open("ab") as log:
            self._log_before = log.tell()
            self._process = subprocess.Popen(self.arguments(), **{"stdout": log, "stderr": log, **popen})

    def start(self, **popen: Any) -> "Daemon":
        """Start the process and wait until it listens where it will."""
        self.spawn(**popen)
        for line in self._wait_for_lines(2 if self.http_address else 1):
            words, _, address = line.partition(": listening on ")
            host, _, port = address.rpartition(":")
            if words == "HTTP":
                self.http_address = (host, int(port))
            elif not isinstance(self.address, str):
                self.address = (host, int(port))
        return self

    def _wait_for_lines(self, count: int) -> list[str]:
        assert self._process is not None
        give_up = time.monotonic() + WAIT_S * 2
        while True:
            found = re.findall(r"(?:TCP|HTTP): listening on [^\s\"]+", self.log())
            if len(found) >= count:
                return found
            ended = self._process.poll()
            assert ended is None, f"it ended with {ended}:\n{self.log()}"
            assert time.monotonic() < give_up, f"it does not listen:\n{self.log()}"
            time.sleep(0.005)

    def log(self) -> str:
        """What this life of the daemon has logged."""
        with self._log_path.open("rb") as log:
            log.seek(self._log_before)
            return log.read().decode(errors="replace")

    def wait_for(self, text: str) -> str:
        """Return when the log of this life says so; the log."""
        give_up = time.monotonic() + WAIT_S
        while text not in (said := self.log()):
            assert time.monotonic() < give_up, f"{text!r} is not said:\n{said}"
            time.sleep(0.005)
        return said

    def send_signal(self, number: int) -> None:
        """Send a signal, and do not wait."""
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self) -> int:
        """Wait for the end; the exit code, or minus the signal that did it."""
        assert self._process is not None
        try:
            code = self._process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end:\n{self.log()}") from None
        self._process = None
        return code

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to stop; its exit code."""
        self.send_signal(number)
        return self.wait()

    def kill(self) -> None:
        """End it without a chance to do anything more."""
        self.send_signal(signal.SIGKILL)
        assert self.wait() == -signal.SIGKILL

    def connect(self, **options: Any) -> Client:
        """A new client."""
        client = Client(self.address, **options)
        self._clients.append(client)
        return client

    def consumer(self, topic: str, channel: str = "ch", ready: int = SUBSCRIBE_RDY) -> Client:
        """A new client that subscribed."""
        client = self.connect()
        client.subscribe(topic, channel, ready)
        return client

    def request(self, method: str, target: str, body: bytes | None = None) -> tuple[int, bytes]:
        """One HTTP request: status and body."""
        assert self.http_address is not None
        connection = http.client.HTTPConnection(*self.http_address, timeout=WAIT_S)
        try:
            connection.request(method, target, body)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def close(self) -> None:
        """End what is left."""
        for client in self._clients:
            client.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class Peak:
    """The most memory that a process had since this object was made."""

    def __init__(self, pid: int):
        self._process = Path(f"/proc/{pid}")
        (self._process / "clear_refs").write_text("5")  # forget the peak so far
        self._before = self._high()

    def growth(self) -> int:
        """Bytes that the peak is above what there was in the beginning."""
        return self._high() - self._before

    def _high(self) -> int:
        found = re.search(r"VmHWM:\s+(\d+) kB", (self._process / "status").read_text())
        assert found
        return int(found[1]) * 1024


@pytest.fixture
def make_daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Prepares an nsqd without starting it: `make_daemon(*flags, http=False)`."""
    daemons: list[Daemon] = []

    def make(*flags: str, http: bool = False) -> Daemon:
        daemons.append(Daemon(tmp_path / f"nsqd-{len(daemons)}", *flags, http=http))
        return daemons[-1]

    yield make
    for daemon in daemons:
        daemon.close()


@pytest.fixture
def launch(make_daemon: Callable[..., Daemon]) -> Callable[..., Daemon]:
    """Starts an nsqd: `launch(*flags, http=False)`."""

    def start(*flags: str, http: bool = False) -> Daemon:
        return make_daemon(*flags, http=http).start()

    return start


@pytest.fixture(params=["nsqkit", "original"])
def launch_either(
    request: pytest.FixtureRequest, make_daemon: Callable[..., Daemon]
) -> Callable[..., Daemon]:
    """Starts an nsqd with an HTTP address, once this project's and once NSQ's own: `launch_either(*flags)`."""
    if request.param == "original" and not ORIGINAL:
        pytest.skip("NSQ_GO_BIN does not say where the programs of NSQ's own are")

    def start(*flags: str) -> Daemon:
        daemon = make_daemon("--https-address=127.0.0.1:0", *flags, http=True)
        if request.param == "original":
            daemon.program = [f"{ORIGINAL}/nsqd"]
        return daemon.start()

    return start
