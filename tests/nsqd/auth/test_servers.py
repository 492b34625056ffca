"""All auth servers of an nsqd: who is asked, who waits, and what is logged."""

import asyncio
from typing import Any

import pytest

from nsqkit.log import Level, Log
from nsqkit.nsqd.auth import NoAnswer
from nsqkit.nsqd.auth.servers import MAX_QUESTIONS, AuthServers, host_of
from nsqkit.nsqd.core.broker import Broker
from nsqkit.nsqd.core.session import Outlet, Session
from nsqkit.nsqd.core.settings import SECOND, Settings
from nsqkit.options import Duration
from nsqkit.wire.identify import Security

NOW = 1_700_000_000 * SECOND
AUTH = b"  V2AUTH\n\0\0\0\6s3cret"


class Sent(Outlet):
    """A connection that keeps what is sent."""

    def __init__(self) -> None:
        self.data = b""

    def send(self, data: bytes) -> None:
        """Keep it."""
        self.data += data

    def hold(self, held: bool) -> None:
        """Nothing is read here."""

    def close(self) -> None:
        """Stay."""


class FakeQuestioner:
    """Answers each address as told: with what a future gets."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: dict[str, Any] = {}
        self.closed = False

    async def ask(self, address, client, secret, now):  # noqa: ARG002 - as Questioner's
        """Wait for the answer."""
        self.asked.append((address, client, secret))
        found = self.answers[address]
        if isinstance(found, Exception):
            raise found
        return await asyncio.shield(found)

    def set_timeouts(self, connect_timeout, request_timeout):
        """Note them."""
        self.timeouts = connect_timeout, request_timeout

    async def close(self) -> None:
        """Note it."""
        self.closed = True


class Scene:
    """A broker with two auth servers."""

    def __init__(self, *addresses: str) -> None:
        self.lines: list[str] = []
        self.broker = Broker(Settings(), None)
        self.questioner = FakeQuestioner()
        self.turned = asyncio.Event()
        self.servers = AuthServers(
            addresses or ("one:1", "two:2"),
            Log("", Level.DEBUG, write=self.lines.append),
            self.turn,
            lambda: NOW,
            method="get",
            connect_timeout=Duration.parse("1s"),
            request_timeout=Duration.parse("1s"),
            root_ca="",
        )
        self.servers._questioner = self.questioner  # type: ignore[assignment]
        self.broker.authority = self.servers

    def turn(self) -> None:
        """A turn of the broker."""
        self.broker.work(NOW)
        self.broker.flush()
        self.turned.set()

    def client(self, address: str = "10.0.0.1:7") -> tuple[Session, Sent]:
        """A client that sends its secret."""
        outlet = Sent()
        session = Session(self.broker, outlet, address, NOW)
        session.receive(AUTH, NOW)
        return session, outlet

    async def asked(self, count: int) -> None:
        """Return when so many questions were put."""
        async with asyncio.timeout(20):
            while len(self.questioner.asked) < count:
                await asyncio.to_thread(int)


@pytest.fixture
def play(runner):
    """Runs a test's coroutine function with a scene."""

    def run(test, *addresses):
        async def act():
            scene = Scene(*addresses)
            try:
                await test(scene)
            finally:
                await scene.servers.stop()
            assert scene.questioner.closed

        runner.run(act())

    return run


def test_the_next_one_is_asked(play):
    """Servers are asked in turn until none is left; each failure is a line with host and cause, and no secret."""

    async def test(scene):
        scene.questioner.answers = {"one:1": NoAnswer("it is broken"), "two:2": NoAnswer("it is broken, too")}
        _, outlet = scene.client()

        await scene.turned.wait()

        assert b"E_AUTH_FAILED AUTH failed" in outlet.data
        assert {"one:1", "two:2"} == {address for address, _, _ in scene.questioner.asked}
        said = "".join(scene.lines)
        assert "ERROR: AUTH(one:1): [10.0.0.1:7] - it is broken\n" in said
        assert "ERROR: AUTH(two:2): [10.0.0.1:7] - it is broken, too\n" in said
        assert "s3cret" not in said

    play(test)


