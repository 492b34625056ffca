"""/ping, /info, /stats and /config."""

import json
import socket

import pytest

from nsqkit.nsqd.http import http_app
from nsqkit.nsqd.options import NsqdOptions
from nsqkit.options import declared
from nsqkit.version import VERSION


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_ping(http, method):
    """A healthy daemon says OK, without NSQ's header."""
    got = http(method, "/ping")

    assert (200, b"OK", "text/plain; charset=utf-8") == (got.status, got.body, got.headers["content-type"])
    assert "x-nsq-content-type" not in got.headers


def test_ping_after_a_failed_write(http, nsqd):
    """The last error of the disk is said as plain text."""
    nsqd.broker.health.set("writing t", "no space left on device")

    got = http.get("/ping")

    assert (500, b"NOK - no space left on device") == (got.status, got.body)


def test_ping_while_it_drains(http, nsqd):
    """A status of its own takes the node out of rotation; /info says so as well."""
    assert http.get("/config/drain").json() is False
    assert "draining" not in http.get("/info").json()

    assert http.put("/config/drain", b"true").json() is True

    got = http.get("/ping")
    assert (503, b"NOK - draining") == (got.status, got.body)
    assert http.get("/info").json()["draining"] is True
    assert http.get("/config/drain").json() is True


def test_info(http):
    """The keys are NSQ's, in its order, times in ns; our own version is in a header."""
    got = http.get("/info")

    assert [
        ("version", "1.3.0"),
        ("broadcast_address", "here"),
        ("hostname", socket.gethostname()),
        ("http_port", 4151),
        ("tcp_port", 4150),
        ("start_time", 1_699_999_935),
        ("max_heartbeat_interval", 60_000_000_000),
        ("max_output_buffer_size", 65_536),
        ("max_output_buffer_timeout", 30_000_000_000),
        ("max_deflate_level", 6),
        ("topology_zone", ""),
        ("topology_region", ""),
    ] == list(got.json().items())
    assert got.headers["x-nsqkit-version"] in {f"{VERSION} compiled", f"{VERSION} pure"}


def test_stats_json(http):
    """`format=json` gives the document, compact."""
    got = http.get("/stats?format=json&include_mem=false")

    expected = b'{"version":"1.3.0","health":"OK","start_time":1699999935,"topics":[],"producers":null}'
    assert expected == got.body
    assert "application/json; charset=utf-8" == got.headers["content-type"]


@pytest.mark.parametrize("query", ["", "?format=text", "?format=JSON"])
def test_stats_text(http, query):
    """Every other format is text."""
    got = http.get(f"/stats{query}")

    assert got.body.startswith(b"nsqd v1.3.0 (built w/python")
    assert b"\nMemory:\n   heap_objects             \t" in got.body
    assert "text/plain; charset=utf-8" == got.headers["content-type"]


@pytest.mark.parametrize(
    "value, shown", [("true", True), ("1", True), ("maybe", True), ("false", False), ("0", False)]
)
def test_stats_switch(http, value, shown):
    """`false` and `0` turn a part off, everything else leaves it on."""
    assert shown == ("memory" in http.get(f"/stats?format=json&include_mem={value}").json())


def test_stats_with_a_bad_query(http):
    """A bad query is an error here too."""
    http.is_error(http.get("/stats?topic=%zz"), 400, "INVALID_REQUEST")


def test_unknown_topic(http):
    """A topic that is not there is null, not an empty list."""
    assert http.get("/stats?format=json&topic=none").json()["topics"] is None


# -- /config


@pytest.mark.parametrize(
    "option, body",
    [
        ("max_msg_size", b"100"),
        ("msg_timeout", b"60000000000"),
        ("deflate", b"true"),
        ("tls_required", b"0"),
        ("tls_min_version", b"771"),
        ("log_level", b"1"),
        ("nsqlookupd_tcp_addresses", b"[]"),
        ("broadcast_address", b"here"),
        ("data_path", b""),
    ],
)
def test_config(http, option, body):
    """Durations are ns, words are numbers, strings are bare."""
    got = http.get(f"/config/{option}")

    assert (200, body) == (got.status, got.body)


@pytest.mark.parametrize("option", ["nothing", "max-msg-size", "MaxMsgSize", "lookupd_tcp_address"])
def test_config_unknown(http, option):
    """Only keys of the config file are known."""
    http.is_error(http.get(f"/config/{option}"), 400, "INVALID_OPTION")


def test_statsd_prefix_is_shown_as_it_is_used(http):
    """With this host in it."""
    assert b"nsq.here_4151." == http.get("/config/statsd_prefix").body


@pytest.mark.parametrize("word, number", [("debug", 1), ("WARN", 3), ("Error", 4), ("fatal", 5), ("info", 2)])
def test_log_level_is_live(http, nsqd, word, number):
    """The log's level changes at once, and is reported as a number."""
    assert str(number).encode() == http.put("/config/log_level", word.encode()).body
    assert number == nsqd.log.level
    assert number == http.get("/config/log_level").json()


def test_lookupds_are_live(http):
    """The list of lookupds can be replaced; null is none."""
    assert [] == http.put("/config/nsqlookupd_tcp_addresses", b"null").json()
    assert ["a:1", "b:2"] == http.put("/config/nsqlookupd_tcp_addresses", b'["a:1", "b:2"]').json()
    assert ["a:1", "b:2"] == http.get("/config/nsqlookupd_tcp_addresses").json()


