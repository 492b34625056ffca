"""Writes the pages of docs/ that code can print: `python -m nsqkit.docs`. With --check it only says which are stale."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from nsqkit.http_docs import http_page
from nsqkit.nsqd.options import NsqdOptions
from nsqkit.nsqlookupd.options import NsqlookupdOptions
from nsqkit.options import Option, Options, Words, declared
from nsqkit.up.options import UpOptions

DOCS = Path("docs")
"""Where the pages are, seen from the project's root."""

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
        "Flags are written `-flag` or `--flag`, the value behind `=` or as the next word (booleans only behind `=`).",
        "A config file (`--config=<path>`, TOML) uses the keys. The command line beats the config file.",
        "Durations look like `300ms`, `1.5s`, `1h15m`; in a config file a bare integer is milliseconds.",
        "*Live* options can be changed at run time with `PUT /config/<key>`.",
    ]
    for program, options in PROGRAMS.items():
        lines += ["", f"## {program}", *_tables(options)]
        if options.ignored_flags:
            lines += ["", "### Accepted, without effect", ""]
            lines += [f"- `--{ignored.flag}`: {ignored.help}" for ignored in options.ignored_flags]
    return "\n".join(lines) + "\n"


PAGES: Mapping[str, Callable[[], str]] = {"options.md": options_page, "http.md": http_page}
"""Name of each generated page, and the function that writes it."""


def stale(docs: Path) -> list[str]:
    """The generated pages that are missing or differ from what the code says."""
    return [name for name, page in PAGES.items() if not _has(docs / name, page())]


def main(argv: Sequence[str] | None = None) -> int:
    """Write the pages, or check them: then 1 if one is stale."""
    if "--check" in (sys.argv[1:] if argv is None else argv):
        outdated = stale(DOCS)
        for name in outdated:
            print(f"{DOCS / name} is stale: run make docs", file=sys.stderr)
        return 1 if outdated else 0
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
    return 0


def _has(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


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


if __name__ == "__main__":
    sys.exit(main())
