"""Connections as they come in: a few in each pass of the event loop, through the door, and with their handshakes.

asyncio's own servers take all that wait in one pass, which holds up everybody when thousands do; they tell nobody of a
TLS handshake that failed; and they make a connection before anybody may refuse it.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple

from nsqkit.address import peer_address
from nsqkit.door import Door, Guest
from nsqkit.log import Log

BACKLOG: Final = 4096  # connections waiting to be accepted
AT_ONCE: Final = 16  # accepted in one pass of the loop: a millisecond's work
REST_S: Final = 0.5  # after the system had no descriptor or memory for another one
GRACE_S: Final = 2.0  # to close a TLS connection


class Tls(NamedTuple):
    """What TLS takes from the first byte on."""

    context: ssl.SSLContext
    handshake_timeout_s: float


class Acceptor:
    """Takes what comes to one listening socket. `make` gives the protocol of a guest, who has to say when he leaves."""

    def __init__(
        self,
        listening: socket.socket,
        make: Callable[[Guest], asyncio.BaseProtocol],
        door: Door,
        log: Log,
        tls: Tls | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._listening = listening
        self._make = make
        self._door = door
        self._log = log
        self._tls: dict[str, Any] = {}
        if tls is not None:
            self._tls = {
                "ssl": tls.context,
                "ssl_handshake_timeout": tls.handshake_timeout_s,
                "ssl_shutdown_timeout": GRACE_S,
            }
        self._tasks: set[asyncio.Task[None]] = set()
        self._rest: asyncio.TimerHandle | None = None
        listening.setblocking(False)
        self._loop.add_reader(listening, self._accept)

    def close(self) -> None:
        """Take no more; what has not finished its handshake is dropped. Does nothing the second time."""
        if self._rest is not None:
            self._rest.cancel()
        if self._listening.fileno() >= 0:
            self._loop.remove_reader(self._listening)
        for task in self._tasks:
            task.cancel()

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            try:
                sock, peer = self._listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:
                continue  # it went away while it waited
            except OSError as error:
                self._pause(error)
                return
            guest = self._door.enter(peer)
            if guest is None:
                sock.close()
                continue
            sock.setblocking(False)
            task = self._loop.create_task(self._receive(sock, guest))
            self._tasks.add(task)
            task.add_done_callback(partial(self._received, sock, peer, guest))
            guest.arrived(task.cancel)

    def _pause(self, error: OSError) -> None:
        """There is no descriptor, or no memory, for another one: asking again at once would only keep us busy."""
        self._log.error(f"CLIENT: no connection can be accepted for now: {error.strerror or error}")
        self._loop.remove_reader(self._listening)
        self._rest = self._loop.call_later(REST_S, self._loop.add_reader, self._listening, self._accept)

    async def _receive(self, sock: socket.socket, guest: Guest) -> None:
        await self._loop.connect_accepted_socket(lambda: self._make(guest), sock, **self._tls)

    def _received(self, sock: socket.socket, peer: object, guest: Guest, task: asyncio.Task[None]) -> None:
        """The connection stands, or never will: then its protocol hears nothing more."""
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is None and not task.cancelled():
            return
        sock.close()
        guest.leave()
        if error is not None:
            host = peer_address(peer).rpartition(":")[0] or "@"
            what = "TLS: handshake failed" if self._tls else "CLIENT: it could not be served"
            self._log.warning(f"{what} with {host}: {reason(error)}")


def reason(error: BaseException) -> str:
    """What went wrong with a TLS connection, in words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the client's certificate: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).lower().replace("_", " ")
    return str(getattr(error, "strerror", None) or error) or "the client hung up"
