"""Seeds, their repetition, what they reach, and what once failed."""

import hashlib
import os
import subprocess
import sys
import tomllib
from collections import Counter
from random import Random

import pytest

from tests.simulation import shrink
from tests.simulation.conftest import ROOT
from tests.simulation.run import main
from tests.simulation.steps import WEIGHTS, generate
from tests.simulation.stored import MEANINGS, cases, step_of, stored_of

SEEDS = 300
CHUNK = 20

REACHED = (
    "backpressure",
    "batch damaged",
    "carried forward",
    "calendar set back",
    "calendar set forward",
    "channel deleted",
    "channel emptied",
    "channel paused",
    "clean stop",
    "cut with unsynced data",
    "disk full",
    "E_FIN_FAILED",
    "E_PUB_FAILED",
    "garbage",
    "journal replayed",
    "kill with unsynced data",
    "layer ready by itself",
    "log given up",
    "layer ready when greeted",
    "layer spoiled",
    "layer spoke unasked",
    "message deferred",
    "message requeued",
    "message timed out",
    "piece through a layer",
    "read failed",
    "redelivered",
    "segment removed",
    "slow job",
    "split command",
    "start failed",
    "sync failed",
    "topic deleted",
    "topic emptied",
    "topic paused",
    "torn end cut off",
    "write failed",
)


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_seeds(first):
    """Whatever happens in these worlds, every promise is kept."""
    for seed in range(first, first + CHUNK):
        outcome = shrink.execute(*generate(seed))
        assert not outcome.kind, (
            f"seed {seed}: {outcome.text}\npython -m tests.simulation.run --replay={seed}"
        )


@pytest.mark.parametrize("case", [pytest.param(case, id=str(n)) for n, case in enumerate(cases())])
def test_what_once_failed(case):
    """A bug that was found stays away, and its case still meets what it was found with."""
    outcome = shrink.execute(case.config, case.steps)

    assert not outcome.kind, f"{outcome.text}\n{case.why}"
    assert [] == [name for name in case.reaches if not outcome.counts[name]]


@pytest.mark.parametrize("name", MEANINGS)
def test_stored_steps_mean_the_same(name):
    """A step that is stored by what it does does that when it is read again, whatever its numbers are."""
    chance = Random(7)
    for _ in range(20):
        a, b, c, luck = (chance.getrandbits(16) for _ in range(4))

        stored = tomllib.loads(f"step = {stored_of((name, a, b, c, luck))}")["step"]

        assert (MEANINGS[name](a, b, c), luck) == (stored[1], stored[2])
        again = step_of(stored)
        assert MEANINGS[name](a, b, c) == MEANINGS[name](*again[1:4])


def test_a_stored_step_that_is_gone():
    """What no step does any more is an error, and not another step."""
    with pytest.raises(ValueError, match="no full does this any more"):
        step_of(["full", {"free": 5}, 1])


def test_interesting_things_happen():
    """Some seeds are enough to meet everything that is worth meeting."""
    counts: Counter[str] = Counter()
    for seed in range(1000, 1000 + 150):
        counts.update(shrink.execute(*generate(seed)).counts)

    assert [] == [name for name in REACHED if not counts[name]]


def trace_of(seed: int) -> str:
    """All that happens, in a line per event."""
    config, steps = generate(seed)
    return "\n".join(shrink.execute(config, steps, trace=True).trace)


@pytest.mark.parametrize("seed", [3, 7, 11])
def test_a_seed_decides_everything(seed):
    """Two runs of a seed have the same trace."""
    first = trace_of(seed)

    assert len(first) > 100
    assert first == trace_of(seed)


def test_hashes_decide_nothing():
    """The trace does not depend on the order of sets and hashes."""
    program = "from tests.simulation.test_seeds import trace_of; print(''.join(map(trace_of, range(20, 25))))"
    digests = set()
    for hash_seed in ("1", "2"):
        environment = os.environ | {
            "PYTHONHASHSEED": hash_seed,
            "PYTHONPATH": os.pathsep.join([ROOT, *sys.path]),
        }
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, cwd=ROOT, capture_output=True, check=True
        )
        digests.add(hashlib.sha256(done.stdout).hexdigest())

    assert 1 == len(digests)


def test_every_step_has_a_weight():
    """The generator and the world know the same steps."""
    from tests.simulation import machine, operators

    assert all(callable(getattr(machine, name, getattr(operators, name, None))) for name in WEIGHTS)


def test_a_failure_is_shrunk(monkeypatch):
    """What a failure does not need is left out: the steps after it, and single ones before it."""
    config, steps = generate(1)
    needed = [steps[3], steps[9]]

    def execute(_, some, *, trace=False):
        kind = "lost" if all(step in some for step in needed) else ""
        return shrink.Outcome(kind, "", [], Counter())

    monkeypatch.setattr(shrink, "execute", execute)

    assert needed == shrink.shrink(config, steps, "lost")
    assert "2 of its" in shrink.report(1)


def test_the_program_reports_what_happened(capsys):
    """It prints how fast it was and what happened, and succeeds when nothing failed."""
    assert 0 == main(["--seeds=4", "--from=40", "--jobs=1"])

    printed = capsys.readouterr().out
    assert "4 seeds, 0 failed" in printed
    assert "steps" in printed
