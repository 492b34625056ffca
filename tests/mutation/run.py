"""Breaks the code on purpose, one way at a time, and asks the simulation and the suite whether they notice.

    python tests/mutation/run.py [--only TEXT] [--seeds 300] [--report docs/mutation.md] [--jobs 2]

Each mutation is applied to a copy of the tree, uncompiled. The simulation runs seeds until one fails; the suite stops
at its first failure. A mutation that neither of them notices is a hole in the tests: exit code 1.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path("src/nsqkit")
COPIED = ("src", "tests", "pyproject.toml", "docs")
SUITE = ("tests/client", "tests/nsqd", "tests/wire", "tests/web")
TIME_LIMIT_S = 900  # for each of the two, with one mutation: one that makes the code hang is noticed by that

_SIMULATION = """
import sys
from tests.simulation.run import run_chunk
from tests.simulation.shrink import execute
from tests.simulation.stored import cases
for number, case in enumerate(cases()):
    outcome = execute(case.config, case.steps)
    if outcome.kind:
        sys.exit(f"case {{number}}: {{outcome.kind}}: {{outcome.text}}")
for first in range(0, {seeds}, 10):
    failures = run_chunk(first, first + 10)[2]
    if failures:
        sys.exit(failures[0][1])
"""


@dataclass(frozen=True, slots=True)
class Mutation:
    """One way to break the code: `old` becomes `new` in a file of the package."""

    what: str
    file: str
    old: str
    new: str
    simulated: bool = True  # the simulation has this

    def apply(self, tree: Path) -> None:
        """Change the file. ValueError if `old` is not there exactly once."""
        path = tree / PACKAGE / self.file
        source = path.read_text(encoding="utf-8")
        if source.count(self.old) != 1:
            raise ValueError(f"{self.what}: found {source.count(self.old)} times in {self.file}")
        path.write_text(source.replace(self.old, self.new), encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Outcome:
    """Who noticed a mutation; an empty text is nobody."""

    mutation: Mutation
    simulation: str
    suite: str


def mutations() -> list[Mutation]:
    """All of them."""
    table = tomllib.loads(Path(__file__).with_name("mutations.toml").read_text(encoding="utf-8"))
    return [Mutation(**one) for one in table["mutation"]]


def try_out(mutation: Mutation, seeds: int) -> Outcome:
    """Break a copy of the tree, and see who notices."""
    with tempfile.TemporaryDirectory(prefix="mutation-") as name:
        tree = Path(name)
        for part in COPIED:
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(source, tree / part, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
            else:
                shutil.copy(source, tree / part)
        mutation.apply(tree)
        noticed = simulate(tree, seeds) if mutation.simulated else ""
        return Outcome(mutation, noticed, run_suite(tree, mutation.file))


def simulate(tree: Path, seeds: int) -> str:
    """Which seed noticed, and what."""
    code, output = run(tree, "-c", _SIMULATION.format(seeds=seeds))
    if code == 0:
        return ""
    noticed = re.search(r"((?:case|seed) \d+: [^:]+)", output)
    return noticed[1] if noticed else "out of time" if "out-of-time" in output else "crashed"


def run_suite(tree: Path, file: str) -> str:
    """Which test noticed. Those of the file itself come first."""
    folder, _, name = file.rpartition("/")
    own = sorted(str(path) for path in (tree / "tests" / folder).glob(f"test_{name.removesuffix('.py')}*.py"))
    return (run_tests(tree, *own) if own else "") or run_tests(tree, *SUITE)


def run_tests(tree: Path, *tests: str) -> str:
    """Which of these noticed."""
    code, output = run(
        tree, "-m", "pytest", *tests, "-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly"
    )
    if code == 0:
        return ""
    failed = re.search(r"^(?:FAILED|ERROR) (tests/\S+)", output, re.MULTILINE)
    return failed[1].replace("tests/", "") if failed else "crashed"


def run(tree: Path, *arguments: str) -> tuple[int, str]:
    """Run Python in a tree; its exit code and what it printed. Running out of time is a failure too."""
    environment = {
        **os.environ,
        "PYTHONPATH": f"{tree / 'src'}{os.pathsep}{tree}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    try:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=tree,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 1, "FAILED out-of-time"
    return done.returncode, done.stdout + done.stderr


def report(outcomes: Sequence[Outcome], seeds: int) -> str:
    """The page."""
    return "\n".join([*_head(len(outcomes), seeds), *_rows(outcomes), ""])


def _head(count: int, seeds: int) -> list[str]:
    return [
        "# Broken on purpose",
        "",
        "<!-- Written by `make mutate`. -->",
        "",
        f"`make mutate` breaks the code in {count} ways (`tests/mutation/mutations.toml`), one at a time, and asks two",
        "judges: the simulation, with the cases that once failed and up to",
        f"{seeds} seeds, and the unit and property tests below {', '.join(f'`{part}`' for part in SUITE)}.",
        "A dash means that this judge did not notice; both dashes would be a hole.",
        "The simulation has no client, HTTP, TLS, AUTH, statsd or zones: there its column is empty.",
        "",
        "| what was broken | where | simulation | suite |",
        "|---|---|---|---|",
    ]


def _rows(outcomes: Sequence[Outcome]) -> Iterator[str]:
    for one in outcomes:
        simulation = one.simulation or ("–" if one.mutation.simulated else "")  # noqa: RUF001
        yield f"| {one.mutation.what} | `{one.mutation.file}` | {simulation} | {_short(one.suite) or '–'} |"  # noqa: RUF001


def _short(test: str) -> str:
    return f"`{test}`" if test else ""


def main(argv: Sequence[str] | None = None) -> int:
    """Try the mutations; 1 if one of them goes unnoticed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="", help="mutations whose description holds this text")
    parser.add_argument("--seeds", type=int, default=300, help="of the simulation, for each mutation")
    parser.add_argument("--jobs", type=int, default=2, help="mutations tried at the same time")
    parser.add_argument("--report", type=Path, help="write the table to this file")
    asked = parser.parse_args(argv)
    chosen = [one for one in mutations() if asked.only in one.what]
    began = time.monotonic()
    outcomes: list[Outcome] = []
    with ThreadPoolExecutor(asked.jobs) as pool:
        for outcome in pool.map(lambda one: try_out(one, asked.seeds), chosen):
            outcomes.append(outcome)
            print(f"{time.monotonic() - began:7.0f} s  {outcome.mutation.what}", flush=True)
            print(f"           simulation: {outcome.simulation or 'NOT NOTICED'}", flush=True)
            print(f"           suite:      {outcome.suite or 'NOT NOTICED'}", flush=True)
            if asked.report is not None:
                asked.report.write_text(report(outcomes, asked.seeds), encoding="utf-8")
    missed = [one.mutation.what for one in outcomes if not one.simulation and not one.suite]
    print(f"{len(outcomes)} mutations, {len(missed)} unnoticed" + "".join(f"\n  {what}" for what in missed))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
