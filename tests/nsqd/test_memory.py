"""Figures of the process's memory."""

import gc

from nsqkit.nsqd.memory import GcPauses, read_memory


def test_pauses_are_measured():
    """While it is started, every collection is measured, and afterwards none."""
    pauses = GcPauses()
    assert 0 == pauses.percentile(100)
    pauses.start()
    try:
        gc.collect()
    finally:
        pauses.stop()
    measured = pauses.percentile(100)
    pauses.stop()
    gc.collect()

    assert 0 < measured == pauses.percentile(100)
    assert pauses.percentile(95) <= pauses.percentile(99) <= measured


def test_collections_are_counted():
    """Each collection is one run more."""
    before = read_memory(GcPauses()).gc_total_runs

    gc.collect()

    assert before + 1 <= read_memory(GcPauses()).gc_total_runs


def test_sizes_without_proc(monkeypatch):
    """Where there is no /proc, the peak is all we know."""
    real = open

    def refuse(path: str, *args: object) -> object:
        if path.startswith("/proc/"):
            raise FileNotFoundError(path)
        return real(path, *args)  # type: ignore[call-overload]

    monkeypatch.setattr("builtins.open", refuse)

    memory = read_memory(GcPauses())

    assert memory.heap_in_use_bytes > 0
    assert (0, 0) == (memory.heap_idle_bytes, memory.heap_released_bytes)
