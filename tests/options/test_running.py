"""The config file of a daemon that runs."""

from dataclasses import dataclass, replace

import pytest

from nsqkit.errors import OptionError
from nsqkit.log import Log
from nsqkit.options import Duration, DurationOption, Options, option
from nsqkit.options.command_line import load, parse
from nsqkit.options.running import ConfigFile

START = 'wait = "5s"\nplace = "a"\n'


@dataclass(frozen=True, slots=True, kw_only=True)
class SomeOptions(Options):
    """Some live, some not."""

    count: int = option(5, "a count", within=(1, 9), live=True, group="All")
    most: int = option(9, "a limit", live=True)
    wait: DurationOption = option(Duration.parse("1m"), "a time", live=True)
    place: str = option("", "a place")
    other: int = option(1, "another")
    tuning: int = option(1, "of no use", ignored=True)

    def check(self) -> None:
        """Two that depend on each other."""
        if self.count > self.most:
            raise OptionError("--count must not be above --most")


class Daemon:
    """Keeps what it is told to go by."""

    def __init__(self, options: SomeOptions) -> None:
        self.options = options
        self.told = 0

    def configure(self, options: SomeOptions) -> None:
        """Go by these."""
        self.options = options
        self.told += 1


class Scene:
    """A daemon, its config file, and what is logged."""

    def __init__(self, path, flags):
        self.path = path
        self.path.write_text(START, encoding="utf-8")
        line = parse(SomeOptions, [f"--config={path}", *flags])
        options = load(SomeOptions, line)
        self.file = ConfigFile(line, options)
        self.daemon = Daemon(options)
        self.lines: list[str] = []

    def edit(self, text: str) -> list[str]:
        """Write another file, and have it read; the lines about that, by level."""
        self.path.write_text(text, encoding="utf-8")
        return self.read()

    def read(self) -> list[str]:
        """Have the file read again."""
        self.lines.clear()
        self.file.read_again(self.daemon, Log(write=self.lines.append))
        return [line.split(" ", 2)[2].rstrip().replace(str(self.path), "FILE") for line in self.lines]


@pytest.fixture
def scene(tmp_path):
    """Makes one, with these flags."""
    return lambda *flags: Scene(tmp_path / "some.cfg", flags)


def test_live_ones_change(scene):
    """What is another in the file is another for the daemon; what went from the file has its default."""
    some = scene()

    assert ["INFO: CONFIG: FILE was read again"] == some.edit('place = "a"\ncount = 7\n')

    assert (7, Duration.parse("1m"), "a") == (
        some.daemon.options.count,
        some.daemon.options.wait,
        some.daemon.options.place,
    )


def test_the_command_line_still_beats_the_file(scene):
    """As it does at the start."""
    some = scene("--count=3")

    some.edit(START + "count = 7\n")

    assert 3 == some.daemon.options.count


def test_what_needs_a_restart_is_named(scene):
    """Each time, while it differs from what runs; options of no use are not."""
    some = scene()
    expected = [
        "INFO: CONFIG: FILE was read again",
        "WARNING: CONFIG: --place was changed in FILE: that needs a restart",
        "WARNING: CONFIG: --other was changed in FILE: that needs a restart",
    ]

    assert expected == some.edit('wait = "5s"\nplace = "b"\nother = 2\ntuning = 3\n')
    assert expected == some.read()
    assert expected[:1] == some.edit(START)
    assert "a" == some.daemon.options.place


def test_what_was_set_at_run_time_stays(scene):
    """Until the file says something new of it."""
    some = scene()
    some.daemon.options = replace(some.daemon.options, wait="9s", count=2)

    some.edit(START + "count = 4\n")

    assert (4, Duration.parse("9s")) == (some.daemon.options.count, some.daemon.options.wait)


@pytest.mark.parametrize(
    "text, why",
    [
        ("count = 10", "--count must be [1,9]"),
        ("count = 'x'", "failed to load config file FILE - count = 'x': not a whole number"),
        ("count =", "failed to load config file FILE - Invalid value (at end of document)"),
        ("count = 9\nmost = 8", "--count must not be above --most"),
    ],
)
def test_a_mistake_changes_nothing(scene, text, why):
    """It is one error that names the file and the reason; what was right in the file is not taken over either."""
    some = scene()
    before = some.daemon.options

    said = some.edit(f'wait = "7s"\n{text}')

    assert [f"ERROR: CONFIG: FILE is not taken over, every option stays as it was: {why}"] == said
    assert (before, 0) == (some.daemon.options, some.daemon.told)


def test_a_missing_file_changes_nothing(scene):
    """The daemon goes on as it was."""
    some = scene()
    some.path.unlink()

    (line,) = some.read()

    assert line.endswith("failed to load config file FILE - No such file or directory")
    assert 0 == some.daemon.told


def test_a_contradiction_to_what_was_set_at_run_time(scene):
    """Nothing changes, though the file is right by itself."""
    some = scene()
    some.daemon.options = replace(some.daemon.options, most=6)

    (line,) = some.edit("count = 7")

    assert line.endswith("every option stays as it was: --count must not be above --most")
    assert 0 == some.daemon.told


def test_warnings_are_said_again(scene):
    """Unknown keys are warnings, as at the start."""
    said = scene().edit(START + "nothing = 1\n")

    assert "WARNING: config file FILE: unknown key 'nothing'" == said[1]
