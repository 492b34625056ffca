"""The options of nsqd against NSQ's defaults, limits and texts."""

import pytest

from nsqkit.errors import FlagError, OptionError
from nsqkit.nsqd.durability import Durability
from nsqkit.nsqd.options import NsqdOptions, default_node_id
from nsqkit.options import Duration, config_value
from nsqkit.options.command_line import load, parse

SECOND = 10**9

DEFAULTS = {
    "log_level": 2,
    "log_prefix": "[nsqd] ",
    "data_path": "",
    "tcp_address": "0.0.0.0:4150",
    "http_address": "0.0.0.0:4151",
    "https_address": "0.0.0.0:4152",
    "broadcast_tcp_port": 0,
    "broadcast_http_port": 0,
    "nsqlookupd_tcp_addresses": [],
    "http_client_connect_timeout": 2 * SECOND,
    "http_client_request_timeout": 5 * SECOND,
    "auth_http_addresses": [],
    "auth_http_request_method": "get",
    "topology_region": "",
    "topology_zone": "",
    "mem_queue_size": 10_000,
    "mem_queue_bytes": 0,
    "max_bytes_per_file": 104_857_600,
    "sync_every": 2500,
    "sync_timeout": 2 * SECOND,
    "queue_scan_worker_pool_max": 4,
    "queue_scan_selection_count": 20,
    "msg_timeout": 60 * SECOND,
    "max_msg_timeout": 900 * SECOND,
    "max_msg_size": 1_048_576,
    "max_body_size": 5_242_880,
    "max_req_timeout": 3600 * SECOND,
    "max_heartbeat_interval": 60 * SECOND,
    "max_rdy_count": 2500,
    "max_output_buffer_size": 65_536,
    "max_output_buffer_timeout": 30 * SECOND,
    "min_output_buffer_timeout": SECOND // 40,
    "output_buffer_timeout": SECOND // 4,
    "max_channel_consumers": 0,
    "statsd_address": "",
    "statsd_prefix": "nsq.%s",
    "statsd_interval": 60 * SECOND,
    "statsd_mem_stats": True,
    "statsd_udp_packet_size": 508,
    "statsd_exclude_ephemeral": False,
    "metrics_max_series": 200_000,
    "e2e_processing_latency_percentiles": [],
    "e2e_processing_latency_window_time": 600 * SECOND,
    "tls_cert": "",
    "tls_key": "",
    "tls_client_auth_policy": "",
    "tls_root_ca_file": "",
    "tls_required": 0,
    "tls_min_version": 771,
    "deflate": True,
    "max_deflate_level": 6,
    "snappy": True,
    "enable_experiment": [],
    "durability": "os",
    "checkpoint_interval": SECOND,
    "min_free_space": 64 * 1024 * 1024,
    "requeue_on_disconnect": False,
}


@pytest.mark.parametrize("key", DEFAULTS)
def test_default_is_that_of_nsq(key):
    """Every key of NSQ's is there, with NSQ's default."""
    assert DEFAULTS[key] == config_value(NsqdOptions(), key)


def test_node_id_follows_from_the_host_name(monkeypatch):
    """The default node id is NSQ's, so a node keeps its id when it moves here."""
    monkeypatch.setattr("socket.gethostname", lambda: "example")

    assert 70 == default_node_id()
    assert default_node_id() == config_value(NsqdOptions(), "id")


@pytest.mark.parametrize(
    "flag,message",
    [
        ("--node-id=1024", r"^--node-id must be \[0,1024\)$"),
        ("--node-id=-1", r"^--node-id must be \[0,1024\)$"),
        ("--max-deflate-level=0", r"^--max-deflate-level must be \[1,9\]$"),
        ("--max-deflate-level=10", r"^--max-deflate-level must be \[1,9\]$"),
        ("--e2e-processing-latency-percentile=1.5", "^invalid E2E processing latency percentile: 1.5$"),
        ("--e2e-processing-latency-percentile=0", "^invalid E2E processing latency percentile: 0$"),
        ("--max-msg-size=0", r"^--max-msg-size must be \[1,2147483647\]$"),
        ("--mem-queue-size=-1", "^--mem-queue-size must be"),
        ("--output-buffer-timeout=0s", "^--output-buffer-timeout must be at least 1ms$"),
        ("--queue-scan-selection-count=0", "must be at least 1$"),
    ],
)
def test_values_out_of_range_are_refused(flag, message):
    """Limits are checked at start, with NSQ's texts where it has any."""
    line = parse(NsqdOptions, [flag])

    with pytest.raises(OptionError, match=message):
        load(NsqdOptions, line)