@pytest.mark.parametrize("address, ip", [("10.0.0.1:7", "10.0.0.1"), ("[fe80::1]:7", "fe80::1"), ("@", "")])
def test_what_is_told_of_the_client(play, address, ip):
    """Its address without port and brackets, nothing for a unix socket, and whether it uses TLS."""

    async def test(scene):
        scene.questioner.answers = {"one:1": NoAnswer("no")}
        scene.client(address)

        await scene.turned.wait()

        assert [
            ("one:1", {"common_name": "", "remote_ip": ip, "tls": "false"}, b"s3cret")
        ] == scene.questioner.asked

    play(test, "one:1")


def test_a_client_with_a_certificate(play):
    """The server is told the name in it."""

    async def test(scene):
        scene.questioner.answers = {"one:1": NoAnswer("no")}
        session = Session(scene.broker, Sent(), "10.0.0.1:7", NOW)
        session.identity.security = Security("TLS1.3", "suite", "", "somebody")
        session.receive(AUTH, NOW)

        await scene.turned.wait()

        ((_, client, _),) = scene.questioner.asked
        assert {"common_name": "somebody", "remote_ip": "10.0.0.1", "tls": "true"} == client

    play(test, "one:1")


def test_only_so_many_are_asked_at_a_time(play):
    """The others wait for a place, and get it when one of the first has its answer or leaves."""

    async def test(scene):
        scene.questioner.answers = {"one:1": asyncio.get_running_loop().create_future()}
        clients = [scene.client() for _ in range(MAX_QUESTIONS + 5)]
        await scene.asked(MAX_QUESTIONS)
        await asyncio.to_thread(int)
        assert MAX_QUESTIONS == len(scene.questioner.asked)

        for session, _ in clients[:3]:
            session.gone()

        await scene.asked(MAX_QUESTIONS + 3)

    play(test, "one:1")


def test_who_is_gone_leaves_nothing(play):
    """A client that hangs up while it is asked about is not asked about any more, and never answered."""

    async def test(scene):
        scene.questioner.answers = {"one:1": asyncio.get_running_loop().create_future()}
        session, outlet = scene.client()
        await scene.asked(1)

        session.gone()

        assert {} == scene.servers._tasks
        assert b"" == outlet.data

    play(test, "one:1")


def test_a_defect_is_an_answer_too(play):
    """What should not happen fails the AUTH, and is logged by its kind: its text may have anything in it."""

    async def test(scene):
        scene.questioner.answers = {"one:1": RuntimeError("s3cret")}
        _, outlet = scene.client()

        await scene.turned.wait()
        await asyncio.to_thread(int)

        assert b"E_AUTH_FAILED AUTH failed" in outlet.data
        assert "a defect of ours: RuntimeError" in "".join(scene.lines)
        assert "s3cret" not in "".join(scene.lines)

    play(test, "one:1")


@pytest.mark.parametrize(
    "address, host",
    [("auth:80", "auth:80"), ("http://u:p@auth:80/x?key=1", "auth:80"), ("https://auth/", "auth")],
)
def test_a_server_is_named_without_passwords(address, host):
    """A log line has its host and port only."""
    assert host == host_of(address)


def test_certificates_that_are_not_there():
    """A CA file that can't be read is found out at the start."""
    with pytest.raises(OSError):
        AuthServers(
            ["one:1"],
            Log(""),
            lambda: None,
            lambda: NOW,
            method="get",
            connect_timeout=Duration.parse("1s"),
            request_timeout=Duration.parse("1s"),
            root_ca="/nowhere/ca.pem",
        )


def test_other_timeouts(play):
    """They are for questions to come, also when none was put yet."""

    async def test(scene: Scene) -> None:
        scene.servers.set_timeouts(Duration.parse("3s"), Duration.parse("7s"))
        assert (3.0, 7.0) == scene.questioner.timeouts
        scene.servers._questioner = None
        scene.servers.set_timeouts(Duration.parse("4s"), Duration.parse("8s"))
        questioner = await scene.servers._ready_questioner()
        assert (8.0, 4.0) == (questioner._request_timeout, questioner._requester.connect_timeout)
        questioner.set_timeouts(1.0, 2.0)
        assert (2.0, 1.0) == (questioner._request_timeout, questioner._requester.connect_timeout)
        await questioner.close()
        scene.servers._questioner = scene.questioner  # type: ignore[assignment]

    play(test)
