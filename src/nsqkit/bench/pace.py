"""A publisher at a fixed rate, for measuring latency.

Message i is due at `start + i / rate`, whatever happened to the ones before, and its body carries that time. A server
(or a generator) that falls behind is charged for the whole delay of every message that had to wait: no coordinated
omission.

It runs in a thread of its own on a blocking socket, because event loops wake up with a resolution of a millisecond,
while a sleeping thread is on time to about 0.1 ms. How late it was is measured too.
"""

import select
import socket
import threading
import time
from array import array
from contextlib import suppress
from time import perf_counter_ns
from typing import Final

from nsqkit.bench import frames
from nsqkit.bench.clients import CONNECT_TIMEOUT_S, BenchError
from nsqkit.bench.process import UNIX, connect

_LONGEST_SLEEP_S: Final = 0.5


class Schedule:
    """When each of `count` messages is to be sent: `rate` per second, from `start_ns` on."""

    __slots__ = ("count", "rate", "start_ns")

    def __init__(self, rate: float, count: int, start_ns: int) -> None:
        self.rate = rate
        self.count = count
        self.start_ns = start_ns

    def due_at(self, index: int) -> int:
        """The time, in ns, at which message `index` (from 0) is to be sent."""
        return self.start_ns + int(index * 1e9 / self.rate)

    def due_by(self, now: int) -> int:
        """How many messages should have been sent at `now`."""
        if now < self.start_ns:
            return 0
        due = int((now - self.start_ns) * self.rate / 1e9) + 1
        # Rounding may put us one off on either side of a due time; due_at has the last word.
        while due > 0 and self.due_at(due - 1) > now:
            due -= 1
        while self.due_at(due) <= now:
            due += 1
        return min(due, self.count)


class PacedPublisher:
    """PUBs stamped messages by a schedule, in the calling thread, and checks that each is answered OK."""

    def __init__(self, host: str, port: int, topic: str, size: int, timeout_s: float) -> None:
        self.late_ns: array[int] = array("q")
        self.answered = 0
        self._topic = topic
        self._timeout_s = timeout_s
        self._padding = b"x" * (size - frames.STAMP_BYTES)
        self._reader = frames.FrameReader()
        try:
            self._socket = connect(host, port, CONNECT_TIMEOUT_S)
        except OSError as error:
            where = host if port == UNIX else f"{host}:{port}"
            raise BenchError(f"cannot connect to {where}: {error.strerror or error}") from None
        if port != UNIX:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.settimeout(timeout_s)
        self._socket.sendall(frames.MAGIC)

    def close(self) -> None:
        """Hang up, even while `run` waits for an answer in its thread."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def run(self, schedule: Schedule, stop: threading.Event) -> None:
        """Send everything, then wait for the last answers. Ends early when `stop` is set; raises BenchError."""
        try:
            sent = self._send_all(schedule, stop)
            while self.answered < sent and not stop.is_set():
                self._take_replies()
        except TimeoutError:
            raise BenchError(f"the publisher got no answer for {self._timeout_s:g} s") from None
        except (OSError, frames.NotNsqd) as error:
            raise BenchError(f"publisher: {error}") from None

    def _send_all(self, schedule: Schedule, stop: threading.Event) -> int:
        sent = 0
        while sent < schedule.count and not stop.is_set():
            now = perf_counter_ns()
            due = schedule.due_by(now)
            if due == sent:
                time.sleep(min((schedule.due_at(sent) - now) / 1e9, _LONGEST_SLEEP_S))
                continue
            stamps = [schedule.due_at(index) for index in range(sent, due)]
            commands = [frames.publish(self._topic, frames.stamped(stamp, self._padding)) for stamp in stamps]
            self.late_ns.extend([now - stamp for stamp in stamps])
            self._socket.sendall(b"".join(commands))
            sent = due
            while select.select([self._socket], [], [], 0)[0]:
                self._take_replies()
        return sent

    def _take_replies(self) -> None:
        count = self._socket.recv_into(self._reader.room())
        if count == 0:
            raise BenchError("the server closed the publisher's connection")
        self._reader.received(count)
        for kind, payload in self._reader.replies:
            if payload == frames.HEARTBEAT:
                self._socket.sendall(frames.NOP)
            elif kind == frames.ERROR:
                raise BenchError(payload.decode(errors="replace"))
            else:
                self.answered += 1
        self._reader.replies.clear()
