"""Who gets the descriptors that there are."""

import asyncio

import pytest

from nsqkit.log import Log
from nsqkit.nsqd.descriptors import FEWEST_CLIENTS, OTHERS, Door, Refused, Shares
from nsqkit.nsqd.traffic import Traffic


@pytest.mark.parametrize("limit", [150, 200, 256, 1024, 4096, 65_536, 1 << 20])
def test_all_together_have_enough(limit):
    """Logs with two files each, clients and the rest fit the limit, and clients get the largest part of a large one."""
    shares = Shares(limit)

    assert 2 * shares.logs + shares.clients + OTHERS <= limit
    assert shares.logs >= 18
    if limit >= 1024:
        assert shares.clients >= limit // 2


def test_there_is_always_somebody():
    """A limit that is too small for everything still lets some in."""
    assert (1, FEWEST_CLIENTS) == (Shares(0).logs, Shares(0).clients)


def test_door():
    """It closes when all places are taken, says so, and opens as soon as one is free."""
    lines: list[str] = []
    inside = [0, 19, 20, 21, 19]
    traffic = Traffic()
    door = Door(20, lambda: inside.pop(0), Log("", write=lines.append), traffic)

    assert [False, False, True, True, False] == [door.closed() for _ in range(5)]
    assert 2 == traffic.refused
    assert 1 == len(lines)
    assert "ERROR: CLIENT: 20 connections are open, and more are refused" in lines[0]


def test_refused():
    """Whoever is refused hears it at once: the connection is closed."""

    class Transport(asyncio.Transport):
        closed = False

        def close(self) -> None:
            self.closed = True

    transport = Transport()

    Refused().connection_made(transport)

    assert transport.closed
