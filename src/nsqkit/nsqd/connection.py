"""One socket, one session: bytes from the transport go in, the session's output goes out once per turn.

The class is what asyncio calls a protocol, without inheriting from it: it is compiled. Layers that IDENTIFY agrees on
(compression, TLS) sit here, between the socket and the session.

A session executes a share of what comes; what is left waits in the backlog for its turn, and meanwhile nothing is read
from that client. All that comes through layers takes this way, for a few bytes may stand for a thousand times as many.

Back-pressure: while the transport holds more than it should, `session.blocked` keeps messages in their channel. While
it holds far more, which only replies can cause, nothing is read from that client either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from mypy_extensions import i64

from nsqkit.address import peer_address
from nsqkit.door import Guest
from nsqkit.nsqd.core.session import GREETING, Outlet, Session
from nsqkit.nsqd.turns import Turns
from nsqkit.wire.compression import Deflate, Snappy
from nsqkit.wire.identify import Identity
from nsqkit.wire.layer import Layer, LayerError, Layers

HIGH_WATER: Final = 262_144  # bytes in the transport above which a consumer is not ready
LOW_WATER: Final = 65_536
TOO_HIGH: Final = 4_194_304  # bytes in the transport above which the client is not even read
LINGER_S: Final = 1.0  # how long a closed connection still takes bytes, so that its last error frame arrives
LARGE: Final = 65_536  # bytes of a chunk after which the loop is likely to read on at once

# Why nothing is read, as bits.
_HELD: Final = 1  # the session has as many open replies as it may have
_CHOKED: Final = 2  # the transport holds too much
_BEHIND: Final = 4  # what came is still to be executed


def make_layer(name: str, identity: Identity, stir: Callable[[], None]) -> Layer:  # noqa: ARG001 - these need no stirring
    """The layer of this name. One that has something to say, or gets ready, unasked calls `stir`."""
    return Snappy() if name == "snappy" else Deflate(int(identity.deflate_level))


def _nothing_left(_: i64) -> bool:
    return False


class Connection(Outlet):
    """A client connection, one of `connections` while it lasts."""

    def __init__(
        self,
        turns: Turns,
        connections: set[Connection],
        layer: Callable[[str, Identity, Callable[[], None]], Layer] = make_layer,
        guest: Guest | None = None,
    ) -> None:
        self._turns = turns
        self._connections = connections
        self._make_layer = layer
        self._guest = guest
        self._known = guest is None  # it said the magic, and finished its handshakes
        self._transport: asyncio.Transport | None = None
        self._session: Session | None = None
        self._layers: Layers | None = None
        self._rising = False  # the newest layer was not ready yet
        self._stops: i64 = 0  # why nothing is read
        self._paused = False  # the transport was told so
        self._behind = False  # there is something left to do for `share`
        self._waiting = False  # it stands in the backlog
        self._unfinished = False  # the session has commands that it did not execute
        self._ended = False  # the client will send no more
        self._share: Callable[[i64], bool] = self.share

    # -- called by the event loop

    def connection_made(self, transport: asyncio.Transport) -> None:
        """A client connected."""
        self._transport = transport
        transport.set_write_buffer_limits(high=HIGH_WATER, low=LOW_WATER)
        turns = self._turns
        address = peer_address(transport.get_extra_info("peername"))
        self._session = Session(turns.broker, self, address, turns.clock.now())
        self._connections.add(self)
        if self._guest is not None:
            self._guest.arrived(self.abort)

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        session = self._session
        if session is None or session.closed:
            return
        if self._layers is not None:
            self._layers.received(data)
            self._put_off(len(data))
        elif self._behind:
            session.keep(data)
            self._put_off(LARGE)
        elif session.receive(data, self._turns.clock.now()):
            self._unfinished = True
            self._put_off(len(data))
        if not self._known and not self._rising and session.phase != GREETING:
            self._know(True)
        self._turns.schedule()

    def eof_received(self) -> bool:
        """The client will send no more. What it is still to be told goes out before the transport closes."""
        session = self._session
        if session is None or session.closed:
            return False
        if self._behind:
            self._ended = True  # after what it sent
        else:
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
        if self._guest is not None:
            self._guest.leave()
            self._guest = None
        self._transport = None
        self._layers = None
        self._share = _nothing_left  # a bound method makes a cycle
        self._connections.discard(self)

    def pause_writing(self) -> None:
        """The transport holds more than HIGH_WATER."""
        if self._session is not None:
            self._session.blocked = True

    def resume_writing(self) -> None:
        """The transport holds less than LOW_WATER again."""
        self._stop(_CHOKED, False)
        if self._session is not None:
            self._session.resume()
            self._turns.schedule()

    # -- called by the session

    def send(self, data: bytes) -> None:
        """Hand bytes to the transport, through the layers if there are any."""
        transport = self._transport
        if transport is None:
            return
        if self._layers is not None:
            data = self._layers.send(data)
            if not data:
                return
        transport.write(data)
        session = self._session
        if session is None or not session.blocked or self._stops & _CHOKED:
            return
        if transport.get_write_buffer_size() > TOO_HIGH:
            self._stop(_CHOKED, True)

    def hold(self, held: bool) -> None:
        """Stop reading from the client, or go on."""
        self._stop(_HELD, held)

    def upgrade(self, layer: str, identity: Identity) -> bool:
        """From here on, everything goes through one layer more."""
        if self._layers is None:
            self._layers = Layers()
        self._layers.add(self._make_layer(layer, identity, self.stir))
        self._rising = not self._layers.ready()
        if self._rising:
            self._know(False)
            self.stir()
        return not self._rising

    def close(self) -> None:
        """Let the session go, send what is left, and close when the client has, or soon."""
        transport = self._transport
        session = self._session
        if transport is None or session is None:
            return
        self._session = None
        session.gone()
        if self._layers is not None:
            last = self._layers.end()
            if last:
                transport.write(last)
        if transport.can_write_eof() and not self._turns.broker.exiting:
            try:
                transport.write_eof()
            except OSError:  # asyncio's own transport, when the client has gone already
                transport.abort()
                return
            transport.resume_reading()
            asyncio.get_running_loop().call_later(LINGER_S, self.abort)
        else:
            transport.close()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    # -- what waits for its turn

    def stir(self) -> None:
        """A layer has something to say, or got ready, without having received anything."""
        self._put_off(0)
        self._turns.schedule()

    def share(self, now: i64) -> bool:
        """Execute a share of what came. True: there may be more."""
        session = self._session
        if session is None or session.closed:
            self._behind = self._waiting = False
            return False
        if self._stops & (_HELD | _CHOKED):
            self._waiting = False  # `_stop` puts it back
            return False
        if self._unfinished:
            self._unfinished = session.proceed(now)
            more = True
        else:
            more = self._take_piece(session, now)
        if more:
            self._stop(_BEHIND, True)
            return True
        self._behind = self._waiting = False
        self._stop(_BEHIND, False)
        if self._ended:
            session.end()
        return False

    def _take_piece(self, session: Session, now: i64) -> bool:
        """Give the session a piece of what came through the layers. False: there is none."""
        layers = self._layers
        transport = self._transport
        if layers is None or transport is None:
            return False
        try:
            piece = layers.take()
        except LayerError as error:
            last = layers.send(b"")
            if last:
                transport.write(last)
                session.drop(str(error))
            else:
                session.abort(str(error))
            return False
        unasked = layers.send(b"")
        if unasked:
            transport.write(unasked)
        if self._rising and layers.ready():
            self._rising = False
            self._know(True)
            session.upgraded()
        if not piece:
            self._ended = self._ended or layers.ended()
            return False
        self._unfinished = session.receive(piece, now)
        return True

    def _know(self, known: bool) -> None:
        """The door counts who is known, and who is not."""
        self._known = known
        if self._guest is not None:
            self._guest.known(known)

    def _put_off(self, size: i64) -> None:
        """Let `share` be called; stop reading if much has come."""
        self._behind = True
        if size >= LARGE:
            self._stop(_BEHIND, True)
        if not self._waiting and not self._stops & (_HELD | _CHOKED):
            self._waiting = True
            self._turns.backlog.add(self._share)

    def _stop(self, why: i64, stop: bool) -> None:
        """There is a reason to read nothing, or it has gone."""
        if stop:
            self._stops |= why
        else:
            self._stops &= ~why
        if self._behind and not self._waiting and not self._stops & (_HELD | _CHOKED):
            self._waiting = True
            self._turns.backlog.add(self._share)
            self._turns.schedule()
        paused = self._stops != 0
        transport = self._transport
        if transport is None or paused == self._paused:
            return
        self._paused = paused
        if paused:
            transport.pause_reading()
        else:
            transport.resume_reading()
