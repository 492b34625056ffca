"""All of nsqd's nsqlookupds: which there are, and what they are asked about new topics. Peers and HTTP are replaced."""

import asyncio
import socket
from collections.abc import Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from nsqkit.cluster import Answers, Failure
from nsqkit.log import Level, Log
from nsqkit.nsqd.core.broker import Broker
from nsqkit.nsqd.core.settings import SECOND, Settings
from nsqkit.nsqd.discovery import lookup as module
from nsqkit.nsqd.discovery.lookup import Lookup
from nsqkit.options import Duration

NOW = 1_700_000_000 * SECOND


class FakePeer:
    """A connection to an nsqlookupd, in name."""

    def __init__(self, name, endpoint, identity, broker, log):  # noqa: ARG002 - as LookupPeer's
        self.endpoint = endpoint
        self.http_address = f"{endpoint[0]}:4161"
        self.heard: list[tuple[str, ...]] = []
        self.connected = endpoint[0] == "10.0.0.1"
        self.task: asyncio.Task[None]

    async def run(self):
        """Stay."""
        await asyncio.Event().wait()

    def made(self, topic):
        """A topic or channel was made."""
        self.heard.append(("made", topic))

    def deleted(self, topic, channel):
        """A topic or channel was deleted."""
        self.heard.append(("deleted", topic, channel))


class FakeCluster:
    """Answers when it is told to."""

    def __init__(self):
        self.asked: list[tuple[list[str], str]] = []
        self.timeouts: list[tuple[float, float]] = []
        self.answer: asyncio.Future[Answers[list[str]]] = asyncio.get_running_loop().create_future()

    def set_timeouts(self, connect_timeout, request_timeout):
        """Note them."""
        self.timeouts.append((connect_timeout, request_timeout))

    async def channels(self, nodes, topic):
        """The channels of a topic."""
        self.asked.append(([*nodes], topic))
        return await asyncio.shield(self.answer)

    def say(self, *names, failures=()):
        """Answer."""
        self.answer.set_result(Answers([*names], [], [*failures]))

    async def close(self):
        """Nothing to close."""


class Scene:
    """A broker with its lookup side. `names` is what a resolver knows."""

    def __init__(self, monkeypatch) -> None:
        self.log: list[str] = []
        self.broker = Broker(Settings(), None)
        self.cluster = FakeCluster()
        self.names: dict[str, list[str]] = {}
        self.resolved = asyncio.Event()
        self.lookup = Lookup(
            self.broker,
            Log("", Level.DEBUG, write=self.log.append),
            self.turn,
            lambda: NOW,
            connect_timeout=Duration.parse("1s"),
            request_timeout=Duration.parse("5s"),
            resolve_interval=Duration.parse("1ms"),
        )
        monkeypatch.setattr(module, "LookupPeer", FakePeer)
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", self.getaddrinfo)
        self.lookup._cluster = self.cluster  # type: ignore[assignment]

    def turn(self) -> None:
        """A turn of the broker."""
        self.broker.changes.finish(self.broker.changes.count, "")  # a daemon saves it
        self.broker.work(NOW)
        self.broker.flush()

    async def getaddrinfo(self, host, port, **_):
        """Look a name up; addresses stand for themselves."""
        self.resolved.set()
        addresses = self.names.get(host, [host] if host[0].isdigit() else [])
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (
                socket.AF_INET6 if ":" in one else socket.AF_INET,
                socket.SOCK_STREAM,
                6,
                "",
                (one, port, 0, 0) if ":" in one else (one, port),
            )
            for one in addresses
        ]

    def endpoints(self) -> set[str]:
        """The addresses of the peers."""
        return {host for host, _ in self.lookup._peers}

    async def until(self, condition: Callable[[], object]) -> None:
        """Return when it holds. What is waited for happens in this loop, so a few passes are enough."""
        async with asyncio.timeout(10):
            while not condition():
                self.resolved.clear()
                await asyncio.wait([asyncio.ensure_future(self.resolved.wait())], timeout=0.001)


@pytest.fixture
def play(runner, monkeypatch):
    """Runs a test's coroutine function with a scene."""

    @asynccontextmanager
    async def begun(addresses):
        scene = Scene(monkeypatch)
        scene.lookup.start(b"{}", addresses)
        try:
            yield scene
        finally:
            await scene.lookup.stop()

    def run(test: Callable[[Scene], Coroutine[Any, Any, None]], *addresses: str) -> None:
        async def act() -> None:
            async with begun(addresses) as scene:
                await test(scene)

        runner.run(act())

    return run


# -- which nsqlookupds there are


