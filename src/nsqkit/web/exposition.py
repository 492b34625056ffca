"""What /metrics of a daemon is made of: families of samples in Prometheus's text format, in pieces.

A family's samples must stand together, so what is many (topics, channels) is walked through once for each family, in
portions: each sample is of the moment its piece was made.

prometheus_client writes the text. Loading it takes a while, so whoever wants this module loads it in a thread.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple, TypeVar

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from nsqkit.version import NSQ_VERSION, build

PORTION: Final = 50  # samples in one piece

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
    """A family in portions, of which only the first has a head. Of what is no more (None) there is no sample."""
    rest = iter(found)
    head = b""
    while portion := list(islice(rest, PORTION)):
        family = figure.kind(figure.name, figure.meaning, labels=labels)
        for names, one in portion:
            if one is not None:
                family.add_metric(names, value(one))
        page = text([family])
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
