"""Is a series flat? By its trend over the second half: the median of all slopes between two samples (Theil-Sen)."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Series:
    """A column of the samples. Flat is what grows by less than a share of its median, or less than `most`."""

    key: str
    title: str
    unit: str
    share: float
    most: float


SERIES = (
    Series("rss_mb", "memory", "MB", 0.05, 3),
    Series("files", "open files", "", 0.0, 8),
    Series("disk_mb", "data path", "MB", 0.25, 8),
    Series("p50_ms", "delivery latency, p50", "ms", 0.5, 0.5),
    Series("p99_ms", "delivery latency, p99", "ms", 1.0, 5),
    Series("cpu_percent", "CPU of nsqd", "%", 0.2, 2),
)


@dataclass(frozen=True)
class Verdict:
    """What is to be said of a series."""

    series: Series
    least: float
    median: float
    most: float
    growth: float  # over the second half, by its trend
    bound: float

    @property
    def flat(self) -> bool:
        """Does it stay as it is? What shrinks is as welcome."""
        return self.growth <= self.bound


def slope(points: Sequence[tuple[float, float]]) -> float:
    """The trend; 0 for less than two points."""
    rises = [
        (y - b) / (x - a) for number, (a, b) in enumerate(points) for x, y in points[number + 1 :] if x > a
    ]
    return median(rises) if rises else 0.0


def judge(samples: Sequence[dict[str, Any]]) -> list[Verdict]:
    """A verdict for each series."""
    second_half = samples[len(samples) // 2 :]
    seconds = second_half[-1]["seconds"] - second_half[0]["seconds"]
    verdicts = []
    for series in SERIES:
        points = [(one["seconds"], one[series.key]) for one in second_half]
        values = [value for _, value in points]
        middle = median(values)
        verdicts.append(
            Verdict(
                series,
                min(values),
                middle,
                max(values),
                slope(points) * seconds,
                max(series.share * middle, series.most),
            )
        )
    return verdicts


def table(verdicts: Sequence[Verdict]) -> str:
    """As Markdown."""
    lines = [
        "| second half of the run | least | median | most | growth by its trend | flat is up to | |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in verdicts:
        unit = f" {one.series.unit}" if one.series.unit else ""
        figures = f"{one.least:.2f} | {one.median:.2f} | {one.most:.2f} | {one.growth:+.2f} | {one.bound:.2f}"
        lines.append(
            f"| {one.series.title}{unit and ',' + unit} | {figures} | {'flat' if one.flat else 'GROWS'} |"
        )
    return "\n".join(lines)
