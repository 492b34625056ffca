"""Addresses as people write them: `host:port`, and `[host]:port` for IPv6."""

import re
from typing import Final

_ADDRESS: Final = re.compile(r"(?:\[([^\[\]]+)\]|([^:\[\]]+)):([0-9]{1,5})")


def split_address(address: str) -> tuple[str, int]:
    """Host and port. Raises ValueError, with a reason that does not repeat the address."""
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise ValueError("not host:port (an IPv6 address goes in brackets)")
    port = int(match[3])
    if not 0 < port < 65536:
        raise ValueError("the port must be in [1,65535]")
    return match[1] or match[2], port


def join_address(host: str, port: int) -> str:
    """What `split_address` takes apart."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
