"""The Celery app of test_celery.py. Each task writes a line to a file when it begins, and some when they end."""

import os
import time
from pathlib import Path

from celery import Celery

app = Celery("celery_tasks", broker=os.environ["BROKER"])
app.conf.update(
    broker_transport="nsqkit.contrib.kombu:Transport",
    broker_transport_options={"msg_timeout": "1s"},
    task_acks_late=True,
    worker_prefetch_multiplier=1,
)


def note(line: str) -> None:
    """Write a line."""
    with Path(os.environ["NOTES"]).open("a") as notes:
        notes.write(line + "\n")


@app.task  # type: ignore[untyped-decorator]  # Celery has no types
def say(word: str) -> None:
    """Say it."""
    note(word)


@app.task  # type: ignore[untyped-decorator]  # the same
def work(word: str, seconds: float) -> None:
    """Take a while."""
    note(f"{word} begins")
    time.sleep(seconds)
    note(f"{word} ends")


@app.task(bind=True, max_retries=3)  # type: ignore[untyped-decorator]  # the same
def third_time(self) -> None:
    """Fail twice."""
    note(f"try {self.request.retries}")
    if self.request.retries < 2:
        raise self.retry(countdown=0.1)
    say.delay("from a worker's child")
