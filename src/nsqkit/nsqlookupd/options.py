"""The options of nsqlookupd, in the order of NSQ's own."""

import socket
from dataclasses import dataclass

from nsqkit.options import Duration, DurationOption, option
from nsqkit.options.daemon import DaemonOptions
from nsqkit.options.kinds import STRING, ListenAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class NsqlookupdOptions(DaemonOptions):
    """Options of nsqlookupd. Raises OptionError for values out of range."""

    log_prefix: str = option("[nsqlookupd] ", "put before each log line")

    tcp_address: str = option(
        "0.0.0.0:4160",
        "host:port for nsqds; no host, 0.0.0.0 and :: are every address, IPv6 included",
        kind=ListenAddress(unix=False),
        group="Network",
    )
    http_address: str = option("0.0.0.0:4161", "host:port for HTTP", kind=ListenAddress(unix=False))
    broadcast_address: str = option(
        socket.gethostname,
        "address told to nsqds, which ask there over HTTP for the channels of new topics",
        kind=STRING,
        default_text="the host name",
    )

    inactive_producer_timeout: DurationOption = option(
        Duration.parse("5m"),
        "time without a PING after which an nsqd is hidden",
        within=(Duration.parse("1ms"), None),
        group="Producers",
        live=True,
    )
    tombstone_lifetime: DurationOption = option(
        Duration.parse("45s"),
        "time for which a tombstoned producer is hidden",
        within=(Duration.parse("0"), None),
        live=True,
    )

    max_registrations: int = option(
        1_000_000,
        "topics and channels known, and likewise entries of who has them, that are kept at most",
        within=(1, None),
        live=True,
    )
    max_registrations_per_nsqd: int = option(
        200_000, "topics and channels that one nsqd may register", within=(1, None), live=True
    )
    metrics_max_series: int = option(
        200_000,
        "most series of topics in /metrics; the topics left out are counted in nsqlookupd_metrics_left_out",
        within=(0, None),
        group="Metrics",
    )
