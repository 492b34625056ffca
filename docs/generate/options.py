"""The page docs/options.md, written from the programs' declarations of options."""

from collections.abc import Iterator, Mapping

from nsqkit.client.options import ConnectionOptions, ConsumerOptions, ProducerOptions
from nsqkit.nsqd.options import NsqdOptions
from nsqkit.nsqlookupd.options import NsqlookupdOptions
from nsqkit.options import Option, Options, Words, declared
from nsqkit.up.options import UpOptions

PROGRAMS: Mapping[str, type[Options]] = {
    "nsqd": NsqdOptions,
    "nsqlookupd": NsqlookupdOptions,
    "nsqkit up": UpOptions,
}


def options_page() -> str:
    """Every option of every program, with flag, config key, type, default and meaning."""
    lines = [
        "# Options",
        "",
        "<!-- Written by `make docs` from the declarations in the code. -->",
        "",
        "Flags are written `-flag` or `--flag`, the value after `=` or as the next word (booleans only after `=`).",
        "A config file (`--config=<path>`, TOML) uses the keys. The command line beats the config file.",
        "Durations look like `300ms`, `1.5s`, `1h15m`; in a config file a bare integer is milliseconds.",
        "*Live* options can be changed at run time: in the config file, which SIGHUP has the daemons read again, or",
        "with `PUT /config/<key>` of nsqd, until a restart. All others need a restart.",
    ]
    for program, options in PROGRAMS.items():
        lines += ["", f"## {program}", *_tables(options)]
        if options.ignored_flags:
            lines += ["", "### Accepted, without effect", ""]
            lines += [f"- `--{ignored.flag}`: {ignored.help}" for ignored in options.ignored_flags]
    return "\n".join(lines) + "\n"


def client_options_page() -> str:
    """Every option of the client, with type, default and meaning."""
    lines = [
        "# Options of the client",
        "",
        "<!-- Written by `make docs` from the declarations in the code. -->",
        "",
        "Keyword arguments of `Producer`, `Consumer`, `SyncProducer` and `SyncConsumer`, or of `ProducerOptions`",
        "and `ConsumerOptions` for several of them. Times are seconds, text like `1m30s`, or a `timedelta`. Names,",
        "defaults and limits are those of NSQ's own client where it has the option.",
    ]
    common = {one.name for one in declared(ConnectionOptions)}
    for title, options in (
        ("Both", ConnectionOptions),
        ("Producer", ProducerOptions),
        ("Consumer", ConsumerOptions),
    ):
        lines += ["", f"## {title}"]
        group = ""
        for one in declared(options):
            if options is not ConnectionOptions and one.name in common and one.name != "max_msg_size":
                continue
            if options is ConsumerOptions and one.name == "max_msg_size":
                continue
            if one.group != group:
                group = one.group
                lines += [
                    "",
                    f"### {group}",
                    "",
                    "| Option | Type | Default | Meaning |",
                    "|---|---|---|---|",
                ]
            lines.append(f"| `{one.name}` | {one.kind.name} | {_default(one)} | {_meaning(one)} |")
    return "\n".join(lines) + "\n"


def _tables(options: type[Options]) -> Iterator[str]:
    group = ""
    for one in declared(options):
        if one.group != group:
            group = one.group
            yield from (
                "",
                f"### {group}",
                "",
                "| Flag | Key | Type | Default | Meaning |",
                "|---|---|---|---|---|",
            )
        yield f"| `--{one.flag}` | `{one.key}` | {one.kind.name} | {_default(one)} | {_meaning(one)} |"


def _default(option: Option) -> str:
    text = option.default_as_text()
    return f"`{text}`" if text and option.default_text is None else text


def _meaning(option: Option) -> str:
    parts = [option.help]
    if isinstance(option.kind, Words):
        parts.append(", ".join(f"`{word}`" for word in option.kind.words))
    if option.within is not None and not option.error:
        parts.append(f"limits: {option.limits()}")
    if option.live:
        parts.append("*live*")
    if option.remarks():
        parts.append(f"*{option.remarks()}*")
    return "; ".join(parts)
