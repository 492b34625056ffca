"""The options of nsqlookupd against NSQ's defaults, limits and texts."""

import socket

import pytest

from nsqkit.errors import OptionError
from nsqkit.nsqlookupd.options import NsqlookupdOptions
from nsqkit.options import config_value
from nsqkit.options.command_line import load, parse

SECOND = 10**9

DEFAULTS = {
    "log_level": 2,
    "log_prefix": "[nsqlookupd] ",
    "tcp_address": "0.0.0.0:4160",
    "http_address": "0.0.0.0:4161",
    "inactive_producer_timeout": 300 * SECOND,
    "tombstone_lifetime": 45 * SECOND,
}


@pytest.mark.parametrize("key", DEFAULTS)
def test_default_is_that_of_nsq(key):
    """Every key of NSQ's is there, with NSQ's default."""
    assert DEFAULTS[key] == config_value(NsqlookupdOptions(), key)


def test_broadcast_address_is_the_host_name():
    """Unless it is given, nsqds are told the host name."""
    assert socket.gethostname() == NsqlookupdOptions().broadcast_address


def test_flags():
    """NSQ's flags are understood as NSQ does."""
    words = [
        "-tcp-address=:1",
        "--http-address",
        "[::1]:2",
        "--broadcast-address=b",
        "--tombstone-lifetime=1m30s",
    ]
    options = load(NsqlookupdOptions, parse(NsqlookupdOptions, [*words, "--inactive-producer-timeout=400ms"]))

    assert (":1", "[::1]:2", "b") == (options.tcp_address, options.http_address, options.broadcast_address)
    assert (90 * SECOND, SECOND * 2 // 5) == (options.tombstone_lifetime, options.inactive_producer_timeout)


def test_config_file(tmp_path):
    """NSQ's example of a config file is understood."""
    path = tmp_path / "nsqlookupd.cfg"
    path.write_text(
        'log_level = "warn"\ntcp_address = "127.0.0.1:1"\nhttp_address = "127.0.0.1:2"\nbroadcast_address = "b"\n'
        'inactive_producer_timeout = "10s"\ntombstone_lifetime = "5s"\n'
    )
    options = load(NsqlookupdOptions, parse(NsqlookupdOptions, [f"--config={path}"]))

    expected = NsqlookupdOptions(
        log_level=options.log_level,
        tcp_address="127.0.0.1:1",
        http_address="127.0.0.1:2",
        broadcast_address="b",
        inactive_producer_timeout="10s",
        tombstone_lifetime="5s",
    )
    assert (expected, "WARNING") == (options, options.log_level.name)


@pytest.mark.parametrize(
    "flag, message",
    [
        ("--inactive-producer-timeout=0s", "^--inactive-producer-timeout must be at least 1ms$"),
        ("--tombstone-lifetime=-1s", "^--tombstone-lifetime must be at least 0s$"),
    ],
)
def test_values_out_of_range_are_refused(flag, message):
    """What makes no sense is refused at start, and said how it should be."""
    line = parse(NsqlookupdOptions, [flag])

    with pytest.raises(OptionError, match=message):
        load(NsqlookupdOptions, line)


@pytest.mark.parametrize(
    "address", ["", "/run/nsqlookupd.sock", "localhost", "localhost:http", "localhost:65536"]
)
@pytest.mark.parametrize("name", ["tcp_address", "http_address"])
def test_addresses_to_listen_on_are_checked(name, address):
    """There are no unix sockets: what listens there has no address that others could be told."""
    with pytest.raises(OptionError, match="for --.*-address: write host:port or :port"):
        NsqlookupdOptions(**{name: address})


def test_tombstones_may_be_turned_off():
    """A lifetime of nothing hides nobody."""
    assert 0 == NsqlookupdOptions(tombstone_lifetime="0s").tombstone_lifetime
