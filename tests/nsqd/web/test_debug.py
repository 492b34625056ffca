"""/debug."""

import asyncio
import sys
import threading
import tracemalloc

import pytest

from nsqkit.nsqd.web.debug import heap_text
from nsqkit.nsqd.web.profiler import Profiler, ProfilerBusy, collapsed_stacks


def test_index(http):
    """The index links to every page."""
    got = http.get("/debug/pprof/")

    assert "text/html; charset=utf-8" == got.headers["content-type"]
    for page in ("cmdline", "symbol", "profile", "goroutine", "heap", "block", "threadcreate"):
        assert f'href="/debug/pprof/{page}"'.encode() in got.body


@pytest.mark.parametrize(
    "page, part",
    [
        ("cmdline", sys.argv[0].encode()),
        ("symbol", b"num_symbols: 0"),
        ("goroutine", b"thread MainThread"),
        ("block", b"--- contention:"),
        ("threadcreate", b"MainThread"),
        ("heap", b"objects that the garbage collector knows: "),
    ],
)
def test_page(http, page, part):
    """Each page is plain text, without NSQ's header."""
    got = http.get(f"/debug/pprof/{page}")

    assert 200 == got.status
    assert part in got.body
    assert "text/plain; charset=utf-8" == got.headers["content-type"]
    assert "x-nsq-content-type" not in got.headers


def test_heap_trace(http):
    """Once allocations are traced, heap shows the lines that made them."""
    try:
        assert (200, b"") == (http.put("/debug/setheaptrace?frames=1").status, b"")
        kept = [bytes(1000) for _ in range(1000)]
        assert "test_debug.py" in heap_text()
        assert kept
    finally:
        http.put("/debug/setheaptrace?frames=0")
    assert not tracemalloc.is_tracing()


@pytest.mark.parametrize("rate", ["", "abc", "1.5"])
def test_bad_block_rate(http, rate):
    """The error is Go's."""
    got = http.put(f"/debug/setblockrate?rate={rate}")

    expected = f'invalid block rate : strconv.Atoi: parsing "{rate}": invalid syntax'
    assert (400, expected) == (got.status, got.body.decode())


@pytest.mark.parametrize(
    "method, target", [("PUT", "/debug/setblockrate?rate=1"), ("POST", "/debug/freememory")]
)
def test_success_is_200(http, method, target):
    """Unlike NSQ we don't crash behind the work."""
    got = http(method, target)

    assert (200, b"") == (got.status, got.body)


@pytest.mark.parametrize("seconds", ["x", "9" * 10])
def test_bad_seconds(http, seconds):
    """What is no number of seconds is refused."""
    assert 400 == http.get(f"/debug/pprof/profile?seconds={seconds}").status


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
