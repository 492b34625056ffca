"""Listening sockets: `host:port`, or anything else as the path of a unix socket."""

import os
import socket
import stat
from typing import Final

from nsqkit.errors import StartError

_WILDCARDS: Final = ("", "0.0.0.0")  # noqa: S104 - what NSQ listens on by default


class Listener:
    """A bound, listening socket. `port` is -1 for a unix socket."""

    def __init__(self, sock: socket.socket, address: str, port: int) -> None:
        self.socket = sock
        self.address = address  # as logged: with the real port when 0 was asked for
        self.port = port

    def close(self) -> None:
        """Close it; the file of a unix socket is removed."""
        path = self.address if self.port < 0 else ""
        self.socket.close()
        if path:
            _remove_socket(path)


def listen(address: str, backlog: int) -> Listener:
    """Bind and listen. StartError, in NSQ's words, if that is impossible."""
    host, colon, port = address.rpartition(":")
    try:
        if not colon or not port.isdigit():
            return _listen_unix(address, backlog)
        return _listen_tcp(host.strip("[]"), int(port), backlog)
    except (OSError, OverflowError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise StartError(f"listen ({address}) failed - {why}") from error


def _listen_tcp(host: str, port: int, backlog: int) -> Listener:
    family, kind, protocol, _, target = socket.getaddrinfo(
        host or _WILDCARDS[1], port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(target)
        sock.listen(backlog)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    name = sock.getsockname()
    shown = f"[{name[0]}]" if ":" in name[0] else name[0]
    return Listener(sock, f"{shown}:{name[1]}", name[1])


def _listen_unix(path: str, backlog: int) -> Listener:
    _remove_socket(path)  # left by a process that was killed; the data path's lock keeps two of us apart
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.bind(path)
        sock.listen(backlog)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return Listener(sock, path, -1)


def _remove_socket(path: str) -> None:
    try:
        if stat.S_ISSOCK(os.stat(path).st_mode):
            os.unlink(path)
    except FileNotFoundError:
        return
