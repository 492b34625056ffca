"""Listening sockets of the real system."""

import os
import socket
import tempfile

import pytest

from nsqkit.errors import StartError
from nsqkit.listen import listen

BACKLOG = 8


@pytest.fixture
def path():
    """Where a socket may be; such paths have about 100 characters at most."""
    with tempfile.TemporaryDirectory(prefix="nsqkit-") as directory:
        yield f"{directory}/test.sock"


@pytest.fixture
def opened():
    """Listens, and closes what listens at the end."""
    made = []

    def start(address):
        made.append(listen(address, BACKLOG))
        return made[-1]

    yield start
    for listener in made:
        listener.close()


@pytest.mark.parametrize("address", [":0", "0.0.0.0:0", "[::]:0"])
@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="needs IPv6")
def test_every_address_includes_ipv6(address, opened):
    """Without a host, clients come over IPv4 and IPv6."""
    port = opened(address).port

    for host in ("127.0.0.1", "::1"):
        socket.create_connection((host, port), 20).close()


def test_one_address_is_only_that(opened):
    """With a host, the real port is in the address that is logged."""
    listener = opened("127.0.0.1:0")

    assert f"127.0.0.1:{listener.port}" == listener.address
    assert socket.AF_INET == listener.socket.family


def test_machine_without_ipv6(opened, monkeypatch):
    """Where there is no IPv6, every address is every one of IPv4."""
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)

    assert opened(":0").address.startswith("0.0.0.0:")


def test_port_in_use(opened):
    """An address that is taken is a clear error."""
    address = opened("127.0.0.1:0").address

    with pytest.raises(StartError, match=rf"^listen \({address}\) failed - Address already in use$"):
        listen(address, BACKLOG)


@pytest.mark.parametrize("address", ["foo", "127.0.0.1:99999", ""])
def test_what_is_no_address(address):
    """Nothing listens on what nobody could mean."""
    with pytest.raises(StartError, match=rf"^listen \({address}\) failed - write host:port"):
        listen(address, BACKLOG)


def test_live_unix_socket_is_not_stolen(path, opened):
    """A socket on which somebody listens stays his."""
    opened(path)

    with pytest.raises(StartError, match="failed - another process listens there$"):
        listen(path, BACKLOG)

    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)


def test_socket_of_the_dead_is_replaced(path, opened):
    """What a killed process left is in nobody's way, and is removed at the end."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(path)

    listener = opened(path)

    assert -1 == listener.port
    listener.close()
    assert not os.path.exists(path)


def test_socket_of_another_is_not_removed(path, opened):
    """Whoever closes leaves the file of who listens there now."""
    first = opened(path)
    os.unlink(path)
    opened(path)

    first.close()

    assert os.path.exists(path)


def test_file_that_is_no_socket_is_not_touched(path):
    """A file of the same name is in the way, and stays."""
    with open(path, "w", encoding="ascii") as file:
        file.write("mine")

    with pytest.raises(StartError, match="failed - a file that is no socket has this name$"):
        listen(path, BACKLOG)

    assert os.path.exists(path)
