"""Who is let in: so many connections at a time, so many from one address, and so many of whom nothing is known yet.

A daemon has one door for all its ports. A connection is a guest from when it was accepted until it is gone. It is a
stranger until it has said something that makes sense: the magic, IDENTIFY, a request, the end of a TLS handshake. Of
too many strangers the oldest is hung up on: who says something at once is hardly ever among them.
"""

import resource
import socket
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Protocol

from nsqkit.log import Log

MOST_DESCRIPTORS: Final = 1 << 20  # as far as we count when the system sets no limit

_MAPPED: Final = "::ffff:"  # before an IPv4 address on a socket for both kinds


class Guest:
    """One connection. Whoever serves it says how to hang up on it, and when it is gone."""

    __slots__ = ("_door", "_hang_up", "_unwanted", "host")

    def __init__(self, door: "Door", host: str) -> None:
        self.host = host
        self._door: Door | None = door
        self._hang_up: Callable[[], object] | None = None
        self._unwanted = False

    def arrived(self, hang_up: Callable[[], object]) -> None:
        """From here on, this is how to hang up."""
        self._hang_up = hang_up
        if self._unwanted:
            hang_up()

    def known(self, known: bool = True) -> None:
        """It is no stranger any more; or it is one again, until a handshake is done."""
        if self._door is not None:
            self._door.introduce(self, known)

    def leave(self) -> None:
        """The connection is gone. Does nothing the second time."""
        door, self._door = self._door, None
        self._hang_up = None  # a bound method makes a cycle
        if door is not None:
            door.leave(self)

    def dismiss(self) -> None:
        """Hang up, now or when it is known how."""
        self._unwanted = True
        if self._hang_up is not None:
            self._hang_up()


class Door:
    """The limits and who is inside. 0 stands for no limit, but for `most`, which the system sets."""

    def __init__(
        self, log: Log, most: int, max_connections: int = 0, max_per_address: int = 0, max_strangers: int = 0
    ) -> None:
        self._log = log
        self._most = min(most, max_connections or most)
        self._why = (
            "--max-connections"
            if max_connections and max_connections <= most
            else "what the limit of open files leaves is kept for other things (ulimit -n)"
        )
        self._max_per_address = max_per_address
        self._max_strangers = max_strangers
        self._by_host: dict[str, int] = {}
        self._strangers: OrderedDict[Guest, None] = OrderedDict()
        self.inside = 0
        self.refused = {
            "max_connections": 0,
            "max_connections_per_address": 0,
            "max_handshakes": 0,
        }  # by limit

    def enter(self, peer: object) -> Guest | None:
        """Let a connection in that comes from a socket's address, or say why not, once in a while."""
        if self.inside >= self._most:
            self.refused["max_connections"] += 1
            self._log.error(f"CLIENT: {self.inside} connections are open, and more are refused: {self._why}")
            return None
        host = host_of(peer)
        count = self._by_host.get(host, 0)
        if host and self._max_per_address and count >= self._max_per_address:
            self.refused["max_connections_per_address"] += 1
            self._log.error(
                f"CLIENT: {host} has {count} connections, and more are refused: --max-connections-per-address"
            )
            return None
        self.inside += 1
        self._by_host[host] = count + 1
        guest = Guest(self, host)
        self.introduce(guest, False)
        return guest

    def introduce(self, guest: Guest, known: bool) -> None:
        """A guest is no stranger any more, or is one now."""
        if known:
            self._strangers.pop(guest, None)
            return
        self._strangers[guest] = None
        if self._max_strangers and len(self._strangers) > self._max_strangers:
            oldest, _ = self._strangers.popitem(last=False)
            self.refused["max_handshakes"] += 1
            self._log.error(
                f"CLIENT: more than {self._max_strangers} connections have not said yet who they are, "
                "and the oldest are closed: --max-handshakes"
            )
            oldest.dismiss()

    def leave(self, guest: Guest) -> None:
        """A guest is gone."""
        self._strangers.pop(guest, None)
        self.inside -= 1
        count = self._by_host[guest.host] - 1
        if count:
            self._by_host[guest.host] = count
        else:
            del self._by_host[guest.host]

    @property
    def strangers(self) -> int:
        """Guests of whom nothing is known yet."""
        return len(self._strangers)


class Limits(Protocol):
    """The options that a door has."""

    @property
    def max_connections(self) -> int:
        """Connections at a time."""

    @property
    def max_connections_per_address(self) -> int:
        """Of these from one address."""

    @property
    def max_handshakes(self) -> int:
        """Of these strangers."""


def door_of(options: Limits, most: int, log: Log) -> Door:
    """The door that the options say, if the system allows `most`."""
    limits = (options.max_connections, options.max_connections_per_address, options.max_handshakes)
    return Door(log, max(most, 1), *limits)


def host_of(peer: object) -> str:
    """What counts as one address: one of IPv4, a /64 of IPv6, which one machine may have all of. "": no limit."""
    if not isinstance(peer, tuple) or len(peer) < 2:
        return ""  # a unix socket
    host = str(peer[0]).partition("%")[0]
    if host.startswith(_MAPPED) and "." in host:
        return host[len(_MAPPED) :]
    if ":" not in host:
        return host
    network = socket.inet_pton(socket.AF_INET6, host)[:8]
    return socket.inet_ntop(socket.AF_INET6, network + bytes(8)) + "/64"


def descriptors() -> int:
    """How many files and sockets may be open."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MOST_DESCRIPTORS if soft == resource.RLIM_INFINITY else min(soft, MOST_DESCRIPTORS)
