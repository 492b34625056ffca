"""Addresses as text: `host:port`, or `[host]:port` for an IPv6 address."""

import re
from typing import Final

_ADDRESS: Final = re.compile(r"(?:\[([^\[\]]+)\]|([^:\[\]]+)):([0-9]{1,5})")


def split_address(address: str) -> tuple[str, int]:
    """Host and port. Raises ValueError; a host that cannot be one is found out later, when it is asked."""
    match = _ADDRESS.fullmatch(address)
    if match is None or not 0 < int(match[3]) < 65536:
        raise ValueError("not an address: write host:port, or [host]:port for IPv6")
    return match[1] or match[2], int(match[3])


def join_address(host: str, port: int) -> str:
    """The text for host and port."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
