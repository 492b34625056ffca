"""The nsqd that is ill-treated, over all its lives: one data path, one pair of ports."""

import asyncio
import contextlib
import json
import re
import resource
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from faults.facts import KILL, STOP, Ended, Journal, Started, now

START_S = 30.0
STOP_S = 30.0
ANSWER_S = 10.0

_LISTENING = re.compile(r"(TCP|HTTP): listening on \S+:(\d+)")


class HarnessError(Exception):
    """The harness can't go on; says why."""


class Server:
    """Started, ended and asked here. `wrapper` is put before the program, such as `ip netns exec`."""

    def __init__(
        self,
        directory: Path,
        data_path: Path,
        journal: Journal,
        flags: Sequence[str],
        *,
        host: str = "127.0.0.1",
        program: Sequence[str] = (),
        wrapper: Sequence[str] = (),
    ) -> None:
        self.host = host
        self.tcp_port = 0
        self.http_port = 0
        self.http = True  # in the next life; it is half of what a start costs
        self.life = 0
        self.log_path = directory / "nsqd.log"
        self.journal = journal
        self.data_path = data_path
        self.flags = list(flags)
        self._program = list(program) or [sys.executable, "-m", "nsqkit.nsqd.cli"]
        self._wrapper = list(wrapper)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process that runs."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Begin the next life; returns when it listens."""
        assert self._process is None
        command = [
            *self._wrapper,
            *self._program,
            f"--tcp-address={self.host}:{self.tcp_port}",
            f"--http-address={f'{self.host}:{self.http_port}' if self.http else ''}",
            f"--data-path={self.data_path}",
            *self.flags,
        ]
        self.life += 1  # clients may be there before the log says that it listens
        self.journal.note(Started(now(), self.life))
        with self.log_path.open("ab") as log:
            before = log.tell()
            self._process = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: ASYNC220
        give_up = time.monotonic() + START_S
        wanted = {"TCP", "HTTP"} if self.http else {"TCP"}
        while (found := dict(_LISTENING.findall(self.log()[before:]))).keys() != wanted:
            if self._process.poll() is not None or time.monotonic() > give_up:
                raise HarnessError(f"nsqd does not start; see {self.log_path}")
            await asyncio.sleep(0.01)
        self.tcp_port = int(found["TCP"])
        if self.http:
            self.http_port = int(found["HTTP"])

    async def kill(self) -> None:
        """kill -9."""
        self.journal.note(Ended(now(), self.life, KILL))
        self.send(signal.SIGKILL)
        await self._wait()

    async def stop(self) -> None:
        """SIGTERM; HarnessError if it does not end well."""
        self.journal.note(Ended(now(), self.life, STOP))
        self.send(signal.SIGTERM)
        code = await self._wait()
        if code != 0:
            raise HarnessError(f"nsqd was asked to stop, and ended with {code}; see {self.log_path}")

    async def _wait(self) -> int:
        assert self._process is not None
        give_up = time.monotonic() + STOP_S
        while (code := self._process.poll()) is None:
            if time.monotonic() > give_up:
                raise HarnessError(f"nsqd does not end; see {self.log_path}")
            await asyncio.sleep(0.005)
        self._process = None
        return code

    def send(self, number: int) -> None:
        """Send a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def limit_files(self, size_bytes: int) -> None:
        """Let no file grow beyond that size, -1 for any size: a full disk for those who may not mount one."""
        _, hard = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (size_bytes, hard))

    def close(self) -> None:
        """End what is left, without a word in the journal."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    # -- questions

    def log(self) -> str:
        """Everything it has logged, in all its lives."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    async def healthy(self) -> bool:
        """What /ping says."""
        status, _ = await self.ask("GET", "/ping")
        return status == 200

    async def stats(self) -> dict[str, Any]:
        """The statistics, as an object."""
        _, body = await self.ask("GET", "/stats?format=json&include_clients=false")
        answer: dict[str, Any] = json.loads(body)
        return answer

    async def ask(self, method: str, target: str) -> tuple[int, bytes]:
        """One HTTP request: status and body. OSError if there is no answer."""
        return await asyncio.to_thread(self._ask, method, target)

    def _ask(self, method: str, target: str) -> tuple[int, bytes]:
        url = f"http://{self.host}:{self.http_port}{target}"
        data = b"" if method == "POST" else None
        request = urllib.request.Request(url, data, method=method)
        with contextlib.closing(_open(request)) as answer:
            return answer.status, answer.read()


def _open(request: urllib.request.Request) -> Any:
    try:
        return urllib.request.urlopen(request, timeout=ANSWER_S)
    except urllib.error.HTTPError as answer:
        return answer
