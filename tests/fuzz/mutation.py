"""Mutations of inputs, for runs without coverage to guide them. The same random numbers give the same mutations."""

from random import Random
from typing import Final

MAX_BYTES: Final = 4096

_BYTES: Final = (0, 1, 4, 9, 10, 13, 32, 34, 58, 127, 128, 255)
_WORDS: Final = (
    b"\x00\x00\x00\x00",
    b"\x00\x00\x00\x05",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\x80\x00\x00\x00",
    b"\x00\x01\x00\x00",
    b"#ephemeral",
    b"null",
    b"-1",
    b"9223372036854775808",
    b"\n",
    b"\xed\xa0\x80",
)


def mutated(random: Random, corpus: list[bytes]) -> bytes:
    """One input of the corpus after one to eight mutations; other inputs lend pieces."""
    data = bytearray(random.choice(corpus)) if corpus else bytearray()
    for _ in range(1 << random.randrange(4)):
        _mutate(random, data, corpus)
    return bytes(data[:MAX_BYTES])


def _mutate(random: Random, data: bytearray, corpus: list[bytes]) -> None:
    at = random.randint(0, len(data))
    length = min(1 << random.randrange(8), len(data) - at)
    kind = random.randrange(8)
    if kind == 0 and at < len(data):
        data[at] ^= 1 << random.randrange(8)
    elif kind == 1 and at < len(data):
        data[at] = random.choice(_BYTES)
    elif kind == 2:
        del data[at : at + length]
    elif kind == 3:
        data[at:at] = data[at : at + length]
    elif kind == 4:
        data[at:at] = random.randbytes(random.randint(1, 8))
    elif kind == 5:
        word = random.choice(_WORDS)
        data[at : at + random.choice((0, len(word)))] = word
    elif kind == 6 and corpus:
        other = random.choice(corpus)
        start = random.randint(0, len(other))
        data[at : at + random.choice((0, length))] = other[start : start + (1 << random.randrange(9))]
    elif kind == 7:
        target = random.randint(0, len(data))
        data[target:target] = data[at : at + length]
