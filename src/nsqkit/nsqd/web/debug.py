"""/debug: what nsqd has beside the pages of `web/pprof.py`. The paths are Go's, what they do is Python's."""

import gc
import re
from typing import Final

from nsqkit.garbage import thawed
from nsqkit.nsqd.web.daemon import Daemon, LongestPass
from nsqkit.tokens import Role
from nsqkit.web.answers import Style
from nsqkit.web.call import Call
from nsqkit.web.errors import BadRequest
from nsqkit.web.pprof import whole
from nsqkit.web.routes import Routes

MAX_TRACED_FRAMES: Final = 50

_INTEGER: Final = re.compile(r"[+-]?[0-9]+", re.ASCII)

routes: Final = Routes[Daemon]("Debugging", Role.ADMIN, Style.PLAIN)


@routes.put("/debug/setblockrate", params="rate")
def set_block_rate(_: Daemon, call: Call) -> None:
    """Accept Go's rate of block profiling, without effect."""
    raw = call.params.get("rate", "")
    if not _INTEGER.fullmatch(raw):
        raise BadRequest(f'invalid block rate : strconv.Atoi: parsing "{raw}": invalid syntax')


@routes.put("/debug/setheaptrace", params="frames")
def set_heap_trace(_: Daemon, call: Call) -> None:
    """Trace where memory is allocated, with so many stack frames each (at most 50), or stop that with 0. It is slow."""
    import tracemalloc  # noqa: PLC0415 - hardly ever needed

    frames = whole(call, "frames", 0)
    tracemalloc.stop()
    if frames > 0:
        tracemalloc.start(min(frames, MAX_TRACED_FRAMES))


@routes.get("/debug/longest_pass", style=Style.NSQ)
def longest_pass(nsqd: Daemon, _: Call) -> LongestPass:
    """Tell what held up the event loop most, in microseconds, since the start or the last POST."""
    return nsqd.longest_pass()


@routes.post("/debug/longest_pass", style=Style.NSQ)
def forget_longest_pass(nsqd: Daemon, _: Call) -> LongestPass:
    """Likewise, and begin anew."""
    longest = nsqd.longest_pass()
    nsqd.forget_longest_pass()
    return longest


@routes.post("/debug/freememory")
def free_memory(_: Daemon, __: Call) -> None:
    """Collect garbage, and give free memory back to the system."""
    import ctypes  # noqa: PLC0415 - hardly ever needed

    with thawed():
        gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it
    if trim is not None:
        trim(0)
