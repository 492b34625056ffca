"""Lines in NSQ's format, from a log that never fails."""

import os
import re
import subprocess
import sys

import pytest

from nsqkit.log import Level, Log, write_stderr

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


@pytest.mark.parametrize(
    "text,shown",
    [
        ("a\nb", r"a\nb"),
        ("a\r\x1b[2Jb", r"a\r\x1b[2Jb"),
        ("a\x00\x7f\x85b", r"a\x00\x7f\x85b"),
        ("a\u2028b", r"a\u2028b"),
        ("tab\tand \N{MICRO SIGN}s stay", "tab\tand \N{MICRO SIGN}s stay"),
    ],
)
def test_control_characters_are_escaped(text, shown, lines):
    """A peer cannot forge a line or drive a terminal."""
    Log(write=lines.append).info(text)

    assert lines[0].endswith(f" INFO: {shown}\n")
    assert 1 == lines[0].count("\n")


@pytest.mark.parametrize("error", [BrokenPipeError, ValueError("closed file"), BlockingIOError])
def test_broken_sink_is_ignored(error):
    """A log nobody can read does not stop the daemon."""

    def broken(_line):
        raise error

    Log(write=broken).error("x")


def test_stderr_takes_what_utf8_cannot_say(capfd):
    """Half a surrogate pair is written as an escape."""
    write_stderr("\ud800\n")

    assert "\\ud800\n" == capfd.readouterr().err


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
