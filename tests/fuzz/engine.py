"""Fuzzes one target in this process: `python -m tests.fuzz.engine TARGET SECONDS WORK RUNS SEED`.

With atheris, coverage of nsqkit guides it; what reaches something new is kept in WORK/TARGET, and the next run goes
on from there. Without, inputs are mutated blindly. SEED decides what is tried, 0: chance. RUNS is how much at most, 0:
until the time is over. Whatever a target raises is made small and kept in WORK/crashes,
once for each place where it is raised, and the run goes on.
"""

import hashlib
import importlib
import importlib.util
import os
import sys
import time
import traceback
from collections.abc import Callable
from random import Random
from typing import Any, Final

from tests.fuzz.corpus import CORPUS, inputs, target
from tests.fuzz.mutation import MAX_BYTES, mutated

atheris: Any = importlib.import_module("atheris") if importlib.util.find_spec("atheris") else None

TIMEOUT_S: Final = 20  # one input, before it counts as a hang
MEMORY_MB: Final = 2048
SHRINKING_S: Final = 2.0

Signature = tuple[str, ...]


class Found:
    """Runs inputs, and keeps those that raise something."""

    def __init__(self, name: str, check: Callable[[bytes], None], directory: str) -> None:
        self._name = name
        self._check = check
        self._directory = directory
        self._seen: set[Signature] = set()
        os.makedirs(directory, exist_ok=True)

    def run(self, data: bytes) -> None:
        """One input."""
        signature = self._signature(data)
        if signature is None or signature in self._seen:
            return
        self._seen.add(signature)
        small = self._shrunk(data, signature)
        name = f"{self._name}-{hashlib.sha256(small).hexdigest()[:12]}"
        path = os.path.join(self._directory, name)
        with open(path, "wb") as file:
            file.write(small)
        print(f"FOUND {': '.join(signature)}\n  python -m tests.fuzz.run {self._name} {path}", flush=True)

    def _signature(self, data: bytes) -> Signature | None:
        """Where and how an input fails; None if it does not."""
        try:
            self._check(data)
        except Exception as error:  # noqa: BLE001 - whatever it is, it was found
            frames = traceback.extract_tb(error.__traceback__)[-2:]
            return type(error).__name__, *(f"{os.path.basename(f.filename)}:{f.lineno}" for f in frames)
        return None

    def _shrunk(self, data: bytes, signature: Signature) -> bytes:
        """The input without what it does not need to fail in the same way."""
        end = time.monotonic() + SHRINKING_S
        length = max(1, len(data) // 2)
        while length:
            at = 0
            while at < len(data) and time.monotonic() < end:
                shorter = data[:at] + data[at + length :]
                if self._signature(shorter) == signature:
                    data = shorter
                else:
                    at += length
            length //= 2
        return data


def blindly(found: Found, corpus: list[bytes], seconds: float, runs: int, seed: int) -> None:
    """Mutate inputs of the corpus until the time is over, or the runs are."""
    random = Random(seed or None)
    started = time.monotonic()
    count = 0
    for data in corpus:
        found.run(data)
    while time.monotonic() - started < seconds and (not runs or count < runs):
        found.run(mutated(random, corpus))
        count += 1
    print(f"#{count} BUILTIN exec/s: {count / seconds:.0f}")


def main() -> None:
    """Fuzz."""
    name, seconds, work, *numbers = sys.argv[1:]
    runs, seed = map(int, numbers)
    crashes = os.path.join(work, "crashes")
    kept = os.path.join(work, name)
    os.makedirs(kept, exist_ok=True)
    if atheris is None:
        corpus = [*inputs(name).values(), *inputs(name, work).values()]
        blindly(Found(name, target(name), crashes), corpus, float(seconds), runs, seed)
        return
    with atheris.instrument_imports(include=["nsqkit"]):
        found = Found(name, target(name), crashes)
    options = {
        "max_total_time": seconds,
        "runs": runs or -1,
        "seed": seed,
        "max_len": MAX_BYTES,
        "timeout": TIMEOUT_S,
        "rss_limit_mb": MEMORY_MB,
        "artifact_prefix": os.path.join(crashes, f"{name}-"),
        "print_final_stats": 1,
    }
    words = [f"-{key}={value}" for key, value in options.items()]
    atheris.Setup([sys.argv[0], *words, kept, os.path.join(CORPUS, name)], found.run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
