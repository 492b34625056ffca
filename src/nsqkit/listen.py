"""Listening sockets: `host:port`, or the path of a unix socket.

No host, 0.0.0.0 and :: are every address of this machine, of IPv4 and of IPv6, as in NSQ.
"""

import os
import socket
import stat
from contextlib import suppress
from typing import Final

from nsqkit.address import WILDCARDS, is_unix, join_address, split_listen_address
from nsqkit.errors import StartError

_ANSWER_S: Final = 1.0  # how long whoever listens on a unix socket may take to accept


class Listener:
    """A bound, listening socket. `port` is -1 for a unix socket."""

    def __init__(self, sock: socket.socket, address: str, port: int) -> None:
        self.socket = sock
        self.address = address  # as logged: with the real port when 0 was asked for
        self.port = port
        self._file = _identity(address) if port < 0 else None

    def close(self) -> None:
        """Close it; the file of a unix socket is removed, unless it is another's by now."""
        self.socket.close()
        if self._file is not None and self._file == _identity(self.address):
            with suppress(FileNotFoundError):
                os.unlink(self.address)


def listen(address: str, backlog: int) -> Listener:
    """Bind and listen. StartError, in NSQ's words, if that is impossible."""
    try:
        if is_unix(address):
            return _listen_unix(address, backlog)
        return _listen_tcp(*split_listen_address(address), backlog)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise StartError(f"listen ({address}) failed - {why}") from error


def bind(host: str, port: int) -> socket.socket:
    """A socket of this address, bound. OSError if that is impossible."""
    both = host in WILDCARDS and socket.has_dualstack_ipv6()
    family, kind, protocol, _, target = socket.getaddrinfo(
        "::" if both else host or "0.0.0.0",  # noqa: S104 - a machine without IPv6
        port,
        type=socket.SOCK_STREAM,
        flags=socket.AI_PASSIVE,
    )[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if both:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(target)
    except BaseException:
        sock.close()
        raise
    return sock


def _listen_tcp(host: str, port: int, backlog: int) -> Listener:
    sock = bind(host, port)
    _listen(sock, backlog)
    name = sock.getsockname()
    return Listener(sock, join_address(name[0], name[1]), name[1])


def _listen_unix(path: str, backlog: int) -> Listener:
    _make_room(path)
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.bind(path)
    except BaseException:
        sock.close()
        raise
    _listen(sock, backlog)
    return Listener(sock, path, -1)


def _listen(sock: socket.socket, backlog: int) -> None:
    try:
        sock.listen(backlog)
    except BaseException:  # another process listens there, and shares the address
        sock.close()
        raise
    sock.setblocking(False)


def _make_room(path: str) -> None:
    """Remove a socket that was left by a process that was killed. OSError if somebody listens there."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError("a file that is no socket has this name")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_ANSWER_S)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except TimeoutError:
            raise OSError("another process listens there, and does not answer") from None
        else:
            raise OSError("another process listens there")


def _identity(path: str) -> tuple[int, int] | None:
    """What tells a file from another one of the same name."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
