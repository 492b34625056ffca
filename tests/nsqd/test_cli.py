"""The program nsqd: messages and exit codes. The daemon itself is replaced."""

import sys
from types import ModuleType

import pytest

from nsqkit.errors import StartError
from nsqkit.nsqd import cli
from nsqkit.nsqd.options import NsqdOptions
from nsqkit.version import version_line


class FakeDaemon(ModuleType):
    """A daemon that stops at once, or fails to start, and keeps what it was started with."""

    def __init__(self):
        super().__init__("nsqkit.nsqd.daemon")
        self.started: list[NsqdOptions] = []
        self.failure: StartError | None = None

    def run(self, options, log):
        """Take the place of nsqkit.nsqd.daemon.run."""
        self.started.append(options)
        if self.failure is not None:
            raise self.failure
        log.debug("running")
        return 0


@pytest.fixture
def daemon(monkeypatch):
    """The daemon that the program finds."""
    module = FakeDaemon()
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def test_options_reach_the_daemon(daemon, capfd):
    """nsqd runs the daemon with the options asked for and returns its exit code."""
    assert 0 == cli.main(["--max-rdy-count=66", "--log-level=debug", "--log-prefix=[x] "])

    assert [66] == [options.max_rdy_count for options in daemon.started]
    err = capfd.readouterr().err
    assert err.startswith("[x] ")
    assert err.endswith(" DEBUG: running\n")


def test_version(capsys, daemon):
    """--version prints one line and starts nothing."""
    assert 0 == cli.main(["--version"])
    assert version_line("nsqd") + "\n" == capsys.readouterr().out
    assert [] == daemon.started


def test_help(capsys, daemon):
    """--help prints the usage."""
    assert 0 == cli.main(["-help"])
    assert capsys.readouterr().out.startswith("Usage of nsqd:\n")
    assert [] == daemon.started


def test_unknown_flag_shows_the_usage(capsys, daemon):
    """A command line that cannot be understood is exit code 2, with message and usage."""
    assert 2 == cli.main(["--no-such-flag=1"])
    assert capsys.readouterr().err.startswith(
        "nsqd: flag provided but not defined: -no-such-flag\nUsage of nsqd:\n"
    )
    assert [] == daemon.started


def test_flag_of_a_later_feature_is_named(capsys, daemon):
    """A flag of a feature to come is exit code 2, with one line."""
    assert 2 == cli.main(["--tls-cert=c"])
    expected = "nsqd: --tls-cert is not available in this version: TLS comes with a later one\n"
    assert expected == capsys.readouterr().err
    assert [] == daemon.started


@pytest.mark.parametrize(
    "flag,text",
    [
        ("--node-id=1024", "failed to instantiate nsqd - --node-id must be [0,1024)"),
        ("--config=/nonexistent", "failed to load config file /nonexistent - No such file or directory"),
    ],
)
def test_impossible_settings_are_fatal(flag, text, capfd, daemon):
    """A value that makes no sense is exit code 1 and a FATAL line."""
    assert 1 == cli.main([flag])

    err = capfd.readouterr().err
    assert err.startswith("[nsqd] ")
    assert err.endswith(f" FATAL: {text}\n")
    assert [] == daemon.started


def test_failing_start_is_fatal(capfd, daemon):
    """What keeps the daemon from starting is exit code 1 and a FATAL line."""
    daemon.failure = StartError("listen (127.0.0.1:1) failed - address already in use")

    assert 1 == cli.main([])
    expected = " FATAL: failed to instantiate nsqd - listen (127.0.0.1:1) failed - address already in use\n"
    assert capfd.readouterr().err.endswith(expected)


@pytest.mark.usefixtures("daemon")
def test_unknown_config_keys_are_logged(capfd, tmp_path):
    """A key nobody knows is a warning in the log, not an error."""
    path = tmp_path / "nsqd.cfg"
    path.write_text("no_such_key = 1\n", encoding="utf-8")

    assert 0 == cli.main([f"--config={path}"])
    assert capfd.readouterr().err.endswith(f" WARNING: config file {path}: unknown key 'no_such_key'\n")
