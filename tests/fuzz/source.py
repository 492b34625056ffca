"""Where a target gets its decisions from: the bytes of the input, in order. When they are used up, everything is 0."""

from random import Random
from typing import Final

_LENGTHS: Final = (1, 1, 2, 3, 5, 8, 21, 64, 300, 5000)


class Source:
    """Bytes to be used up."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        """Whether anything is left."""
        return self._at < len(self._data)

    def byte(self) -> int:
        """0 to 255."""
        return int.from_bytes(self.take(1), "big")

    def number(self) -> int:
        """0 to 65535."""
        return int.from_bytes(self.take(2).ljust(2, b"\0"), "big")

    def take(self, length: int) -> bytes:
        """At most `length` bytes."""
        taken = self._data[self._at : self._at + length]
        self._at += length
        return taken

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data))


def pieces(data: bytes, seed: int) -> list[bytes]:
    """Bytes in chunks: of one byte each if the seed is 0, else of lengths that follow from it."""
    if seed == 0:
        return [data[at : at + 1] for at in range(len(data))]
    random = Random(seed)
    cut: list[bytes] = []
    at = 0
    while at < len(data):
        length = random.choice(_LENGTHS)
        cut.append(data[at : at + length])
        at += length
    return cut


def ways(data: bytes, seed: int) -> list[list[bytes]]:
    """Ways to cut the same bytes: whole, byte by byte, and as the seed wants it."""
    return [[data] if data else [], pieces(data, 0), pieces(data, seed + 1)]


def same(expected: object, found: object) -> None:
    """An assertion about an error, where it is caught."""
    assert expected == found


def text(raw: bytes) -> str:
    """Any bytes as characters, without halves of characters."""
    return raw.decode("utf-8", "replace")
