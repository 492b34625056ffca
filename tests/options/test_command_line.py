"""Flags as Go parses them, config files in TOML, and which of them wins."""

from dataclasses import dataclass
from typing import ClassVar

import pytest

from nsqkit.errors import ConfigFileError, FlagError, OptionError
from nsqkit.log import Level
from nsqkit.nsqd.options import NsqdOptions
from nsqkit.options import FLOATS, Duration, DurationOption, IgnoredFlag, Options, Words, option
from nsqkit.options.command_line import load, parse, usage


@dataclass(frozen=True, slots=True, kw_only=True)
class SomeOptions(Options):
    """One option of each kind."""

    ignored_flags: ClassVar = (
        IgnoredFlag("verbose", "use --level"),
        IgnoredFlag("worker-id", "use --node-id", old_name_of="node-id"),
    )

    node_id: int = option(1, "an id", key="id", group="All")
    data_path: str = option("", "a path")
    snappy: bool = option(True, "a switch")
    deflate: bool = option(True, "another switch")
    msg_timeout: DurationOption = option(Duration.parse("1m"), "a time")
    words: tuple[str, ...] = option((), "some words", flag="word")
    shares: tuple[float, ...] = option((), "some shares", kind=FLOATS, flag="share")
    level: Level = option(
        Level.INFO, "a level", kind=Words({"info": Level.INFO, "warn": Level.WARNING}, empty=Level.INFO)
    )
    scan: int = option(4, "of no use", ignored=True)
    future: str = option("", "of a later version", later="telepathy")


@pytest.fixture
def config(tmp_path):
    """Write a config file and return its path."""

    def write(text):
        path = tmp_path / "some.cfg"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def from_flags(*arguments):
    """The options that a command line makes."""
    return load(SomeOptions, parse(SomeOptions, arguments))


@pytest.mark.parametrize(
    "arguments",
    [("-node-id=5",), ("--node-id=5",), ("-node-id", "5"), ("--node-id", "5"), ("--node-id=0x5",)],
)
def test_value_after_equals_or_next(arguments):
    """One dash or two, `=` or the next word: all the same."""
    assert 5 == from_flags(*arguments).node_id


@pytest.mark.parametrize(
    "arguments,expected",
    [
        (["--snappy"], True),
        (["--snappy=false"], False),
        (["--snappy=F"], False),
        (["--snappy=0"], False),
        (["--snappy=1"], True),
        (["--snappy=TRUE"], True),
    ],
)
def test_boolean(arguments, expected):
    """A bare boolean is true; the words are Go's."""
    assert expected is from_flags(*arguments).snappy


def test_values_of_every_kind():
    """Each kind reads its own text; a later use of a flag wins; an empty value is a value."""
    got = from_flags("--msg-timeout=1m30s", "--level=WARN", "--data-path", "", "--node-id=1", "--node-id=-2")

    assert (Duration.parse("90s"), Level.WARNING, "", -2) == (
        got.msg_timeout,
        got.level,
        got.data_path,
        got.node_id,
    )


def test_lists_append():
    """Each use of a list flag appends; only lists of numbers are split at commas."""
    got = from_flags("--word=a", "--word", "b,c", "--share=0.5,0.9", "--share=1")

    assert ("a", "b,c") == got.words
    assert (0.5, 0.9, 1.0) == got.shares


@pytest.mark.parametrize("stop", ["--", "word", "-", ""])
def test_flags_end_at_the_first_other_word(stop):
    """What follows `--` or a word without a dash is not read."""
    line = parse(SomeOptions, ["--snappy", stop, "--no-such-flag"])

    assert {"snappy": True} == line.values
    assert (stop == "--") is (line.warnings == [])


@pytest.mark.parametrize(
    "argument,message",
    [
        ("--no-such-flag=1", "flag provided but not defined: -no-such-flag"),
        ("---snappy", "bad flag syntax: ---snappy"),
        ("--=5", "bad flag syntax: --=5"),
        ("--node-id", "flag needs an argument: -node-id"),
        ("--node-id=many", 'invalid value "many" for flag -node-id: not a whole number'),
        ("--node-id=010", 'invalid value "010" for flag -node-id: not a whole number'),
        ("--node-id=9223372036854775808", "value out of range"),
        ("--node-id=", 'invalid value "" for flag -node-id'),
        ("--msg-timeout=60", 'invalid value "60" for flag -msg-timeout: a duration needs a unit'),
        ("--snappy=yes", 'invalid boolean value "yes" for -snappy: say true or false'),
        ("--level=loud", 'invalid value "loud" for flag -level: say one of info, warn'),
        ("--share=x", 'invalid value "x" for flag -share: not a list of numbers'),
        ("--worker-id=x", 'invalid boolean value "x" for -worker-id'),
    ],
)
def test_bad_flag_is_refused(argument, message):
    """What cannot be understood is an error that names the flag."""
    with pytest.raises(FlagError, match=message.replace("(", r"\(")):
        parse(SomeOptions, [argument])


