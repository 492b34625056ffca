"""Log lines that go to the `logging` module."""

import logging

import pytest

from nsqkit.log import Level
from nsqkit.logger import LoggerLog


class Kept(logging.Handler):
    """Keeps what it is given."""

    def __init__(self):
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record):
        """Keep one record."""
        self.records.append(record)


@pytest.fixture
def kept():
    """What the logger was given."""
    return Kept()


@pytest.fixture
def logger(kept):
    """A logger that stands by itself."""
    logger = logging.Logger("broker")  # noqa: LOG001
    logger.addHandler(kept)
    return logger


def test_each_level_is_that_of_logging(logger, kept):
    """Lines come with logging's number for their level, and without a time of ours."""
    log = LoggerLog(logger)

    for method in (log.debug, log.info, log.warning, log.error, log.fatal):
        method("100 % sure")

    levels = [logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL]
    assert levels == [record.levelno for record in kept.records]
    assert {"100 % sure"} == {record.getMessage() for record in kept.records}


def test_both_levels_count(logger, kept):
    """A line goes on if the log and the logger want it, and `enabled` says so beforehand."""
    log = LoggerLog(logger)
    logger.setLevel(logging.INFO)
    log.level = Level.ERROR

    log.warning("below the log's level")
    log.error("wanted")
    log.level = Level.DEBUG
    log.debug("below the logger's level")

    assert ["wanted"] == [record.getMessage() for record in kept.records]
    assert not log.enabled(Level.DEBUG)
    assert log.enabled(Level.INFO)


def test_a_peer_cannot_forge_a_line(logger, kept):
    """Control characters are escaped before a handler writes them."""
    LoggerLog(logger).info("name\nERROR: \x1b[2J")

    assert r"name\nERROR: \x1b[2J" == kept.records[0].getMessage()


def test_what_a_line_is_about_is_in_the_record(logger, kept):
    """As a dict of fields, whose texts are cut; a complaint that was repeated says how often."""
    log = LoggerLog(logger)

    log.info("TOPIC(t): created", topic="t")
    log.error("sick", client="c" * 300, count=7)
    log.error("sick")
    log.flush()

    assert [
        {"topic": "t"},
        {"client": "c" * 200 + "... and 100 characters more", "count": 7},
        {"repeated": 1},
    ] == [record.fields for record in kept.records]
