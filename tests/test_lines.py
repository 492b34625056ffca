"""Text made harmless, and the thread that writes lines."""

import os
import re
import threading

import pytest

from nsqkit.lines import LineWriter, cut, harmless


@pytest.fixture
def pipe():
    """The two ends of a pipe: read, write."""
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


@pytest.fixture
def make(pipe):
    """Makes a writer to the pipe."""
    made: list[LineWriter] = []

    def writer(limit=1000, **more):
        made.append(LineWriter(pipe[1], lambda count: f"({count} dropped)\n", limit, **more))
        return made[-1]

    yield writer
    for one in made:
        assert one.flush(20)


def drain(descriptor, until):
    """What comes until a text has come."""
    text = b""
    while until not in text:
        text += os.read(descriptor, 65536)
    return text.decode()


@pytest.mark.parametrize(
    "text,shown",
    [
        ("a\nb", r"a\nb"),
        ("a\r\x1b[2Jb", r"a\r\x1b[2Jb"),
        ("a\x00\x7f\x85b", r"a\x00\x7f\x85b"),
        ("a\u2028b", r"a\u2028b"),
        ("a\u202eb\u2066c\u200bd\ufeff", r"a\u202eb\u2066c\u200bd\ufeff"),
        ("half \ud800", r"half \ud800"),
        ("tab\tand \N{MICRO SIGN}s stay", "tab\tand \N{MICRO SIGN}s stay"),
    ],
)
def test_what_is_not_printable_is_escaped(text, shown):
    """Control characters drive no terminal, bidi and invisible ones hide nothing."""
    assert shown == harmless(text)


def test_long_text_is_cut():
    """The beginning stays, and how much is missing is said."""
    assert "abc" == cut("abc", 3)
    assert "abc... and 2 characters more" == cut("abcde", 3)


def test_lines_are_written_in_order(pipe, make):
    """Flushing waits until everything that was put is out; half a surrogate pair is an escape."""
    writer = make()

    writer.put("caf\N{LATIN SMALL LETTER E WITH ACUTE}\n")
    writer.put("half of a pair: \ud800\n")

    assert writer.flush(20)
    expected = "caf\N{LATIN SMALL LETTER E WITH ACUTE}\nhalf of a pair: \\ud800\n"
    assert expected.encode() == os.read(pipe[0], 1000)


def test_stuck_reader_holds_nobody_up(pipe, make):
    """While nobody reads, lines are dropped and counted instead of waited for; reading brings them, and the count."""
    writer = make(limit=100_000)
    for number in range(500):
        writer.put(f"{number}" + "." * 1000 + "\n")  # several times what a pipe and the writer hold

    assert not writer.flush(0.01)  # gives up

    text, dropped = "", 0
    while text.count("\n") - text.count(" dropped)\n") + dropped < 500:
        text += drain(pipe[0], b"\n")
        dropped = sum(int(count) for count in re.findall(r"^\((\d+) dropped\)$", text, re.MULTILINE))
    numbers = [int(number) for number in re.findall(r"^(\d+)\.{1000}$", text, re.MULTILINE)]
    assert dropped > 0
    assert 500 - dropped == len(numbers)
    assert numbers == sorted(numbers)

    writer.put("later\n")
    assert "later\n" == drain(pipe[0], b"\n")
    assert dropped == writer.dropped_count


def test_shared_non_blocking_descriptor_gets_everything(pipe, make):
    """A descriptor that somebody set to non-blocking is waited for, and stays as it is."""
    os.set_blocking(pipe[1], False)
    writer = make(limit=1_000_000)
    for _ in range(90):
        writer.put("x" * 4999 + "\n")
    writer.put("end\n")

    assert 91 == drain(pipe[0], b"end\n").count("\n")
    assert not os.get_blocking(pipe[1])


def test_what_a_broken_sink_refuses_is_counted():
    """When the reader has gone, lines are thrown away; whoever reads the descriptor next learns how many."""
    reader, descriptor = os.pipe()
    os.close(reader)
    try:
        writer = LineWriter(descriptor, lambda count: f"({count} dropped)\n")
        writer.put("into the void\n")
        assert writer.flush(20)

        reader, fresh = os.pipe()
        os.dup2(fresh, descriptor)
        os.close(fresh)
        writer.put("heard\n")
        assert writer.flush(20)
        assert b"heard\n(1 dropped)\n" == os.read(reader, 100)
        assert 1 == writer.dropped_count
    finally:
        os.close(reader)
        os.close(descriptor)


def test_idle_thread_asks_and_ends(pipe, make):
    """A thread with nothing to write asks whether there is something to say, and ends; the next line is written."""
    asked = threading.Event()
    writer = make(idle=asked.set, idle_s=0.001)

    writer.put("one\n")
    assert asked.wait(20)
    writer.put("two\n")

    assert "one\ntwo\n" == drain(pipe[0], b"two\n")


def test_without_a_thread_lines_wait_for_one(pipe, make, monkeypatch):
    """If the system has no thread left, nothing fails, and the next line that finds one brings the earlier ones."""

    def refuse(_):
        raise RuntimeError("can't start new thread")

    writer = make()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        writer.put("one\n")
        assert writer.flush(20)
    writer.put("two\n")

    assert "one\ntwo\n" == drain(pipe[0], b"two\n")