def test_name_with_several_addresses(play):
    """A name stands for all its addresses, and is looked up again and again."""

    async def test(scene: Scene) -> None:
        scene.names["lookups"] = ["10.0.0.1", "10.0.0.2"]
        await scene.until(lambda: scene.endpoints() == {"10.0.0.1", "10.0.0.2"})
        assert {"10.0.0.1:4160": True, "10.0.0.2:4160": False} == scene.lookup.connected()
        kept = scene.lookup._peers["10.0.0.2", 4160]
        scene.names["lookups"] = ["10.0.0.2", "10.0.0.3"]
        await scene.until(lambda: scene.endpoints() == {"10.0.0.2", "10.0.0.3"})

        assert kept is scene.lookup._peers["10.0.0.2", 4160]

    play(test, "lookups:4160")


def test_other_times(play):
    """Names are looked up again at once, and then as often as is said now; requests have the new timeouts."""

    async def test(scene: Scene) -> None:
        hour = Duration.parse("1h")
        scene.names["lookups"] = ["10.0.0.1"]
        await scene.until(lambda: scene.endpoints() == {"10.0.0.1"})
        scene.lookup.set_times(connect_timeout=hour, request_timeout=hour, resolve_interval=hour)
        await scene.until(lambda: scene.lookup._resolve_interval_s == 3600)
        scene.names["lookups"] = ["10.0.0.2"]

        scene.lookup.set_times(
            connect_timeout=hour, request_timeout=Duration.parse("2s"), resolve_interval=Duration.parse("30m")
        )

        await scene.until(lambda: scene.endpoints() == {"10.0.0.2"})
        assert [(3600.0, 3600.0), (3600.0, 2.0)] == scene.cluster.timeouts

    play(test, "lookups:4160")


def test_name_that_can_not_be_found_keeps_what_it_had(play):
    """A resolver that fails changes nothing; the log says so once, and when it is over."""

    async def test(scene: Scene) -> None:
        scene.names["lookups"] = ["10.0.0.1"]
        await scene.until(lambda: scene.endpoints() == {"10.0.0.1"})
        scene.log.clear()
        scene.names["lookups"] = []
        await scene.until(lambda: scene.log)
        for _ in range(3):
            scene.resolved.clear()
            await scene.resolved.wait()
        assert {"10.0.0.1"} == scene.endpoints()
        scene.names["lookups"] = ["10.0.0.1"]
        await scene.until(lambda: "found its address" in scene.log[-1])

        assert ["ERROR", "INFO"] == [line.split()[2].rstrip(":") for line in scene.log]

    play(test, "lookups:4160")


def test_host_with_both_kinds_of_addresses_is_one(play):
    """A name with an IPv4 and an IPv6 address is one host."""

    async def test(scene: Scene) -> None:
        scene.names["localhost"] = ["::1", "127.0.0.1"]
        await scene.until(lambda: scene.endpoints() == {"127.0.0.1"})

    play(test, "localhost:4160")


def test_addresses_change(play):
    """New addresses are added, those not named any more dropped, the others left in peace; a repeated one is one."""

    async def test(scene: Scene) -> None:
        await scene.until(lambda: scene.endpoints() == {"10.0.0.1", "10.0.0.2"})
        kept = scene.lookup._peers["10.0.0.2", 4160]
        dropped = scene.lookup._peers["10.0.0.1", 4160]
        scene.lookup.configure(["10.0.0.2:4160", "10.0.0.3:4160", "10.0.0.3:4160"])
        await scene.until(lambda: scene.endpoints() == {"10.0.0.2", "10.0.0.3"})
        await asyncio.wait([dropped.task])

        assert dropped.task.cancelled()
        assert kept is scene.lookup._peers["10.0.0.2", 4160]
        assert ["10.0.0.2:4160", "10.0.0.3:4160"] == [*scene.lookup.addresses]

    play(test, "10.0.0.1:4160", "10.0.0.2:4160")


def test_two_names_of_one_address(play):
    """What two names lead to is told once, until neither leads there."""

    async def test(scene: Scene) -> None:
        scene.names = {"a": ["10.0.0.1"], "b": ["10.0.0.1"]}
        await scene.until(lambda: all(a.endpoints for a in scene.lookup._addresses.values()))
        assert 1 == len(scene.lookup._peers)
        scene.lookup.configure(["b:4160"])
        assert {"10.0.0.1"} == scene.endpoints()
        scene.lookup.configure([])
        assert set() == scene.endpoints()

    play(test, "a:4160", "b:4160")


def test_bad_address_is_logged(play):
    """An address that is none is an error in the log, and disturbs no other."""

    async def test(scene: Scene) -> None:
        await scene.until(lambda: scene.endpoints() == {"10.0.0.1"})
        assert any("ERROR: LOOKUPD(nowhere): not an address: write host:port" in line for line in scene.log)

    play(test, "nowhere", "10.0.0.1:4160")


