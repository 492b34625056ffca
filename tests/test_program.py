"""A daemon's program: messages and exit codes. The daemon itself is replaced."""

import asyncio
import json
import os
import signal
from dataclasses import dataclass

import pytest

from nsqkit import program
from nsqkit.errors import StartError
from nsqkit.log import Format, Log
from nsqkit.options import option
from nsqkit.options.daemon import DaemonOptions
from nsqkit.options.running import ConfigFile
from nsqkit.version import version_line


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleOptions(DaemonOptions):
    """Options of a daemon."""

    log_prefix: str = option("[sample] ", "put before each log line")
    most: int = option(10, "how many at most", within=(0, 100))
    secret: str = option("", "a secret", later="secrecy")


class Daemon:
    """A daemon that stops at once, or fails to start, and keeps what it was started with."""

    def __init__(self):
        self.started: list[SampleOptions] = []
        self.failure: StartError | None = None
        self.file: ConfigFile[SampleOptions] | None = None

    def main(self, *argv):
        """The program."""
        return program.main("sample", SampleOptions, self.serve, argv)

    def serve(self, options, log, file):
        """Run."""
        self.started.append(options)
        self.file = file
        if self.failure is not None:
            raise self.failure
        log.debug("running")
        return 0


@pytest.fixture
def daemon():
    """The program and the daemon in it."""
    return Daemon()


def test_options_reach_the_daemon(daemon, capfd):
    """The program runs the daemon with the options asked for and returns its exit code."""
    assert 0 == daemon.main("--most=66", "--log-level=debug", "--log-prefix=[x] ")

    assert [66] == [options.most for options in daemon.started]
    err = capfd.readouterr().err
    assert err.startswith("[x] ")
    assert err.endswith(" DEBUG: running\n")


def test_version(capsys, daemon):
    """--version prints one line and starts nothing."""
    assert 0 == daemon.main("--version")
    assert version_line("sample") + "\n" == capsys.readouterr().out
    assert [] == daemon.started


def test_help(capsys, daemon):
    """--help prints the usage."""
    assert 0 == daemon.main("-help")
    assert capsys.readouterr().out.startswith("Usage of sample:\n")
    assert [] == daemon.started


def test_unknown_flag_is_named(capsys, daemon):
    """A command line that cannot be understood is exit code 2, with a message and where to read more."""
    assert 2 == daemon.main("--no-such-flag=1")
    expected = "sample: flag provided but not defined: -no-such-flag\nsample --help tells more\n"
    assert expected == capsys.readouterr().err
    assert [] == daemon.started


def test_flag_of_a_later_feature_is_named(capsys, daemon):
    """A flag of a feature to come is exit code 2, with one line."""
    assert 2 == daemon.main("--secret=c")
    expected = "sample: --secret is not available in this version: secrecy comes with a later one\n"
    assert expected == capsys.readouterr().err
    assert [] == daemon.started


@pytest.mark.parametrize(
    "flag,text",
    [
        ("--most=101", "failed to instantiate sample - --most must be [0,100]"),
        ("--config=/nonexistent", "failed to load config file /nonexistent - No such file or directory"),
    ],
)
def test_impossible_settings_are_fatal(flag, text, capfd, daemon):
    """A value that makes no sense is exit code 2 and a FATAL line."""
    assert 2 == daemon.main(flag)

    err = capfd.readouterr().err
    assert err.startswith("[sample] ")
    assert err.endswith(f" FATAL: {text}\n")
    assert [] == daemon.started


def test_failing_start_is_fatal(capfd, daemon):
    """What keeps the daemon from starting is exit code 1 and a FATAL line."""
    daemon.failure = StartError("listen (127.0.0.1:1) failed - address already in use")

    assert 1 == daemon.main()
    expected = " FATAL: failed to instantiate sample - listen (127.0.0.1:1) failed - address already in use\n"
    assert capfd.readouterr().err.endswith(expected)