@pytest.mark.parametrize(
    "option, body, status, text",
    [
        ("log_level", b"", 413, "INVALID_VALUE"),
        ("nothing", b"", 413, "INVALID_VALUE"),
        ("log_level", b"x" * 101, 413, "INVALID_VALUE"),
        ("log_level", b"loud", 400, "INVALID_VALUE"),
        ("log_level", b"\xff", 400, "INVALID_VALUE"),
        ("nsqlookupd_tcp_addresses", b"not json", 400, "INVALID_VALUE"),
        ("nsqlookupd_tcp_addresses", b'"a:1"', 400, "INVALID_VALUE"),
        ("nsqlookupd_tcp_addresses", b"[1]", 400, "INVALID_VALUE"),
        ("nsqlookupd_tcp_addresses", b'["a"]', 400, "INVALID_VALUE"),
        ("nsqlookupd_tcp_addresses", b"[" * 100, 400, "INVALID_VALUE"),
        ("max_rdy_count", b"10", 400, "INVALID_OPTION"),
        ("nothing", b"x", 400, "INVALID_OPTION"),
    ],
)
def test_config_put_errors(http, option, body, status, text):
    """The body's length is checked before the option, the option before the value."""
    http.is_error(http.put(f"/config/{option}", body), status, text)


@pytest.mark.parametrize(
    "option, body, reason",
    [
        ("tcp_address", b"x", "--tcp-address can't be changed at run time: it needs a restart"),
        ("id", b"1", "--node-id can't be changed at run time: it needs a restart"),
        (
            "msg_timeout",
            b"60",
            "invalid value '60' for msg_timeout: a duration needs a unit, as in 60s or 60ms",
        ),
        ("msg_timeout", b"0s", "--msg-timeout must be at least 1ms"),
        ("max_msg_timeout", b"5s", "--msg-timeout (1m0s) must not be above --max-msg-timeout (5s)"),
        ("snappy", b"maybe", "invalid value 'maybe' for snappy: say true or false"),
        (
            "e2e_processing_latency_percentiles",
            b"[0.5, 2]",
            "invalid E2E processing latency percentile: 2",
        ),
        (
            "statsd_address",
            "\u2028\n".encode(),
            (
                r"invalid value '\u2028\n' for --statsd-address: not an address: write host:port, "
                "or [host]:port for IPv6"
            ),
        ),
    ],
)
def test_config_put_reasons(http, nsqd, option, body, reason):
    """What clients compare is NSQ's word; a header tells a person what is wrong, in printable ASCII."""
    before = nsqd.options

    got = http.put(f"/config/{option}", body)

    assert reason == got.headers["x-nsqkit-reason"]
    assert got.json()["message"] in {"INVALID_OPTION", "INVALID_VALUE"}
    assert before is nsqd.options


VALUES = {
    "bool": b"false",
    "int": b"9",
    "duration": b"1m30s",
    "string": b"other:1",
    "float list": b"[0.25, 0.5]",
    "list": b'["a:1"]',
    "word": b"warn",
}


LIMITED = {
    "sigterm": b"drain",
    "http_max_header_size": b"2048",
    "output_buffer_timeout": b"1s",
    "min_output_buffer_timeout": b"30ms",
}


@pytest.mark.parametrize(
    "option", [one for one in declared(NsqdOptions) if one.live], ids=lambda one: one.key
)
def test_live_options(http_client, nsqd, option):
    """Each takes a value of its kind, and a GET shows it then."""
    nsqd.options = NsqdOptions()
    client = http_client(http_app(nsqd))
    value = LIMITED.get(option.key, VALUES[option.kind.name])

    got = client.put(f"/config/{option.key}", value)

    assert 200 == got.status
    assert got.body == client.get(f"/config/{option.key}").body
    assert option.kind.accept(parse(option, value.decode())) == getattr(nsqd.options, option.name)


def parse(option, text):
    """What a text in a PUT means, lists of numbers in the order that the options give them."""
    if option.kind.repeats:
        return sorted(json.loads(text), reverse=True)
    return option.kind.parse(text)


def test_json_is_harmless_in_html(http):
    """Characters with a meaning in HTML are escaped as Go does."""
    got = http.put("/config/nsqlookupd_tcp_addresses", '["<&>\u2028\u2029:1"]'.encode())

    assert rb'["\u003c\u0026\u003e\u2028\u2029:1"]' == got.body


@pytest.mark.parametrize("count", [101, 20_000])
def test_too_many_nsqlookupds(http_client, nsqd, count):
    """There may be a hundred nsqlookupds; more are refused with the reason, and nothing changes."""
    nsqd.options = NsqdOptions()
    client = http_client(http_app(nsqd))
    path = "/config/nsqlookupd_tcp_addresses"
    hundred = [f"host-{number}:4160" for number in range(100)]
    assert hundred == client.put(path, json.dumps(hundred).encode()).json()

    got = client.put(path, json.dumps([f"host-{number}:4160" for number in range(count)]).encode())

    client.is_error(got, 400, "INVALID_VALUE")
    assert got.headers["x-nsqkit-reason"] in {
        "more than 100 addresses for --lookupd-tcp-address",
        "a value of more than 65536 bytes",
    }
    assert hundred == client.get(path).json()
