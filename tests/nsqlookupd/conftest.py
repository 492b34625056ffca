"""nsqlookupd without sockets: registrations, nsqds in name, and a clock that stands still."""

import pytest

from nsqkit.nsqlookupd.registrations import Peer, Registrations
from tests.wire.conftest import chunks as chunks  # noqa: PLC0414 - a fixture

SECOND = 10**9
NOW = 1_700_000_000 * SECOND
INACTIVE_AFTER = 300 * SECOND
TOMBSTONE_LIFETIME = 45 * SECOND
MOST = 10_000
MOST_OF_PEER = 8000


@pytest.fixture
def later() -> list[None]:
    """An entry for each time that something was left to be taken back."""
    return []


@pytest.fixture
def registrations(later) -> Registrations:
    """An empty database with the default times."""
    return Registrations(INACTIVE_AFTER, TOMBSTONE_LIFETIME, MOST, MOST_OF_PEER, lambda: later.append(None))


@pytest.fixture
def join(registrations):
    """Makes nsqds that have identified themselves: `join("a")` is at a:4151."""

    def make(name: str, http_port: int = 4151, now: int = NOW) -> Peer:
        peer = Peer(f"{name}:50000", name, http_port, b'{"hostname":"%b"}' % name.encode(), now)
        registrations.join(peer)
        return peer

    return make
