"""nsqd inside another program."""

import asyncio
import time
from pathlib import Path

import pytest
import uvloop

from nsqkit.errors import MessageTooLarge, NotKept
from nsqkit.log import Log
from nsqkit.nsqd.daemon import Nsqd
from nsqkit.nsqd.options import NsqdOptions
from nsqkit.version import compiled
from tests.scenarios.conftest import Client


@pytest.mark.parametrize("loop", [asyncio.run, uvloop.run])
def test_embedded(tmp_path, loop):
    """Two of them in one event loop, of either kind; they give everything back when they stop, and start again."""
    loop(two_embedded(tmp_path))


async def two_embedded(tmp_path: Path) -> None:
    """Publish to one nsqd, read from it, publish that to another; twice."""
    lines: list[str] = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    for _ in range(2):
        async with embedded(tmp_path / "one", lines) as one, embedded(tmp_path / "two", lines) as two:
            assert one.tcp_port != two.tcp_port
            await asyncio.to_thread(pass_on, one.tcp_port, two.tcp_port)
            waiting = asyncio.create_task(one.wait())
            await asyncio.sleep(0)
            assert not waiting.done()
        await waiting
        with pytest.raises(ConnectionRefusedError):
            Client(("127.0.0.1", one.tcp_port))
    assert 4 == sum("NSQ: bye" in line for line in lines)


def test_an_embedding_program_publishes(tmp_path):
    """Bodies published from inside are delivered, a deferred one later; an nsqd that does not run takes none."""
    asyncio.run(publish_embedded(tmp_path))


async def publish_embedded(tmp_path: Path) -> None:
    """Publish three messages to a consumer beside us."""
    lines: list[str] = []
    nsqd = embedded(tmp_path, lines)
    with pytest.raises(NotKept, match="nsqd is not running"):
        await nsqd.publish("orders", b"x")
    async with nsqd:
        begun = time.monotonic()
        await nsqd.publish("orders", b"later", delay=0.3)
        await nsqd.publish("orders", b"one", bytearray(b"two"))
        with pytest.raises(MessageTooLarge):
            await nsqd.publish("orders", bytes(nsqd.options.max_msg_size + 1))
        bodies = await asyncio.to_thread(consume, nsqd.tcp_port, 3)
        assert time.monotonic() - begun > 0.29
    assert [b"one", b"two", b"later"] == bodies
    with pytest.raises(NotKept, match="nsqd is not running"):
        await nsqd.publish("orders", b"x")
    assert compiled() != any("WARNING: BUILD: nsqd is not compiled" in line for line in lines)


def consume(port: int, count: int) -> list[bytes]:
    """The next bodies of topic orders."""
    client = Client(("127.0.0.1", port))
    client.subscribe("orders", "ch")
    bodies = [message.body for message in client.messages(count)]
    client.close()
    return bodies


def embedded(path: Path, lines: list[str]) -> Nsqd:
    """An nsqd that says to `lines` what it has to say."""
    options = NsqdOptions(data_path=path, tcp_address="127.0.0.1:0", http_address="")
    return Nsqd(options, Log("", write=lines.append))


def pass_on(source: int, target: int) -> None:
    """Publish to the one, consume that, and publish it to the other; consume it there."""
    clients = [Client(("127.0.0.1", port)) for port in (source, source, target, target)]
    try:
        clients[0].publish("orders", b"one", b"two")
        clients[1].subscribe("orders", "ch")
        bodies = [message.body for message in clients[1].messages(2)]
        clients[1].sync()
        clients[2].publish("orders", *bodies)
        clients[3].subscribe("orders", "ch")
        assert [b"one", b"two"] == [message.body for message in clients[3].messages(2)]
        clients[3].sync()
    finally:
        for client in clients:
            client.close()
