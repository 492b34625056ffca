"""What /metrics of a daemon is made of: families of samples in Prometheus's text format, in pieces.

A family's samples must stand together, so what is many (topics, channels) is walked through once for each family, in
portions: each sample is of the moment its piece was made.

prometheus_client writes the text. Loading it takes a while, so whoever wants this module loads it in a thread.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, islice
from typing import Final, NamedTuple, TypeVar

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from nsqkit.version import NSQ_VERSION, build

PORTION: Final = 50  # samples in one piece
HISTOGRAMS: Final = 3  # likewise; each has some twenty samples

GAUGE: Final = GaugeMetricFamily
COUNTER: Final = CounterMetricFamily

T = TypeVar("T")


class Figure(NamedTuple):
    """A family of samples: one of each topic, or of each channel."""

    kind: type[CounterMetricFamily] | type[GaugeMetricFamily]
    name: str
    meaning: str


def versions(program: str) -> Metric:
    """Which program answers."""
    return InfoMetricFamily(program, "Versions.", value={"version": NSQ_VERSION, "build": build()})


def text(families: Iterable[Metric]) -> bytes:
    """Families that are short."""
    return generate_latest(_Families(families))


def denied(program: str, by_status: Mapping[int, int]) -> Metric:
    """Requests that lacked a token, or whose token was not enough."""
    family = CounterMetricFamily(
        f"{program}_http_denied",
        "HTTP requests refused for want of a token (401) or role (403).",
        labels=["status"],
    )
    for status, count in by_status.items():
        family.add_metric([str(status)], count)
    return family


def refused(program: str, by_limit: Mapping[str, int]) -> Metric:
    """Connections that a limit did not let in, or ended in favour of others."""
    family = CounterMetricFamily(
        f"{program}_connections_refused",
        "Connections refused, or closed for others, by the option that limits them.",
        labels=["limit"],
    )
    for limit, count in by_limit.items():
        family.add_metric([limit], count)
    return family


def of_process() -> bytes:
    """What prometheus_client knows of a process and its garbage collector."""
    process = CollectorRegistry()
    ProcessCollector(registry=process)
    GCCollector(registry=process)
    return generate_latest(process)


def samples(
    figure: Figure,
    labels: Sequence[str],
    found: Iterable[tuple[Sequence[str], T | None]],
    value: Callable[[T], float],
) -> Iterator[bytes]:
    """A family in portions. Of what is no more (None) there is no sample."""

    def family(portion: Sequence[tuple[Sequence[str], T | None]]) -> Metric:
        made = figure.kind(figure.name, figure.meaning, labels=labels)
        for names, one in portion:
            if one is not None:
                made.add_metric(names, value(one))
        return made

    return _portions(found, PORTION, family)


class Buckets(NamedTuple):
    """A histogram: how many fell into each bucket, the lowest first and one more than bounds, and their sum."""

    bounds: Sequence[float]
    counts: Sequence[int]
    sum: float

    def cumulated(self) -> list[tuple[str, float]]:
        """How many fell into each bucket or one before it, by upper bound."""
        bounds = [f"{bound:.10g}" for bound in self.bounds]
        return [*zip([*bounds, "+Inf"], accumulate(self.counts), strict=True)]


def histograms(
    name: str,
    meaning: str,
    labels: Sequence[str],
    found: Iterable[tuple[Sequence[str], T | None]],
    value: Callable[[T], Buckets],
) -> Iterator[bytes]:
    """A family of histograms, likewise. Each has as many samples as it has buckets, and two more."""

    def family(portion: Sequence[tuple[Sequence[str], T | None]]) -> Metric:
        made = HistogramMetricFamily(name, meaning, labels=labels)
        for names, one in portion:
            if one is not None:
                buckets = value(one)
                made.add_metric(names, buckets.cumulated(), buckets.sum)
        return made

    return _portions(found, HISTOGRAMS, family)


def _portions(
    found: Iterable[tuple[Sequence[str], T]],
    size: int,
    family: Callable[[Sequence[tuple[Sequence[str], T]]], Metric],
) -> Iterator[bytes]:
    """A family in portions, of which only the first has a head."""
    rest = iter(found)
    head = b""
    while portion := list(islice(rest, size)):
        page = text([family(portion)])
        if not head:
            head = page[: page.index(b"\n", page.index(b"\n") + 1) + 1]
            yield page
        else:
            yield page.removeprefix(head)


class _Families(Collector):
    """What prometheus_client takes for a registry."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """The families."""
        return self._families
