"""The steps of the machine: what happens to the disk, the process and the power."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from nsqkit.nsqd.core.batch import Batch
from nsqkit.nsqd.storage.segment import BATCH_HEADER, BATCH_MAGIC, decode, whole_length
from tests.simulation.disk import ROOT
from tests.simulation.loop import running
from tests.simulation.operators import publish_to, work
from tests.simulation.steps import MS, SECOND, TOPICS

if TYPE_CHECKING:
    from tests.simulation.world import World

FAULTS: Final = (
    ("write", errno.EIO, ""),
    ("write", errno.ENOSPC, ""),
    ("write", errno.EIO, ".log"),
    ("write", errno.EIO, ".journal"),
    ("sync", errno.EIO, ""),
    ("sync", errno.EIO, ".log"),
    ("sync", errno.EIO, ".log"),
    ("sync", errno.EIO, ".journal"),
    ("sync", errno.EIO, "checkpoint"),
    ("sync_directory", errno.EIO, ""),
    ("read", errno.EIO, ""),
    ("open", errno.EMFILE, ""),
    ("create", errno.ENOSPC, ""),
    ("truncate", errno.EIO, ""),
    ("replace", errno.ENOSPC, ""),
    ("replace", errno.ENOSPC, "checkpoint"),
    ("replace", errno.EIO, "nsqd.dat"),
    ("rename", errno.EIO, ""),
    ("rename", errno.EIO, "checkpoint"),
    ("remove", errno.EIO, ""),
    ("open", errno.EMFILE, ".log"),
    ("load", errno.EIO, ""),
    ("make_directory", errno.ENOSPC, ""),
)


def slow(world: World, a: int, _: int, __: int) -> None:
    """The next jobs take long."""
    world.slow = slow_of(a)


def slow_of(a: int) -> int:
    """How many jobs."""
    return 1 + a % 4


def fault(world: World, a: int, b: int, c: int) -> None:
    """Some calls of the disk will fail."""
    call, error, where, after, times, most = fault_of(a, b, c)
    world.disk.fail(call, error, after, times, where)
    world.broken = True
    if most:
        world.disk.most = most


def fault_of(a: int, b: int, c: int) -> tuple[str, int, str, int, int, int]:
    """Call, error, place; calls that succeed before; calls that fail; the longest write, 0 for no limit."""
    call, error, where = FAULTS[a % len(FAULTS)]
    return call, error, where, b % 4, (1, 1, 2, 20)[c % 4], 7 + c % 50 if c % 5 == 0 else 0


def full(world: World, a: int, _: int, __: int) -> None:
    """The disk is nearly full."""
    world.disk.free = full_of(a)
    world.broken = True


def full_of(a: int) -> int:
    """Bytes that are left."""
    return (0, 100, 400, 3000)[a % 4]


def heal(world: World, _: int, __: int, ___: int) -> None:
    """The disk is well again."""
    world.heal()


def write_back(world: World, _: int, __: int, ___: int) -> None:
    """The system writes what it wants to write."""
    world.disk.write_back(world.chance)


def restart(world: World, _: int, __: int, ___: int) -> None:
    """A clean stop, and a start."""
    world.end("restart")


def kill(world: World, _: int, __: int, ___: int) -> None:
    """kill -9, and a start."""
    world.end("kill")


def cut(world: World, _: int, __: int, ___: int) -> None:
    """A power cut, and a start."""
    world.end("cut")


def set_calendar(world: World, a: int, b: int, c: int) -> None:
    """Somebody sets the calendar, or NTP does: while nsqd runs, or is down."""
    step = step_of(a)
    world.model.calendar.set(world.model.calendar.ahead + step, world.loop.now)
    world.counts["calendar set forward" if step > 0 else "calendar set back"] += 1
    then = then_of(b, c)
    if then in ("wait", ""):
        world.loop.advance(1200 * MS if then else 0)
    else:
        world.end(then)


def step_of(a: int) -> int:
    """By how much."""
    return (1, -1)[a % 2] * (SECOND, 5 * SECOND, 40 * SECOND, 3600 * SECOND)[a // 2 % 4]


def then_of(b: int, c: int) -> str:
    """What happens at once."""
    return (("kill", "restart", "cut")[c % 3], "wait", "")[b % 3]


def stumble(world: World, a: int, b: int, c: int) -> None:
    """The process dies, starts, takes a publish, and ends again."""
    world.end(("cut", "cut", "kill")[a % 3])
    with running(world.loop):
        publish_to(world, a, 1 + c % 3, 20, -1)
        world.loop.advance((0, MS, 5 * MS, 60 * MS)[b % 4])
    world.settle()
    world.end(("kill", "cut", "restart")[c % 3])


def disaster(world: World, a: int, b: int, c: int) -> None:
    """A call of the disk fails while messages come and go; nsqd goes on for a while, and then all ends."""
    fault(world, a, b, c)
    with running(world.loop):
        work(world, b | 1, a, c | 3 if c & 16 else c)
        if b % 3:
            world.heal()
        world.loop.advance((0, 60 * MS, 700 * MS, 2500 * MS)[b % 4])
    world.settle()
    if c & 32:
        stumble(world, a >> 4, b >> 2, c >> 6)
    else:
        world.end(("cut", "cut", "kill", "restart")[c % 4])


def rot(world: World, a: int, b: int, c: int) -> None:
    """A batch in a log goes bad: its messages may be lost, and no others."""
    if c % 3 == 0:
        world.end("kill")
    names = [name for name in TOPICS if world.disk.is_directory(f"{ROOT}/{name}")]
    logs = [
        f"{ROOT}/{name}/{log}"
        for name in names
        for log in world.disk.names(f"{ROOT}/{name}")
        if log.endswith(".log")
    ]
    if not logs:
        return
    path = logs[a % len(logs)]
    batches = _batches(world.disk.content(path))
    if not batches:
        return
    at, batch = batches[b % len(batches)]
    world.disk.rot(path, at + world.chance.randrange(BATCH_HEADER + len(batch.data)))
    world.model.damaged(_bodies(batch.data))
    world.counts["batch damaged"] += 1


def _batches(raw: bytes) -> list[tuple[int, Batch]]:
    found: list[tuple[int, Batch]] = []
    at = raw.find(BATCH_MAGIC)
    while 0 <= at <= len(raw) - BATCH_HEADER:
        length = whole_length(raw, at)
        batch = decode(raw, at) if 0 < length <= len(raw) - at else None
        if batch is not None:
            found.append((at, batch))
        at = raw.find(BATCH_MAGIC, at + 1 if batch is None else at + length)
    return found


def _bodies(data: bytes) -> list[bytes]:
    bodies: list[bytes] = []
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        bodies.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return bodies


def die(world: World, a: int, _: int, __: int) -> None:
    """The process will die between two changes of the disk."""
    world.disk.die(die_of(a))


def die_of(a: int) -> int:
    """After how many changes."""
    return a % 12
