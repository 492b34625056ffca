"""Figures from samples, and how they are shown."""

import msgspec
import pytest

from nsqkit.bench import report
from nsqkit.bench.process import Window

WINDOW = Window(
    seconds=2.0,
    server_cpu_us=1500.0,
    generator_cpu_us=500.0,
    server_rss_before=10_000_000,
    server_rss_after=20_000_000,
)


@pytest.mark.parametrize(
    ("samples", "percent", "expected"),
    [
        (range(1, 101), 50, 50),
        (range(1, 101), 99, 99),
        (range(1, 101), 99.9, 100),
        (range(1, 1001), 99.9, 999),
        (range(1, 4), 50, 2),
        ([7], 50, 7),
        ([7], 99.9, 7),
        ([1, 2], 0, 1),
    ],
)
def test_percentile_is_by_nearest_rank(samples: range, percent: float, expected: int) -> None:
    """Always one of the samples, and the smallest one that enough samples do not exceed."""
    assert expected == report.percentile(samples, percent)


def test_a_round_is_rates_and_percentiles() -> None:
    """CPU and time are per message, latencies in microseconds whatever order they came in."""
    one = report.summarize(WINDOW, 1000, [3000, 1000, 2000], late_ns=[70_000])

    assert one.per_second == 500
    assert one.server_cpu_us_per_message == 1.5
    assert one.generator_cpu_us_per_message == 0.5
    assert (one.p50_us, one.p99_us, one.p999_us) == (2.0, 3.0, 3.0)
    assert one.generator_late_p99_us == 70.0


def test_what_is_not_known_is_left_out() -> None:
    """No pid, no samples, no messages: no figures, and no division by zero."""
    one = report.summarize(Window(1.0, None, 5.0, None, None), 0, [])

    assert one.server_cpu_us_per_message is None
    assert one.p50_us is None
    assert one.generator_cpu_us_per_message == 5.0


def test_the_median_is_taken_figure_by_figure() -> None:
    """A slow round does not decide, and each figure has a median of its own."""
    rounds = [
        report.summarize(WINDOW, messages, [latency])
        for messages, latency in ((10, 9000), (20, 1000), (90, 5000))
    ]

    median = report.median_round(rounds)

    assert median.messages == 20
    assert median.per_second == 10
    assert median.p50_us == 5.0
    assert median.generator_late_p99_us is None
    assert rounds[0] == report.median_round(rounds[:1])


def test_of_two_rounds_a_count_stays_a_count() -> None:
    """Two rounds with different counts have the lower one as their median, not half a message."""
    rounds = [report.summarize(WINDOW, messages, [1000]) for messages in (11, 20)]

    assert 11 == report.median_round(rounds).messages


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [(None, "-"), (0.5, "0.5 µs"), (312.4, "312 µs"), (1234, "1.23 ms"), (2.5e6, "2.5 s")],
)
def test_durations_carry_the_unit_that_suits_them(microseconds: float | None, text: str) -> None:
    """Three digits are enough."""
    assert text == report.duration(microseconds)


def test_a_table_fits_a_terminal() -> None:
    """Large figures, long names and long errors stay within 80 columns; nothing is lost by that."""
    window = Window(3.0, 12_345_678.0, 12_345_678.0, 1_234_000_000, 5_678_000_000)
    one = report.summarize(window, 1_000_000, [999_000, 1_234_567_000, 123_456_000_000])
    label = "pub batch=200 window=100 connections=64 topic-each"
    cause = "cannot connect to broker.example:4150: " + " ".join(["again"] * 30)
    results = [
        report.Result({}, label, "from sending a command to its OK", [one], None, one),
        report.Result({}, "latency 1,000/s", "to its arrival at the consumer", [one], cause, one),
    ]

    lines = report.table(results).splitlines()

    assert [] == [line for line in lines if len(line) > 80]
    assert label in lines
    assert cause in " ".join(line.strip() for line in lines)


def test_table_and_json_show_results_and_failures() -> None:
    """A failed case is a line in the table, and its reason stands below."""
    one = report.summarize(WINDOW, 1000, [2000], redelivered=3)
    good = report.Result({"scenario": "pub"}, "pub batch=1", "to OK", [one], None, one)
    bad = report.Result({"scenario": "http"}, "http", "to 200", [], "refused")

    text = report.table([good, bad])

    assert "\npub batch=1\n     1,000    500  2 µs  2 µs   2 µs     1.50      0.50    10→20\n" in text
    assert "\nhttp: failed\n" in text
    assert "http: refused" in text
    assert "pub batch=1: 3 redelivered" in text
    assert "of pub: to OK" in text
    assert "to 200" not in text
    assert report.one_line(bad) == "http: FAILED: refused"
    facts = report.gather_facts(
        server={"version": "1"}, address="a:1", pid=None, command=None, event_loop="test"
    )
    decoded = msgspec.json.decode(report.encode_json(facts, [good, bad]))
    assert decoded["facts"]["server"] == {"version": "1"}
    assert decoded["results"][0]["rounds"][0]["p50_us"] == 2.0
    assert decoded["results"][1]["error"] == "refused"
