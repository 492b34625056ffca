"""The process's memory, under the names that NSQ gives to figures of Go's runtime, with their nearest equivalents."""

import gc
import os
import resource
import sys
import time
from collections import deque
from typing import Final

import msgspec

PAUSES: Final = 256  # garbage collections of which the pauses are remembered, as in Go


class Memory(msgspec.Struct, kw_only=True):
    """Sizes in bytes, pauses in microseconds."""

    heap_objects: int  # blocks that Python's allocator has given out
    heap_idle_bytes: int  # reserved from the system, not resident
    heap_in_use_bytes: int  # resident
    heap_released_bytes: int  # given back since the peak
    gc_pause_usec_100: int
    gc_pause_usec_99: int
    gc_pause_usec_95: int
    next_gc_bytes: int  # always 0: the collector counts objects, not bytes
    gc_total_runs: int  # all generations


class GcPauses:
    """Measures how long the garbage collector holds everything up. It costs nothing between collections."""

    def __init__(self) -> None:
        self._began = 0
        self._pauses: deque[int] = deque(maxlen=PAUSES)  # ns

    def start(self) -> None:
        """Begin to measure; `stop` must follow."""
        gc.callbacks.append(self._note)

    def stop(self) -> None:
        """Measure no more. Does nothing if it didn't begin."""
        if self._note in gc.callbacks:
            gc.callbacks.remove(self._note)

    def _note(self, phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.perf_counter_ns()
        elif self._began:
            self._pauses.append(time.perf_counter_ns() - self._began)

    def percentile(self, share: int) -> int:
        """The pause in microseconds that `share` percent of the last ones did not exceed; 0 if there was none."""
        pauses = sorted(self._pauses)
        return pauses[max(-(-len(pauses) * share // 100) - 1, 0)] // 1000 if pauses else 0


def read_memory(pauses: GcPauses) -> Memory:
    """What it is now."""
    resident, reserved, peak = _sizes()
    return Memory(
        heap_objects=sys.getallocatedblocks(),
        heap_idle_bytes=max(reserved - resident, 0),
        heap_in_use_bytes=resident,
        heap_released_bytes=max(peak - resident, 0),
        gc_pause_usec_100=pauses.percentile(100),
        gc_pause_usec_99=pauses.percentile(99),
        gc_pause_usec_95=pauses.percentile(95),
        next_gc_bytes=0,
        gc_total_runs=sum(generation["collections"] for generation in gc.get_stats()),
    )


def _sizes() -> tuple[int, int, int]:
    """Resident, reserved for data, and most ever resident. Without /proc (macOS) the peak stands for all."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    try:
        with open("/proc/self/statm", "rb") as file:
            pages = [int(field) for field in file.read().split()]
    except OSError:
        return peak, peak, peak
    page = os.sysconf("SC_PAGESIZE")
    return pages[1] * page, pages[5] * page, peak


def total_memory() -> int:
    """Bytes that this process may use: the machine's memory, or less if a control group says so."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        with open("/sys/fs/cgroup/memory.max", encoding="ascii") as file:
            text = file.read().strip()
    except OSError:
        return total
    return min(total, int(text)) if text.isdigit() else total
