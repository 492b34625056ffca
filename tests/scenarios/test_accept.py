"""Connections that come in, on real sockets: how many in a pass of the loop, and those that come to nothing."""

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
import uvloop

from nsqkit.accept import AT_ONCE, Acceptor, Tls, reason
from nsqkit.door import Door, Guest
from nsqkit.log import Log


class Server:
    """What the acceptors of a test share."""

    def __init__(self, **limits: int) -> None:
        self.lines: list[str] = []
        self.log = Log("", write=self.lines.append)
        self.door = Door(self.log, limits.pop("most", 1000), **limits)
        self.served: list[asyncio.Transport] = []
        self.listening: Any = socket.create_server(("127.0.0.1", 0))
        self.address = self.listening.getsockname()

    def protocol(self, guest: Guest) -> asyncio.Protocol:
        """One that only notes its transport."""
        server = self

        class Noting(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                guest.arrived(transport.abort)  # type: ignore[attr-defined]
                server.served.append(transport)  # type: ignore[arg-type]

            def connection_lost(self, _: Exception | None) -> None:
                guest.leave()

        return Noting()

    def accept(self, tls: Tls | None = None) -> Acceptor:
        """Begin."""
        return Acceptor(self.listening, self.protocol, self.door, self.log, tls)


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request) -> Any:
    """Runs a coroutine in each kind of event loop."""
    return request.param


@pytest.fixture
def crowd() -> Iterator[Callable[..., list[socket.socket]]]:
    """Makes connections that say nothing."""
    made: list[socket.socket] = []

    def connect(address, count: int) -> list[socket.socket]:
        made.extend(socket.create_connection(address, 20) for _ in range(count))
        return made[-count:]

    yield connect
    for one in made:
        one.close()


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until this is so."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what is awaited happens in sockets
            await asyncio.sleep(0.001)


def test_a_few_in_each_pass(run, crowd):
    """However many wait, one pass of the loop takes AT_ONCE of them; all are served."""

    async def scenario() -> list[int]:
        server = Server()
        crowd(server.address, 5 * AT_ONCE)
        acceptor = server.accept()
        inside = []
        while server.door.inside < 5 * AT_ONCE:
            inside.append(server.door.inside)
            await asyncio.sleep(0)
        await until(lambda: len(server.served) == 5 * AT_ONCE)
        acceptor.close()
        server.listening.close()
        for transport in server.served:
            transport.abort()
        await until(lambda: server.door.inside == 0)
        return inside

    inside = run(scenario())

    assert AT_ONCE >= max(after - before for before, after in pairwise(inside))


def test_refused_at_the_door(run, crowd):
    """Who is not let in is hung up on, before anything was made for him."""

    async def scenario() -> None:
        server = Server(max_per_address=2)
        acceptor = server.accept()
        ones = crowd(server.address, 3)
        assert b"" == await asyncio.to_thread(ones[2].recv, 1)
        await until(lambda: len(server.served) == 2)
        assert 2 == server.door.inside
        for transport in server.served:
            transport.abort()
        await until(lambda: server.door.inside == 0)
        acceptor.close()
        acceptor.close()
        server.listening.close()
        acceptor.close()

    run(scenario())


def test_handshake_that_fails(run, crowd, certificates):
    """Who speaks no TLS, says nothing, or hangs up, is a line with its address and the cause, and leaves."""

    async def scenario() -> list[str]:
        server = Server()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates.server.certificate, certificates.server.key)
        acceptor = server.accept(Tls(context, 0.2))
        chatty, silent, leaving = crowd(server.address, 3)
        await until(lambda: server.door.inside == 3)
        assert 3 == server.door.strangers
        chatty.sendall(b"GET / HTTP/1.1\r\n\r\n")
        leaving.close()
        await until(lambda: server.door.inside == 0)
        assert b"" == await asyncio.to_thread(silent.recv, 1)
        acceptor.close()
        server.listening.close()
        assert [] == server.served
        return server.lines

    lines = run(scenario())

    assert 3 == len(lines)
    assert all("WARNING: TLS: handshake failed with 127.0.0.1: " in line for line in lines)
    assert any("http request" in line for line in lines)
    assert any("taking longer than 0.2 seconds" in line for line in lines)


def test_dismissed_in_its_handshake(run, crowd, certificates):
    """The oldest of too many handshakes is given up, and its client hung up on."""

    async def scenario() -> None:
        server = Server(max_strangers=1)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates.server.certificate, certificates.server.key)
        acceptor = server.accept(Tls(context, 60))
        first, _ = crowd(server.address, 2)
        assert b"" == await asyncio.to_thread(first.recv, 1)
        await until(lambda: server.door.inside == 1)
        acceptor.close()
        server.listening.close()
        await until(lambda: server.door.inside == 0)

    run(scenario())


class Failing:
    """A listening socket whose accept fails a few times."""

    def __init__(self, real: socket.socket, *numbers: int) -> None:
        self._real = real
        self._numbers = list(numbers)

    def accept(self):
        """Fail, or do it."""
        if self._numbers:
            number = self._numbers.pop(0)
            raise OSError(number, "no luck")
        return self._real.accept()

    def __getattr__(self, name: str):
        return getattr(self._real, name)


@pytest.mark.parametrize("number", [errno.ECONNABORTED, errno.EMFILE])
def test_accept_that_fails(run, crowd, monkeypatch, number):
    """A client that went away costs nothing; without descriptors there is a line, and a rest before the next try."""
    monkeypatch.setattr("nsqkit.accept.REST_S", 0.01)

    async def scenario() -> list[str]:
        server = Server()
        server.listening = Failing(server.listening, number)
        acceptor = server.accept()
        crowd(server.address, 1)
        await until(lambda: len(server.served) == 1)
        acceptor.close()
        server.listening.close()
        server.served[0].abort()
        await until(lambda: server.door.inside == 0)
        return server.lines

    lines = run(scenario())

    assert ([] if number == errno.ECONNABORTED else ["no connection can be accepted for now: no luck\n"]) == [
        line.partition("CLIENT: ")[2] for line in lines
    ]


@pytest.mark.parametrize(
    "error, text",
    [
        (
            ConnectionAbortedError("SSL handshake is taking longer than 10 seconds"),
            "SSL handshake is taking longer",
        ),
        (ConnectionResetError(), "the client hung up"),
        (OSError(24, "Too many open files"), "Too many open files"),
    ],
)
def test_reasons(error, text):
    """Each cause has its words."""
    assert reason(error).startswith(text)
