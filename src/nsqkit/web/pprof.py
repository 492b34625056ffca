"""/debug/pprof: where a running daemon spends time and memory. The paths are those of Go, the contents Python's."""

import asyncio
import gc
import html
import io
import re
import sys
import threading
import traceback
from collections import Counter
from typing import Final

from nsqkit.garbage import thawed
from nsqkit.tokens import Role
from nsqkit.web.answers import HTML, TEXT, Answer, Style
from nsqkit.web.call import Call
from nsqkit.web.errors import BadRequest
from nsqkit.web.host import Host
from nsqkit.web.profiler import ProfilerBusy
from nsqkit.web.routes import Routes

MAX_PROFILE_SECONDS: Final = 300
DEFAULT_PROFILE_SECONDS: Final = 30
HEAP_LINES: Final = 50

_INTEGER: Final = re.compile(r"[+-]?[0-9]+", re.ASCII)

routes: Final = Routes[Host]("Debugging", Role.ADMIN, Style.PLAIN)


@routes.get("/debug/pprof")
@routes.get("/debug/pprof/")
def index(_: Host, __: Call) -> Answer:
    """List the debug pages."""
    rows = [
        f'<li><a href="{html.escape(path)}">{html.escape(path)}</a>: {html.escape(meaning)}</li>'
        for path, meaning in ((route.path, route.meaning) for route in routes)
    ]
    page = f"<!doctype html><title>debug</title><ul>{''.join(rows)}</ul>\n"
    return Answer(200, page.encode(), HTML)


@routes.get("/debug/pprof/cmdline")
def cmdline(_: Host, __: Call) -> Answer:
    """Show the command line, its words separated by NUL."""
    return Answer(200, "\0".join(sys.argv).encode("utf-8", "surrogateescape"), TEXT)


@routes.add("GET", "POST", path="/debug/pprof/symbol")
def symbol(_: Host, __: Call) -> str:
    """Say that there are no addresses to translate: stacks have names already."""
    return "num_symbols: 0\n"


@routes.get("/debug/pprof/profile", params="[seconds]")
async def profile(host: Host, call: Call) -> str:
    """Take a CPU profile of the event loop for `seconds` (30, at most 300), as collapsed stacks for flame graphs."""
    seconds = whole(call, "seconds", DEFAULT_PROFILE_SECONDS)
    try:
        return await host.profiler.profile(min(max(seconds, 1), MAX_PROFILE_SECONDS))
    except ProfilerBusy:
        raise BadRequest("Could not enable CPU profiling: cpu profiling already in use") from None


@routes.get("/debug/pprof/goroutine")
def goroutine(_: Host, __: Call) -> str:
    """Show the stack of every thread and of every asyncio task."""
    text = io.StringIO()
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():  # noqa: SLF001 - the documented way to do this
        text.write(f"thread {names.get(ident, ident)}\n{''.join(traceback.format_stack(frame))}\n")
    for task in sorted(asyncio.all_tasks(), key=lambda task: task.get_name()):
        task.print_stack(file=text)
        text.write("\n")
    return text.getvalue()


@routes.get("/debug/pprof/heap")
def heap(_: Host, __: Call) -> str:
    """Show where memory was allocated, if that is traced (/debug/setheaptrace), or else what objects there are."""
    return heap_text()


@routes.get("/debug/pprof/block")
def block(_: Host, __: Call) -> str:
    """Show nothing, for there are no locks to wait for: see goroutine."""
    return "--- contention:\n"


@routes.get("/debug/pprof/threadcreate")
def threadcreate(_: Host, __: Call) -> str:
    """List the threads."""
    threads = threading.enumerate()
    lines = [f"threadcreate profile: total {len(threads)}", *(thread.name for thread in threads)]
    return "".join(f"{line}\n" for line in lines)


def heap_text() -> str:
    """Memory by the line that allocated it if tracemalloc is on, or the most frequent types of objects."""
    import tracemalloc  # noqa: PLC0415 - hardly ever needed

    if tracemalloc.is_tracing():
        snapshot = tracemalloc.take_snapshot().filter_traces(
            [tracemalloc.Filter(False, tracemalloc.__file__)]
        )
        return "".join(f"{statistic}\n" for statistic in snapshot.statistics("lineno")[:HEAP_LINES])
    with thawed():
        types = Counter(f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.get_objects())
    lines = [f"{count:>10} {name}\n" for name, count in types.most_common(HEAP_LINES)]
    return f"objects that the garbage collector knows: {types.total()}\n{''.join(lines)}"


def whole(call: Call, name: str, default: int) -> int:
    """A parameter that is a whole number of at most nine digits. BadRequest otherwise."""
    raw = call.params.get(name, "")
    if not raw:
        return default
    if not _INTEGER.fullmatch(raw) or len(raw) > 9:
        raise BadRequest(f"invalid {name}: not a whole number")
    return int(raw)
