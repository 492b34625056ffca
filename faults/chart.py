"""A picture of the samples: one small chart under the other, as SVG."""

from collections.abc import Sequence
from typing import Any

from faults.flat import SERIES, Series

WIDTH, HEIGHT, LEFT, TOP, GAP = 720, 90, 70, 24, 34
RIGHT = 20
INK, GRID, LINE = "#444", "#ddd", "#2a6f97"


def svg(samples: Sequence[dict[str, Any]]) -> str:
    """The whole picture."""
    height = len(SERIES) * (HEIGHT + GAP) + TOP
    charts = "".join(_chart(series, samples, TOP + n * (HEIGHT + GAP)) for n, series in enumerate(SERIES))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        f'font-size="11" fill="{INK}"><rect width="{WIDTH}" height="{height}" fill="white"/>{charts}</svg>\n'
    )


def _chart(series: Series, samples: Sequence[dict[str, Any]], top: float) -> str:
    values = [one[series.key] for one in samples]
    end = samples[-1]["seconds"] or 1
    ceiling = _ceiling(max(values))
    inner = WIDTH - LEFT - RIGHT

    def x(seconds: float) -> float:
        return LEFT + inner * seconds / end

    def y(value: float) -> float:
        return top + HEIGHT * (1 - value / ceiling)

    points = " ".join(
        f"{x(one['seconds']):.1f},{y(value):.1f}" for one, value in zip(samples, values, strict=True)
    )
    parts = [f'<text x="{LEFT}" y="{top - 6}" font-weight="bold">{series.title} {series.unit}</text>']
    for share in (0, 0.5, 1):
        at = y(ceiling * share)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at}" y2="{at}" stroke="{GRID}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 4}" text-anchor="end">{ceiling * share:g}</text>')
    for quarter in range(5):
        seconds = end * quarter / 4
        label = f"{seconds / 60:.0f} min"
        parts.append(
            f'<text x="{x(seconds):.1f}" y="{top + HEIGHT + 13}" text-anchor="middle" fill="#888">{label}</text>'
        )
    parts.append(f'<polyline points="{points}" fill="none" stroke="{LINE}" stroke-width="1.2"/>')
    return "".join(parts)


def _ceiling(value: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    step = 1e-3
    while True:
        for factor in (1, 2, 4, 5, 8):
            if value <= step * factor:
                return step * factor
        step *= 10
