"""The thread that writes."""

import os

import pytest

from nsqkit.up.lines import Outbox
from nsqkit.up.terminal import Terminal


@pytest.fixture
def pipe():
    """The two ends of a pipe: read, write."""
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


@pytest.fixture
def outbox():
    """Where the lines come from."""
    return Outbox(lambda count: f"({count} dropped)\n", limit=100)


def test_lines_are_written_before_the_end(pipe, outbox):
    """Closing writes everything that was put."""
    terminal = Terminal(pipe[1], outbox)

    outbox.put("caf\N{LATIN SMALL LETTER E WITH ACUTE}\n")
    outbox.put("half of a pair: \ud800\n")
    terminal.close(timeout_s=20)

    assert "caf\N{LATIN SMALL LETTER E WITH ACUTE}\nhalf of a pair: \\ud800\n".encode() == os.read(
        pipe[0], 1000
    )


def test_stuck_terminal_holds_nobody_up(pipe, outbox):
    """While nobody reads, lines are dropped and counted instead of waited for; reading brings them, and the count."""
    terminal = Terminal(pipe[1], outbox)
    for number in range(500):
        outbox.put(f"{number}" + "." * 1000 + "\n")  # several times what a pipe holds

    terminal.close(timeout_s=0.01)  # gives up

    text = b""
    while b" dropped)" not in text:
        text += os.read(pipe[0], 65536)
    terminal.close(timeout_s=20)
    lines = text.decode().splitlines()
    dropped = sum(int(line[1:].split()[0]) for line in lines if line.startswith("("))
    kept = [line for line in lines if not line.startswith("(")]
    assert 500 == len(kept) + dropped
    assert lines[0].startswith("0...")


def test_non_blocking_descriptor_gets_everything(pipe, outbox):
    """A descriptor that somebody set to non-blocking is waited for."""
    os.set_blocking(pipe[1], False)
    terminal = Terminal(pipe[1], outbox)
    for _ in range(90):
        outbox.put("x" * 4999 + "\n")
    outbox.close()

    text = b""
    while len(text) < 90 * 5000:
        text += os.read(pipe[0], 65536)

    terminal.close(timeout_s=20)
    assert 90 == text.count(b"\n")


def test_broken_pipe_is_ignored(outbox):
    """When the reader has gone, lines are thrown away and the end comes as usual."""
    read, write = os.pipe()
    os.close(read)
    try:
        terminal = Terminal(write, outbox)
        outbox.put("into the void\n")
        terminal.close(timeout_s=20)

        assert not terminal._thread.is_alive()
    finally:
        os.close(write)
