"""What an option is. One line in a class declares flag, config key, type, default, limits, help and docs.

    @dataclass(frozen=True, slots=True, kw_only=True)
    class NsqdOptions(Options):
        msg_timeout: DurationOption = option(Duration.parse("1m"), "time a consumer has to finish a message")

Rules: an object that exists is valid, whoever made it; values never change (`with_live_value` makes a changed copy).
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, TypeVar, overload

from nsqkit.errors import FlagError, NotLive, OptionError
from nsqkit.lines import cut
from nsqkit.options.duration import Duration, DurationOption
from nsqkit.options.kinds import Json, Kind, PathKind, PathOption, kind_of, parse_json_list

T = TypeVar("T")
AnyOptions = TypeVar("AnyOptions", bound="Options")

_METADATA_KEY = "option"


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """A declared option. `name` is the attribute; `flag` has no dashes in front."""

    help: str
    kind: Kind[Any]
    default: Callable[[], Any]
    default_text: str | None = None  # instead of a default that differs from machine to machine
    name: str = ""
    flag: str = ""
    key: str = ""
    within: tuple[Any, Any] | None = None  # lowest and highest value; None is no limit
    error: str = ""  # what to say instead of the limits
    live: bool = False  # it can be changed at run time
    ignored: bool = False  # accepted and reported, but nothing is left to tune
    later: str = ""  # the feature it belongs to, while this version has not got it
    group: str = ""  # heading in --help and docs, for this option and those below
    title: str = ""  # what errors call it

    def convert(self, value: object) -> Any:
        """Take a value given in Python, check its type, its limits, and that its feature exists."""
        try:
            converted = self.kind.accept(value)
        except ValueError as reason:
            raise OptionError(f"invalid value {value!r} for {self.title}: {reason}") from None
        if self.later and converted != self.default():
            raise FlagError(
                f"--{self.flag} is not available in this version: {self.later} comes with a later one"
            )
        if self.within is not None and not self._is_within(converted, *self.within):
            raise OptionError(self.error or f"{self.title} must be {self.limits()}")
        return converted

    def limits(self) -> str:
        """The limits in words: `[1,9]`, `at least 1`."""
        lowest, highest = self.within or (None, None)
        if highest is None:
            return f"at least {lowest}"
        return f"[{lowest},{highest}]" if lowest is not None else f"at most {highest}"

    def default_as_text(self) -> str:
        """The default as one would write it after the flag."""
        return self.kind.show(self.default()) if self.default_text is None else self.default_text

    def remarks(self) -> str:
        """What --help and the docs add to the help text."""
        if self.later:
            return f"not in this version: comes with {self.later}"
        if self.ignored:
            return "accepted, nothing left to tune"
        return ""

    @staticmethod
    def _is_within(value: Any, lowest: Any, highest: Any) -> bool:
        return bool((lowest is None or value >= lowest) and (highest is None or value <= highest))


@dataclass(frozen=True, slots=True)
class IgnoredFlag:
    """A flag of NSQ's that does nothing, is no config key, and is taken bare or with a value.

    If it is the old name of another flag, a whole number goes there.
    """

    flag: str
    help: str
    old_name_of: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of one daemon. Raises OptionError if a value makes no sense."""

    ignored_flags: ClassVar[tuple[IgnoredFlag, ...]] = ()
    has_flags: ClassVar[bool] = True
    """False for options of a library, which errors call by their names in Python."""

    def __post_init__(self) -> None:
        """Convert and check each value, then all of them together."""
        given = set()
        for declaration in declared(type(self)):
            value = getattr(self, declaration.name)
            if value is not declaration.default():  # one that is equal, but given, is another object
                given.add(declaration.name)
            object.__setattr__(self, declaration.name, declaration.convert(value))  # frozen only from here on
        self.fit(given)
        self.check()

    def fit(self, given: set[str]) -> None:
        """Move defaults to where the values that were given leave them room."""

    def check(self) -> None:
        """Raise OptionError if values that are fine by themselves contradict each other."""


@overload
def option(default: Duration, help: str, **more: Any) -> DurationOption: ...
@overload
def option(default: str, help: str, *, kind: PathKind, **more: Any) -> PathOption: ...
@overload
def option(default: Callable[[], T], help: str, **more: Any) -> T: ...
@overload
def option(default: T, help: str, **more: Any) -> T: ...
def option(default: Any, help: str, *, kind: Kind[Any] | None = None, **more: Any) -> Any:
    """Declare an option: a field of a dataclass derived from Options.

    `default` may be a function, called once per object; it needs a `kind` and a `default_text` then. The kind
    of other defaults is seen from their type, except for words and lists of numbers. Flag and key follow from
    the attribute's name unless `flag=` or `key=` says otherwise. `more` are the fields of Option.
    """
    make = default if callable(default) else lambda: default
    declaration = Option(help=help, kind=kind or kind_of(default), default=make, **more)
    return field(default_factory=make, metadata={_METADATA_KEY: declaration})


def declared(options: type[Options]) -> tuple[Option, ...]:
    """Every option of a class, with its names and group filled in: by group, in the order of declaration.

    A group that a class inherits comes where it was first named.
    """
    result: list[Option] = []
    group = ""
    for one in fields(options):
        declaration: Option = one.metadata[_METADATA_KEY]
        group = declaration.group or group
        result.append(
            replace(
                declaration,
                name=one.name,
                flag=(flag := declaration.flag or one.name.replace("_", "-")),
                title=f"--{flag}" if options.has_flags else one.name,
                key=declaration.key or one.name,
                group=group,
            )
        )
    groups = list(dict.fromkeys(one.group for one in result))
    return tuple(sorted(result, key=lambda one: groups.index(one.group)))


def find(options: type[Options], key: str) -> Option | None:
    """The option with this config key, if there is one."""
    return next((one for one in declared(options) if one.key == key), None)


def config_value(options: Options, key: str) -> Json:
    """What `GET /config/<key>` reports: durations in ns, words as NSQ's numbers, lists as arrays.

    Raises KeyError if there is no such key.
    """
    declaration = find(type(options), key)
    if declaration is None:
        raise KeyError(key)
    return declaration.kind.report(getattr(options, declaration.name))


def with_live_value(options: AnyOptions, key: str, text: str) -> AnyOptions:
    """A copy with one option changed, as `PUT /config/<key>` asks: a bare word or number, or a JSON array.

    Raises KeyError if there is no such key, NotLive if it needs a restart, OptionError if the value is bad.
    """
    declaration = find(type(options), key)
    if declaration is None:
        raise KeyError(key)
    if not declaration.live:
        raise NotLive(f"--{declaration.flag} can't be changed at run time: it needs a restart")
    try:
        value = parse_json_list(text) if declaration.kind.repeats else declaration.kind.parse(text)
    except ValueError as reason:
        raise OptionError(f"invalid value {cut(text)!r} for {key}: {reason}") from None
    return replace(options, **{declaration.name: value})


def differing(before: Options, after: Options) -> list[Option]:
    """The options whose values are not the same in both, in the order of declaration."""
    return [one for one in declared(type(after)) if getattr(before, one.name) != getattr(after, one.name)]
