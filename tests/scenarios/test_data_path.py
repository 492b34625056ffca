"""The nsqd program whose data path others change: moved away, taken away, cut short, or used for something else."""

import os
import shutil
import subprocess
import sys
import time

import pytest

from faults.machine import small_disk
from tests.scenarios.conftest import Daemon, command, program

WAIT_S = 20


def publish(nsqd: Daemon, body: bytes) -> tuple[int, bytes]:
    """Publish; the answer."""
    client = nsqd.connect()
    client.send(command("PUB orders", body))
    return client.frame()


def wait_until_logged(nsqd: Daemon, text: str) -> None:
    """The log is written by a thread."""
    deadline = time.monotonic() + WAIT_S
    while text not in nsqd.log():
        assert time.monotonic() < deadline, text
        time.sleep(0.01)


def wait_until_healthy(nsqd: Daemon) -> None:
    """Ask as a readiness probe does; nobody publishes meanwhile."""
    deadline = time.monotonic() + WAIT_S
    while nsqd.request("GET", "/ping") != (200, b"OK"):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("mode", ["os", "fsync"])
def test_the_data_path_is_moved_away(make_daemon, mode):
    """Publishes are refused with the cause, nothing is made in its place, and a second nsqd there harms nobody."""
    nsqd = make_daemon(f"--durability={mode}", http=True).start()
    nsqd.connect().publish("orders", b"one")
    away = nsqd.data_path.with_name("away")
    os.rename(nsqd.data_path, away)

    status, text = nsqd.request("GET", "/ping")
    reason = f"the data path {nsqd.data_path} can't be reached: no such file or directory"
    assert (500, f"NOK - {reason}") == (status, text.decode())
    assert (1, f"E_PUB_FAILED PUB failed {reason}".encode()) == publish(nsqd, b"lost")
    status, text = nsqd.request("POST", "/pub?topic=new", b"lost")
    assert status >= 500
    assert reason in text.decode()
    assert not nsqd.data_path.exists()
    wait_until_logged(nsqd, f"ERROR: STORAGE: {reason}")

    shutil.copytree(away, nsqd.data_path)  # what somebody might do to have it back
    assert "another directory" in nsqd.request("GET", "/ping")[1].decode()
    assert 1 == publish(nsqd, b"lost")[0]
    shutil.rmtree(nsqd.data_path)
    os.rename(away, nsqd.data_path)
    wait_until_healthy(nsqd)
    nsqd.connect().publish("orders", b"two")

    nsqd.kill()
    nsqd.start()
    assert [b"one", b"two"] == [message.body for message in nsqd.consumer("orders").messages(2)]


def test_a_data_path_that_can_only_be_read(make_daemon, tmp_path):
    """nsqd says why it does not start on it; `nsqkit export` takes everything out of it."""
    volume = tmp_path / "volume"
    with small_disk(volume, 8 << 20) as disk:
        if disk is None:
            pytest.skip("nothing may be mounted here")
        nsqd = make_daemon()
        nsqd.data_path = volume
        nsqd.start()
        nsqd.connect().publish_many("orders", [b"one", b"two"])
        assert 0 == nsqd.stop()
        subprocess.run(["mount", "-o", "remount,ro", str(volume)], check=True)

        command = [sys.executable, "-m", "nsqkit", "export", f"--data-path={volume}", f"--to={tmp_path}/out"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)
        assert (0, "orders: 2 messages\n2 messages in all\n", "") == (
            done.returncode,
            done.stdout,
            done.stderr,
        )

        address = "--tcp-address=127.0.0.1:0"
        started = subprocess.run(
            [*program(), f"--data-path={volume}", address, "--http-address="],
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
        assert 1 == started.returncode
        assert f"data-path {volume} is not writable: read-only file system" in started.stderr


def test_others_use_the_data_path_too(make_daemon):
    """Their directories are no topics, and their files stay as they are, also when a topic is deleted."""
    nsqd = make_daemon(http=True)
    web = nsqd.data_path / "web"
    web.mkdir()
    (web / "access.log").write_bytes(b"GET /\n")
    (web / "error.log").touch()
    (nsqd.data_path / "lost+found").mkdir()
    nsqd.start()
    assert b'"topics":[]' in nsqd.request("GET", "/stats?format=json")[1]

    nsqd.connect().publish("web", b"a topic of this name")
    assert 200 == nsqd.request("POST", "/topic/delete?topic=web")[0]

    assert ["access.log", "error.log"] == sorted(os.listdir(web))
    assert b"GET /\n" == (web / "access.log").read_bytes()
    assert 0 == nsqd.stop()
