"""Addresses as text: `host:port`, `[host]:port` for an IPv6 address, and paths of unix sockets, which have a `/`."""

import re
from typing import Final

WILDCARDS: Final = ("", "0.0.0.0", "::")  # noqa: S104 - what NSQ listens on by default

_ADDRESS: Final = re.compile(r"(?:\[([^\[\]]+)\]|([^:\[\]]+)):([0-9]{1,5})")
_LISTEN: Final = re.compile(r"(?:\[([^\[\]/\s]+)\]|([^:\[\]/\s]*)):([0-9]{1,5})")
_MAPPED: Final = "::ffff:"  # before an IPv4 address on a socket for both kinds


def split_address(address: str) -> tuple[str, int]:
    """Host and port. Raises ValueError; a host that cannot be one is found out later, when it is asked."""
    match = _ADDRESS.fullmatch(address)
    if match is None or not 0 < int(match[3]) < 65536:
        raise ValueError("not an address: write host:port, or [host]:port for IPv6")
    return match[1] or match[2], int(match[3])


def join_address(host: str, port: int) -> str:
    """The text for host and port."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_unix(address: str) -> bool:
    """Whether an address to listen on is the path of a unix socket."""
    return "/" in address and "://" not in address


def split_listen_address(address: str) -> tuple[str, int]:
    """Host, maybe empty, and port, maybe 0, to listen on. ValueError tells what is right instead."""
    match = _LISTEN.fullmatch(address)
    if match is None or int(match[3]) > 65535:
        raise ValueError("write host:port or :port, or [host]:port for IPv6, with a port up to 65535")
    return match[1] or match[2], int(match[3])


def peer_address(peer: object) -> str:
    """host:port of a socket's peer, as the clients know themselves; `@` for a unix socket."""
    if not isinstance(peer, tuple) or len(peer) < 2:
        return "@"
    host, port = peer[0], peer[1]
    if host.startswith(_MAPPED) and "." in host:
        host = host[len(_MAPPED) :]
    return join_address(host, port)