@pytest.mark.parametrize(
    "flags,values",
    [
        ("--max-msg-timeout=30s", {"msg_timeout": "30s", "max_msg_timeout": "30s"}),
        ("--msg-timeout=16m", {"msg_timeout": "16m", "max_msg_timeout": "16m"}),
        ("--output-buffer-timeout=10ms", {"min_output_buffer_timeout": "10ms"}),
        ("--max-output-buffer-timeout=50ms", {"output_buffer_timeout": "50ms"}),
        (
            "--max-output-buffer-timeout=10ms",
            {"output_buffer_timeout": "10ms", "min_output_buffer_timeout": "10ms"},
        ),
        (
            "--min-output-buffer-timeout=1s",
            {"output_buffer_timeout": "1s", "max_output_buffer_timeout": "30s"},
        ),
        (
            "--min-output-buffer-timeout=1m",
            {"output_buffer_timeout": "1m", "max_output_buffer_timeout": "1m"},
        ),
        ("--min-output-buffer-timeout=1s --max-output-buffer-timeout=1s", {"output_buffer_timeout": "1s"}),
    ],
)
def test_limit_moves_a_default_that_nobody_gave(flags, values):
    """A start that NSQ allows is allowed: a default makes room for the limits that were given."""
    options = load(NsqdOptions, parse(NsqdOptions, flags.split()))

    assert {name: Duration.parse(text) for name, text in values.items()} == {
        name: getattr(options, name) for name in values
    }


@pytest.mark.parametrize(
    "flags,message",
    [
        (
            "--msg-timeout=1m --max-msg-timeout=30s",
            r"^--msg-timeout \(1m0s\) must not be above --max-msg-timeout",
        ),
        (
            "--output-buffer-timeout=250ms --max-output-buffer-timeout=50ms",
            r"^--output-buffer-timeout \(250ms\) must not be above --max-output-buffer-timeout \(50ms\)$",
        ),
        (
            "--min-output-buffer-timeout=1s --max-output-buffer-timeout=50ms",
            r"^--min-output-buffer-timeout \(1s\) must not be above --max-output-buffer-timeout \(50ms\)$",
        ),
    ],
)
def test_values_that_contradict_each_other_are_refused(flags, message):
    """What was given is not moved, not even if it is the default's value."""
    with pytest.raises(OptionError, match=message):
        load(NsqdOptions, parse(NsqdOptions, flags.split()))


@pytest.mark.parametrize("flag", ["tcp-address", "http-address", "https-address"])
@pytest.mark.parametrize(
    "address", ["foo", "127.0.0.1:80x", "127.0.0.1:99999", "127.0.0.1", "::1:80", "http://a:80"]
)
def test_address_to_listen_on_is_checked(flag, address):
    """What is no address is refused with what would be right, and becomes no unix socket."""
    with pytest.raises(
        FlagError, match=f'^invalid value "{address}" for flag -{flag}: .*, or the path of a unix'
    ):
        parse(NsqdOptions, [f"--{flag}={address}"])


def test_empty_address():
    """There is always TCP; HTTP may be left out."""
    with pytest.raises(FlagError, match='^invalid value "" for flag -tcp-address: write host:port or :port'):
        parse(NsqdOptions, ["--tcp-address="])
    load(NsqdOptions, parse(NsqdOptions, ["--http-address=", "--https-address="]))


