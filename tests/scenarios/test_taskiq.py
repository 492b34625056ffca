"""taskiq's worker program, on our broker and a real nsqd."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from nsqkit.contrib.taskiq import NsqBroker
from tests.scenarios.client_servers import address_of
from tests.scenarios.conftest import WAIT_S

COUNT = 300  # of 0.1 s, 10 at a time: 3 s, and the program notices within 1 s that it is to stop
MODULE = """
import asyncio, os
from nsqkit.contrib.taskiq import NsqBroker

broker = NsqBroker(os.environ["NSQD"])

@broker.task("note")
async def note(number: int) -> None:
    await asyncio.sleep(0.1)
    with open(os.environ["NOTES"], "a") as notes:
        notes.write(f"{number}\\n")
"""


def test_a_worker_that_is_stopped_and_another_run_each_task_once(launch, tmp_path):
    """A worker is told to stop amid 300 tasks, and another one runs the rest: no task is lost, and none runs twice."""
    nsqd = launch(http=True)
    notes = tmp_path / "notes"
    notes.touch()
    (tmp_path / "jobs.py").write_text(MODULE)
    asyncio.run(send(address_of(nsqd)))

    worker = start_worker(tmp_path, address_of(nsqd), notes)
    wait_for(lambda: count(notes) > 10)
    worker.send_signal(signal.SIGTERM)
    _, log = worker.communicate(timeout=WAIT_S)
    assert count(notes) < COUNT, log
    worker = start_worker(tmp_path, address_of(nsqd), notes)
    try:
        wait_for(lambda: count(notes) >= COUNT)
    finally:
        worker.send_signal(signal.SIGTERM)
        _, log = worker.communicate(timeout=WAIT_S)

    assert sorted(range(COUNT)) == sorted(map(int, notes.read_text().split())), log
    channel = json.loads(nsqd.request("GET", "/stats?format=json")[1])["topics"][0]["channels"][0]
    assert (0, 0, 0) == (channel["depth"], channel["in_flight_count"], channel["timeout_count"])


async def send(address: str) -> None:
    """Send the tasks, as a client of taskiq does that knows the task's name only."""
    broker = NsqBroker(address)

    @broker.task("note")
    def note(_: int) -> None: ...

    await broker.startup()
    await asyncio.gather(*(note.kiq(number) for number in range(COUNT)))
    await broker.shutdown()


def start_worker(directory: Path, address: str, notes: Path) -> "subprocess.Popen[str]":
    """One process that runs 10 tasks at a time."""
    return subprocess.Popen(
        [sys.executable, "-m", "taskiq", "worker", "jobs:broker", "--workers=1", "--max-async-tasks=10"],
        cwd=directory,
        env=os.environ | {"NSQD": address, "NOTES": str(notes)},
        stderr=subprocess.PIPE,
        text=True,
    )


def count(notes: Path) -> int:
    """How many tasks have run."""
    return notes.read_text().count("\n")


def wait_for(condition) -> None:
    """Return when it is so."""
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