def test_bad_value_in_the_config_file_is_fatal(capfd, daemon, tmp_path):
    """A value of the config file that makes no sense is the same exit code as on the command line."""
    path = tmp_path / "sample.cfg"
    path.write_text("most = 101\n", encoding="utf-8")

    assert 2 == daemon.main(f"--config={path}")
    assert capfd.readouterr().err.endswith(" FATAL: failed to instantiate sample - --most must be [0,100]\n")


def test_hangup_is_ignored_from_the_beginning(daemon, monkeypatch):
    """A SIGHUP while the daemon is being loaded does not kill it."""
    before = signal.getsignal(signal.SIGHUP)

    def serve(*_):
        os.kill(os.getpid(), signal.SIGHUP)
        return 0

    monkeypatch.setattr(daemon, "serve", serve)
    try:
        assert 0 == daemon.main()
    finally:
        signal.signal(signal.SIGHUP, before)


class Running:
    """A daemon that gets signals once it runs."""

    def __init__(self, *signals: int):
        self.signals = signals

    async def __aenter__(self):
        for number in self.signals:
            os.kill(os.getpid(), number)
        return self

    async def __aexit__(self, *_):
        pass

    async def wait(self):
        """Only a signal stops it."""
        await asyncio.Event().wait()


def test_hangup_is_a_line_while_it_runs():
    """A SIGHUP is ignored and logged; SIGTERM stops."""
    lines: list[str] = []

    assert 0 == program.run(lambda: Running(signal.SIGHUP, signal.SIGTERM), Log(write=lines.append))
    assert [True] == [
        line.endswith(" WARNING: SIGHUP: ignored, there is nothing to reload\n") for line in lines
    ]


def test_a_daemon_may_have_something_to_do_before_it_ends():
    """At a SIGTERM it says so, and the program ends when the daemon wants to, or at the next one."""
    asked: list[bool] = []

    class Draining(Running):
        def __init__(self, *signals: int, ends: bool):
            super().__init__(*signals)
            self.over = asyncio.Event()
            self.ends = ends

        async def wait(self):
            await self.over.wait()

        def terminate(self) -> bool:
            asked.append(not asked)
            if self.ends:
                self.over.set()
            elif asked[-1]:
                os.kill(os.getpid(), signal.SIGTERM)
            return asked[-1]

    for ends, expected in ((True, [True]), (False, [True, False])):
        asked.clear()

        def make(ends: bool = ends) -> Draining:
            daemon = Draining(ends=ends)
            asyncio.get_running_loop().call_later(0, os.kill, os.getpid(), signal.SIGTERM)
            return daemon

        assert 0 == program.run(make, Log(write=print), terminate=Draining.terminate)
        assert expected == asked


def test_parser_says_what_is_wrong_in_two_lines(capsys):
    """argparse's usage is left to --help."""
    with pytest.raises(SystemExit, match="2"):
        program.Parser(prog="sample").parse_args(["--x"])

    assert "sample: unrecognized arguments: --x\nsample --help tells more\n" == capsys.readouterr().err


def test_unknown_config_keys_are_logged(capfd, daemon, tmp_path):
    """A key nobody knows is a warning in the log, not an error."""
    path = tmp_path / "sample.cfg"
    path.write_text("no_such_key = 1\n", encoding="utf-8")

    assert 0 == daemon.main(f"--config={path}")
    assert capfd.readouterr().err.endswith(f" WARNING: config file {path}: unknown key 'no_such_key'\n")


def test_the_daemon_gets_the_config_file(daemon, tmp_path):
    """To read it again, if one was named."""
    path = tmp_path / "sample.cfg"
    path.write_text("", encoding="utf-8")
    assert 0 == daemon.main()
    assert daemon.file is None

    assert 0 == daemon.main(f"--config={path}")
    assert daemon.file is not None


