"""The sampling CPU profiler."""

import asyncio
import threading

import pytest

from nsqkit.web.profiler import Profiler, ProfilerBusy, collapsed_stacks


def test_samples_carry_cpu_time():
    """A stack's weight is the CPU time that was spent below it."""
    result: list[str] = []
    sampler = threading.Thread(
        target=lambda: result.append(collapsed_stacks(watched, 60, stop)), name="sampler", daemon=True
    )
    watched, stop = threading.get_ident(), threading.Event()

    sampler.start()
    for _ in range(20):
        spin()
    stop.set()
    sampler.join()

    line = next(line for line in result[0].splitlines() if ".spin" in line)
    assert int(line.rpartition(" ")[2]) > 0


def spin() -> int:
    """Use some 10 ms of CPU."""
    return sum(i * i for i in range(100_000))


def test_one_profile_at_a_time(runner):
    """A second profile is refused while one is being taken, and stopping ends the first early."""

    async def scene() -> str:
        profiler = Profiler()
        first = asyncio.ensure_future(profiler.profile(60))
        await asyncio.sleep(0)
        with pytest.raises(ProfilerBusy):
            await profiler.profile(60)
        profiler.stop()
        return await first

    assert isinstance(runner.run(scene()), str)