def test_help_and_version_are_noticed():
    """Both may stand among other flags; help ends the parsing."""
    assert parse(SomeOptions, ["--snappy", "--version"]).version
    assert parse(SomeOptions, ["-h", "--no-such-flag"]).help


def test_flags_without_effect_are_taken_with_a_warning():
    """A flag with nothing after it is accepted, bare or with a value."""
    line = parse(SomeOptions, ["--verbose", "--worker-id=true"])

    assert {} == line.values
    assert [
        "--verbose has no effect: use --level",
        "--worker-id has no effect: use --node-id",
    ] == line.warnings


@pytest.mark.parametrize(
    "arguments", [["--worker-id=5"], ["--node-id=5", "--worker-id=6"], ["--worker-id=6", "--node-id=5"]]
)
def test_old_name_stands_for_the_new(arguments):
    """A number given under an old name counts, unless the new name is used too."""
    line = parse(SomeOptions, arguments)

    assert {"node_id": 5} == line.values
    assert ["--worker-id is the old name of --node-id"] == line.warnings


@pytest.mark.parametrize(
    "text,name,expected",
    [
        ("id = 5", "node_id", 5),
        ('id = "5"', "node_id", 5),
        ("snappy = false", "snappy", False),
        ('snappy = "f"', "snappy", False),
        ("snappy = 0", "snappy", False),
        ("snappy = 2", "snappy", True),
        ('msg_timeout = "7s"', "msg_timeout", Duration.parse("7s")),
        ("msg_timeout = 250", "msg_timeout", Duration.parse("250ms")),
        ('words = ["a", "b"]', "words", ("a", "b")),
        ('words = "a,b"', "words", ("a", "b")),
        ("shares = [1, 0.5]", "shares", (1.0, 0.5)),
        ('shares = "1, 0.5"', "shares", (1.0, 0.5)),
        ('level = "warn"', "level", Level.WARNING),
        ('level = ""', "level", Level.INFO),
        ('data_path = "x"', "data_path", "x"),
    ],
)
def test_config_file(text, name, expected, config):
    """A config file takes TOML's own types and text, booleans from integers the right way round."""
    assert expected == getattr(from_flags("--config=" + config(text)), name)


@pytest.mark.parametrize(
    "text,message",
    [
        ("id = ", "failed to load config file .*some.cfg - "),
        ("id = true", "failed to load config file .*some.cfg - id = True: not a whole number"),
        ("msg_timeout = 1.5", "msg_timeout = 1.5: not a duration"),
        ("words = 5", "words = 5: not a list"),
        ("data_path = 5", "data_path = 5: not a string"),
        ('level = "loud"', "failed parsing level loud: say one of"),
    ],
)
def test_bad_config_file_is_refused(text, message, config):
    """What cannot be understood in the file is an error that names the key."""
    with pytest.raises(ConfigFileError, match=message):
        from_flags("--config", config(text))


def test_missing_config_file_is_named():
    """A config file that is not there is an error with the system's reason."""
    with pytest.raises(
        ConfigFileError, match="failed to load config file /nonexistent/x - No such file or directory"
    ):
        from_flags("--config=/nonexistent/x")


def test_unknown_keys_are_reported(config):
    """An unknown key is no error, but a warning; keys of flags without effect are known."""
    path = config("no_such_key = 1\nverbose = true\n[table]\nid = 3\n")
    line = parse(SomeOptions, ["--config=" + path])

    assert 1 == load(SomeOptions, line).node_id
    assert [f"config file {path}: unknown key {key!r}" for key in ("no_such_key", "table")] == line.warnings


def test_command_line_beats_config_file(config):
    """A flag replaces the file's value, a list as a whole."""
    path = config('id = 2\nwords = ["a", "b"]\ndeflate = false\n')

    got = from_flags("--config=" + path, "--node-id=3", "--word=c")

    assert (3, ("c",), False) == (got.node_id, got.words, got.deflate)


def test_option_of_a_later_feature_is_refused_in_a_file_too(config):
    """It does not matter where it is set."""
    with pytest.raises(FlagError, match="^--future is not available"):
        from_flags("--config=" + config('future = "x"'))
    with pytest.raises(OptionError, match="^--future is not available"):
        from_flags("--future=x")


def test_usage_tells_what_is_live():
    """Live options are marked, and what that means is said once."""
    text = usage("some", NsqdOptions)

    assert "time a consumer has to finish a message" in text
    assert 1 == text.count("\n  Those marked [live] can be changed in the config file, then SIGHUP; or ")
    assert text.count("[live]") > 30


def test_usage_names_everything():
    """--help has each flag with its type, meaning, default and remarks."""
    text = usage("some", SomeOptions)

    assert text.startswith("Usage of some:\n")
    assert "\nAll:\n  --node-id int " in text
    assert "a level: info, warn (default info)" in text
    assert "of no use (default 4) [accepted, nothing left to tune]" in text
    assert "of a later version [not in this version: comes with telepathy]" in text
    assert "[live]" not in text
    assert "Accepted, without effect:\n  --verbose " in text
