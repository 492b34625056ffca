"""A log line as one JSON object."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsqkit.json_line import MOST, json_line

SOME_TIME = 1_767_323_045_000_123_456  # ns; 2026-01-02


def test_what_is_in_it():
    """Time in UTC, level, program and text, then the fields; compact, in this order."""
    line = json_line(
        SOME_TIME,
        "info",
        "nsqd",
        "TOPIC(t): created",
        {"topic": "t", "count": 3, "new": True, "seconds": 0.5},
    )

    assert line == (
        '{"ts":"2026-01-02T03:04:05.000123Z","level":"info","program":"nsqd","msg":"TOPIC(t): created",'
        '"topic":"t","count":3,"new":true,"seconds":0.5}\n'
    )


def test_a_program_without_a_name_is_left_out():
    """Whoever wants no prefix gets no program."""
    assert ["ts", "level", "msg"] == list(json.loads(json_line(0, "warn", "", "x", {})))


@given(st.text(max_size=600), st.text(max_size=200))
def test_a_reader_gets_the_very_text(text, topic):
    """Whatever is in it, the line is one line of ASCII, and JSON."""
    line = json_line(SOME_TIME, "info", "nsqd", text, {"topic": topic})

    assert line.isascii()
    assert 1 == line.count("\n")
    got = json.loads(line)
    assert (text, topic) == (got["msg"], got["topic"])


@pytest.mark.parametrize("letter", ["x", "\n", "\x00", "\u202e", "\U0001f600", '"', "\\", "\udc80"])
@pytest.mark.parametrize("length", [4000, 4001, 1_000_000])
def test_a_line_is_bounded(letter, length):
    """In bytes, however they are written; what is missing is told, and fields are shortened before anything is lost."""
    fields = dict.fromkeys(("topic", "channel", "client", "uri", "nsqlookupd"), letter * 500)

    line = json_line(SOME_TIME, "error", letter * 500, letter * length, fields)

    assert len(line) <= MOST
    got = json.loads(line)
    assert got["msg"].endswith(" characters more") or length == 4000
    assert got["topic"].endswith(" characters more")


def test_half_characters_are_spelled_out():
    """A lone surrogate is no text that every reader takes."""
    assert "a\\udc80" == json.loads(json_line(0, "info", "", "a\udc80", {}))["msg"]
