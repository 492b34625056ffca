"""Lines in NSQ's format, from a log that never fails."""

import json
import os
import re
import subprocess
import sys

import pytest

from nsqkit.log import Format, Level, Log

SOME_TIME = 1_767_323_045_000_123_456  # ns; 2026-01-02, the hour depends on the time zone


@pytest.fixture
def lines():
    """What was written."""
    return []


def test_line_has_the_format_of_nsq(lines):
    """A line is prefix, date, time with microseconds, level and text."""
    Log("[nsqd] ", write=lines.append, now=lambda: SOME_TIME).info("TCP: listening on 127.0.0.1:4150")

    [line] = lines
    assert re.fullmatch(
        r"\[nsqd\] 2026/01/0\d \d\d:\d\d:05\.000123 INFO: TCP: listening on 127\.0\.0\.1:4150\n", line
    )


def test_fields_are_for_other_readers(lines):
    """The text says it all, so they are not in it."""
    Log(write=lines.append).info("TOPIC(t): created", topic="t")

    assert lines[0].endswith(" INFO: TOPIC(t): created\n")


def test_levels_have_the_names_of_nsq(lines):
    """Each method writes its level's name."""
    log = Log(level=Level.DEBUG, write=lines.append)

    for method in (log.debug, log.info, log.warning, log.error, log.fatal):
        method("x")

    assert ["DEBUG", "INFO", "WARNING", "ERROR", "FATAL"] == [line.split()[2].rstrip(":") for line in lines]


def test_level_can_be_changed_while_running(lines):
    """Lines below the level are dropped, and the level may change."""
    log = Log(write=lines.append)

    log.debug("before")
    log.level = Level.DEBUG
    log.debug("after")

    assert ["after\n"] == [line.rsplit(" ", 1)[1] for line in lines]
    assert log.enabled(Level.DEBUG)


def test_line_cannot_be_forged(lines):
    """What is not printable is escaped, and a long line is cut."""
    log = Log(write=lines.append)

    log.info("a\nb\x1b[2J\u202e")
    log.info("x" * 5000)

    assert lines[0].endswith(" INFO: a\\nb\\x1b[2J\\u202e\n")
    assert lines[1].endswith("xxx... and 904 characters more\n")


class Repeating:
    """A log, its lines without their time, and its clock."""

    def __init__(self):
        self.now = SOME_TIME
        self.lines: list[str] = []
        self.log = Log(write=lambda line: self.lines.append(line.split(" ", 2)[2]), now=lambda: self.now)


@pytest.fixture
def repeating():
    """A log."""
    return Repeating()


def test_repeated_complaint_is_said_once(repeating):
    """The same text is said once; the first line after ten seconds is preceded by how often it came again."""
    for _ in range(5):
        repeating.log.error("no space")
    repeating.log.warning("another")
    repeating.now += 10_000_000_000
    repeating.log.error("no space")

    assert [
        "ERROR: no space\n",
        "WARNING: another\n",
        "ERROR: no space (repeated 4 times)\n",
        "ERROR: no space\n",
    ] == repeating.lines


def test_complaints_of_a_kind_are_limited_together(repeating):
    """Ten of a kind are said, whatever their texts; any line brings the count of the others when the time is over."""
    for number in range(15):
        repeating.log.error(f"[10.0.0.1:{number}] - E_INVALID", kind="E_INVALID")
    repeating.now += 10_000_000_000
    repeating.log.info("later")

    assert [f"ERROR: [10.0.0.1:{number}] - E_INVALID\n" for number in range(10)] == repeating.lines[:10]
    assert ["ERROR: E_INVALID (repeated 5 times)\n", "INFO: later\n"] == repeating.lines[10:]


def test_kinds_are_bounded(repeating):
    """Who makes up a new text each time fills the table of kinds, and then shares one kind with all others."""
    for number in range(1000):
        repeating.log.error(f"text {number}")
    repeating.log.flush()

    assert 100 + 10 + 1 == len(repeating.lines)
    assert "ERROR: other complaints (repeated 890 times)\n" == repeating.lines[-1]


def test_what_is_normal_is_not_limited(repeating):
    """INFO lines are all said."""
    for _ in range(20):
        repeating.log.info("TCP: new client")

    assert 20 == len(repeating.lines)


def test_repetitions_are_said_at_the_end(repeating):
    """Flushing says how often complaints were repeated."""
    repeating.log.warning("odd")
    repeating.log.warning("odd")
    repeating.log.flush()

    assert ["WARNING: odd\n", "WARNING: odd (repeated 1 times)\n"] == repeating.lines


@pytest.mark.parametrize("error", [BrokenPipeError, ValueError("closed file"), BlockingIOError])
def test_broken_sink_is_ignored(error):
    """A log nobody can read does not stop the daemon."""

    def broken(_line):
        raise error

    Log(write=broken).error("x")


def test_stderr_is_the_default(capfd):
    """Without `write` lines go to file descriptor 2; a FATAL one is there when `fatal` returns."""
    log = Log("[x] ")
    log.fatal("why")

    assert capfd.readouterr().err.endswith(" FATAL: why\n")
    assert 0 == log.dropped_count


def test_closed_descriptors_are_not_reused():
    """A program started without stdout and stderr does not log into the first file it opens."""
    code = (
        "import os; from nsqkit.log import Log, keep_standard_descriptors_open as keep;"
        "keep(); print('unseen'); Log().error('unseen');"
        "os._exit(0 if os.open('/dev/null', os.O_RDONLY) > 2 else 1)"
    )

    def close_standard_descriptors():
        os.close(1)
        os.close(2)

    done = subprocess.run([sys.executable, "-c", code], preexec_fn=close_standard_descriptors, check=False)

    assert 0 == done.returncode


def test_lines_as_json(lines):
    """Each is an object with a word for its level, the program that the prefix names, and its fields."""
    log = Log("[nsqd] ", Level.DEBUG, lines.append, lambda: SOME_TIME, Format.JSON)

    for method in (log.debug, log.info, log.warning, log.error, log.fatal):
        method("a\nb", **({} if method == log.fatal else {"topic": "t"}))

    got = [json.loads(line) for line in lines]
    assert ["debug", "info", "warn", "error", "fatal"] == [one["level"] for one in got]
    assert {"a\nb"} == {one["msg"] for one in got}
    assert {"nsqd"} == {one["program"] for one in got}
    assert ["t"] * 4 == [one["topic"] for one in got[:4]]
    assert {"2026-01-02T03:04:05.000123Z"} == {one["ts"] for one in got}


def test_repeated_complaints_as_json(lines):
    """The number is a field."""
    log = Log("", write=lines.append, now=lambda: SOME_TIME, format=Format.JSON)

    for _ in range(3):
        log.error("sick", client="c")
    log.flush()

    first, last = map(json.loads, lines)
    assert ("c", "sick (repeated 2 times)", 2) == (first["client"], last["msg"], last["repeated"])
