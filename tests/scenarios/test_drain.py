"""A real nsqd is taken out of service."""

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from nsqkit import Nsqd, NsqdOptions
from nsqkit.errors import NotKept
from nsqkit.log import Log
from tests.scenarios.conftest import Client, Daemon, command


def begin(nsqd: Daemon, how: str) -> None:
    """Have it drain."""
    if how == "signal":
        nsqd.send_signal(signal.SIGTERM)
        nsqd.wait_for("DRAIN: publishes are refused")
    else:
        assert (200, b"true") == nsqd.request("PUT", "/config/drain", how.encode())


def refused(client: Client, line: str, body: bytes | None = None) -> str:
    """The error that answers this command."""
    client.send(command(line, body=body))
    return client.error()


@pytest.mark.parametrize("how", ["signal", "", "true"])
@pytest.mark.parametrize("mode", ["memory", "os", "fsync"])
def test_it_ends_when_consumers_have_everything(launch, how, mode):
    """Nothing comes in, /ping takes it out of rotation, consumers go on, new ones too; after the last FIN it ends."""
    nsqd = launch("--sigterm=drain", "--drain-timeout=0", f"--durability={mode}", http=True)
    publisher = nsqd.connect()
    publisher.publish("t", b"1", b"2", b"3")
    publisher.publish("lonely", b"4")
    consumer = nsqd.consumer("t", ready=1)
    first = consumer.message()

    begin(nsqd, how)

    assert "E_PUB_FAILED PUB failed draining" == refused(publisher, "PUB t", b"x")
    assert "E_MPUB_FAILED MPUB failed draining" == refused(nsqd.connect(), "MPUB t", b"\0\0\0\1\0\0\0\1x")
    assert "E_DPUB_FAILED DPUB failed draining" == refused(nsqd.connect(), "DPUB t 5", b"x")
    assert "E_PUB_FAILED PUB failed draining" == refused(nsqd.connect(), "PUB new", b"x")
    assert "E_SUB_FAILED SUB failed draining" == refused(nsqd.connect(), "SUB new ch")
    assert "E_SUB_FAILED SUB failed draining" == refused(nsqd.connect(), "SUB t another")
    assert (503, b'{"message":"DRAINING"}') == nsqd.request("POST", "/pub?topic=t", b"x")
    assert (503, b'{"message":"DRAINING"}') == nsqd.request("POST", "/mpub?topic=new", b"x\ny")
    assert (503, b'{"message":"DRAINING"}') == nsqd.request("POST", "/topic/create?topic=new")
    assert (200, b"") == nsqd.request("POST", "/topic/create?topic=t")
    assert (503, b"NOK - draining") == nsqd.request("GET", "/ping")
    assert json.loads(nsqd.request("GET", "/info")[1])["draining"] is True
    assert (200, b"true") == nsqd.request("GET", "/config/drain")
    if how == "true":  # as in a preStop hook, which the signal follows
        nsqd.send_signal(signal.SIGTERM)

    consumer.finish(first.id)
    assert [b"2", b"3"] == [message.body for message in consumer.messages(2)]
    assert [b"4"] == [message.body for message in nsqd.consumer("lonely").messages(1)]
    assert 0 == nsqd.wait()
    assert "INFO: DRAIN: every message is finished, after " in nsqd.log()


def test_what_is_left_when_the_time_is_over(launch):
    """Deferred, waiting and in flight: it is counted, kept, and delivered after the next start."""
    nsqd = launch("--sigterm=drain", "--drain-timeout=50ms", http=True)
    client = nsqd.connect()
    client.defer("t", 3_000_000, b"deferred")
    client.publish("t", b"in flight", b"waiting")
    consumer = nsqd.consumer("t", ready=1)
    assert b"in flight" == consumer.message().body

    assert 0 == nsqd.stop()

    assert "3 messages are left: 1 waiting, 1 in flight, 1 deferred; " in nsqd.log()
    nsqd.start()
    assert {b"in flight", b"waiting"} == {one.body for one in nsqd.consumer("t").messages(2)}
    assert '"deferred_count":1' in nsqd.request("GET", "/stats?format=json")[1].decode()


