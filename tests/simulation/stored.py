"""Cases as `regressions.toml` keeps them: what a step does stands there by name, not as numbers.

A step's numbers are taken modulo tables, and these grow: the same numbers would mean something else then, and a case
would go on without ever meeting what it was found with. So a case also names counters that it must reach.
"""

from __future__ import annotations

import errno
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final

from tests.simulation import machine, operators
from tests.simulation.steps import Step

FILE: Final = Path(__file__).with_name("regressions.toml")

Meaning = dict[str, Any]


def _fault(a: int, b: int, c: int) -> Meaning:
    call, error, where, after, times, most = machine.fault_of(a, b, c)
    return {
        "call": call,
        "error": errno.errorcode[error],
        "where": where,
        "after": after,
        "times": times,
        "most": most,
    }


def _subscribe(a: int, b: int, c: int) -> Meaning:
    topic, channel, ready, timeout_ms = operators.subscription_of(a, b, c)
    return {"topic": topic, "channel": channel, "ready": ready, "timeout_ms": timeout_ms}


MEANINGS: Final[dict[str, Callable[[int, int, int], Meaning]]] = {
    "fault": _fault,
    "subscribe": _subscribe,
    "slow": lambda a, _, __: {"jobs": machine.slow_of(a)},
    "full": lambda a, _, __: {"free": machine.full_of(a)},
    "set_calendar": lambda a, b, c: {"step": machine.step_of(a), "then": machine.then_of(b, c)},
    "die": lambda a, _, __: {"after": machine.die_of(a)},
}
"""Steps that are nothing but a choice from tables. Others keep their numbers, of which clients and messages depend."""


@dataclass(frozen=True, slots=True)
class Case:
    """What once failed."""

    why: str
    reaches: list[str]  # counters that must not stay at 0
    config: dict[str, Any]
    steps: list[Step]


def cases() -> list[Case]:
    """All of them. ValueError if a step can't be done any more."""
    with FILE.open("rb") as file:
        return [
            Case(case["why"], case["reaches"], case["config"], [step_of(stored) for stored in case["steps"]])
            for case in tomllib.load(file)["case"]
        ]


def step_of(stored: list[Any]) -> Step:
    """The step that does what is stored."""
    name, *what, chance = stored
    if name not in MEANINGS:
        a, b, c = what
        return (name, a, b, c, chance)
    (meaning,) = what
    for a, b, c in product(range(64), range(8), range(100)):
        if MEANINGS[name](a, b, c) == meaning:
            return (name, a, b, c, chance)
    raise ValueError(f"no {name} does this any more: {meaning}")


def stored_of(step: Step) -> str:
    """A line of the file."""
    name, a, b, c, chance = step
    if name not in MEANINGS:
        return f'["{name}", {a}, {b}, {c}, {chance}]'
    fields = ", ".join(
        f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value}"
        for key, value in MEANINGS[name](a, b, c).items()
    )
    return f'["{name}", {{ {fields} }}, {chance}]'
