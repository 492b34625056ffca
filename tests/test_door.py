"""Who is let in, who is not, and who has to go."""

from functools import partial

import pytest

from nsqkit.door import Door, Guest, descriptors, door_of, host_of
from nsqkit.log import Log
from nsqkit.options.daemon import DaemonOptions

PEER = ("10.0.0.1", 50000)


@pytest.fixture
def lines() -> list[str]:
    """What is logged."""
    return []


@pytest.fixture
def make(lines):
    """Makes a door with a log in a list."""
    return lambda *limits: Door(Log("", write=lines.append), *limits)


def let_in(door: Door, peer: object = PEER) -> Guest:
    """A guest."""
    guest = door.enter(peer)
    assert guest is not None
    return guest


def test_it_closes_when_all_places_are_taken(make, lines):
    """More than the system allows are refused, which is said once in a while; who leaves makes room, once."""
    door = make(2)
    first, _ = let_in(door), let_in(door)

    assert (None, None) == (door.enter(PEER), door.enter(PEER))
    assert 1 == len(lines)
    assert (
        "CLIENT: 2 connections are open, and more are refused: what the limit of open files leaves"
        in lines[0]
    )
    first.leave()
    first.leave()
    assert 1 == door.inside
    let_in(door)
    assert door.enter(PEER) is None
    assert {"max_connections": 3, "max_connections_per_address": 0, "max_handshakes": 0} == door.refused


def test_an_option_may_lower_the_limit(make, lines):
    """--max-connections counts if it is below what the system allows, and is named then."""
    assert make(5, 1).enter(PEER)
    door = make(5, 1)
    let_in(door)

    assert door.enter(PEER) is None
    assert "more are refused: --max-connections" in lines[0]
    assert make(1, 5).enter(PEER)


def test_one_address(make, lines):
    """Of one address there are so many at most, of others as many again; a unix socket has no address."""
    door = make(100, 0, 2)
    first, _ = let_in(door), let_in(door, ("10.0.0.1", 1))

    assert door.enter(("10.0.0.1", 2)) is None
    assert (
        "CLIENT: 10.0.0.1 has 2 connections, and more are refused: --max-connections-per-address" in lines[0]
    )
    assert 1 == door.refused["max_connections_per_address"]
    let_in(door, ("10.0.0.2", 1))
    for _ in range(5):
        let_in(door, "")
    first.leave()
    let_in(door)


@pytest.mark.parametrize(
    "peer, host",
    [
        (("10.0.0.1", 1), "10.0.0.1"),
        (("::ffff:10.0.0.1", 1, 0, 0), "10.0.0.1"),
        (("2001:db8:1:2:3:4:5:6", 1, 0, 0), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 1, 0, 2), "fe80::/64"),
        ("", ""),
        (None, ""),
    ],
)
def test_host_of(peer, host):
    """An address is one of IPv4, however it is written, or a network of IPv6."""
    assert host == host_of(peer)


def test_the_oldest_stranger_goes(make, lines):
    """Of too many who have not said who they are the oldest is hung up on; who has said so stays."""
    door = make(100, 0, 0, 2)
    gone: list[int] = []
    guests = []
    for number in range(2):
        guests.append(let_in(door))
        guests[-1].arrived(partial(gone.append, number))
    guests[0].known()

    let_in(door)
    assert [] == gone
    let_in(door)

    assert [1] == gone
    assert 2 == door.strangers
    assert 1 == door.refused["max_handshakes"]
    assert "more than 2 connections have not said yet who they are, and the oldest are closed" in lines[0]


def test_a_stranger_again(make):
    """Whoever begins a handshake is a stranger until it is done."""
    door = make(100)
    guest = let_in(door)
    guest.known()
    assert 0 == door.strangers

    guest.known(False)
    assert 1 == door.strangers

    guest.leave()
    guest.known(False)
    assert 0 == door.strangers


def test_dismissed_before_it_arrived(make):
    """Who has to go before anybody knows how to hang up does so as soon as that is known."""
    door = make(100, 0, 0, 1)
    guest = let_in(door)
    let_in(door)
    gone: list[int] = []

    guest.arrived(lambda: gone.append(1))

    assert [1] == gone


def test_door_of_options():
    """The options set the limits; there is always a place for one."""
    options = DaemonOptions(max_connections=3, max_connections_per_address=1)
    door = door_of(options, 10, Log("", write=lambda _: None))

    let_in(door)
    assert door.enter(PEER) is None
    assert door_of(DaemonOptions(), -5, Log("", write=lambda _: None)).enter(PEER)


def test_descriptors():
    """The system says how many there may be."""
    assert 0 < descriptors() <= 1 << 20
