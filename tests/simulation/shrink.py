"""Running a seed, and finding the fewest of its steps that still break the same promise."""

from __future__ import annotations

import traceback
from collections import Counter
from typing import Any

from tests.simulation.steps import Step, generate
from tests.simulation.stored import stored_of
from tests.simulation.world import World

MOST_RUNS = 600  # of one search


class Outcome:
    """What became of a run. `kind` is "" if all went well."""

    def __init__(self, kind: str, text: str, trace: list[str], counts: Counter[str]) -> None:
        self.kind = kind
        self.text = text
        self.trace = trace
        self.counts = counts


def execute(config: dict[str, Any], steps: list[Step], *, trace: bool = False) -> Outcome:
    """Run a world."""
    world = World(config, trace=trace)
    try:
        world.run(steps)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever goes wrong in there is what is looked for
        kind = getattr(error, "kind", "") or type(error).__name__
        text = str(error)
        if trace and not hasattr(error, "kind"):
            text += "\n" + "".join(traceback.format_exception(error)[-12:])
        return Outcome(kind, text, world.trace, world.counts)
    return Outcome("", "", world.trace, world.counts)


def shrink(config: dict[str, Any], steps: list[Step], kind: str) -> list[Step]:
    """The shortest prefix that still fails like this, and then without the steps that it does not need."""
    runs = 0

    def fails(some: list[Step]) -> bool:
        nonlocal runs
        runs += 1
        return runs <= MOST_RUNS and execute(config, some).kind == kind

    low, high = 0, len(steps)
    while low < high:
        middle = (low + high) // 2
        if fails(steps[:middle]):
            high = middle
        else:
            low = middle + 1
    if fails(steps[:high]):
        steps = steps[:high]
    size = max(len(steps) // 2, 1)
    while True:
        at = 0
        smaller = False
        while at < len(steps):
            rest = steps[:at] + steps[at + size :]
            if fails(rest):
                steps = rest
                smaller = True
            else:
                at += size
        if size == 1 and not smaller:
            return steps
        size = max(size // 2, 1)


def report(seed: int) -> str:
    """A failing seed, explained: the steps that are needed, and what happens."""
    config, steps = generate(seed)
    first = execute(config, steps)
    if not first.kind:
        return f"seed {seed}: all is well"
    fewest = shrink(config, steps, first.kind)
    last = execute(config, fewest, trace=True)
    lines = [
        f"seed {seed}: {first.kind}: {first.text}",
        f"{len(fewest)} of its {len(steps)} steps are enough:",
        f"config = {config!r}",
        "steps = [",
        *(f"    {stored_of(step)}," for step in fewest),
        "]",
        *last.trace,
        f"{last.kind}: {last.text}",
    ]
    return "\n".join(lines)