def test_every_peer_hears_of_every_change(play):
    """What the broker reports goes to each nsqlookupd."""

    async def test(scene: Scene) -> None:
        await scene.until(lambda: len(scene.endpoints()) == 2)
        scene.broker.topic("t").channel("c", NOW)
        scene.broker.delete_topic("t")

        told = [("made", "t"), ("made", "t"), ("deleted", "t", "c"), ("deleted", "t", "")]
        assert [told, told] == [peer.heard for peer in scene.lookup._peers.values()]  # type: ignore[attr-defined]

    play(test, "10.0.0.1:4160", "10.0.0.2:4160")


# -- the channels of a new topic


def publish(scene: Scene, topic: str = "t") -> None:
    """One message."""
    scene.broker.topic(topic).publish(b"\0\0\0\1x", 1, 0, None, NOW)
    scene.turn()


async def ask(scene: Scene) -> None:
    """A new topic with a message in it, and everybody asked."""
    await scene.until(scene.endpoints)
    publish(scene)
    await scene.until(lambda: scene.cluster.asked)


def test_new_topic_gets_its_channels(play):
    """The channels known elsewhere are made before any message goes on; ephemeral and impossible ones are not."""

    async def test(scene: Scene) -> None:
        await ask(scene)
        topic = scene.broker.topics["t"]
        mine = topic.channel("mine", NOW)
        assert (1, 0) == (topic.depth(), mine.queue.depth())
        scene.cluster.say("a", "b", "e#ephemeral", "no/name")
        await scene.lookup.wait_for_channels()

        assert [(["10.0.0.1:4161", "10.0.0.2:4161"], "t")] == scene.cluster.asked
        assert {"mine": 1, "a": 1, "b": 1} == {name: c.queue.depth() for name, c in topic.channels.items()}
        assert any("a channel that can't be: 'no/name'" in line for line in scene.log)

    play(test, "10.0.0.1:4160", "10.0.0.2:4160")


def test_partial_failure_is_a_warning(play):
    """What the others know counts; who failed is in the log."""

    async def test(scene: Scene) -> None:
        await ask(scene)
        scene.cluster.say("a", failures=[Failure("10.0.0.9:4161", "connection refused")])
        await scene.lookup.wait_for_channels()

        assert ["a"] == [*scene.broker.topics["t"].channels]
        assert any("WARNING: TOPIC(t): failed to query nsqlookupd" in line for line in scene.log)

    play(test, "10.0.0.1:4160")


def test_silent_nsqlookupds_hold_a_topic_for_a_while(play):
    """When all that comes of asking is failures, the messages go on without."""

    async def test(scene: Scene) -> None:
        await ask(scene)
        scene.cluster.say(failures=[Failure("10.0.0.1:4161", "no answer within 5 s")])
        await scene.lookup.wait_for_channels()

        topic = scene.broker.topics["t"]
        assert not topic.awaits_channels
        assert 1 == topic.channel("c", NOW).queue.depth()
        assert any("no answer within 5 s" in line for line in scene.log)

    play(test, "10.0.0.1:4160")


def test_topic_that_is_deleted_meanwhile(play):
    """Channels of a topic that is gone are not made, also not in a new one of its name."""

    async def test(scene: Scene) -> None:
        await ask(scene)
        scene.broker.delete_topic("t")
        again = scene.broker.topic("t")
        asking = list(scene.lookup._asking)
        scene.cluster.say("a")
        await asyncio.wait(asking)

        assert ["a"] == [*again.channels], "the new topic asks for itself"

    play(test, "10.0.0.1:4160")


def test_without_nsqlookupds_nothing_is_held(play):
    """A new topic goes its way at once when there is nobody to ask."""

    async def test(scene: Scene) -> None:
        publish(scene)

        assert not scene.broker.topics["t"].awaits_channels
        assert [] == scene.log

    play(test)


def test_nobody_to_ask_is_an_error(play):
    """When no nsqlookupd was ever reached, the log says that channels may be missing."""

    async def test(scene: Scene) -> None:
        publish(scene)

        assert not scene.broker.topics["t"].awaits_channels
        text = "no available nsqlookupd to query for channels to pre-create for topic t"
        assert any(text in line for line in scene.log)

    play(test, "lookups:4160")


def test_too_many_channels(play, monkeypatch):
    """An nsqlookupd can't make nsqd create any number of channels."""
    monkeypatch.setattr(module, "MAX_CHANNELS", 2)

    async def test(scene: Scene) -> None:
        await ask(scene)
        scene.cluster.say("a", "b", "c")
        await scene.lookup.wait_for_channels()

        assert ["a", "b"] == [*scene.broker.topics["t"].channels]
        assert any("names 3 channels; only 2 are made" in line for line in scene.log)

    play(test, "10.0.0.1:4160")


def test_stopped_lookup_hears_no_more(play):
    """After the stop the broker goes on without it."""

    async def test(scene: Scene) -> None:
        await scene.until(scene.endpoints)
        await scene.lookup.stop()
        publish(scene)

        assert not scene.broker.topics["t"].awaits_channels
        assert [] == scene.cluster.asked

    play(test, "10.0.0.1:4160")