def test_hangup_has_the_config_file_read_again(daemon, tmp_path):
    """Then there is something to reload, whatever the daemon itself says."""
    path = tmp_path / "sample.cfg"
    path.write_text("", encoding="utf-8")
    daemon.main(f"--config={path}")
    lines: list[str] = []

    class Configured(Running):
        options = daemon.started[0]

        def configure(self, options):
            """Nothing goes by them."""

    def make() -> Configured:
        return Configured(signal.SIGHUP, signal.SIGTERM)

    assert 0 == program.run(make, Log(write=lines.append), file=daemon.file)
    assert [True] == [line.endswith(f" INFO: CONFIG: {path} was read again\n") for line in lines]


def test_hangup_reloads_what_can_be_reloaded():
    """A SIGHUP has the daemon reload; there is a line only where there was nothing to reload."""
    lines: list[str] = []
    reloaded: list[Running] = []

    class Twice(Running):
        async def wait(self):
            self.told = asyncio.Event()
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGHUP)
                await self.told.wait()
                self.told.clear()

    def reload(running: Twice) -> bool:
        reloaded.append(running)
        running.told.set()
        return len(reloaded) == 1

    assert 0 == program.run(Twice, Log(write=lines.append), reload)
    assert 2 == len(reloaded)
    assert 1 == len(lines)


def test_a_fatal_line_is_json_if_the_command_line_says_so(daemon, capfd, tmp_path):
    """Also what stands in the way before the options are known."""
    path = tmp_path / "none.cfg"

    assert 2 == daemon.main("--log-format=json", f"--config={path}")
    assert 2 == daemon.main("--log-format=json", "--most=1000")
    daemon.failure = StartError("in use")
    assert 1 == daemon.main("--log-format=json")

    got = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [
        f"failed to load config file {path} - No such file or directory",
        "failed to instantiate sample - --most must be [0,100]",
        "failed to instantiate sample - in use",
    ] == [one["msg"] for one in got]
    assert {("fatal", "sample")} == {(one["level"], one["program"]) for one in got}


def test_what_nobody_took_is_one_line_of_json():
    """asyncio's own words have many lines."""
    lines: list[str] = []

    class Defective(Running):
        async def __aenter__(self):
            loop = asyncio.get_running_loop()
            loop.call_exception_handler({"message": "oops", "exception": ValueError("x")})
            loop.call_exception_handler({"message": "oops"})
            return await super().__aenter__()

    log = Log(write=lines.append, format=Format.JSON)
    assert 0 == program.run(lambda: Defective(signal.SIGTERM), log)

    got = [json.loads(line)["msg"] for line in lines]
    assert ["a defect of ours: oops: ValueError('x')\nValueError: x\n", "a defect of ours: oops"] == got


def test_a_crash_is_one_line_of_json(daemon, capfd, monkeypatch):
    """Where lines are text, it is Python's own traceback."""

    def crash(*_):
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(daemon, "serve", crash)

    assert 1 == daemon.main("--log-format=json")
    got = json.loads(capfd.readouterr().err)
    assert "fatal" == got["level"]
    assert got["msg"].startswith(
        "a defect of ours: ZeroDivisionError('oops')\nTraceback (most recent call last):"
    )
    with pytest.raises(ZeroDivisionError):
        daemon.main()


def test_hangup_during_the_start_waits_for_its_end():
    """What is not there yet can't reload; it is told once it is."""
    reloaded: list[str] = []

    class Starting(Running):
        state = "starts"

        async def __aenter__(self):
            await super().__aenter__()
            for _ in range(3):
                await asyncio.sleep(0)  # the signal is seen
            self.state = "runs"
            return self

        async def wait(self):
            """It ends at once."""

    def reload(running: Starting) -> bool:
        reloaded.append(running.state)
        return True

    assert 0 == program.run(lambda: Starting(signal.SIGHUP), Log(write=print), reload)
    assert ["runs"] == reloaded
