"""Ill-treat a real nsqd under load, and check that what it answered OK is delivered: see docs/faults.md.

    python -m faults [--seconds 120] [--seed N] [--faults kill,stop,full,slow,net,clock] [--modes memory,os,fsync]

The modes of a family run at the same time, the families one after the other. Exit code 1 when a promise was broken;
then the journals, the logs and the data paths are kept, and a line says where.
"""

import argparse
import asyncio
import contextlib
import os
import resource
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from random import SystemRandom

from faults.controls import Controls
from faults.facts import Journal
from faults.families import FAMILIES, SMALL_DISK_BYTES, plan
from faults.machine import namespace, small_disk
from faults.proxy import Proxy
from faults.run import FLAGS, Outcome, Run, Tools
from faults.server import HarnessError, Server

MODES = ("memory", "os", "fsync")
REST_S = 5.0  # of a family's time, for draining and the last restart
RATE = 500.0

_COLUMNS = "{:<14}{:>7}{:>9}{:>9}{:>11}{:>10}{:>12}{:>11}{:>7}"


async def play(family: str, mode: str, directory: Path, arguments: argparse.Namespace) -> Outcome:
    """One family in one mode."""
    async with prepared(family, mode, directory, arguments) as run:
        chance = plan(arguments.seed, family, mode)
        load_s = max(3.0, arguments.seconds / len(arguments.faults) - REST_S)
        try:
            await run.play(FAMILIES[family], chance, arguments.rate, load_s)
        except HarnessError as error:
            run.complaints.append(str(error))
        outcome = run.judge()
        if run.tools.disk is not None and outcome.report.findings:
            run.tools.disk.keep(directory / "data-kept")  # the file system ends with the run
        return outcome


@contextlib.asynccontextmanager
async def prepared(
    family: str, mode: str, directory: Path, arguments: argparse.Namespace
) -> AsyncIterator[Run]:
    """A run with the tools that its faults need."""
    data_path = directory / "data"
    os.makedirs(data_path)
    given_back = plan(arguments.seed, family, f"{mode}, given back").random() < 0.3
    flags = [f"--durability={mode}", *FLAGS, f"--requeue-on-disconnect={given_back}".lower()]
    flags.append("--min-free-space=0")
    tools = Tools(Controls(directory / "controls"), asks=family == "full", given_back=given_back)
    program = shlex.split(arguments.nsqd)
    with contextlib.ExitStack() as lent, Journal(directory / "journal") as journal:
        if family == "full":
            if not arguments.unprivileged:
                tools.disk = lent.enter_context(small_disk(data_path, SMALL_DISK_BYTES))
            if tools.disk is None:
                print(
                    f"{family}/{mode}: nothing was mounted; a limit on file sizes stands in for the full disk"
                )
        if family == "net":
            if mode == "os" and not arguments.unprivileged:
                tools.wire = lent.enter_context(namespace(arguments.seed % 4096))
            if tools.wire is None:
                tools.proxy = Proxy()
            if mode == "os" and tools.wire is None:
                print(f"{family}/{mode}: there is no namespace; a proxy stands in for the network")
        if family in ("slow", "clock"):
            program = [sys.executable, "-m", "faults.launcher", str(directory / "controls")]
        server = Server(
            directory,
            data_path,
            journal,
            flags,
            host=tools.wire.host if tools.wire else "127.0.0.1",
            program=program,
            wrapper=tools.wire.prefix if tools.wire else (),
        )
        yield Run(f"{family}/{mode}", mode, directory, server, tools)


def row(outcome: Outcome) -> str:
    """A line of the table."""
    report = outcome.report
    return _COLUMNS.format(
        outcome.name,
        outcome.faults,
        report.ok,
        outcome.refused,
        report.delivered,
        report.explained,
        report.unexplained,
        report.permitted,
        report.lost,
    )


async def run(arguments: argparse.Namespace, directory: Path) -> bool:
    """Every family, and the table; True if all is well."""
    heads = (
        "fault/mode",
        "faults",
        "OK'd",
        "refused",
        "delivered",
        "explained",
        "unexplained",
        "permitted",
        "lost",
    )
    print(" " * 50 + "again:" + " " * 28 + "lost:")
    print(_COLUMNS.format(*heads), flush=True)
    wrong: list[Outcome] = []
    for family in arguments.faults:
        runs = [play(family, mode, directory / family / mode, arguments) for mode in arguments.modes]
        for outcome in await asyncio.gather(*runs):
            print(row(outcome), flush=True)
            if outcome.report.findings or not outcome.report.ok:
                wrong.append(outcome)
    for outcome in wrong:
        print(f"\n{outcome.name}: see {outcome.journal.parent}")
        print("\n".join(outcome.report.lines() or ["nothing was answered OK"]))
    return not wrong


def chosen(known: Sequence[str], text: str) -> list[str]:
    """Names out of `known`, parted by commas."""
    names = text.split(",")
    if strange := [name for name in names if name not in known]:
        raise argparse.ArgumentTypeError(f"{strange[0]!r} is none of {', '.join(known)}")
    return names


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=120, help="for all families together (120)")
    parser.add_argument("--seed", type=int, default=0, help="what the plan comes from; 0: choose one")
    parser.add_argument(
        "--faults",
        type=lambda t: chosen(list(FAMILIES), t),
        default=list(FAMILIES),
        metavar="A,B",
        help=f"families of faults ({','.join(FAMILIES)})",
    )
    parser.add_argument(
        "--modes",
        type=lambda t: chosen(MODES, t),
        default=list(MODES),
        metavar="A,B",
        help=f"durability modes ({','.join(MODES)})",
    )
    parser.add_argument(
        "--rate", type=float, default=RATE, help=f"messages a second, for each nsqd ({RATE:g})"
    )
    parser.add_argument("--nsqd", default="", help="the command, where no launcher is needed")
    parser.add_argument("--unprivileged", action="store_true", help="mount nothing, make no namespace")
    parser.add_argument("--keep", default="", metavar="DIRECTORY", help="put everything there, and keep it")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run; the exit code."""
    arguments = parse(argv)
    arguments.seed = arguments.seed or SystemRandom().randrange(1, 1 << 32)
    directory = Path(arguments.keep or tempfile.mkdtemp(prefix="nsqkit-faults-"))
    print(f"seed {arguments.seed}", flush=True)
    began = time.monotonic()
    well = asyncio.run(run(arguments, directory))
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    cpu_s = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
    print(f"\n{time.monotonic() - began:.0f} s, {cpu_s:.0f} s of CPU")
    if not well:
        print(f"seed {arguments.seed}; everything is kept in {directory}")
        return 1
    if not arguments.keep:
        shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
