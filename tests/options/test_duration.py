"""Durations as Go writes them."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsqkit.options import Duration


@pytest.mark.parametrize(
    "text,nanoseconds",
    [
        ("0", 0),
        ("0s", 0),
        ("5ns", 5),
        ("5us", 5_000),
        ("5\N{MICRO SIGN}s", 5_000),
        ("5\N{GREEK SMALL LETTER MU}s", 5_000),
        ("300ms", 300_000_000),
        ("1.5s", 1_500_000_000),
        (".5s", 500_000_000),
        ("1.s", 1_000_000_000),
        ("1m30s", 90_000_000_000),
        ("1h15m", 4_500_000_000_000),
        ("-1.5h", -5_400_000_000_000),
        ("+1s", 1_000_000_000),
    ],
)
def test_parse(text, nanoseconds):
    """A duration is a sequence of numbers with units."""
    assert nanoseconds == Duration.parse(text)


@pytest.mark.parametrize(
    "text", ["60", "-5", "1.5", "", "s", "1x", "1s ", "1 s", ".s", "1m-3s", "\u0661s", "99999999h"]
)
def test_parse_refuses(text):
    """Numbers without a unit, other units, blanks, other digits and more than 64 bits are errors."""
    with pytest.raises(ValueError, match="duration|range"):
        Duration.parse(text)


def test_missing_unit_is_explained():
    """The commonest mistake gets its own text."""
    with pytest.raises(ValueError, match="a duration needs a unit, as in 60s or 60ms"):
        Duration.parse("60")


@pytest.mark.parametrize(
    "text",
    [
        "0s",
        "1ns",
        "1.5\N{MICRO SIGN}s",
        "250ms",
        "1.000000001s",
        "1m0s",
        "1m30s",
        "1h0m0s",
        "1h0m0.5s",
        "-2m0s",
    ],
)
def test_str_is_the_form_of_go(text):
    """A duration is printed with the largest unit that fits."""
    assert text == str(Duration.parse(text))
    assert f"Duration('{text}')" == repr(Duration.parse(text))


@given(st.integers(-(2**63) + 1, 2**63 - 1))
def test_round_trip(nanoseconds):
    """What is printed is read back exactly."""
    assert nanoseconds == Duration.parse(str(Duration(nanoseconds)))


@given(st.text())
def test_any_text_is_read_or_refused(text):
    """Nothing but ValueError comes out of bad text."""
    with suppress(ValueError):
        Duration.parse(text)


@pytest.mark.parametrize("value,text", [(2, "2s"), (0.25, "250ms"), ("1m", "1m0s"), (Duration(5), "5ns")])
def test_of_takes_what_one_writes_in_python(value, text):
    """Numbers are seconds; durations and text say themselves."""
    assert text == str(Duration.of(value))


@pytest.mark.parametrize("value", [True, None, float("nan"), float("inf"), 1e30, b"1s"])
def test_of_refuses(value):
    """Everything else is an error."""
    with pytest.raises(ValueError, match="duration|range"):
        Duration.of(value)


def test_units():
    """A duration can be had in seconds and in whole milliseconds."""
    assert (1.5, 1500) == (Duration.parse("1.5s").seconds, Duration.parse("1.5s").milliseconds)
