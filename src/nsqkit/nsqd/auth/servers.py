"""nsqd's side of AUTH: asks the operator's auth servers what a client may do, one after the other until one answers.

Only the client that asks waits, each server for at most --http-client-request-timeout. At most MAX_QUESTIONS are asked
at a time; who comes later has to wait for a place. No more is remembered than what sessions are waiting for.
"""

import asyncio
import random
import ssl
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from nsqkit.log import Log
from nsqkit.nsqd.auth import NoAnswer
from nsqkit.nsqd.core.authority import Authority, Permissions
from nsqkit.nsqd.core.session import Session
from nsqkit.options.duration import SECOND, Duration

if TYPE_CHECKING:
    from nsqkit.nsqd.auth.query import Questioner

MAX_QUESTIONS: Final = 100
SAY_GOODBYE_S: Final = 1.0  # for tasks to end when the daemon stops


class AuthServers(Authority):
    """All of nsqd's auth servers. Lives in one event loop, until `stop`."""

    def __init__(
        self,
        addresses: Sequence[str],
        log: Log,
        turn: Callable[[], None],
        now: Callable[[], int],
        *,
        method: str,
        connect_timeout: Duration,
        request_timeout: Duration,
        root_ca: str,
    ) -> None:
        """`turn` lets the broker act on an answer. OSError if the file with the servers' CA is unusable."""
        super().__init__()
        self._addresses = [*addresses]
        self._log = log
        self._turn = turn
        self._now = now
        context = ssl.create_default_context(cafile=root_ca) if root_ca else None
        self._method = method
        self._context = context
        self._timeouts = int(connect_timeout) / SECOND, int(request_timeout) / SECOND
        self._places = asyncio.Semaphore(MAX_QUESTIONS)
        self._tasks: dict[int, asyncio.Task[None]] = {}  # by the session's number
        self._questioner: Questioner | None = None

    def ask(self, session: Session, secret: bytes) -> None:
        """Ask on the side."""
        task = asyncio.get_running_loop().create_task(self._serve(session, secret))
        self._tasks[session.number] = task
        task.add_done_callback(self._done)

    def forget(self, session: Session) -> None:
        """Do not ask on."""
        task = self._tasks.pop(session.number, None)
        if task is not None:
            task.cancel()

    def set_timeouts(self, connect_timeout: Duration, request_timeout: Duration) -> None:
        """Have others for questions to come."""
        self._timeouts = int(connect_timeout) / SECOND, int(request_timeout) / SECOND
        if self._questioner is not None:
            self._questioner.set_timeouts(*self._timeouts)

    async def stop(self) -> None:
        """Ask nobody any more."""
        tasks = [*self._tasks.values()]
        self._tasks = {}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=SAY_GOODBYE_S)
        if self._questioner is not None:
            await self._questioner.close()
            self._questioner = None

    async def _serve(self, session: Session, secret: bytes) -> None:
        permissions: Permissions | None = None
        try:
            async with self._places:
                permissions = await self._first_answer(session, secret)
        finally:
            if self._tasks.pop(session.number, None) is not None:
                session.answered(permissions, self._now())
                self._turn()

    async def _first_answer(self, session: Session, secret: bytes) -> Permissions | None:
        """What the first server with a good answer says; begin with any of them."""
        questioner = await self._ready_questioner()
        security = session.identity.security
        client = {
            "common_name": security.common_name if security else "",
            "remote_ip": "" if session.address == "@" else session.address.rpartition(":")[0].strip("[]"),
            "tls": "true" if security else "false",
        }
        first = random.randrange(len(self._addresses))  # noqa: S311 - any will do
        for address in self._addresses[first:] + self._addresses[:first]:
            try:
                return await questioner.ask(address, client, secret, self._now())
            except NoAnswer as error:
                name = host_of(address)
                self._log.error(
                    f"AUTH({name}): [{session.address}] - {error}",
                    kind=f"AUTH({name}) - {error}",
                    client=session.address,
                )
        return None

    async def _ready_questioner(self) -> "Questioner":
        """What asks; loading it takes a while, which a thread can spend."""
        module: Any = await asyncio.to_thread(import_module, "nsqkit.nsqd.auth.query")
        if self._questioner is None:
            self._questioner = module.Questioner(self._method, *self._timeouts, self._context)
        return self._questioner

    def _done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error(f"AUTH: a defect of ours: {type(error).__name__}")  # its text may have the secret


def host_of(address: str) -> str:
    """Host and port of an auth server's address or URL, without what else may be in a URL."""
    return urlsplit(address).netloc.rpartition("@")[2] if "://" in address else address
