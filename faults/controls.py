"""What an nsqd under the launcher is told while it runs: a few bytes of memory that both map.

[8 calendar shift, ns][8 delay of a write, ns][8 delay of a sync, ns]      little-endian, signed
"""

import mmap
import struct
from pathlib import Path

_LAYOUT = struct.Struct("<qqq")


class Controls:
    """One file of them; made, with zeros, if there is none."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(_LAYOUT.size))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _LAYOUT.size)

    def set(self, *, shift_ns: int = 0, write_ns: int = 0, sync_ns: int = 0) -> None:
        """Tell it."""
        _LAYOUT.pack_into(self._memory, 0, shift_ns, write_ns, sync_ns)

    @property
    def shift_ns(self) -> int:
        """How far the calendar is ahead of the machine's."""
        return self._get(0)

    @property
    def write_ns(self) -> int:
        """How long each write takes on top."""
        return self._get(1)

    @property
    def sync_ns(self) -> int:
        """How long each sync takes on top."""
        return self._get(2)

    def _get(self, index: int) -> int:
        value: int = _LAYOUT.unpack_from(self._memory, 0)[index]
        return value
