"""Faults done to a real nsqd (`make faults`): its promises hold."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scenarios.conftest import program

SECONDS = os.environ.get("NSQKIT_FAULTS_SECONDS", "14")
SEED = int(os.environ.get("NSQKIT_FAULTS_SEED", "20261130"))
ROOT = Path(__file__).resolve().parents[2]


def harness(*flags):
    """Run the harness; what it printed. AssertionError if it found something."""
    command = [sys.executable, "-m", "faults", f"--seed={SEED}", f"--nsqd={' '.join(program())}", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("family", ["kill", "stop", "full", "slow", "net", "clock"])
def test_promises_hold(family):
    """In every durability mode, what was answered OK is delivered, and nothing comes that should not."""
    table = harness(f"--seconds={SECONDS}", f"--faults={family}")

    assert all(f"{family}/{mode}" in table for mode in ("memory", "os", "fsync"))


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_promises_hold_without_privileges():
    """Where nothing may be mounted a limit on file sizes stands in for the full disk."""
    table = harness("--seconds=8", "--faults=full", "--modes=os", "--unprivileged")

    assert "full/os" in table
