"""The `nsqkit` program: what has no counterpart in NSQ, as subcommands. Each is imported only when it is called."""

import sys
from collections.abc import Sequence
from importlib import import_module

from nsqkit.version import version_line

COMMANDS = {
    "bench": ("nsqkit.bench.cli", "measure any nsqd: rates, latencies and CPU per message"),
    "up": ("nsqkit.up.cli", "run nsqlookupd and nsqd on this machine, with one log"),
    "export": ("nsqkit.nsqd.handover.export", "write what a stopped nsqd still owes as files of NSQ 1.3"),
}
"""Name of each subcommand, the module whose `main(argv)` carries it out, and what it does."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit code; 2 if there is no such command."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    match arguments:
        case ["--version" | "-version" | "-V", *_]:
            print(version_line("nsqkit"))
            return 0
        case ["--help" | "-help" | "-h" | "help", *_]:
            print(usage())
            return 0
        case [name, *rest] if name in COMMANDS:
            module = import_module(COMMANDS[name][0])
            code: int = module.main(rest)
            return code
        case [name, *_]:
            print(f"nsqkit: there is no command {name!r}\nnsqkit --help tells more", file=sys.stderr)
        case _:
            print(usage(), file=sys.stderr)
    return 2


def usage() -> str:
    """The text of `nsqkit --help`."""
    rows = [f"  {name:<8} {meaning}" for name, (_, meaning) in COMMANDS.items()]
    return "\n".join(
        [
            "Usage: nsqkit <command> [flags]",
            "",
            "Commands:",
            *rows,
            "",
            "nsqkit --version tells which build runs.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
