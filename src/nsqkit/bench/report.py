"""From samples to figures, and from figures to a table for people and JSON for programs."""

import os
import platform
import statistics
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import msgspec

from nsqkit.bench import process

WIDTH: Final = 80  # columns of the narrowest usual terminal
_MISSING: Final = "-"


@dataclass(frozen=True, slots=True)
class Round:
    """One measured round. None where there is no such figure."""

    messages: int
    seconds: float
    per_second: float
    p50_us: float | None
    p99_us: float | None
    p999_us: float | None
    server_cpu_us_per_message: float | None
    generator_cpu_us_per_message: float
    server_rss_before: int | None
    server_rss_after: int | None
    redelivered: int = 0
    generator_late_p99_us: float | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """All rounds of one case. `median` takes each figure's own median; it is None if there is no whole round."""

    case: dict[str, object]
    label: str
    latency_of: str
    rounds: list[Round] = field(default_factory=list)
    error: str | None = None
    median: Round | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What was measured, where and when."""

    date: str
    server: dict[str, object]
    server_address: str
    server_pid: int | None
    server_command: str | None
    cpu_figures_from: str | None
    cpu_model: str
    cpus: int
    system: str
    python: str
    event_loop: str


def gather_facts(
    *, server: dict[str, object], address: str, pid: int | None, command: str | None, event_loop: str
) -> Facts:
    """The facts of this machine and of the server."""
    return Facts(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        server=server,
        server_address=address,
        server_pid=pid,
        server_command=command,
        cpu_figures_from=process.cpu_source(pid) if pid else None,
        cpu_model=process.cpu_model(),
        cpus=os.cpu_count() or 0,
        system=platform.platform(),
        python=platform.python_version(),
        event_loop=event_loop,
    )


def percentile(ordered: Sequence[int], percent: float) -> int:
    """The smallest sample that at least `percent` % of all samples do not exceed (nearest rank)."""
    rank = -(-len(ordered) * round(percent * 1000) // 100_000)  # exact: 99.9 is no binary fraction
    return ordered[max(rank, 1) - 1]


def summarize(
    window: process.Window,
    messages: int,
    latencies_ns: Iterable[int],
    *,
    redelivered: int = 0,
    late_ns: Iterable[int] = (),
) -> Round:
    """One round's figures from what was counted and timed."""
    ordered, late = sorted(latencies_ns), sorted(late_ns)

    def microseconds(samples: Sequence[int], percent: float) -> float | None:
        return percentile(samples, percent) / 1e3 if samples else None

    cpu = window.server_cpu_us
    return Round(
        messages=messages,
        seconds=window.seconds,
        per_second=messages / window.seconds,
        p50_us=microseconds(ordered, 50),
        p99_us=microseconds(ordered, 99),
        p999_us=microseconds(ordered, 99.9),
        server_cpu_us_per_message=None if cpu is None or not messages else cpu / messages,
        generator_cpu_us_per_message=window.generator_cpu_us / max(messages, 1),
        server_rss_before=window.server_rss_before,
        server_rss_after=window.server_rss_after,
        redelivered=redelivered,
        generator_late_p99_us=microseconds(late, 99),
    )


def median_round(rounds: Sequence[Round]) -> Round:
    """Each figure's median, the lower one of two; a figure that a round lacks is left out of its median."""
    figures: dict[str, list[float]] = {name: [] for name in Round.__dataclass_fields__}
    for one in rounds:
        for name, values in figures.items():
            value = getattr(one, name)
            if value is not None:
                values.append(value)
    return msgspec.convert(
        {name: statistics.median_low(values) if values else None for name, values in figures.items()},
        Round,
        strict=False,
    )


COLUMNS: Final[tuple[tuple[str, Callable[[Round], str]], ...]] = (
    ("messages", lambda r: f"{r.messages:,}"),
    ("msg/s", lambda r: f"{r.per_second:,.0f}"),
    ("p50", lambda r: duration(r.p50_us)),
    ("p99", lambda r: duration(r.p99_us)),
    ("p99.9", lambda r: duration(r.p999_us)),
    ("nsqd µs", lambda r: _figure(r.server_cpu_us_per_message)),
    ("bench µs", lambda r: _figure(r.generator_cpu_us_per_message)),
    ("nsqd MB", lambda r: f"{_megabytes(r.server_rss_before)}→{_megabytes(r.server_rss_after)}"),
)


def table(results: Sequence[Result]) -> str:
    """A line for each result after one with its name, and below what the figures are and what went wrong."""
    figures = [[render(one.median) for _, render in COLUMNS] for one in results if one.median]
    titles = [title for title, _ in COLUMNS]
    widths = [max(map(len, column)) for column in zip(titles, *figures, strict=True)]
    lines = [_line(titles, widths)] if figures else []
    rows = iter(figures)
    for result in results:
        lines += [result.label, _line(next(rows), widths)] if result.median else [f"{result.label}: failed"]
    lines += [line for text in _remarks(results) for line in wrapped(text)]
    return "\n".join(lines)


def _remarks(results: Sequence[Result]) -> Iterator[str]:
    if any(result.median for result in results):
        yield "nsqd µs, bench µs: CPU time per message, of the server and of this program"
    for meaning in sorted({result.latency_of for result in results if result.latency_of and result.median}):
        names = ", ".join(
            dict.fromkeys(result.label.split()[0] for result in results if result.latency_of == meaning)
        )
        yield f"p50/p99/p99.9 of {names}: {meaning}"
    for result in results:
        if result.error:
            yield f"{result.label}: {result.error}"
    for result in results:
        if result.median and result.median.redelivered:
            yield f"{result.label}: {result.median.redelivered} redelivered"


def wrapped(text: str) -> list[str]:
    """The text in lines that fit a terminal."""
    return [
        line
        for part in text.splitlines()
        for line in textwrap.wrap(part, WIDTH, subsequent_indent="  ", break_on_hyphens=False)
    ]


def one_line(result: Result) -> str:
    """A case in short, for a log."""
    if result.median is None:
        return f"{result.label}: FAILED: {result.error}"
    median = result.median
    cpu, p50 = _figure(median.server_cpu_us_per_message), duration(median.p50_us)
    return f"{result.label}: {median.per_second:,.0f} msg/s, server {cpu} µs/msg, p50 {p50}"


def encode_json(facts: Facts, results: Sequence[Result]) -> bytes:
    """Everything, with every round, as indented JSON."""
    return msgspec.json.format(msgspec.json.encode({"facts": facts, "results": results}), indent=2) + b"\n"


def duration(microseconds: float | None) -> str:
    """A time with the unit that suits it and three digits."""
    if microseconds is None:
        return _MISSING
    for unit, size in (("s", 1e6), ("ms", 1e3)):
        if microseconds >= size:
            return f"{microseconds / size:.3g} {unit}"
    return f"{microseconds:.3g} µs"


def _figure(value: float | None) -> str:
    if value is None:
        return _MISSING
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _megabytes(value: int | None) -> str:
    return _MISSING if value is None else f"{value / 1e6:.0f}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  " + "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
