"""Families of samples, in portions."""

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from nsqkit.web.answers import METRICS
from nsqkit.web.exposition import (
    COUNTER,
    GAUGE,
    HISTOGRAMS,
    PORTION,
    Buckets,
    Figure,
    histograms,
    samples,
    text,
    versions,
)
from tests.scrapes import read

FIGURE = Figure(GAUGE, "x_depth", "What waits.")


def pieces_of(count: int) -> list[bytes]:
    """A family with so many samples."""
    return [*samples(FIGURE, ["a", "b"], (([str(n), 'q"'], n) for n in range(count)), lambda n: n / 2)]


def test_samples_come_in_portions_behind_one_head():
    """Each has its labels, escaped, and its value."""
    pieces = pieces_of(PORTION + 1)

    assert (
        b'# HELP x_depth What waits.\n# TYPE x_depth gauge\nx_depth{a="0",b="q\\""} 0.0\n' == pieces[0][:75]
    )
    assert [b'x_depth{a="50",b="q\\""} 25.0\n'] == pieces[1:]
    assert PORTION + 1 == len(read(b"".join(pieces).decode())["x_depth"])


def test_a_family_without_samples_is_not_there():
    """Neither is its head; and what is no more has no sample."""
    assert [] == pieces_of(0)
    (piece,) = samples(Figure(COUNTER, "y", "Y."), ["a"], [(["x"], None), (["z"], 1)], float)
    assert {"y_total": {("z",): 1}} == read(piece.decode())


def test_histograms_come_in_smaller_portions():
    """For each has many samples, whose bounds are in decimal."""
    found = [([str(n)], n) for n in range(HISTOGRAMS)] + [(["gone"], None)]
    pieces = [*histograms("h", "H.", ["a"], found, lambda n: Buckets([3e-4, 10_000], [n, 0, 1], 0.5))]

    assert 2 == len(pieces)
    read_back = read(b"".join(pieces).decode())
    assert {("2", "0.0003"): 2, ("2", "10000"): 2, ("2", "+Inf"): 3} == {
        (a, bound): count for (bound, a), count in read_back["h_bucket"].items() if a == "2"
    }
    assert {("0",): 1, ("1",): 2, ("2",): 3} == read_back["h_count"]
    assert {("0",): 0.5, ("1",): 0.5, ("2",): 0.5} == read_back["h_sum"]


def test_a_page_says_who_made_it():
    """With the version of NSQ whose ways it has, in the type that Prometheus wants."""
    assert "x_info" in read(text([versions("x")]).decode())
    assert CONTENT_TYPE_PLAIN_0_0_4 == METRICS
