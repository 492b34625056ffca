"""The families of faults. Each is a coroutine that does one fault and undoes it; `chance` decides which, how long."""

import asyncio
import signal
from random import Random
from typing import Final

from faults.facts import Jumped, now
from faults.run import Family, Run

SMALL_DISK_BYTES: Final = 64 << 20
MIN_FREE_BYTES: Final = 4 << 20
MINUTE_NS: Final = 60_000_000_000


async def kill(run: Run, chance: Random) -> None:
    """kill -9, or a clean restart one time in four; down for up to half a second."""
    run.faults += 1
    if chance.random() < 0.25:
        await run.server.stop()
    else:
        await run.server.kill()
    await asyncio.sleep(chance.uniform(0, 0.5))
    await run.server.start()


async def stop(run: Run, chance: Random) -> None:
    """SIGSTOP; SIGCONT up to 4 s later, longer than any timeout and two heartbeats. Sometimes it is killed instead."""
    with run.disturbing("stopped"):
        run.server.send(signal.SIGSTOP)
        await asyncio.sleep(chance.choice((0.2, 1, 2, 4)) * chance.uniform(0.5, 1))
        if chance.random() < 0.2:
            await run.server.kill()
            await run.server.start()
        else:
            run.server.send(signal.SIGCONT)


async def full(run: Run, chance: Random) -> None:
    """The disk gets full, or nearly so, for up to 2 s; sometimes nsqd is killed and started on the full disk."""
    disk = run.tools.disk
    with run.disturbing("disk full"):
        if disk is not None:
            disk.fill(chance.choice((0, 0, 5_000, 60_000, MIN_FREE_BYTES - 100_000)))
        else:
            run.server.limit_files(chance.choice((0, 30_000, 150_000)))
        await asyncio.sleep(chance.uniform(0.3, 1.5))
        if chance.random() < 0.4:
            await run.server.kill()
            run.server.flags[-1] = f"--min-free-space={chance.choice((0, MIN_FREE_BYTES))}"
            await run.server.start()
            await asyncio.sleep(chance.uniform(0, 0.5))
        if disk is not None:
            disk.free()
        else:
            run.server.limit_files(-1)
    await asyncio.sleep(1)
    if not await run.server.healthy():
        run.complaints.append("a second after there was room on the disk again, /ping still fails")


async def slow(run: Run, chance: Random) -> None:
    """Writes take up to 100 ms, or syncs up to 1 s; sometimes it is killed meanwhile."""
    with run.disturbing("slow disk"):
        write_ns, sync_ns = chance.choice(((0, 300), (0, 1000), (20, 200), (100, 0)))
        run.tools.controls.set(write_ns=write_ns * 1_000_000, sync_ns=sync_ns * 1_000_000)
        await asyncio.sleep(chance.uniform(0.5, 2))
        if chance.random() < 0.3:
            await run.server.kill()
            await run.server.start()
        run.tools.controls.set()


async def net(run: Run, chance: Random) -> None:
    """Connections are cut, half-closed, half-open, frozen or slow; with a namespace, the plug is pulled."""
    proxy, wire = run.tools.proxy, run.tools.wire
    if wire is not None:
        with run.disturbing("unplugged"):
            wire.pull()
            await asyncio.sleep(chance.choice((0.3, 1, 3)) * chance.uniform(0.5, 1))
            wire.plug()
            await asyncio.sleep(0.5)  # until lost packets are sent again
        return
    assert proxy is not None
    what = chance.choice(("reset", "half-closed", "frozen", "forgotten", "delayed"))
    with run.disturbing(what):
        if what == "reset":
            proxy.reset(0.5, chance)
        elif what == "half-closed":
            proxy.half_close(0.5, chance)
        elif what == "frozen":
            proxy.freeze()
            await asyncio.sleep(chance.choice((0.3, 1, 4)) * chance.uniform(0.5, 1))
            proxy.thaw()
        elif what == "forgotten":
            proxy.forget(0.5, chance)
            await asyncio.sleep(1)
        else:
            proxy.delay_s = chance.choice((0.02, 0.1, 0.3))
            await asyncio.sleep(chance.uniform(0.5, 1.5))
            proxy.delay_s = 0


async def clock(run: Run, chance: Random) -> None:
    """The calendar is set by minutes, forth or back; sometimes nsqd is restarted or killed after that."""
    run.faults += 1
    minutes = chance.choice((-60, -5, -1, 1, 5, 60)) * chance.uniform(0.5, 1)
    set_calendar(run, run.tools.controls.shift_ns + round(minutes * MINUTE_NS))
    run.latest_shift_ns = max(run.latest_shift_ns, run.tools.controls.shift_ns)
    await asyncio.sleep(chance.uniform(0.2, 1.5))
    if chance.random() < 0.4:
        await (run.server.kill if chance.random() < 0.5 else run.server.stop)()
        await run.server.start()


async def after_clock(run: Run) -> None:
    """Over a restart a due time is one of the calendar. Set it to the latest that it was, and none is far away."""
    set_calendar(run, run.latest_shift_ns)
    await run.server.stop()
    await run.server.start()


def set_calendar(run: Run, shift_ns: int) -> None:
    """Set what nsqd takes for the calendar."""
    by = shift_ns - run.tools.controls.shift_ns
    run.tools.controls.set(shift_ns=shift_ns)
    run.note(Jumped(now(), by))


async def after_net(run: Run) -> None:
    """Half-open connections end, as they would by nsqd's heartbeats; those were given their chance before."""
    if run.tools.proxy is not None:
        run.tools.proxy.let_go()


FAMILIES: Final[dict[str, Family]] = {
    "kill": Family(kill),
    "stop": Family(stop),
    "full": Family(full),
    "slow": Family(slow),
    "net": Family(net, after_net),
    "clock": Family(clock, after_clock),
}


def plan(seed: int, family: str, mode: str) -> Random:
    """Where all choices of a run come from."""
    return Random(f"{seed} {family} {mode}")
