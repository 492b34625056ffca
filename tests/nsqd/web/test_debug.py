"""/debug."""

import sys
import tracemalloc

import pytest

from nsqkit.nsqd.web.daemon import LongestPass
from nsqkit.web.pprof import heap_text


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
    """Unlike NSQ we don't crash when the work is done."""
    got = http(method, target)

    assert (200, b"") == (got.status, got.body)


@pytest.mark.parametrize("seconds", ["x", "9" * 10])
def test_bad_seconds(http, seconds):
    """What is no number of seconds is refused."""
    assert 400 == http.get(f"/debug/pprof/profile?seconds={seconds}").status


def test_longest_pass(http, nsqd):
    """GET tells it, POST begins anew after telling it."""
    nsqd.longest = LongestPass(pass_cpu_us=1500, turn_us=700)

    assert {"pass_cpu_us": 1500, "turn_us": 700} == http.get("/debug/longest_pass").json()
    assert {"pass_cpu_us": 1500, "turn_us": 700} == http.post("/debug/longest_pass").json()
    assert {"pass_cpu_us": 0, "turn_us": 0} == http.get("/debug/longest_pass").json()
