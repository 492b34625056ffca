"""Shares of what clients sent, and what a pass may take."""

import pytest

from nsqkit.clock import Clock
from nsqkit.nsqd.backlog import BUDGET, MOST_LOGS, Backlog
from nsqkit.nsqd.core.broker import Broker
from nsqkit.nsqd.core.settings import Settings


class Time:
    """A clock that goes on by as much as each share takes."""

    def __init__(self):
        self.now = 0

    def take(self, log: list[str], name: str, shares: int, ns: int):
        """One with so many shares to execute."""
        left = shares

        def share(_: int) -> bool:
            nonlocal left
            left -= 1
            self.now += ns
            log.append(name)
            return left > 0

        return share


@pytest.fixture
def time():
    """Zero."""
    return Time()


@pytest.fixture
def broker():
    """One without a disk."""
    return Broker(Settings(), None)


@pytest.fixture
def backlog(broker, time):
    """Nobody waits."""
    return Backlog(broker, Clock(lambda: 0, lambda: time.now))


def test_round_robin(backlog, time):
    """Everybody has a share before anybody has the next one."""
    log: list[str] = []
    backlog.add(time.take(log, "a", 3, 1))
    backlog.add(time.take(log, "b", 1, 1))
    backlog.add(time.take(log, "c", 2, 1))

    backlog.work(0)

    assert list("abcaca") == log
    assert backlog.empty()


def test_time_of_a_pass(backlog, time):
    """When the time is up the others wait for the next pass, and are the first then."""
    log: list[str] = []
    backlog.add(time.take(log, "a", 9, BUDGET // 2))
    backlog.add(time.take(log, "b", 9, BUDGET // 2))
    backlog.add(time.take(log, "c", 1, 1))

    backlog.work(0)
    assert list("ab") == log
    assert not backlog.empty()
    backlog.work(time.now)

    assert list("abca") == log[:4]


def test_logs_of_a_pass(backlog, broker, time):
    """With many logs to be written, one more share is executed and no other."""
    log: list[str] = []
    for number in range(MOST_LOGS):
        broker.published.append(broker.topic(f"t{number}"))
    backlog.add(time.take(log, "a", 9, 1))

    backlog.work(0)

    assert ["a"] == log


def test_topics_of_a_pass(backlog, broker, time):
    """After a share that made a topic no other is executed: its files are to be made."""
    log: list[str] = []
    shares = time.take(log, "a", 9, 1)

    def makes_topics(now: int) -> bool:
        broker.topic(f"t{len(log)}")
        return bool(shares(now))

    backlog.add(makes_topics)

    backlog.work(0)

    assert ["a"] == log
