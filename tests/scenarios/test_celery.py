"""Celery on NSQ: real workers that fork, killed and told to stop."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from faults.controls import Controls
from tests.scenarios.conftest import Daemon

HERE = Path(__file__).parent
WAIT_S = 30.0


class App:
    """The app of celery_tasks.py on one nsqd: its workers, and what its tasks have written."""

    def __init__(self, directory: Path, nsqd: Daemon) -> None:
        self.nsqd = nsqd
        self._directory = directory
        self._notes = directory / "notes"
        self._notes.touch()
        self._workers: list[subprocess.Popen[bytes]] = []
        self._env = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path]),
            "BROKER": f"nsq://{nsqd.address[0]}:{nsqd.address[1]}",
            "NOTES": str(self._notes),
        }

    def worker(self, name: str) -> subprocess.Popen[bytes]:
        """Start one with two children; wait until it consumes."""
        log = self._directory / f"{name}.log"
        with log.open("wb") as file:
            worker = subprocess.Popen(
                [*self._celery, "worker", "-c2", "-linfo", f"-n{name}@test", "--without-heartbeat"],
                stdout=file,
                stderr=file,
                env=self._env,
                cwd=self._directory,
                start_new_session=True,
            )
        self._workers.append(worker)
        until(lambda: "celery/celery: consuming" in log.read_text(), log.read_text)
        return worker

    def kill(self, worker: subprocess.Popen[bytes]) -> None:
        """End it and its children without a chance to do anything more."""
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait(WAIT_S)

    def call(self, code: str) -> str:
        """Run Python code that has the tasks; what it prints."""
        done = subprocess.run(
            [sys.executable, "-c", f"from celery_tasks import *\n{code}"],
            env=self._env,
            cwd=self._directory,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def inspect(self) -> dict[str, Any]:
        """What `celery inspect ping` says."""
        done = subprocess.run(
            [*self._celery, "inspect", "ping", "--json", "-t3"],
            env=self._env,
            cwd=self._directory,
            capture_output=True,
            timeout=WAIT_S,
            check=True,
        )
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    @property
    def _celery(self) -> list[str]:
        return [sys.executable, "-m", "celery", "-A", "celery_tasks"]

    def notes(self) -> Counter[str]:
        """The lines that tasks have written, and how often."""
        return Counter(self._notes.read_text().splitlines())

    def wait_for(self, line: str) -> None:
        """Return when a task has written this."""
        until(lambda: line in self.notes(), lambda: str(self.notes()))

    def channel(self) -> dict[str, Any]:
        """What nsqd says of the workers' channel."""
        _, body = self.nsqd.request("GET", "/stats?format=json&topic=celery&channel=celery")
        channel: dict[str, Any] = json.loads(body)["topics"][0]["channels"][0]
        return channel

    def close(self) -> None:
        """End what is left."""
        for worker in self._workers:
            if worker.poll() is None:
                self.kill(worker)


def until(condition: Callable[[], bool], explain: Callable[[], str]) -> None:
    """Return when it is so."""
    give_up = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < give_up, explain()
        time.sleep(0.01)


@pytest.fixture
def start_app(tmp_path: Path) -> Iterator[Callable[[Daemon], App]]:
    """Gives the app on an nsqd that runs."""
    apps: list[App] = []

    def start(nsqd: Daemon) -> App:
        apps.append(App(tmp_path, nsqd))
        return apps[-1]

    yield start
    for app in apps:
        app.close()


def test_a_day_of_workers(launch: Callable[..., Daemon], start_app: Callable[[Daemon], App]) -> None:
    """Tasks fail, start others, take ten times msg_timeout: each runs as often as it should, and nothing is left."""
    app = start_app(launch(http=True))
    app.call("for number in range(20): say.delay(f'word {number}')")  # before there is anybody
    first, second = app.worker("first"), app.worker("second")
    app.call("work.delay('long', 10); third_time.delay()")

    app.wait_for("from a worker's child")
    assert {"first@test", "second@test"} == app.inspect().keys()
    app.wait_for("long begins")
    for worker in (first, second):
        worker.send_signal(signal.SIGTERM)
    assert [0, 0] == [worker.wait(WAIT_S) for worker in (first, second)]

    once = ["long begins", "long ends", "try 0", "try 1", "try 2", "from a worker's child"]
    assert Counter(once + [f"word {number}" for number in range(20)]) == app.notes()
    channel = app.channel()
    assert (0, 0, 0) == (channel["depth"], channel["in_flight_count"], channel["deferred_count"])
    assert 0 == channel["timeout_count"]


def test_a_task_in_an_hour_outlives_everybody(
    tmp_path: Path, make_daemon: Callable[..., Daemon], start_app: Callable[[Daemon], App]
) -> None:
    """A task with a countdown of an hour waits in nsqd, through kills of nsqd and workers, and runs once, in time."""
    controls = Controls(tmp_path / "controls")
    daemon = make_daemon(http=True)
    daemon.program = [sys.executable, "-m", "faults.launcher", str(tmp_path / "controls")]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    app = start_app(daemon.start(env=env))
    worker = app.worker("one")
    app.call("say.apply_async(('later',), countdown=3600)")

    until(lambda: app.channel()["deferred_count"] == 1, lambda: str(app.channel()))
    assert 0 == app.channel()["in_flight_count"]  # no worker holds it
    app.kill(worker)
    daemon.kill()
    controls.set(shift_ns=3_500_000_000_000)
    daemon.start(env=env)
    worker = app.worker("two")
    app.call("say.delay('now')")
    app.wait_for("now")
    assert 1 == app.channel()["deferred_count"]

    app.kill(worker)
    daemon.kill()
    controls.set(shift_ns=3_601_000_000_000)
    daemon.start(env=env)
    app.worker("three")
    app.wait_for("later")

    until(lambda: app.channel()["in_flight_count"] == 0, lambda: str(app.channel()))
    assert 1 == app.notes()["later"]


def test_a_worker_that_dies_inside_a_task(
    launch: Callable[..., Daemon], start_app: Callable[[Daemon], App]
) -> None:
    """What a killed worker was working on is begun again by another one, and nothing else is; then nsqd dies."""
    app = start_app(launch(http=True))
    first = app.worker("first")
    app.call("say.delay('before'); work.delay('halfway', 2)")
    app.wait_for("halfway begins")
    app.wait_for("before")
    until(lambda: app.channel()["in_flight_count"] == 1, lambda: str(app.channel()))

    app.kill(first)
    app.worker("second")
    until(lambda: app.notes()["halfway begins"] == 2, lambda: str(app.notes()))
    assert 1 == app.notes()["before"]
    app.nsqd.kill()
    app.nsqd.start()
    app.call("say.delay('after')")
    app.wait_for("after")

    app.wait_for("halfway ends")
