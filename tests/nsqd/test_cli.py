"""The program nsqd. What all programs have in common is in tests/test_program.py."""

from nsqkit.nsqd import cli
from nsqkit.version import version_line


def test_version(capsys):
    """--version prints one line."""
    assert 0 == cli.main(["--version"])
    assert version_line("nsqd") + "\n" == capsys.readouterr().out


def test_help(capsys):
    """--help prints the usage."""
    assert 0 == cli.main(["-help"])
    assert capsys.readouterr().out.startswith("Usage of nsqd:\n")


def test_impossible_settings_are_fatal(capfd):
    """A value that makes no sense is exit code 2 and a FATAL line."""
    assert 2 == cli.main(["--node-id=1024"])

    err = capfd.readouterr().err
    assert err.startswith("[nsqd] ")
    assert err.endswith(" FATAL: failed to instantiate nsqd - --node-id must be [0,1024)\n")
