"""`nsqkit up` as one runs it: real programs, signals, and ports that the system chose."""

import fcntl
import http.client
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from nsqkit.bench.process import find_listener
from tests.scenarios.conftest import WAIT_S, Client

ROW = re.compile(r"^(nsq\S+) +127\.0\.0\.1:(\d+) +http://127\.0\.0\.1:(\d+)", re.MULTILINE)

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who listens on a port")


def until(what: str, condition: Callable[[], Any]) -> Any:
    """Wait until the condition is true; what it was then."""
    give_up = time.monotonic() + WAIT_S
    while not (result := condition()):
        assert time.monotonic() < give_up, f"not within {WAIT_S:.0f} s: {what}"
        time.sleep(0.02)
    return result


class Up:
    """One run of `nsqkit up`, with its output in a file. Ports are known from the table that it shows."""

    def __init__(self, directory: Path):
        self.data_path = directory / "data"
        self._log_path = directory / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(
        self, *flags: str, stdout: int | None = None, terminal: int | None = None, **environment: str
    ) -> "Up":
        """Start it; `stdout` is a descriptor to write to instead of the file, `terminal` one to be started from."""

        def enter_terminal() -> None:
            os.setsid()
            fcntl.ioctl(cast("int", terminal), termios.TIOCSCTTY, 0)

        installed = Path(sys.executable).with_name("nsqkit")
        program = [str(installed)] if installed.exists() else [sys.executable, "-m", "nsqkit"]
        command = [*program, "up", f"--data-path={self.data_path}", "--base-port=0", *flags]
        inherited = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup, for one, has it ignored
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdout=stdout or log,
                stderr=log,
                env={**os.environ, **environment},
                pass_fds=[] if terminal is None else [terminal],
                preexec_fn=None if terminal is None else enter_terminal,  # noqa: PLW1509 - no threads here
            )
        signal.signal(signal.SIGHUP, inherited)
        return self

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """What runs, or ran."""
        assert self._process is not None
        return self._process

    def log(self) -> str:
        """What it has written."""
        return self._log_path.read_text(errors="replace")

    def ports(self) -> dict[str, tuple[int, int]]:
        """TCP and HTTP port of each program."""
        until("a table", lambda: "Ctrl-C" in self.log())
        return {name: (int(tcp), int(http)) for name, tcp, http in ROW.findall(self.log())}

    def ready(self) -> "Up":
        """Wait until every program answers."""
        ports = [http for _, http in self.ports().values()]
        until("all answer", lambda: all(get(port, "/ping")[1] == b"OK" for port in ports))
        return self

    def pids(self) -> dict[str, int]:
        """The process of each program."""
        found = {name: find_listener("127.0.0.1", http) for name, (_, http) in self.ports().items()}
        return {name: pid for name, pid in found.items() if pid is not None}

    def wait(self) -> int:
        """Wait for the end; the exit code."""
        try:
            return self.process.wait(2 * WAIT_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end:\n{self.log()}") from None

    def stop(self, number: int = signal.SIGINT) -> int:
        """Send a signal, and wait for the end; the exit code."""
        self.process.send_signal(number)
        return self.wait()

    def close(self) -> None:
        """End it, if it still runs."""
        if self._process is not None and self._process.poll() is None:
            self.stop(signal.SIGTERM)


@pytest.fixture
def up(tmp_path) -> Iterator[Up]:
    """One that is not started yet."""
    one = Up(tmp_path)
    yield one
    one.close()


def get(port: int, target: str, body: bytes | None = None) -> tuple[int, bytes]:
    """One HTTP request: status and body; (0, b"") when nobody listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
    try:
        connection.request("GET" if body is None else "POST", target, body)
        response = connection.getresponse()
        return response.status, response.read()
    except OSError:
        return 0, b""
    finally:
        connection.close()


def producers(lookupd: int, topic: str) -> list[int]:
    """The HTTP ports of the nsqds that nsqlookupd names for a topic."""
    status, document = get(lookupd, f"/lookup?topic={topic}")
    if status != 200:
        return []
    return [producer["http_port"] for producer in json.loads(document)["producers"]]


def gone(pid: int) -> bool:
    """Whether the process has ended. One that nobody has waited for yet has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@linux_only
def test_cluster_lives_through_a_kill(up):
    """Everything is up and registered; a killed nsqd comes back with its messages; Ctrl-C leaves nothing running."""
    up.start("--nsqd", "2", "--", "--checkpoint-interval=100ms").ready()
    ports, before = up.ports(), up.pids()
    tcp, http_port = ports["nsqd-1"]
    lookupd = ports["nsqlookupd"][1]
    assert ["nsqlookupd", "nsqd-1", "nsqd-2"] == list(ports)

    assert (200, b"OK") == get(http_port, "/pub?topic=orders", b"one book")
    until("nsqd-1 is found", lambda: producers(lookupd, "orders") == [http_port])

    os.kill(before["nsqd-1"], signal.SIGKILL)
    until("another nsqd-1", lambda: up.pids().get("nsqd-1", before["nsqd-1"]) != before["nsqd-1"])
    up.ready()
    until("nsqd-1 is found again", lambda: producers(lookupd, "orders") == [http_port])
    client = Client(("127.0.0.1", tcp))
    client.subscribe("orders", "billing")
    assert [b"one book"] == [message.body for message in client.messages(1)]
    client.close()
    assert "nsqd-1 was ended by SIGKILL; it is started again now" in up.log()

    after = up.pids()
    assert 3 == len(after)
    assert 0 == up.stop(signal.SIGINT)
    assert all(gone(pid) for pid in after.values())
    assert up.log().endswith("INFO: everything has stopped\n")


def test_every_nsqd_has_its_place(up):
    """Each nsqd has a directory below the data path, written down at a clean stop; flags after -- reach it."""
    up.start("--nsqd=2", "--", "--max-rdy-count=77").ready()
    assert (200, b"77") == get(up.ports()["nsqd-2"][1], "/config/max_rdy_count")

    assert 0 == up.stop(signal.SIGTERM)

    assert ["nsqd-1", "nsqd-2"] == sorted(path.name for path in up.data_path.iterdir())
    assert (up.data_path / "nsqd-2" / "nsqd.dat").exists()


def test_closed_terminal_stops_everything(up):
    """The end of the terminal, from which a SIGHUP comes, is a clean stop too."""
    ours, terminal = pty.openpty()
    up.start(terminal=terminal)
    os.close(terminal)
    up.ready()

    os.close(ours)

    assert 0 == up.wait()
    assert "stopping" in up.log()


def test_hangup_by_hand_stops_nothing(up):
    """A SIGHUP that somebody sends is a line in the log, of `nsqkit up` and of the programs."""
    up.start().ready()

    up.process.send_signal(signal.SIGHUP)
    for pid in up.pids().values():
        os.kill(pid, signal.SIGHUP)

    lines = 1 + len(up.pids())
    until("all have said so", lambda: lines == up.log().count("SIGHUP: ignored"))
    up.ready()


@linux_only
def test_second_interrupt_kills(up):
    """A program that does not stop is waited for, until a second Ctrl-C kills it; the exit code is 1 then."""
    up.start().ready()
    stuck = up.pids()["nsqd-1"]
    os.kill(stuck, signal.SIGSTOP)
    up.process.send_signal(signal.SIGINT)
    until("it is stopping", lambda: "INFO: stopping" in up.log())

    assert 1 == up.stop(signal.SIGINT)

    assert "had to be killed: nsqd-1" in up.log()
    assert gone(stuck)


@linux_only
def test_killed_up_leaves_nothing_behind(up):
    """When `nsqkit up` itself is killed, the programs stop, too."""
    up.start().ready()
    pids = up.pids()

    up.process.kill()

    assert -signal.SIGKILL == up.wait()
    until("all programs have ended", lambda: all(gone(pid) for pid in pids.values()))


def test_port_in_use_is_named(up):
    """When a port is taken, nothing is started: the text names the port, what it is for, and the way out."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        assert 1 == up.start(f"--base-port={port}").wait()

    assert up.log().startswith("nsqkit up: port ")
    assert f"port {port}, for nsqd-1, is in use" in up.log()  # its neighbours may be, too
    assert "--base-port=N" in up.log()
    assert not up.data_path.exists()


def test_program_that_can_not_start_ends_everything(up):
    """When nsqd refuses to start, three times, all is stopped; the last words of the refusal are repeated."""
    up.data_path.mkdir()
    (up.data_path / "nsqd-1").mkdir()
    (up.data_path / "nsqd-1" / "nsqd.dat").write_text("this is no JSON")

    assert 1 == up.start().wait()

    assert "nsqd-1 did not start, 3 times in a row" in up.log()
    assert "nsqd.dat" in up.log().rpartition("its last words: ")[2]


@pytest.mark.parametrize("no_color, coloured", [("", True), ("1", False)])
def test_colour_is_for_terminals(up, no_color, coloured):
    """On a terminal the labels have colours, unless NO_COLOR is set; in a file there are none."""
    ours, terminal = pty.openpty()
    up.start(stdout=terminal, TERM="xterm-256color", NO_COLOR=no_color)
    os.close(terminal)

    shown = b""
    while b"listening on" not in shown:
        shown += os.read(ours, 65536)
    up.process.send_signal(signal.SIGTERM)
    while b"everything has stopped" not in shown:
        shown += os.read(ours, 65536)

    assert 0 == up.wait()
    os.close(ours)
    assert coloured == (b"\x1b[36m" in shown)


def test_output_in_a_file_is_plain(up):
    """Lines in a file have labels and no colours."""
    up.start(TERM="xterm-256color").ready()

    assert 0 == up.stop()
    assert "\x1b" not in up.log()
    assert "\nnsqd-1     | 2" in up.log()
