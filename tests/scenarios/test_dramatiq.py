"""dramatiq's worker program, on our broker and a real nsqd."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import dramatiq

from nsqkit.contrib.dramatiq import NsqBroker
from tests.scenarios.client_servers import address_of
from tests.scenarios.conftest import WAIT_S

COUNT = 300
MODULE = """
import os, time
import dramatiq
from nsqkit.contrib.dramatiq import NsqBroker

broker = NsqBroker(os.environ["NSQD"])
dramatiq.set_broker(broker)

@dramatiq.actor
def note(number):
    time.sleep(0.02)
    with open(os.environ["NOTES"], "a") as notes:
        notes.write(f"{number}\\n")
"""


def test_workers_that_are_stopped_and_others_process_each_message_once(launch, tmp_path):
    """Two processes are told to stop amid 300 messages, and others process the rest: none is lost, none comes twice."""
    nsqd = launch(http=True)
    notes = tmp_path / "notes"
    notes.touch()
    (tmp_path / "jobs.py").write_text(MODULE)
    broker = NsqBroker(address_of(nsqd))
    for number in range(COUNT):
        broker.enqueue(dramatiq.Message("default", "note", (number,), {}, {}))
    broker.close()

    workers = start_workers(tmp_path, NSQD=address_of(nsqd), NOTES=str(notes))
    wait_for(lambda: count(notes) > COUNT // 10)
    workers.send_signal(signal.SIGTERM)
    _, log = workers.communicate(timeout=WAIT_S)
    assert count(notes) < COUNT, log
    workers = start_workers(tmp_path, NSQD=address_of(nsqd), NOTES=str(notes))
    try:
        wait_for(lambda: count(notes) >= COUNT)
    finally:
        workers.send_signal(signal.SIGTERM)
        _, log = workers.communicate(timeout=WAIT_S)

    assert list(range(COUNT)) == sorted(map(int, notes.read_text().split())), log
    channel = json.loads(nsqd.request("GET", "/stats?format=json")[1])["topics"][0]["channels"][0]
    assert (0, 0, 0) == (channel["depth"], channel["in_flight_count"], channel["timeout_count"])


def start_workers(directory: Path, **environment: str) -> "subprocess.Popen[str]":
    """Two processes of two threads."""
    return subprocess.Popen(
        [sys.executable, "-m", "dramatiq", "jobs", "--processes=2", "--threads=2"],
        cwd=directory,
        env=os.environ | environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def count(notes: Path) -> int:
    """How many messages were processed."""
    return notes.read_text().count("\n")


def wait_for(condition) -> None:
    """Return when it is so."""
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
