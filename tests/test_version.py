"""What runs here, as programs and clients are told."""

import re
import subprocess
import sys

import pytest

import nsqkit
from nsqkit import __main__ as program
from nsqkit.version import NSQ_VERSION, VERSION, built_with, compiled, version_line


def test_version_line_has_the_form_clients_parse():
    """`--version` begins as NSQ's does and goes on with our version and build."""
    build = "compiled" if compiled() else "pure"

    assert f"nsqd v1.3.0 (built w/{built_with()}) nsqkit {VERSION} {build}" == version_line("nsqd")


def test_runtime_is_named_without_a_blank():
    """The runtime is one word, as Go's is."""
    assert re.fullmatch(r"[a-z]+3\.\d+\.\d+", built_with())


def test_package_knows_its_version():
    """`nsqkit.__version__` is the version of the distribution."""
    assert VERSION == nsqkit.__version__
    assert "1.3.0" == NSQ_VERSION


def test_import_is_cheap():
    """Importing nsqkit loads neither an event loop nor a library from outside."""
    code = "import nsqkit, sys; print(sorted({'asyncio', 'uvloop', 'msgspec', 'rich'} & set(sys.modules)))"

    got = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "[]\n" == got.stdout


@pytest.mark.parametrize("flag", ["--version", "-version"])
def test_program_tells_its_version(flag, capsys):
    """`nsqkit --version` prints the version line of nsqkit."""
    assert 0 == program.main([flag])
    assert version_line("nsqkit") + "\n" == capsys.readouterr().out


def test_program_lists_its_commands(capsys):
    """`nsqkit --help` names every command."""
    assert 0 == program.main(["--help"])
    printed = capsys.readouterr().out
    assert all(name in printed for name in program.COMMANDS)


def test_unknown_command_is_named(capsys):
    """An unknown command is an error of the command line that says where to read more."""
    assert 2 == program.main(["frobnicate"])
    assert "nsqkit: there is no command 'frobnicate'\nnsqkit --help tells more\n" == capsys.readouterr().err


def test_no_command_at_all_is_an_error(capsys):
    """Without a command there is only the usage."""
    assert 2 == program.main([])
    assert capsys.readouterr().err.startswith("Usage: nsqkit <command>")
