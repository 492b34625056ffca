"""A broker without sockets, clock and disk, and clients that speak the protocol with it.

`node` owns the broker and runs its turns; `clock` stops at each of the broker's deadlines on its way; a `FakeLog` is a
topic's store in memory that can be told to fail. `flavour` says what is under the broker: nothing, or a store in one of
the durability modes; most tests run in all four.
"""

import random
from collections.abc import Callable, Iterator

import pytest

from nsqkit.nsqd.core.batch import Batch
from nsqkit.nsqd.core.broker import Broker
from nsqkit.nsqd.core.settings import Settings
from tests.nsqd.core.fake_store import FakeLog
from tests.nsqd.core.flavours import FLAVOURS
from tests.nsqd.core.node import Client, Clock, Node


@pytest.fixture(params=list(FLAVOURS))
def flavour(request) -> str:
    """What is under the broker. Parametrize it indirectly to choose."""
    return str(request.param)


@pytest.fixture
def settings() -> Settings:
    """The broker's options; to be changed before topics are made."""
    settings = Settings()
    settings.random = random.Random(1)
    return settings


@pytest.fixture
def clock() -> Clock:
    """The time."""
    return Clock()


@pytest.fixture
def node(flavour: str, settings: Settings, clock: Clock) -> Iterator[Node]:
    """A broker and its surroundings. In the end every channel must be in order."""
    node = Node(flavour, settings, clock)
    yield node
    node.check()


@pytest.fixture
def broker(node: Node) -> Broker:
    """The broker; after a restart it is another one."""
    return node.broker


@pytest.fixture
def client(node: Node) -> Client:
    """A connection that said the magic."""
    return node.client()


@pytest.fixture
def consumer(node: Node) -> Client:
    """A connection for subscribing."""
    return node.client("10.0.0.2:4321")


@pytest.fixture
def publish(node: Node) -> Callable[..., Batch]:
    """Publish bodies to a topic, in one batch."""
    return node.publish


@pytest.fixture(scope="session")
def new_log() -> Callable[[], FakeLog]:
    """Make a topic's log."""
    return FakeLog


@pytest.fixture(scope="session")
def new_node() -> Callable[..., Node]:
    """Make a node for one example of a property test."""

    def make(flavour: str = "os", **options: object) -> Node:
        settings = Settings()
        settings.random = random.Random(1)
        for name, value in options.items():
            setattr(settings, name, value)
        return Node(flavour, settings, Clock())

    return make


@pytest.fixture(params=["whole", "byte by byte", "with a tail"])
def chunks(request) -> Callable[..., list[bytes]]:
    """Cut bytes into chunks; with a tail, the last two are joined by what comes next."""

    def cut(data: bytes, tail: bytes = b"NOP\n") -> list[bytes]:
        if request.param == "whole":
            return [data]
        if request.param == "byte by byte":
            return [data[i : i + 1] for i in range(len(data))]
        return [data + tail[:1], tail[1:]]

    return cut
