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
    """A flag that nsqlookupd has not is exit code 2, with two lines."""
    assert 2 == cli.main(["--data-path=/tmp"])
    expected = "nsqlookupd: flag provided but not defined: -data-path\nnsqlookupd --help tells more\n"
    assert expected == capsys.readouterr().err


def test_unix_sockets_are_refused(capsys):
    """What listens there has no address that others could be told; a wrong value is exit code 2."""
    assert 2 == cli.main(["--tcp-address=/run/nsqlookupd.sock"])

    text = (
        'invalid value "/run/nsqlookupd.sock" for flag -tcp-address: write host:port or :port, or [host]:port'
    )
    assert capsys.readouterr().err.startswith(f"nsqlookupd: {text}")
