"""The options of producers and consumers."""

import ssl
from datetime import timedelta
from typing import get_type_hints

import pytest

from nsqkit.client.options import (
    BackoffStrategy,
    ConsumerKeywords,
    ConsumerOptions,
    ProducerKeywords,
    ProducerOptions,
    TlsVersion,
    options_from_pairs,
)
from nsqkit.errors import OptionError
from nsqkit.options import Duration, declared


@pytest.mark.parametrize(
    ("options", "keywords"), [(ProducerOptions, ProducerKeywords), (ConsumerOptions, ConsumerKeywords)]
)
def test_every_option_is_a_keyword_argument(options, keywords):
    """And has a help text."""
    assert {one.name for one in declared(options)} == set(get_type_hints(keywords))
    assert all(one.help for one in declared(options))


@pytest.mark.parametrize(
    ("given", "seconds"),
    [(2, 2), (0.25, 0.25), ("90s", 90), (timedelta(minutes=1), 60), (Duration.parse("3s"), 3)],
)
def test_a_time_can_be_said_in_many_ways(given, seconds):
    """Seconds, text, a timedelta, or a Duration."""
    assert seconds == ConsumerOptions(default_requeue_delay=given).default_requeue_delay.seconds


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_in_flight": -1}, "max_in_flight must be at least 0"),
        ({"max_in_flight": "many"}, "invalid value 'many' for max_in_flight"),
        ({"sample_rate": 100}, r"sample_rate must be \[0,99\]"),
        ({"read_timeout": "50ms"}, "read_timeout must be"),
        ({"backoff_strategy": "linear"}, "backoff_strategy: say one of exponential, full_jitter"),
        ({"snappy": True, "deflate": True}, "snappy and deflate"),
        ({"heartbeat_interval": "61s"}, "heartbeat_interval must not be more than read_timeout"),
        ({"heartbeat_interval": -1}, "a consumer can't be without heartbeats"),
        ({"heartbeat_interval": "-500ms"}, "heartbeat_interval must be -1s"),
        ({"reconnect_min": 5, "reconnect_max": 1}, "reconnect_max"),
        ({"tls_key": "key.pem"}, "tls_key needs tls_cert"),
        ({"tls_context": "what"}, "not an ssl.SSLContext"),
        ({"default_requeue_delay": "61m"}, "default_requeue_delay must be"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_its_name(options, words):
    """As one writes it in Python: no dashes."""
    with pytest.raises(OptionError, match=words) as refused:
        ConsumerOptions(**options)
    assert "--" not in str(refused.value)


def test_an_unknown_option_is_an_error():
    """A word that is misspelt does not pass in silence."""
    with pytest.raises(TypeError, match="max_inflight"):
        ConsumerOptions(max_inflight=3)  # type: ignore[call-arg]


def test_a_producer_may_be_without_heartbeats():
    """It can live without them."""
    assert "-1s" == str(ProducerOptions(heartbeat_interval=-1).heartbeat_interval)


def test_the_words_of_other_clients_for_old_versions_of_tls_mean_the_oldest_one():
    """go-nsq has them."""
    assert TlsVersion.TLS12 is options_from_pairs(ConsumerOptions, ["tls_min_version,ssl3.0"]).tls_min_version
    assert TlsVersion.TLS13 is options_from_pairs(ConsumerOptions, ["tls_min_version,tls1.3"]).tls_min_version


def test_a_context_is_kept_as_it_is():
    """It is the user's."""
    context = ssl.create_default_context()

    assert context is ConsumerOptions(tls_context=context).tls_context


def test_tools_give_options_as_pairs():
    """A name alone is true; times are Go's."""
    options = options_from_pairs(
        ConsumerOptions, ["max_in_flight,50", "snappy", "msg_timeout,1m30s", "backoff_strategy,full_jitter"]
    )

    assert (50, True) == (options.max_in_flight, options.snappy)
    assert 90 == options.msg_timeout.seconds
    assert BackoffStrategy.FULL_JITTER is options.backoff_strategy


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        ("no_such,1", "there is no option 'no_such'"),
        ("max_in_flight,x", "invalid value 'x' for max_in_flight"),
        ("msg_timeout,5", "a duration needs a unit"),
        ("tls_context,x", "in Python only"),
    ],
)
def test_a_pair_that_makes_no_sense_is_refused(pair, words):
    """And says what would be right."""
    with pytest.raises(OptionError, match=words):
        options_from_pairs(ConsumerOptions, [pair])
