"""Runs fuzz targets, or replays inputs. docs/fuzzing.md tells how."""

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from tests.fuzz.corpus import names, target

JOBS: Final = 2
_LAST_LINE: Final = re.compile(r"#(\d+)\s+(?:DONE|BUILTIN)(?: +cov: (\d+) ft: (\d+))?.*?exec/s: (\d+)")
_FIRST_LINE: Final = re.compile(r"INITED +cov: (\d+)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Replay or fuzz; the exit code is 1 if anything was found."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz.run", description="Fuzz nsqkit, or replay inputs."
    )
    parser.add_argument("--seconds", type=float, default=0, help="time to fuzz in all; 0: replay files")
    parser.add_argument("--runs", type=int, default=0, help="most inputs to try of each target; 0: no limit")
    parser.add_argument(
        "--seed", type=int, default=0, help="try the same inputs each time, as many as the time is for"
    )
    parser.add_argument("--work", default="build/fuzz", help="directory for new inputs and crashes")
    parser.add_argument("words", nargs="*", help="TARGET FILE..., or with --seconds targets")
    given = parser.parse_args(arguments)
    if given.seconds > 0:
        unknown = sorted(set(given.words) - set(names()))
        if unknown:
            parser.error(f"no such target: {', '.join(unknown)}; there are {', '.join(names())}")
        if given.seed:  # what was found before would lead elsewhere
            shutil.rmtree(given.work, ignore_errors=True)
        engine = [given.work, str(given.runs), str(given.seed)]
        return _fuzz(given.words or names(), given.seconds, engine)
    if len(given.words) < 2 or given.words[0] not in names():
        parser.error(f"say a target and files; targets are {', '.join(names())}")
    for path in given.words[1:]:
        with open(path, "rb") as file:
            target(given.words[0])(file.read())  # a failure shows its traceback
        print(f"{path}: good")
    return 0


def _fuzz(targets: Sequence[str], seconds: float, engine: Sequence[str]) -> int:
    """Run each target in a process of its own, JOBS at a time, and print a table."""
    jobs = min(JOBS, len(targets))
    each = seconds * jobs / len(targets)
    coverage = importlib.util.find_spec("atheris") is not None
    if not coverage:
        print("atheris is not installed for this Python: mutating blindly, without coverage to guide it")
    print(f"{len(targets)} targets, {each:.1f} s each, {jobs} at a time; new inputs go to {engine[0]}")
    print(f"{'target':14} {'runs':>9} {'runs/s':>7} {'coverage':>14} {'new':>5} {'found':>6}")
    with ThreadPoolExecutor(jobs) as pool:
        found = sum(pool.map(lambda name: _fuzz_one(name, each, engine), targets))
    return 1 if found else 0


def _fuzz_one(name: str, seconds: float, engine: Sequence[str]) -> int:
    """Fuzz one target; how much was found."""
    work = engine[0]
    crashes = os.path.join(work, "crashes")
    before = set(_listed(crashes))
    inputs = len(_listed(os.path.join(work, name)))
    command = [sys.executable, "-m", "tests.fuzz.engine", name, str(max(1, round(seconds))), *engine]
    started = time.monotonic()
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, errors="replace", check=False
    )
    output = done.stdout + done.stderr
    last, first = _LAST_LINE.search(output), _FIRST_LINE.search(output)
    covered = f"{first[1]}->{last[2]}" if first and last and last[2] else "-"
    new = len(_listed(os.path.join(work, name))) - inputs
    found = sorted(path for path in set(_listed(crashes)) - before if path.startswith(f"{name}-"))
    runs, rate = (last[1], last[4]) if last else ("?", "?")
    print(f"{name:14} {runs:>9} {rate:>7} {covered:>14} {new:>5} {len(found):>6}", flush=True)
    for path in found:
        print(f"  python -m tests.fuzz.run {name} {os.path.join(crashes, path)}")
    if last is None:
        print(f"  ended after {time.monotonic() - started:.0f} s with {done.returncode}:\n{output[-2000:]}")
    return len(found) + (last is None)


def _listed(directory: str) -> list[str]:
    return os.listdir(directory) if os.path.isdir(directory) else []


if __name__ == "__main__":
    sys.exit(main())
