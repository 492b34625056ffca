"""Runs many seeds: `python -m tests.simulation.run --seeds=2000 [--from=0] [--jobs=2]`, or `--replay=SEED`.

Prints progress and steps per second, and in the end how often each interesting thing happened. Failures are reported
with the fewest steps that show them, and make the exit code 1.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import Final

from tests.simulation.shrink import execute, report
from tests.simulation.steps import generate

CHUNK: Final = 20  # seeds that a process takes at a time
CHUNKS: Final = 20  # that a process takes in its life: what a killed nsqd was waiting for is never freed
PROGRESS_S: Final = 10.0
MOST_REPORTS: Final = 5

Result = tuple[int, Counter[str], list[tuple[int, str]]]


def main(arguments: list[str] | None = None) -> int:
    """The program; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--seeds", default="2000", help="how many, or `forever`")
    parser.add_argument("--from", dest="first", type=int, default=0, help="the first one")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--failures", type=int, default=1, help="go on until so many seeds have failed")
    parser.add_argument("--replay", type=int, help="one seed, explained")
    asked = parser.parse_args(arguments)
    if asked.replay is not None:
        print(report(asked.replay))
        return 0
    stop = None if asked.seeds == "forever" else asked.first + int(asked.seeds)
    counts, failures = run(asked.first, stop, asked.jobs, asked.failures)
    show_counts(counts)
    for seed, what in sorted(failures)[:MOST_REPORTS]:
        print(f"\n=== {what}\n{report(seed)}")
    if failures:
        print(f"\nFAILED: seeds {' '.join(str(seed) for seed, _ in sorted(failures))}")
    return 1 if failures else 0


def run(first: int, stop: int | None, jobs: int, enough: int) -> tuple[Counter[str], list[tuple[int, str]]]:
    """Seeds from `first` up to `stop`, or until `enough` have failed and all that were begun are done."""
    counts: Counter[str] = Counter()
    failures: list[tuple[int, str]] = []
    seeds = 0
    began = shown = time.monotonic()
    chunks = _chunks(first, stop)
    with ProcessPoolExecutor(jobs, max_tasks_per_child=CHUNKS) as pool:
        running: set[Future[Result]] = set()
        while True:
            wanted = jobs * 2 if len(failures) < enough else 0
            while len(running) < wanted and (chunk := next(chunks, None)) is not None:
                running.add(pool.submit(run_chunk, *chunk))
            if not running:
                break
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                count, some, failed = future.result()
                seeds += count
                counts.update(some)
                failures += failed
                for _, what in failed:
                    print(what, flush=True)
            now = time.monotonic()
            if now - shown > PROGRESS_S or not running:
                shown = now
                print(_progress(seeds, counts["steps"], len(failures), now - began), flush=True)
    return counts, failures


def run_chunk(first: int, stop: int) -> Result:
    """Some seeds, one after the other."""
    counts: Counter[str] = Counter()
    failures: list[tuple[int, str]] = []
    gc.disable()  # a world is one heap of cycles: looking for them while it lives takes a fifth of the time
    for seed in range(first, stop):
        outcome = execute(*generate(seed))
        counts.update(outcome.counts)
        if outcome.kind:
            failures.append((seed, f"seed {seed}: {outcome.kind}: {outcome.text}"))
    gc.enable()
    gc.collect()
    return stop - first, counts, failures


def show_counts(counts: Counter[str]) -> None:
    """How often each thing happened."""
    print("\nwhat happened")
    for name, count in sorted(counts.items()):
        print(f"{count:12,}  {name}")


def _chunks(first: int, stop: int | None) -> Iterator[tuple[int, int]]:
    for begin in itertools.count(first, CHUNK):
        if stop is not None and begin >= stop:
            return
        yield begin, begin + CHUNK if stop is None else min(begin + CHUNK, stop)


def _progress(seeds: int, steps: int, failures: int, seconds: float) -> str:
    speed = f"{seeds / seconds:.0f} seeds/s, {steps / seconds:,.0f} steps/s"
    return f"{seconds:7.0f} s  {seeds:,} seeds, {failures} failed; {speed}"


if __name__ == "__main__":
    sys.exit(main())
