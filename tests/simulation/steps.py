"""What a seed means: a configuration, and a list of steps.

A step is a name and numbers that are taken modulo what is there when it is executed, so a list with some steps left out
is a list of steps too. The last number seeds whatever is left to chance within the step.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Final

MS: Final = 1_000_000
SECOND: Final = 1_000_000_000

Step = tuple[str, int, int, int, int]

TOPICS: Final = ("t", "u", "e#ephemeral")
CHANNELS: Final = ("a", "b", "x#ephemeral")


def topic_name(number: int) -> str:
    """Mostly one of the ordinary ones."""
    return TOPICS[(0, 0, 0, 1, 1, 2)[number % 6]]


def channel_name(number: int) -> str:
    """Likewise."""
    return CHANNELS[(0, 0, 0, 1, 1, 2)[number % 6]]


WEIGHTS: Final[dict[str, float]] = {
    "work": 8,
    "publish": 26,
    "publish_deferred": 6,
    "subscribe": 7,
    "ready": 4,
    "finish": 18,
    "finish_all": 8,
    "requeue": 14,
    "touch": 5,
    "stop_consuming": 1,
    "disconnect": 2,
    "half_close": 1,
    "stall": 2,
    "read_again": 2,
    "split": 3,
    "garbage": 1,
    "wait": 14,
    "wait_long": 3,
    "sleep": 1,
    "hold": 4,
    "pause_topic": 2,
    "pause_channel": 2,
    "resume": 4,
    "empty_topic": 1,
    "empty_channel": 1,
    "delete_topic": 0.5,
    "delete_channel": 0.7,
    "recreate": 1.5,
    "create": 1,
    "slow": 2,
    "fault": 3,
    "full": 1,
    "heal": 5,
    "write_back": 5,
    "restart": 3,
    "kill": 3,
    "cut": 3,
    "die": 3,
    "stumble": 3,
    "set_calendar": 1.5,
    "disaster": 2,
    "rot": 0.5,
}
"""How likely each step is; a seed multiplies these by numbers of its own."""


def generate(seed: int) -> tuple[dict[str, Any], list[Step]]:
    """The world's configuration, and the steps."""
    chance = Random(seed)
    config = configure(chance)
    names = sorted(WEIGHTS)
    factors = chance.choice(((0, 0.3, 1, 1, 1, 3), (0, 0, 0, 1, 3)))
    weights = [WEIGHTS[name] * chance.choice(factors) for name in names]
    if not any(weights[names.index(name)] for name in ("publish", "publish_deferred", "work")):
        weights[names.index("publish")] = 20
    steps: list[Step] = [
        ("subscribe", n, 2 * n, 4, chance.getrandbits(30)) for n in range(chance.randint(0, 4))
    ]
    count = chance.choice((20, 50, 80, 120, 200))
    for name in chance.choices(names, weights, k=count):
        a, b, c = (chance.getrandbits(16) for _ in range(3))
        steps.append((name, a, b, c, chance.getrandbits(30)))
    return config, steps


def configure(chance: Random) -> dict[str, Any]:
    """Options of the daemon, and properties of the machine. Times in ns."""
    pick: Callable[..., Any] = lambda *choices: chance.choice(choices)  # noqa: E731
    timeout = pick(1000, 5000, 20_000) * MS
    return {
        "durability": pick("memory", "os", "os", "fsync", "fsync"),
        "mem_queue_size": pick(0, 1, 3, 10, 1000),
        "max_bytes_per_file": pick(1, 300, 1000, 4000, 1 << 20),
        "sync_every": pick(1, 5, 2500, 2500),
        "sync_timeout": pick(50, 500, 2000) * MS,
        "checkpoint_interval": pick(100, 1000, 1000) * MS,
        "min_free_space": pick(0, 5000),
        "msg_timeout": timeout,
        "max_msg_timeout": timeout * pick(1, 2, 5),
        "requeue_on_disconnect": pick(0, 1),
        "sector": pick(16, 64, 512, 4096),
        "high_water": pick(30, 100, 1000, 100_000),
        "layers": pick(0, 0, 0, 1, 2),
        "opens_later": pick(1, 1, 1, 0),
    }