@pytest.mark.parametrize(
    "flags,message",
    [
        ("--tls-cert=c", "^--tls-cert and --tls-key go together: a certificate and its key$"),
        ("--tls-key=k", "^--tls-cert and --tls-key go together: a certificate and its key$"),
        ("--tls-required=true", "^cannot require TLS client connections without TLS key and cert$"),
        ("--tls-required=tcp-https", "^cannot require TLS client connections without TLS key and cert$"),
        (
            "--tls-client-auth-policy=require",
            "^cannot require TLS client connections without TLS key and cert$",
        ),
    ],
)
def test_tls_needs_a_certificate(flags, message):
    """A certificate needs its key, and who requires TLS needs both."""
    with pytest.raises(OptionError, match=message):
        load(NsqdOptions, parse(NsqdOptions, flags.split()))


@pytest.mark.parametrize("address", ["lookup", "::1:4160", "lookup:0", "lookup:65536", ":4160", ""])
def test_address_of_an_nsqlookupd_is_checked(address):
    """What can be no address is an error that says what it should be."""
    with pytest.raises(
        OptionError, match="^invalid value '.*' for --lookupd-tcp-address: not an address: write host:port"
    ):
        load(NsqdOptions, parse(NsqdOptions, [f"--lookupd-tcp-address={address}"]))


@pytest.mark.parametrize("address", ["lookup:4160", "10.0.0.1:1", "[::1]:65535"])
def test_address_of_an_nsqlookupd(address):
    """Names and addresses, with a port, are taken as they are."""
    options = load(NsqdOptions, parse(NsqdOptions, [f"--lookupd-tcp-address={address}"]))

    assert (address,) == options.nsqlookupd_tcp_addresses


@pytest.mark.parametrize("method", ["put", "GET", ""])
def test_request_method_of_auth_servers_is_checked(method):
    """It is get or post."""
    with pytest.raises(OptionError, match="^--auth-http-request-method must be post or get$"):
        NsqdOptions(auth_http_request_method=method)


@pytest.mark.parametrize(
    "address",
    ["authority", "auth:0", "http://u:password", "ftp://auth:1/", "http://", "http://auth:x/", "http://a:0/"],
)
def test_address_of_an_auth_server_is_checked(address):
    """What can be no address or URL is an error, which does not repeat it: a password may be in it."""
    with pytest.raises(OptionError, match="^invalid value for --auth-http-address: ") as caught:
        NsqdOptions(auth_http_addresses=(address,))

    assert address not in str(caught.value).replace("http://host", "")


@pytest.mark.parametrize("address", ["auth:80", "[::1]:80", "https://auth/path?x=1", "http://u:p@auth:8080"])
def test_address_of_an_auth_server(address):
    """Addresses and URLs are taken as they are."""
    assert (address,) == NsqdOptions(auth_http_addresses=(address,)).auth_http_addresses


def test_too_many_auth_servers():
    """There may be ten auth servers."""
    with pytest.raises(OptionError, match="more than 10 addresses for --auth-http-address"):
        NsqdOptions(auth_http_addresses=("auth:80",) * 11)


def test_percentiles_are_kept_in_descending_order():
    """Percentiles are sorted, the highest first."""
    options = load(NsqdOptions, parse(NsqdOptions, ["--e2e-processing-latency-percentile=0.5,0.99"]))

    assert (0.99, 0.5) == options.e2e_processing_latency_percentiles


@pytest.mark.parametrize("word", ["memory", "os", "fsync"])
def test_durability_is_a_word(word):
    """`--durability` takes the three modes by name."""
    options = load(NsqdOptions, parse(NsqdOptions, ["--durability", word]))

    assert Durability(word) is options.durability


def test_unknown_durability_names_the_choices():
    """A wrong mode is answered with the right ones."""
    with pytest.raises(
        FlagError, match='invalid value "disk" for flag -durability: say one of memory, os, fsync'
    ):
        parse(NsqdOptions, ["--durability=disk"])


def test_too_many_nsqlookupds():
    """There may be a hundred nsqlookupds."""
    hundred = tuple(f"host-{number}:4160" for number in range(100))
    assert hundred == NsqdOptions(nsqlookupd_tcp_addresses=hundred).nsqlookupd_tcp_addresses

    with pytest.raises(OptionError, match="more than 100 addresses for --lookupd-tcp-address"):
        NsqdOptions(nsqlookupd_tcp_addresses=(*hundred, "one-more:4160"))
