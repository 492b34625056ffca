"""From the command line and a config file to options. Syntax as in Go: `-flag`, `--flag`, `=value` or the next word.

The command line beats the config file, which beats the defaults. A list on the command line replaces the file's.
"""

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from nsqkit.errors import ConfigFileError, FlagError
from nsqkit.options.declaration import IgnoredFlag, Option, Options, declared
from nsqkit.options.kinds import BOOL, INT, Words

AnyOptions = TypeVar("AnyOptions", bound=Options)

_LIVE = (
    "  Those marked [live] can be changed in the config file, then SIGHUP; or with PUT /config/<key> of nsqd."
)
_COLUMN = 44
_WIDTH = 110


@dataclass(slots=True)
class CommandLine:
    """What was asked for on a command line, understood but not yet checked against limits."""

    values: dict[str, Any] = field(default_factory=dict)  # by attribute name
    config: str = ""
    help: bool = False
    version: bool = False
    warnings: list[str] = field(default_factory=list)


def parse(options: type[Options], arguments: Sequence[str]) -> CommandLine:
    """Read flags up to the first word that is none, or `--`. Raises FlagError."""
    by_flag = {one.flag: one for one in declared(options)}
    ignored = {one.flag: one for one in options.ignored_flags}
    line = CommandLine()
    words = iter(arguments)
    for word in words:
        if word == "--":
            break
        if len(word) < 2 or not word.startswith("-"):
            line.warnings.append(f"ignoring {word!r} and what follows it on the command line: it is no flag")
            break
        name, equals, text = word.removeprefix("-").removeprefix("-").partition("=")
        value = text if equals else None
        if not name or name.startswith("-"):
            raise FlagError(f"bad flag syntax: {word}")
        if name in by_flag:
            _set(line, by_flag[name], value, words)
        elif name in ignored:
            _ignore(line, ignored[name], value)
        elif name == "config":
            line.config = _argument(name, value, words)
        elif name == "version":
            line.version = _bool(name, value)
        elif name in {"h", "help"}:
            line.help = True
            break
        else:
            raise FlagError(f"flag provided but not defined: -{name}")
    return line


def load(options: type[AnyOptions], line: CommandLine) -> AnyOptions:
    """Read the config file, if one was named, and build the options. Warnings are added to `line`.

    Raises ConfigFileError about the file, OptionError about a value, FlagError about a feature of the future.
    """
    values = _read_config(options, line) | line.values if line.config else line.values
    return options(**values)


def usage(program: str, options: type[Options]) -> str:
    """The text of --help."""
    lines = [
        f"Usage of {program}:",
        "  Flags are written -flag or --flag, values after = or as the next word (booleans only after =).",
        *([_LIVE] if any(one.live for one in declared(options)) else ()),
        "",
        *_row("--config string", "path of a config file (TOML); flags on the command line beat it"),
        *_row("--version", "print the version and exit"),
        *_row("--help", "print this and exit"),
    ]
    group = ""
    for one in declared(options):
        if one.group != group:
            group = one.group
            lines += ["", f"{group}:"]
        lines += _row(f"--{one.flag} {one.kind.name}", help_of(one))
    if options.ignored_flags:
        lines += ["", "Accepted, without effect:"]
    for ignored in options.ignored_flags:
        lines += _row(f"--{ignored.flag}", ignored.help)
    return "\n".join(lines)


def help_of(option: Option) -> str:
    """Meaning, words to choose from, default and remarks, in one sentence or two."""
    text = option.help
    if isinstance(option.kind, Words):
        text += f": {', '.join(option.kind.words)}"
    if default := option.default_as_text():
        text += f" (default {default})"
    if remarks := option.remarks():
        text += f" [{remarks}]"
    if option.live:
        text += " [live]"
    return text


def _set(line: CommandLine, option: Option, value: str | None, words: Iterator[str]) -> None:
    if option.kind is BOOL:
        line.values[option.name] = _bool(option.flag, value)
        return
    text = _argument(option.flag, value, words)
    try:
        parsed = option.kind.parse(text)
    except ValueError as reason:
        raise FlagError(f'invalid value "{text}" for flag -{option.flag}: {reason}') from None
    if option.kind.repeats:
        parsed = (*line.values.get(option.name, ()), *parsed)
    line.values[option.name] = parsed


def _ignore(line: CommandLine, ignored: IgnoredFlag, value: str | None) -> None:
    if ignored.old_name_of and value is not None:
        try:
            number = INT.parse(value)
        except ValueError:
            _bool(ignored.flag, value)
        else:
            line.values.setdefault(ignored.old_name_of.replace("-", "_"), number)
            line.warnings.append(f"--{ignored.flag} is the old name of --{ignored.old_name_of}")
            return
    line.warnings.append(f"--{ignored.flag} has no effect: {ignored.help}")


def _argument(flag: str, value: str | None, words: Iterator[str]) -> str:
    if value is None:
        value = next(words, None)
    if value is None:
        raise FlagError(f"flag needs an argument: -{flag}")
    return value


def _bool(flag: str, value: str | None) -> bool:
    try:
        return value is None or BOOL.parse(value)
    except ValueError as reason:
        raise FlagError(f'invalid boolean value "{value}" for -{flag}: {reason}') from None


def _read_config(options: type[Options], line: CommandLine) -> dict[str, Any]:
    """The values of a config file, by attribute name."""
    import tomllib  # noqa: PLC0415 - most starts have no config file

    try:
        table = tomllib.loads(Path(line.config).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigFileError(
            f"failed to load config file {line.config} - {error.strerror or error}"
        ) from error
    except ValueError as error:  # bad TOML, bad UTF-8
        raise ConfigFileError(f"failed to load config file {line.config} - {error}") from error
    except RecursionError:
        raise ConfigFileError(f"failed to load config file {line.config} - nested too deeply") from None
    by_key = {one.key: one for one in declared(options)}
    values = {}
    for key, value in table.items():
        if (option := by_key.get(key)) is not None:
            values[option.name] = _take(option, value, line.config)
        elif key not in {one.flag.replace("-", "_") for one in options.ignored_flags}:
            line.warnings.append(f"config file {line.config}: unknown key {key!r}")
    return values


def _take(option: Option, value: object, path: str) -> object:
    try:
        return option.kind.load(value)
    except ValueError as reason:
        if isinstance(option.kind, Words):
            raise ConfigFileError(f"failed parsing {option.key} {value}: {reason}") from None
        text = f"failed to load config file {path} - {option.key} = {value!r}: {reason}"
        raise ConfigFileError(text) from None


def _row(left: str, right: str) -> Iterable[str]:
    """One entry of --help: two columns, wrapped."""
    first, *more = textwrap.wrap(right, _WIDTH - _COLUMN) or [""]
    yield f"  {left:<{_COLUMN - 3}} {first}"
    yield from (" " * _COLUMN + text for text in more)
