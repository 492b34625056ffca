"""Lines of many processes: cut and labelled."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsqkit.json_line import MOST, json_line
from nsqkit.up.lines import LINE_LIMIT, Labels, Objects, Splitter, plain


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_chunks_make_no_difference(size):
    """The same lines come out whatever the pieces are that the pipe delivers."""
    data = "one\n\ntwo \N{EURO SIGN}\r\nthree".encode()
    splitter = Splitter()

    lines = [line for at in range(0, len(data), size) for line in splitter.feed(data[at : at + size])]

    assert ["one", "", "two \N{EURO SIGN}"] == lines
    assert ["three"] == splitter.end()
    assert [] == splitter.end()


def test_long_line_is_cut():
    """A line keeps its first bytes, and tells how many are missing; the next one is whole."""
    splitter = Splitter(limit=5)

    assert [] == splitter.feed(b"abc")
    assert ["abcde ... and 4 bytes more", "next"] == splitter.feed(b"defg") + splitter.feed(b"hi\nnext\n")


@given(st.binary(max_size=60), st.integers(1, 9))
def test_nothing_is_kept_beyond_the_limit(data, limit):
    """A process that never ends its line costs no more memory than one line may have."""
    splitter = Splitter(limit)

    splitter.feed(data)

    assert len(splitter._line) <= limit


def test_terminal_is_not_driven():
    """Control characters are shown, not carried out; broken UTF-8 is replaced."""
    assert ["\\x1b[2J\tok \ufffd"] == Splitter().feed(b"\x1b[2J\tok \xff\n")


def test_labels_are_padded():
    """Names take the same width, so that lines begin in one column."""
    labels = Labels(["up", "nsqd-10"], colour=False)

    assert "up      | ready\n" == labels.put("up", "ready")
    assert "nsqd-10 | ready\n" == labels.put("nsqd-10", "ready")


def test_each_process_has_its_colour():
    """With colour, our own label is bold and the others differ; the text has none."""
    names = ["up", *(f"nsqd-{number}" for number in range(64))]
    labels = Labels(names, colour=True)

    assert "\x1b[1mup      |\x1b[0m text\n" == labels.put("up", "text")
    assert "\x1b[36mnsqd-0  |\x1b[0m text\n" == labels.put("nsqd-0", "text")
    assert "\x1b[32mnsqd-1  |\x1b[0m text\n" == labels.put("nsqd-1", "text")
    assert "\x1b[36mnsqd-10 |\x1b[0m text\n" == labels.put("nsqd-10", "text")


def test_objects_are_passed_on():
    """What a program of ours writes as JSON is left as it is, and fits into a line whole."""
    line = json_line(0, "info", "nsqd-1", "a", {"topic": "t"})

    assert line == Objects().put("nsqd-1", line.rstrip())
    assert MOST <= LINE_LIMIT


@pytest.mark.parametrize(
    "line", ["Traceback (most recent call last):", "{}", '{"ts":1', "", '{"ts":1,"msg":2}']
)
def test_what_is_no_object_becomes_one(line):
    """A reader of JSON can take every line."""
    got = json.loads(Objects(lambda: 0).put("nsqd-1", line))

    assert {
        "ts": "1970-01-01T00:00:00.000000Z",
        "level": "error",
        "program": "nsqd-1",
        "msg": line,
    } == got


def test_plain_text_of_a_line():
    """Of an object it is the message, of anything else the line itself."""
    assert "a\nb" == plain(json_line(0, "fatal", "nsqd", "a\nb", {}).rstrip())
    assert "x" == plain("x")
