"""Real programs with --log-format=json: every line is one object."""

import json
import signal
from typing import Any

from tests.scenarios.conftest import Daemon, command
from tests.scenarios.test_nsqlookupd import Lookupd
from tests.scenarios.test_up import Up, until


def objects(text: str) -> list[dict[str, Any]]:
    """The lines."""
    got = [json.loads(line) for line in text.splitlines()]
    assert all({"ts", "level", "program", "msg"} <= one.keys() for one in got)
    return got


def only(got: list[dict[str, Any]], beginning: str) -> dict[str, Any]:
    """The line that begins with this."""
    (one,) = [one for one in got if one["msg"].startswith(beginning)]
    return one


def test_nsqd_and_nsqlookupd(tmp_path):
    """From the first line to the last, with fields for what each is about."""
    lookupd = Lookupd(tmp_path / "lookupd", "--log-format=json", http=True).start()
    assert not isinstance(lookupd.address, str)
    flags = [
        "--log-format=json",
        "--log-level=debug",
        f"--lookupd-tcp-address=127.0.0.1:{lookupd.address[1]}",
    ]
    nsqd = Daemon(tmp_path / "nsqd", *flags, http=True)
    try:
        nsqd.start()
        client = nsqd.connect()
        client.publish("orders", b"x")
        client.subscribe("orders", "billing")
        client.messages(1)
        client.send(command("NONSENSE \x1b[2J"))
        assert client.error().startswith("E_INVALID")
        nsqd.request("GET", "/stats?topic=orders")
        nsqd.wait_for("exiting ioloop")
        lookupd.wait_for("subkey:billing")
        nsqd.send_signal(signal.SIGHUP)
        nsqd.wait_for("SIGHUP: ignored")
        assert 0 == nsqd.stop()
        assert 0 == lookupd.stop()

        got = objects(nsqd.log())
        assert {"nsqd"} == {one["program"] for one in got}
        assert "orders" == only(got, "TOPIC(orders): created")["topic"]
        channel = only(got, "TOPIC(orders): new channel")
        assert ("orders", "billing") == (channel["topic"], channel["channel"])
        failed = next(one for one in got if one["level"] == "error" and "E_INVALID" in one["msg"])
        assert failed["client"] == only(got, "TCP: new client(")["client"]
        request = only(got, "200 GET /stats")
        assert (200, "GET", "/stats?topic=orders") == (request["status"], request["method"], request["uri"])
        assert "warn" == only(got, "SIGHUP: ignored")["level"]
        assert "NSQ: bye" == got[-1]["msg"]
        registered = [one for one in objects(lookupd.log()) if one.get("channel") == "billing"]
        assert ["orders"] * len(registered) == [one["topic"] for one in registered]
        assert registered
    finally:
        nsqd.close()
        lookupd.close()


def test_nsqkit_up(tmp_path):
    """No table, and every line names its program."""
    up = Up(tmp_path).start("--nsqd=2", "--log-format=json")
    try:
        until("all listen", lambda: up.log().count("TCP: listening on ") == 3)
        up.process.send_signal(signal.SIGTERM)
        assert 0 == up.process.wait(60)

        got = objects(up.log())
        assert {"up", "nsqlookupd", "nsqd-1", "nsqd-2"} == {one["program"] for one in got}
        assert "everything has stopped" == got[-1]["msg"]
    finally:
        up.process.kill()
