"""Options: declared once, valid once they exist, reported as NSQ reports them."""

from dataclasses import FrozenInstanceError, dataclass
from pathlib import Path

import pytest

from nsqkit.errors import FlagError, NotLive, OptionError
from nsqkit.log import Level
from nsqkit.options import (
    FLOATS,
    Duration,
    DurationOption,
    Options,
    Words,
    config_value,
    declared,
    differing,
    find,
    option,
    with_live_value,
)
from nsqkit.options.kinds import INT, PATH, PathOption

LEVELS = Words({"info": Level.INFO, "warn": Level.WARNING})


@dataclass(frozen=True, slots=True, kw_only=True)
class SomeOptions(Options):
    """One option of each kind and property."""

    name: str = option("n", "a name", group="First")
    count: int = option(5, "a count", within=(1, 9))
    size: int = option(5, "a size", within=(0, None), flag="big-size", key="sz")
    wait: DurationOption = option(Duration.parse("1m"), "a time", within=(Duration(1), None))
    flag: bool = option(False, "a switch", group="Second")
    words: tuple[str, ...] = option((), "some words", live=True)
    shares: tuple[float, ...] = option((), "some shares", kind=FLOATS)
    level: Level = option(Level.INFO, "a level", kind=LEVELS, live=True)
    place: PathOption = option("", "a path", kind=PATH)
    computed: int = option(lambda: 42, "computed", kind=INT, default_text="from the host")
    future: str = option("", "of a later version", later="telepathy")


@pytest.mark.parametrize(
    "name,given,kept",
    [
        ("wait", 2.5, Duration.parse("2.5s")),
        ("wait", "250ms", Duration.parse("250ms")),
        ("wait", Duration(7), Duration(7)),
        ("words", ["a", "b"], ("a", "b")),
        ("shares", [1, 0.5, "0.25,0.1"], (1.0, 0.5, 0.25, 0.1)),
        ("level", Level.WARNING, Level.WARNING),
        ("level", "WARN", Level.WARNING),
        ("flag", True, True),
        ("place", Path("/a/b"), "/a/b"),
        ("place", "a", "a"),
        ("future", "", ""),
    ],
)
def test_python_values_are_converted(name, given, kept):
    """Options made in Python take what is natural there."""
    assert kept == getattr(SomeOptions(**{name: given}), name)


@pytest.mark.parametrize(
    "name,value,message",
    [
        ("count", 0, r"--count must be \[1,9\]"),
        ("size", -1, "--big-size must be at least 0"),
        ("count", "5", "invalid value '5' for --count: not a whole number"),
        ("count", True, "invalid value True for --count"),
        ("size", 2**63, "out of range"),
        ("wait", "0s", "--wait must be at least 1ns"),
        ("wait", "5", "needs a unit"),
        ("flag", 1, "invalid value 1 for --flag"),
        ("name", 1, "not a string"),
        ("words", "abc", "not a list"),
        ("shares", ["x"], "not a list of numbers"),
        ("level", "loud", "say one of info, warn"),
        ("level", Level.FATAL, "say one of info, warn"),
    ],
)
def test_bad_value_is_refused_with_its_flag(name, value, message):
    """No object with a bad value can exist, and the error names the flag."""
    with pytest.raises(OptionError, match=message):
        SomeOptions(**{name: value})


def test_option_of_a_later_feature_is_refused():
    """An option whose feature is missing says so, rather than to do nothing."""
    with pytest.raises(
        FlagError, match="^--future is not available in this version: telepathy comes with a later"
    ):
        SomeOptions(future="x")


def test_option_of_a_later_feature_may_say_the_default():
    """What changes nothing is accepted."""
    assert "" == SomeOptions(future="").future


def test_options_never_change():
    """Options are frozen."""
    with pytest.raises(FrozenInstanceError):
        SomeOptions().count = 6  # type: ignore[misc]


def test_names_and_groups_follow_from_the_declaration():
    """Flag and key follow from the attribute unless they are declared; a group holds until the next."""
    flags = [(one.flag, one.key, one.group) for one in declared(SomeOptions)]

    assert ("name", "name", "First") == flags[0]
    assert ("big-size", "sz", "First") == flags[2]
    assert ("future", "future", "Second") == flags[-1]


@pytest.mark.parametrize(
    "key,value",
    [
        ("name", "n"),
        ("sz", 5),
        ("wait", 60_000_000_000),
        ("flag", False),
        ("words", []),
        ("shares", []),
        ("level", 2),
        ("computed", 42),
    ],
)
def test_config_value_is_what_nsq_reports(key, value):
    """Durations are reported in nanoseconds, words as numbers, lists as arrays."""
    assert value == config_value(SomeOptions(), key)


def test_unknown_key_has_no_value():
    """Attribute names are no keys where the key is another."""
    with pytest.raises(KeyError):
        config_value(SomeOptions(), "size")
    assert find(SomeOptions, "size") is None


@pytest.mark.parametrize(
    "key,text,value", [("level", "WARN", 3), ("words", '["a","b"]', ["a", "b"]), ("words", "null", [])]
)
def test_live_option_can_be_changed(key, text, value):
    """A live option takes a bare word or a JSON array, in a copy."""
    before = SomeOptions()

    after = with_live_value(before, key, text)

    assert value == config_value(after, key)
    assert SomeOptions() == before


@pytest.mark.parametrize("key,text", [("level", "loud"), ("words", "a"), ("words", '"a"'), ("words", "[1]")])
def test_bad_live_value_is_refused(key, text):
    """A value that cannot be understood leaves things as they are."""
    with pytest.raises(OptionError):
        with_live_value(SomeOptions(), key, text)


def test_other_options_cannot_be_changed():
    """What is not there cannot be set, and what is not live needs a restart."""
    with pytest.raises(KeyError):
        with_live_value(SomeOptions(), "nothing", "5")
    with pytest.raises(NotLive, match="^--big-size can't be changed at run time: it needs a restart$"):
        with_live_value(SomeOptions(), "sz", "5")


def test_what_differs():
    """The options that have other values are told in the order of declaration."""
    changed = differing(SomeOptions(words=("a",)), SomeOptions(level=Level.WARNING, count=7))

    assert ["count", "words", "level"] == [one.name for one in changed]


def test_default_without_a_kind_is_a_mistake_of_the_programmer():
    """A kind that cannot be seen from the default must be declared."""
    with pytest.raises(TypeError, match="say kind="):
        option(b"", "bytes")
