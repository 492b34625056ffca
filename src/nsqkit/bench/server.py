"""The nsqd at the other end: where it is, what it says of itself, and starting one just for the bench."""

import asyncio
import contextlib
import http.client
import json
import os
import re
import shlex
import sys
import tempfile
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

from nsqkit.address import is_unix
from nsqkit.bench import process
from nsqkit.bench.clients import BenchError
from nsqkit.bench.process import UNIX, connect

START_TIMEOUT_S: Final = 30.0
STOP_TIMEOUT_S: Final = 30.0
HTTP_TIMEOUT_S: Final = 30.0

_LISTENING: Final = re.compile(r"(TCP|HTTP): listening on (\S+):(\d+)")
_LAST_LINES: Final = 15


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port, or the path of a unix socket and UNIX."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Address":
        """From `host:port` or a path; raises ValueError. An empty host is this machine."""
        if is_unix(text):
            return cls(text, UNIX)
        host, _, port = text.rpartition(":")
        if not port.isdigit() or int(port) > 65535:
            raise ValueError(f"{text!r} is neither host:port nor the path of a unix socket, with a / in it")
        return cls(host.strip("[]") or "127.0.0.1", int(port))

    def __str__(self) -> str:
        if self.port == UNIX:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Target:
    """The nsqd to measure. Without an HTTP address topics stay behind; without a pid there are no CPU figures."""

    tcp: Address
    http: Address | None
    pid: int | None
    token: str = field(default="", repr=False)  # for HTTP

    async def info(self) -> dict[str, object]:
        """What GET /info says; empty without an HTTP address."""
        if self.http is None:
            return {}
        info = await asyncio.to_thread(_request, self.http, "GET", "/info", self.token)
        return json.loads(info) if info else {}

    async def longest_pass(self) -> tuple[int, int] | None:
        """What held up the event loop most since it was asked last: µs of CPU, and of time; None: it does not say."""
        if self.http is None:
            return None
        with contextlib.suppress(BenchError, ValueError, KeyError):  # another's nsqd has no such thing
            path = "/debug/longest_pass"
            found = json.loads(await asyncio.to_thread(_request, self.http, "POST", path, self.token))
            return int(found["pass_cpu_us"]), int(found["turn_us"])
        return None

    async def delete_topic(self, topic: str) -> None:
        """Remove a topic with all its messages, if there is an HTTP address."""
        if self.http is not None:
            path = f"/topic/delete?topic={quote(topic)}"
            await asyncio.to_thread(_request, self.http, "POST", path, self.token)


async def find_target(tcp: Address, http_address: Address | None, pid: int | None, token: str = "") -> Target:
    """A running nsqd. Its HTTP address is taken to be the next port if the nsqd there says it is the same one."""
    pid = pid or process.find_listener(tcp.host, tcp.port)
    if http_address is None and tcp.port != UNIX:
        guess = Target(tcp, Address(tcp.host, tcp.port + 1), pid, token)
        with contextlib.suppress(BenchError, ValueError, AttributeError):
            if (await guess.info()).get("tcp_port") == tcp.port:
                return guess
    return Target(tcp, http_address, pid, token)


@contextlib.asynccontextmanager
async def spawned(command: str, token: str = "") -> AsyncIterator[Target]:
    """Run `command` on free loopback ports with a data path of its own, unless it names one; stop it at the end.

    A program without a path is first looked for where this one is. It is in a session of its own, so that Ctrl-C in a
    terminal does not end it in the middle of a measurement.
    """
    with tempfile.TemporaryDirectory(prefix="nsqkit-bench-") as data_path:
        arguments = [*shlex.split(command), "--tcp-address=127.0.0.1:0", "--http-address=127.0.0.1:0"]
        if "-data-path" not in command:
            arguments.append(f"--data-path={data_path}")
        path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])
        try:
            nsqd = await asyncio.create_subprocess_exec(
                *arguments,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                env={**os.environ, "PATH": path},
                start_new_session=True,
            )
        except OSError as error:
            raise BenchError(f"cannot start {arguments[0]}: {error.strerror or error}") from None
        try:
            target = await _wait_until_listening(nsqd, token)
            draining = asyncio.create_task(_drain(nsqd))
            try:
                yield target
            finally:
                draining.cancel()
                await asyncio.wait((draining,))
        finally:
            await _stop(nsqd)


async def _wait_until_listening(nsqd: asyncio.subprocess.Process, token: str) -> Target:
    assert nsqd.stderr is not None
    found: dict[str, Address] = {}
    last_lines: deque[str] = deque(maxlen=_LAST_LINES)
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            while len(found) < 2:
                line = (await nsqd.stderr.readline()).decode(errors="replace")
                if not line:
                    break
                last_lines.append(line)
                if match := _LISTENING.search(line):
                    found[match[1]] = Address(match[2].strip("[]"), int(match[3]))
    except TimeoutError:
        pass
    if len(found) < 2:
        raise BenchError("the spawned nsqd does not listen; its last lines:\n" + "".join(last_lines))
    tcp = found["TCP"]
    # The command may be a wrapper: who listens is who is measured.
    return Target(tcp, found["HTTP"], process.find_listener(tcp.host, tcp.port) or nsqd.pid, token)


async def _drain(nsqd: asyncio.subprocess.Process) -> None:
    """Throw away what it logs; a full pipe would block it."""
    assert nsqd.stderr is not None
    while await nsqd.stderr.read(65536):
        pass


async def _stop(nsqd: asyncio.subprocess.Process) -> None:
    """SIGTERM, and SIGKILL if that takes too long. Reads what it still has to say, so that it never blocks on it."""
    with contextlib.suppress(ProcessLookupError):
        nsqd.terminate()
    try:
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await nsqd.communicate()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            nsqd.kill()
        await nsqd.wait()


def _request(address: Address, method: str, target: str, token: str) -> bytes:
    """One HTTP request; raises BenchError unless it is answered 200."""
    connection = http.client.HTTPConnection(address.host, address.port, timeout=HTTP_TIMEOUT_S)
    if address.port == UNIX:
        connection = http.client.HTTPConnection("localhost")
    try:
        if address.port == UNIX:
            connection.sock = connect(address.host, address.port, HTTP_TIMEOUT_S)
        connection.request(method, target, headers={"Authorization": f"Bearer {token}"} if token else {})
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise BenchError(f"{method} http://{address}{target}: {error}") from None
    finally:
        connection.close()
    if response.status != 200:
        raise BenchError(
            f"{method} http://{address}{target}: {response.status} {body.decode(errors='replace')[:200]}"
        )
    return body