def test_a_second_signal_ends_it_at_once(launch):
    """Clean, whatever is left, and nothing is lost."""
    nsqd = launch("--sigterm=drain", "--drain-timeout=0")
    nsqd.connect().publish("t", b"x")
    begin(nsqd, "signal")

    assert 0 == nsqd.stop(signal.SIGTERM)

    assert "NSQ: bye" in nsqd.log()
    assert [b"x"] == [one.body for one in nsqd.start().consumer("t").messages(1)]


def test_ctrl_c_ends_it_at_once(launch):
    """SIGINT does not drain."""
    nsqd = launch("--sigterm=drain", "--drain-timeout=0")
    nsqd.connect().publish("t", b"x")

    assert 0 == nsqd.stop(signal.SIGINT)

    assert "DRAIN" not in nsqd.log()


def test_the_hook_of_the_kubernetes_example(launch):
    """What preStop runs has nsqd drain, and the flags of the example have the signal after it wait for consumers."""
    files = YAML(typ="safe").load_all(Path(__file__).parents[2] / "deploy" / "kubernetes" / "nsq.yaml")
    (pod,) = [
        one["spec"]["template"]["spec"]
        for one in files
        if one["kind"] == "StatefulSet" and one["metadata"]["name"] == "nsqd"
    ]
    (container,) = pod["containers"]
    program, *arguments = container["lifecycle"]["preStop"]["exec"]["command"]
    flags = [flag for flag in container["args"] if "drain" in flag]
    nsqd = launch(*flags, http=True)
    nsqd.connect().publish("t", b"x")
    assert nsqd.http_address is not None

    run = [argument.replace(":4151/", f":{nsqd.http_address[1]}/") for argument in arguments]
    assert ("python", 0) == (
        program,
        subprocess.run([sys.executable, *run], check=False, timeout=60).returncode,
    )
    assert (503, b"NOK - draining") == nsqd.request("GET", "/ping")
    nsqd.send_signal(signal.SIGTERM)
    assert [b"x"] == [message.body for message in nsqd.consumer("t").messages(1)]

    assert 0 == nsqd.wait()
    assert pod["terminationGracePeriodSeconds"] > NsqdOptions(drain_timeout="90s").drain_timeout.seconds
    assert "--drain-timeout=90s" in flags


def test_a_shutdown_is_the_default(launch):
    """SIGTERM ends at once, also one that drains because somebody said so over HTTP."""
    nsqd = launch(http=True)
    nsqd.connect().publish("t", b"x")
    begin(nsqd, "true")

    assert 0 == nsqd.stop(signal.SIGTERM)

    assert "NSQ: bye" in nsqd.log()


def test_a_drain_can_not_be_taken_back(launch):
    """Anything but true is refused."""
    nsqd = launch(http=True)

    assert (400, b'{"message":"INVALID_VALUE"}') == nsqd.request("PUT", "/config/drain", b"false")
    assert (200, b"false") == nsqd.request("GET", "/config/drain")


def test_an_embedding_program_hears_of_the_end(tmp_path: Path):
    """`wait` returns; stopping is its own business."""
    lines: list[str] = []

    async def main() -> None:
        options = NsqdOptions(data_path=tmp_path, tcp_address="127.0.0.1:0", http_address="")
        async with Nsqd(options, Log(write=lines.append)) as nsqd:
            await nsqd.publish("t", b"x")
            nsqd.drain()
            nsqd.drain()
            with pytest.raises(NotKept, match="^draining$"):
                await nsqd.publish("t", b"y")
            nsqd.broker.topics["t"].empty()
            await nsqd.wait()

    asyncio.run(main())
