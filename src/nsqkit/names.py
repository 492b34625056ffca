"""The rules for names of topics and channels.

A name is 1 to 64 characters of `.a-zA-Z0-9_-`, optionally ending in `#ephemeral`, which counts toward the 64
(spec/tcp-protocol.md). An ephemeral topic or channel lives only as long as somebody uses it.
"""

import re
from typing import Final

MAX_NAME: Final = 64  # characters, with the suffix
EPHEMERAL: Final = "#ephemeral"

_NAME: Final = re.compile(r"[.a-zA-Z0-9_-]+(?:#ephemeral)?")
_NAME_BYTES: Final = re.compile(rb"[.a-zA-Z0-9_-]+(?:#ephemeral)?")


def valid_name(name: str) -> bool:
    """Whether a topic or a channel may be called this."""
    return len(name) <= MAX_NAME and _NAME.fullmatch(name) is not None


def valid_name_bytes(name: bytes) -> bool:
    """`valid_name` for a name as it came over the wire. A valid one is ASCII."""
    return len(name) <= MAX_NAME and _NAME_BYTES.fullmatch(name) is not None


def is_ephemeral(name: str) -> bool:
    """Whether a valid name is that of a topic or channel that is never kept."""
    return name.endswith(EPHEMERAL)
