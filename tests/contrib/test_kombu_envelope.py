"""A kombu message as bytes, and when it is due."""

import time
from datetime import UTC, datetime, timedelta

import pytest

from nsqkit.contrib.kombu.envelope import decode, delay_of, encode
from nsqkit.errors import BadDelay

HOUR = 3600.0


def message(eta=None):
    """As kombu prepares it."""
    return {"body": "e30=", "headers": {"task": "add", "eta": eta}, "properties": {"delivery_info": {}}}


@pytest.fixture
def now(monkeypatch):
    """A moment at which the clock stands still."""
    moment = datetime(2026, 7, 1, 12, tzinfo=UTC)
    monkeypatch.setattr("nsqkit.contrib.kombu.envelope.time", moment.timestamp)
    return moment


@pytest.mark.parametrize("ago_s", [None, 0, 0.001, 1e6])
def test_what_is_due_is_not_delayed(now, ago_s):
    """A message without `eta`, or with one that has passed, goes at once."""
    eta = None if ago_s is None else (now - timedelta(seconds=ago_s)).isoformat()

    assert 0 == delay_of(message(eta), HOUR)
    assert 0 == delay_of({"headers": None}, HOUR)


def test_the_rest_of_the_time(now):
    """The delay is what is left, whatever the time zone it is written in; a naive one is UTC without Celery."""
    later = now + timedelta(seconds=90)
    east = datetime.fromisoformat("2026-07-01T14:01:30+02:00")

    assert east == later
    assert [90, 90, 90] == [
        delay_of(message(eta), HOUR) for eta in (later.isoformat(), later, east.isoformat())
    ]


def test_a_naive_time_is_in_the_zone_of_the_app(now, monkeypatch):
    """An `eta` without a time zone is read as Celery's current app would."""
    from celery import Celery

    with Celery("app", set_as_current=True, timezone="Asia/Tokyo") as app:
        assert 90 == delay_of(message("2026-07-01T21:01:30"), HOUR)
        assert "Asia/Tokyo" == str(app.timezone)


def test_a_delay_that_nsqd_does_not_hold(now):
    """A delay above the limit is refused, and the error says what to change; one at the limit is not."""
    assert HOUR == delay_of(message(now + timedelta(hours=1)), HOUR)

    with pytest.raises(BadDelay, match=r"due in 3601 s .*at most 3600 s.*--max-req-timeout.*max_delay"):
        delay_of(message(now + timedelta(seconds=3601)), HOUR)


def test_no_worker_waits_again():
    """What nsqd holds back has lost its `eta`; the caller's headers still have theirs."""
    original = message("2026-07-01T12:00:00+00:00")

    delayed = decode(encode(original, delayed=True))
    direct = decode(encode(original, delayed=False))

    assert delayed["headers"] == {"task": "add", "eta": None}
    assert direct == original
    assert "2026-07-01T12:00:00+00:00" == original["headers"]["eta"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b"{}", b'{"properties": 1}', b"\xff"])
def test_what_is_none_of_kombus(body):
    """Anything else is a ValueError."""
    with pytest.raises(ValueError):
        decode(body)


def test_the_clock_is_the_calendar():
    """The delay counts from now."""
    assert 50 < delay_of(message(datetime.fromtimestamp(time.time() + 60, UTC)), HOUR) <= 60
