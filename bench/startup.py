"""How quickly is nsqd there, and what does a queued message cost in memory?

    python bench/startup.py [--topics 1000] [--messages 10000000] [--queued 1000000] [--size 200] [--nsqd "nsqd"]

Times are from starting the process to its line `TCP: listening on`. The log of the big start is written by MPUBs of
200, divided evenly among the topics, of which each has two channels that have read nothing; it needs `--messages`
times `--size` bytes below $TMPDIR. Memory is what the process's resident memory grew by while messages were
published, divided by their number, less their bodies.
"""

import argparse
import contextlib
import shlex
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass

from nsqkit.bench import frames
from nsqkit.bench.process import resident_bytes

BATCH = 200
WINDOW = 8  # commands that may be unanswered
TIMES = 5  # of which the median counts, for what is quick
OK_BYTES = len(frames.OK_FRAME)


@dataclass
class Nsqd:
    """One that runs."""

    process: subprocess.Popen[bytes]
    port: int
    seconds: float  # from its start to TCP: listening

    def stop(self) -> None:
        """SIGTERM, and wait."""
        self.process.terminate()
        self.process.wait()

    def kill(self) -> None:
        """SIGKILL, and wait."""
        self.process.kill()
        self.process.wait()

    def resident(self) -> int:
        """Bytes of memory it has."""
        return resident_bytes(self.process.pid) or 0


@contextlib.contextmanager
def started(command: str, data_path: str, *flags: str) -> Iterator[Nsqd]:
    """Start one; kill it at the end if that has not happened."""
    fixed = ["--tcp-address=127.0.0.1:0", "--http-address=127.0.0.1:0", f"--data-path={data_path}"]
    began = time.perf_counter()
    with subprocess.Popen([*shlex.split(command), *fixed, *flags], stderr=subprocess.PIPE) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if b"TCP: listening on" in line:
                    yield Nsqd(process, int(line.rpartition(b":")[2]), time.perf_counter() - began)
                    break
            else:
                raise SystemExit("nsqd did not start")
        finally:
            process.kill()


class Publisher:
    """A connection that publishes."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.sendall(frames.MAGIC)

    def publish(self, topic: str, count: int, size: int, batch: int = BATCH) -> None:
        """Publish `count` messages with MPUBs of `batch`, or with PUBs if that is 1; BATCH of them at once."""
        command = frames.publish_command(topic, size, batch)
        at_once = BATCH // batch
        sent = 0
        for _ in range(count // BATCH):
            self._socket.sendall(command * at_once)
            sent += at_once
            if sent >= WINDOW:
                self._take_oks(at_once)
                sent -= at_once
        self._take_oks(sent)

    def _take_oks(self, count: int) -> None:
        expected = frames.OK_FRAME * count
        answer = self._socket.recv(len(expected), socket.MSG_WAITALL) if expected else b""
        if answer != expected:
            raise SystemExit(f"nsqd answers {answer!r}")

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


def make_channels(port: int, topic: str, *channels: str) -> None:
    """Subscribe once to each."""
    for channel in channels:
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(frames.MAGIC + frames.subscribe(topic, channel))
            sock.recv(OK_BYTES, socket.MSG_WAITALL)


def show(label: str, figure: str) -> None:
    """Print one line of the table."""
    print(f"{label:<66} {figure:>14}", flush=True)


def milliseconds(seconds: float) -> str:
    """A time, as the table shows it."""
    return f"{seconds * 1000:.0f} ms" if seconds < 10 else f"{seconds:.1f} s"


def version(command: str) -> float:
    """Seconds that `--version` takes."""
    began = time.perf_counter()
    subprocess.run([*shlex.split(command), "--version"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def empty_start(command: str) -> float:
    """Seconds to a start on an empty data path."""
    with tempfile.TemporaryDirectory(prefix="nsqkit-bench-") as path, started(command, path) as nsqd:
        nsqd.stop()
        return nsqd.seconds


def big_start(command: str, topics: int, messages: int, size: int) -> None:
    """Fill a data path, and start on it after a proper stop and after a kill."""
    path = tempfile.mkdtemp(prefix="nsqkit-bench-")
    try:
        with started(command, path, "--mem-queue-size=0") as nsqd:
            publisher = Publisher(nsqd.port)
            for number in range(topics):
                make_channels(nsqd.port, f"topic-{number}", "one", "two")
                publisher.publish(f"topic-{number}", messages // topics, size)
            publisher.close()
            nsqd.stop()
        what = f"{topics:,} topics x 2 channels, {messages:,} logged messages"
        with started(command, path) as nsqd:
            show(f"start: {what}", milliseconds(nsqd.seconds))
            show("  its memory", f"{nsqd.resident() / 1e6:.0f} MB")
            publisher = Publisher(nsqd.port)
            publisher.publish("topic-0", BATCH, size)
            publisher.close()
            nsqd.kill()
        with started(command, path) as nsqd:
            show("  the same after a kill", milliseconds(nsqd.seconds))
            began = time.perf_counter()
            nsqd.stop()
            show("  its stop", milliseconds(time.perf_counter() - began))
    finally:
        shutil.rmtree(path)


def queued(command: str, count: int, size: int, batch: int, mem_queue_size: int) -> float:
    """Bytes of memory that each queued message takes."""
    flag = f"--mem-queue-size={mem_queue_size}"
    with tempfile.TemporaryDirectory(prefix="nsqkit-bench-") as path, started(command, path, flag) as nsqd:
        make_channels(nsqd.port, "warm-up", "ch")
        make_channels(nsqd.port, "queued", "ch")
        publisher = Publisher(nsqd.port)
        publisher.publish("warm-up", BATCH * 10, size)
        before = nsqd.resident()
        publisher.publish("queued", count, size, batch)
        grown = nsqd.resident() - before
        publisher.close()
        return grown / count


def main() -> int:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--topics", type=int, default=1000)
    parser.add_argument("--messages", type=int, default=10_000_000, help="in the log of the big start")
    parser.add_argument("--queued", type=int, default=1_000_000, help="messages whose memory is measured")
    parser.add_argument("--size", type=int, default=200, help="bytes of a body")
    parser.add_argument("--nsqd", default="nsqd", help="the command, of one or more words")
    arguments = parser.parse_args()
    command, count, size = arguments.nsqd, arguments.queued, arguments.size
    show("--version", milliseconds(statistics.median(version(command) for _ in range(TIMES))))
    show(
        "start: empty data path", milliseconds(statistics.median(empty_start(command) for _ in range(TIMES)))
    )
    big_start(command, arguments.topics, arguments.messages, size)
    show(f"memory per message, {count:,} of {size} bytes queued:", "")
    for batch, how in ((BATCH, f"by MPUBs of {BATCH}"), (1, "by single PUBs")):
        over = queued(command, count, size, batch, 2 * count) - size
        show(f"  in memory, published {how}, over the body", f"{over:.0f} bytes")
    show("  only in the log", f"{queued(command, count, size, BATCH, 0):.1f} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
