"""One socket, one session. A connection ends when either side says so, or when its host no longer answers.

The protocol has no timeouts, so the kernel's keepalive finds hosts that vanished; and who does not identify himself
within HANDSHAKE_S is hung up on, for he holds a file that an nsqd may need.
"""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from nsqkit.address import peer_address
from nsqkit.door import Guest
from nsqkit.log import Log
from nsqkit.nsqlookupd.registrations import Registrations
from nsqkit.nsqlookupd.session import Session, Traffic

HANDSHAKE_S: Final = 60.0
LINGER_S: Final = 1.0  # how long a refused connection still takes bytes, so that its error arrives
KEEPALIVE: Final = (
    ("TCP_KEEPIDLE", 60),
    ("TCP_KEEPINTVL", 15),
    ("TCP_KEEPCNT", 4),
)  # seconds, seconds, times


class Connection(asyncio.Protocol):
    """A connection, one of `connections` while it lasts."""

    def __init__(
        self,
        registrations: Registrations,
        introduction: bytes,
        log: Log,
        now: Callable[[], int],
        connections: set["Connection"],
        guest: Guest,
        *,
        handshake_s: float = HANDSHAKE_S,
        traffic: Traffic | None = None,
        note: Callable[[], None] = lambda: None,
    ) -> None:
        """`note` hears of each pass of the event loop in which there is something to do."""
        self._registrations = registrations
        self._introduction = introduction
        self._log = log
        self._now = now
        self._connections = connections
        self._guest = guest
        self._handshake_s = handshake_s
        self._traffic = traffic
        self._note = note
        self._address = ""
        self._known = False  # the client has identified itself
        self._going_on = False  # `_go_on` was scheduled
        self._unread = False  # the client does not read its replies
        self._transport: asyncio.Transport
        self._session: Session
        self._deadline: asyncio.TimerHandle

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connected."""
        self._transport = transport
        self._address = peer_address(transport.get_extra_info("peername"))  # @: gone already
        self._session = Session(
            self._registrations, self._address, self._introduction, self._log, self._traffic
        )
        self._deadline = asyncio.get_running_loop().call_later(self._handshake_s, self._give_up)
        self._connections.add(self)
        self._guest.arrived(self.abort)
        keep_alive(transport.get_extra_info("socket"))
        self._log.info(f"TCP: new client({self._address})", client=self._address)

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        self._note()
        session = self._session
        if session.closed:
            return
        replies = session.receive(data, self._now())
        if replies:
            self._transport.write(replies)
        if session.peer is not None and not self._known:
            self._known = True
            self._guest.known()
            self._deadline.cancel()
        if session.closed:
            self._hang_up()
        elif session.busy and not self._going_on:
            self._going_on = True
            self._read_or_not()
            asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        """The others had their turn."""
        self._going_on = False
        if not self._session.closed:
            self.data_received(b"")
            self._read_or_not()

    def _read_or_not(self) -> None:
        if self._session.closed:
            return  # what still comes is dropped
        if self._unread or self._going_on:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def eof_received(self) -> bool:
        """The client will send no more: its last reply goes out before the transport closes."""
        reply = self._session.end()
        if reply:
            self._transport.write(reply)
        return False

    def pause_writing(self) -> None:
        """The client does not read its replies: nothing more is read from it."""
        self._unread = True
        self._read_or_not()

    def resume_writing(self) -> None:
        """It does again."""
        self._unread = False
        self._read_or_not()

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - asyncio's interface
        """The connection is gone."""
        self._note()
        self._guest.leave()
        self._deadline.cancel()
        self._session.gone(self._now())
        self._connections.discard(self)
        self._log.info(f"PROTOCOL(V1): [{self._address}] exiting ioloop", client=self._address)

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def _hang_up(self) -> None:
        """Close after the error was sent. Closing with unread bytes would take it from the client."""
        self._session.gone(self._now())
        self._deadline.cancel()
        self._transport.write_eof()
        self._transport.resume_reading()
        self._deadline = asyncio.get_running_loop().call_later(LINGER_S, self.abort)

    def _give_up(self) -> None:
        text = f"CLIENT({self._address}): no IDENTIFY within {self._handshake_s:g} s"
        self._log.info(text, client=self._address)
        self.abort()


def keep_alive(sock: socket.socket) -> None:
    """Let the kernel see after some two minutes that a host is gone."""
    with suppress(OSError):  # some systems refuse options of a connection that is gone already
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEPALIVE:
            if hasattr(socket, name):  # not everywhere under this name
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
