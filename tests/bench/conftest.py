"""A tiny nsqd in a thread of the test process: enough of the protocol and of HTTP for each scenario."""

import asyncio
import json
import signal
import struct
import sys
import threading
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import pytest

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
def start_nsqd() -> Iterator[Callable[..., "FakeNsqd"]]:
    """Start a FakeNsqd with these arguments; stopped after the test."""
    with ExitStack() as running:
        yield lambda **faults: running.enter_context(FakeNsqd(**faults))


def frame(kind: int, payload: bytes) -> bytes:
    """A frame as nsqd sends it."""
    return struct.pack(">ii", len(payload) + 4, kind) + payload


def message(message_id: bytes, body: bytes) -> bytes:
    """A message frame."""
    return frame(2, struct.pack(">qH16s", 0, 1, message_id) + body)


class FakeNsqd:
    """Serves TCP and HTTP on free loopback ports, in a thread. One queue per topic; whoever is ready gets it all.

    `refuse` names a topic prefix whose publishes are answered with an error, `silent` one whose publishes are not
    answered, which sets `asked`; `lose` messages are answered OK and then forgotten.
    """

    def __init__(self, *, refuse: str | None = None, silent: str | None = None, lose: int = 0) -> None:
        self.asked = threading.Event()
        self.tells = True  # what its longest pass was
        self.silent = silent
        self.deleted: list[str] = []
        self.finished = 0
        self.heartbeats_answered = 0
        self.refuse = refuse
        self.lose = lose
        self.queues: defaultdict[str, deque[bytes]] = defaultdict(deque)
        self.ready: dict[str, asyncio.StreamWriter] = {}
        self._next_id = 0
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(10)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        tcp = await asyncio.start_server(self._accept(self._serve_tcp), "127.0.0.1", 0)
        http = await asyncio.start_server(self._accept(self._serve_http), "127.0.0.1", 0)
        self.tcp_port: int = tcp.sockets[0].getsockname()[1]
        self.http_port: int = http.sockets[0].getsockname()[1]
        self._started.set()
        await self._stopping.wait()
        tcp.close()
        http.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, handle: Handler) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
        async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await handle(reader, writer)
            except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                pass
            finally:
                writer.transport.abort()

        def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            coroutine: Coroutine[Any, Any, None] = guarded(reader, writer)
            task = asyncio.get_running_loop().create_task(coroutine)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        return accepted

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(4) == b"  V2"
        writer.write(frame(0, b"_heartbeat_"))
        topic = ""
        while line := await reader.readline():
            command, *params = line.decode().split()
            body = b""
            if command in ("PUB", "MPUB", "IDENTIFY"):
                (size,) = struct.unpack(">I", await reader.readexactly(4))
                body = await reader.readexactly(size)
                if self.refuse and command != "IDENTIFY" and params[0].startswith(self.refuse):
                    writer.write(frame(1, b"E_PUB_FAILED PUB failed disk full"))
                    writer.write_eof()
                    await reader.read(-1)  # as a real one does: closing at once might take back the error
                    return
                if self.silent and command != "IDENTIFY" and params[0].startswith(self.silent):
                    self.asked.set()
                    continue
            if command == "SUB":
                topic = params[0]
            self._execute(command, params[0] if command.endswith("PUB") else topic, body, writer)
            self._deliver()

    def _execute(self, command: str, topic: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        match command:
            case "IDENTIFY":
                writer.write(frame(0, json.dumps({"max_rdy_count": 2500}).encode()))
            case "SUB":
                writer.write(frame(0, b"OK"))
            case "PUB" | "MPUB":
                self._publish(topic, [body] if command == "PUB" else _bodies(body))
                writer.write(frame(0, b"OK"))
            case "RDY":
                self.ready[topic] = writer
            case "FIN":
                self.finished += 1
            case "CLS":
                del self.ready[topic]
                writer.write(frame(0, b"CLOSE_WAIT"))
            case "NOP":
                self.heartbeats_answered += 1

    async def _serve_http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            target = head.split()[1].decode()
            fields = dict(line.lower().split(b": ") for line in head.split(b"\r\n")[1:-2])
            body = await reader.readexactly(int(fields.get(b"content-length", b"0")))
            path, _, query = target.partition("?topic=")
            answer = b"OK"
            if path == "/info":
                answer = json.dumps({"version": "1.3.0-fake", "tcp_port": self.tcp_port}).encode()
            elif path == "/debug/longest_pass":
                answer = b'{"pass_cpu_us": 1500, "turn_us": 2500}' if self.tells else b"OK"
            elif path == "/pub":
                self._publish(query, [body])
            elif path == "/topic/delete":
                self.deleted.append(query)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer)
            self._deliver()

    def _publish(self, topic: str, bodies: list[bytes]) -> None:
        lost, self.lose = min(self.lose, len(bodies)), max(self.lose - len(bodies), 0)
        self.queues[topic].extend(bodies[lost:])

    def _deliver(self) -> None:
        for topic, writer in self.ready.items():
            queue = self.queues[topic]
            while queue:
                self._next_id += 1
                writer.write(message(b"%016x" % self._next_id, queue.popleft()))


def _bodies(data: bytes) -> list[bytes]:
    """The messages of an MPUB body."""
    (count,) = struct.unpack_from(">I", data)
    at, bodies = 4, []
    for _ in range(count):
        (size,) = struct.unpack_from(">I", data, at)
        bodies.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return bodies


def serve_until_terminated() -> None:
    """Be a program that can be spawned."""
    with FakeNsqd() as nsqd:
        print(f"[nsqd] INFO: TCP: listening on 127.0.0.1:{nsqd.tcp_port}", file=sys.stderr, flush=True)
        print(f"[nsqd] INFO: HTTP: listening on 127.0.0.1:{nsqd.http_port}", file=sys.stderr, flush=True)
        signal.sigwait({signal.SIGTERM})


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    serve_until_terminated()
