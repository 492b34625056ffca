"""POST /pub over keep-alive connections: the same closed loop as `clients.Publisher`, in HTTP/1.1.

The request is built once. Of a response only the status and the length are read.
"""

import asyncio
from time import perf_counter_ns
from typing import Final, cast

from nsqkit.bench.clients import Run, reach
from nsqkit.bench.process import UNIX

_HEAD_END: Final = b"\r\n\r\n"
_LAST_CHUNK: Final = b"0\r\n\r\n"


def post_request(host: str, port: int, topic: str, size: int, token: str = "") -> bytes:
    """A POST /pub of one message of `size` bytes, with a bearer token unless it is empty."""
    authority = "localhost" if port == UNIX else f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    bearer = f"Authorization: Bearer {token}\r\n" if token else ""
    head = (
        f"POST /pub?topic={topic} HTTP/1.1\r\nHost: {authority}\r\n"
        f"User-Agent: nsqkit-bench\r\n{bearer}Content-Length: {size}\r\n\r\n"
    )
    return head.encode() + b"x" * size


def split_response(data: bytes) -> tuple[int, bytes, int] | None:
    """The first response in `data` as (status, body, bytes used), or None while it is incomplete."""
    head_end = data.find(_HEAD_END)
    if head_end < 0:
        return None
    status_line, *lines = data[:head_end].split(b"\r\n")
    status = int(status_line.split(b" ", 2)[1])
    fields = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)
    }
    start = head_end + len(_HEAD_END)
    if fields.get(b"transfer-encoding", b"").lower() == b"chunked":
        last = data.find(_LAST_CHUNK, start)
        return None if last < 0 else (status, data[start:last], last + len(_LAST_CHUNK))
    stop = start + int(fields.get(b"content-length", b"0"))
    return None if stop > len(data) else (status, data[start:stop], stop)


class HttpPublisher(asyncio.Protocol):
    """Posts `request` and waits for each 200 before the next one. `done` when the run allows no more."""

    def __init__(self, run: Run, request: bytes) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._run = run
        self._request = request
        self._rest = b""
        self._sent_at = 0
        self._transport: asyncio.Transport

    def start(self) -> None:
        """Send the first request."""
        self._post(perf_counter_ns())

    def abort(self) -> None:
        """Hang up."""
        self._settle()
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; the first request waits for `start`."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one only by its methods

    def data_received(self, data: bytes) -> None:
        """Take a response, or a part of one, and post again."""
        try:
            response = split_response(self._rest + data)
        except (ValueError, IndexError):
            self._fail(f"not an HTTP response: {data[:40]!r}")
            return
        if response is None:
            self._rest += data
            return
        status, body, _ = response
        self._rest = b""
        if status != 200:
            self._fail(f"POST /pub: {status} {body.decode(errors='replace')[:200]}")
            return
        now = perf_counter_ns()
        self._run.latencies_ns.append(now - self._sent_at)
        self._run.acknowledged += 1
        self._post(now)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the run, unless we are done or hung up ourselves."""
        if not self.done.done():
            self._fail(f"the server closed the HTTP connection{f': {exc}' if exc else ''}")

    def _post(self, now: int) -> None:
        if self._run.take(1, now):
            self._sent_at = now
            self._transport.write(self._request)
        else:
            self._settle()

    def _fail(self, reason: str) -> None:
        self._run.fail(reason)
        self._settle()

    def _settle(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def open_http(host: str, port: int, run: Run, request: bytes) -> HttpPublisher:
    """Connect; raises BenchError."""
    return await reach(host, port, lambda: HttpPublisher(run, request))
