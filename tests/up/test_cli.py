"""The command line of `nsqkit up`: what is refused before anything runs, and signals. Running it is a scenario."""

import asyncio
import os
import signal

import pytest

from nsqkit import __main__ as program
from nsqkit.log import Log
from nsqkit.up import cli
from nsqkit.up.supervisor import Supervisor
from nsqkit.version import version_line


def test_help(capsys):
    """--help tells our flags, and where those of nsqd go."""
    assert 0 == program.main(["up", "--help"])

    printed = capsys.readouterr().out
    assert printed.startswith("Runs nsqlookupd and nsqd on this machine")
    assert all(flag in printed for flag in ("--nsqd int", "--data-path", "--host", "--base-port", "--config"))
    assert "nsqkit up --nsqd 3 -- --mem-queue-size=0" in printed
    assert "without effect" not in printed


def test_version(capsys):
    """--version prints one line."""
    assert 0 == cli.main(["-version"])
    assert version_line("nsqkit up") + "\n" == capsys.readouterr().out


def test_flags_after_two_dashes_are_not_ours():
    """The first -- ends our flags; everything after it is for nsqd."""
    assert (["--nsqd", "3"], ["--a", "--", "b"]) == cli.split(["--nsqd", "3", "--", "--a", "--", "b"])
    assert (["--nsqd=3"], []) == cli.split(["--nsqd=3"])
    assert ([], []) == cli.split(["--"])


@pytest.mark.parametrize(
    "words, code, text",
    [
        (
            ["3"],
            2,
            "can't take '3' and what follows it on the command line: it is no flag; flags for every nsqd",
        ),
        (["--mem-queue-size=0"], 2, "not defined: -mem-queue-size; flags for every nsqd go after --"),
        (["--nsqd=x"], 2, 'invalid value "x" for flag -nsqd: not a whole number'),
        (["--nsqd=0"], 2, "--nsqd must be [1,64]"),
        (["--", "--node-id=1"], 2, "--node-id can't be the same for every nsqd: it is the nsqd's number"),
        (["--", "--max-rdy-count=0"], 2, "--max-rdy-count must be"),
        (
            ["--base-port=65000", "--nsqd=64", "--host=192.0.2.1"],
            1,
            "--host must be an address of this machine",
        ),
        (["--config=/nowhere/up.toml"], 2, "failed to load config file /nowhere/up.toml"),
    ],
)
def test_error_says_what_to_do(words, code, text, capsys):
    """A wrong flag or value is exit code 2, a machine that does not fit is 1; the text names it."""
    assert code == cli.main(words)

    errors = capsys.readouterr().err
    assert errors.startswith("nsqkit up: ")
    assert text in errors
    assert (code == 2) == ("nsqkit up --help tells more" in errors)


def test_unusable_data_path(capsys, tmp_path):
    """A data path that can't be is found before anything runs."""
    (tmp_path / "file").write_text("")

    assert 1 == cli.main(["--base-port=0", f"--data-path={tmp_path}/file"])
    assert "Not a directory" in capsys.readouterr().err


class Recorder(Supervisor):
    """Runs nothing, and notes what it is told; each thing noted is one step further for `run`."""

    def __init__(self, *signals: int):
        self.told: list[str] = []
        self._signals = signals
        self._noted = asyncio.Event()

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop."""
        return "stop" in self.told

    def stop(self) -> None:
        """Note it."""
        self._note("stop")

    def kill(self) -> None:
        """Note it."""
        self._note("kill")

    def _note(self, what: str) -> None:
        self.told.append(what)
        self._noted.set()

    async def run(self) -> int:
        """Send the signals to ourselves, each when the one before was noted."""
        for number in self._signals:
            os.kill(os.getpid(), number)
            if signal.getsignal(number) is not signal.SIG_IGN:
                await self._noted.wait()
                self._noted.clear()
        return 7


@pytest.fixture
def disposition():
    """Puts the handling of SIGHUP back."""
    before = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    "signals, told",
    [
        ([signal.SIGINT], ["stop"]),
        ([signal.SIGTERM], ["stop"]),
        ([signal.SIGHUP], ["stop"]),
        ([signal.SIGINT, signal.SIGINT], ["stop", "kill"]),
        ([signal.SIGTERM, signal.SIGINT], ["stop", "kill"]),
        ([signal.SIGINT, signal.SIGTERM], ["stop", "stop"]),
        ([signal.SIGTERM, signal.SIGHUP], ["stop", "stop"]),
    ],
)
def test_signals(signals, told, disposition):
    """Any signal asks for a stop; a Ctrl-C after it, and only that, kills."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

    async def scene() -> list[str]:
        supervisor = Recorder(*signals)
        assert 7 == await cli._until_told(supervisor, Log(), lambda: True)
        return supervisor.told

    assert told == asyncio.run(scene())


def test_hangup_while_the_terminal_is_there_is_ignored(disposition):
    """A SIGHUP that somebody sends is one line in the log, and stops nothing."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    lines: list[str] = []

    async def scene() -> list[str]:
        supervisor = Recorder(signal.SIGHUP, signal.SIGTERM)

        def note(line: str) -> None:
            lines.append(line)
            supervisor._noted.set()

        await cli._until_told(supervisor, Log(write=note), cli.terminal_watch())
        return supervisor.told

    assert ["stop"] == asyncio.run(scene())
    assert [True] == ["WARNING: SIGHUP: ignored" in line for line in lines]


def test_nohup_is_respected(disposition):
    """Started so that the end of its terminal is ignored, it goes on when the terminal is closed."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    async def scene() -> list[str]:
        supervisor = Recorder(signal.SIGHUP, signal.SIGTERM)
        await cli._until_told(supervisor, Log(), lambda: True)
        return supervisor.told

    assert ["stop"] == asyncio.run(scene())
