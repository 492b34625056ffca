"""The program nsqlookupd. What all programs have in common is in tests/test_program.py."""

import pytest

from nsqkit.nsqlookupd import cli
from nsqkit.version import version_line


@pytest.mark.parametrize("flag", ["--version", "-version=true"])
def test_version(capsys, flag):
    """--version prints one line."""
    assert 0 == cli.main([flag])
    assert version_line("nsqlookupd") + "\n" == capsys.readouterr().out


def test_help(capsys):
    """--help prints the usage."""
    assert 0 == cli.main(["-help"])

    out = capsys.readouterr().out
    assert out.startswith("Usage of nsqlookupd:\n")
    assert "--inactive-producer-timeout duration" in out


def test_flag_of_another_daemon(capsys):
    """A flag that nsqlookupd has not is exit code 2, with the usage."""
    assert 2 == cli.main(["--data-path=/tmp"])
    assert capsys.readouterr().err.startswith(
        "nsqlookupd: flag provided but not defined: -data-path\nUsage of nsqlookupd:\n"
    )


def test_impossible_settings_are_fatal(capfd):
    """A value that makes no sense is exit code 1 and a FATAL line."""
    assert 1 == cli.main(["--tcp-address=/run/nsqlookupd.sock"])

    err = capfd.readouterr().err
    assert err.startswith("[nsqlookupd] ")
    text = "failed to instantiate nsqlookupd - --tcp-address must be host:port, not '/run/nsqlookupd.sock'"
    assert err.endswith(f" FATAL: {text}\n")
