"""One socket, one session: bytes from the transport go in, the session's output goes out once per turn.

The class is what asyncio calls a protocol, without inheriting from it: it is compiled. Layers that IDENTIFY agrees on
(compression) sit here, between the socket and the session.

Back-pressure: while the transport holds more than it should, `session.blocked` keeps messages in their channel. While
it holds far more, which only replies can cause, nothing is read from that client either. Nor is it while a chunk is
still being unpacked: a few bytes may stand for a thousand times as many, so each pass of the loop executes one piece
of them.
"""

from __future__ import annotations

import asyncio
from typing import Final

from nsqkit.nsqd.core.session import Outlet, Session
from nsqkit.nsqd.turns import Turns
from nsqkit.wire.compression import Codec, CodecError, Deflate, Snappy
from nsqkit.wire.identify import Identity

HIGH_WATER: Final = 262_144  # bytes in the transport above which a consumer is not ready
LOW_WATER: Final = 65_536
TOO_HIGH: Final = 4_194_304  # bytes in the transport above which the client is not even read
LINGER_S: Final = 1.0  # how long a closed connection still takes bytes, so that its last error frame arrives


class Connection(Outlet):
    """A client connection, one of `connections` while it lasts."""

    def __init__(self, turns: Turns, connections: set[Connection]) -> None:
        self._turns = turns
        self._connections = connections
        self._transport: asyncio.Transport | None = None
        self._session: Session | None = None
        self._codec: Codec | None = None
        self._held = False  # the session wants nothing more to be read now
        self._choked = False  # the transport holds too much to read on
        self._packed = b""  # what was read and is not unpacked yet
        self._going_on = False  # `_go_on` was scheduled

    # -- called by the event loop

    def connection_made(self, transport: asyncio.Transport) -> None:
        """A client connected."""
        self._transport = transport
        transport.set_write_buffer_limits(high=HIGH_WATER, low=LOW_WATER)
        turns = self._turns
        address = _address(transport.get_extra_info("peername"))
        self._session = Session(turns.broker, self, address, turns.clock.now())
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        session = self._session
        if session is None or session.closed:
            return
        if self._codec is None:
            session.receive(data, self._turns.clock.now())
        elif self._packed:
            self._packed += data
        else:
            self._unpack(session, self._codec, data)
        self._turns.schedule()

    def eof_received(self) -> bool:
        """The client will send no more. What it is still to be told goes out before the transport closes."""
        session = self._session
        if session is None or session.closed:
            return False
        session.end()
        self._turns.schedule()
        return True

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - asyncio's interface
        """The connection is gone."""
        session = self._session
        if session is not None:
            session.gone()
            self._session = None
            self._turns.schedule()
        self._transport = None
        self._connections.discard(self)

    def pause_writing(self) -> None:
        """The transport holds more than HIGH_WATER."""
        if self._session is not None:
            self._session.blocked = True

    def resume_writing(self) -> None:
        """The transport holds less than LOW_WATER again."""
        if self._choked:
            self._choked = False
            self._read_or_not()
        if self._session is not None:
            self._session.resume()
            self._turns.schedule()

    # -- called by the session

    def send(self, data: bytes) -> None:
        """Hand bytes to the transport, through the codec if there is one."""
        transport = self._transport
        if transport is None:
            return
        transport.write(data if self._codec is None else self._codec.encode(data))
        session = self._session
        if session is None or not session.blocked or self._choked:
            return
        if transport.get_write_buffer_size() > TOO_HIGH:
            self._choked = True
            self._read_or_not()

    def hold(self, held: bool) -> None:
        """Stop reading from the client, or go on."""
        self._held = held
        self._read_or_not()

    def upgrade(self, identity: Identity) -> None:
        """Compress from here on."""
        self._codec = Snappy() if identity.snappy else Deflate(int(identity.deflate_level))

    def close(self) -> None:
        """Let the session go, send what is left, and close when the client has, or soon."""
        transport = self._transport
        session = self._session
        if transport is None or session is None:
            return
        self._session = None
        self._packed = b""
        session.gone()
        if transport.can_write_eof() and not self._turns.broker.exiting:
            transport.write_eof()
            transport.resume_reading()
            asyncio.get_running_loop().call_later(LINGER_S, self.abort)
        else:
            transport.close()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    # -- helpers

    def _read_or_not(self) -> None:
        transport = self._transport
        if transport is None:
            return
        if self._held or self._choked:
            transport.pause_reading()
        elif self._packed:
            transport.pause_reading()
            if not self._going_on:
                self._going_on = True
                asyncio.get_running_loop().call_soon(self._go_on)
        else:
            transport.resume_reading()

    def _unpack(self, session: Session, codec: Codec, data: bytes) -> None:
        """Execute one piece of `data`. The rest has its turn in the next pass of the loop."""
        try:
            piece, self._packed = codec.decode(data)
        except CodecError:
            session.abort()
            return
        if piece:
            session.receive(piece, self._turns.clock.now())
        if self._packed:
            self._read_or_not()

    def _go_on(self) -> None:
        self._going_on = False
        session = self._session
        packed, self._packed = self._packed, b""
        if session is None or session.closed or self._codec is None:
            return
        self._unpack(session, self._codec, packed)
        self._turns.schedule()
        self._read_or_not()


def _address(peer: object) -> str:
    """host:port of a peer, `@` for a unix socket."""
    if isinstance(peer, tuple) and len(peer) >= 2:
        host, port = peer[0], peer[1]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return "@"
