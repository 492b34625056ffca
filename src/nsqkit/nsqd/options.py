"""The options of nsqd, in the order and groups of NSQ's own. Each line is flag, config key, default, help and docs."""

import socket
import zlib
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import ClassVar, Final
from urllib.parse import urlsplit

from nsqkit.address import split_address
from nsqkit.errors import OptionError
from nsqkit.nsqd.durability import Durability
from nsqkit.options import FLOATS, Duration, DurationOption, IgnoredFlag, Words, declared, option
from nsqkit.options.daemon import VERBOSE, DaemonOptions
from nsqkit.options.kinds import INT, PATH, STRING, ListenAddress, PathOption

NODE_IDS = 1024
"""Node ids are below this: a message id has ten bits for them."""

INT32_MAX = 2**31 - 1
"""Sizes travel as signed 32-bit integers."""

MILLISECOND = Duration.parse("1ms")

MAX_LOOKUPDS = 100
"""Each costs nsqd a connection and a task."""


MAX_PERCENTILES = 100
"""Each is looked for in every channel whenever figures are shown."""

MAX_AUTH_SERVERS = 10
"""Each may take its time before the next one is asked."""


class Sigterm(Enum):
    """What a SIGTERM does."""

    SHUTDOWN = "shutdown"
    DRAIN = "drain"


class TlsRequired(IntEnum):
    """Which connections must use TLS."""

    NO = 0
    TCP_EXCEPT_HTTP = 1
    YES = 2


class TlsVersion(IntEnum):
    """TLS versions by their number on the wire."""

    TLS1_0 = 769
    TLS1_1 = 770
    TLS1_2 = 771
    TLS1_3 = 772


SIGTERMS = Words({one.value: one for one in Sigterm})
DURABILITIES = Words({one.value: one for one in Durability})
TLS_REQUIRED = Words(
    {"false": TlsRequired.NO, "true": TlsRequired.YES, "tcp-https": TlsRequired.TCP_EXCEPT_HTTP},
    empty=TlsRequired.NO,
)
TLS_VERSIONS = Words(
    {
        "tls1.0": TlsVersion.TLS1_0,
        "tls1.1": TlsVersion.TLS1_1,
        "tls1.2": TlsVersion.TLS1_2,
        "tls1.3": TlsVersion.TLS1_3,
    },
    empty=TlsVersion.TLS1_2,
)


DEFAULT_RESERVE: Final = 64 * 1024 * 1024


def default_node_id() -> int:
    """NSQ's choice, so that a node keeps its id when it moves here: the host name's MD5, its CRC-32, mod 1024."""
    import hashlib  # noqa: PLC0415 - it loads OpenSSL, which `--version` can do without

    digest = hashlib.md5(socket.gethostname().encode(), usedforsecurity=False).digest()
    return zlib.crc32(digest) % NODE_IDS


@dataclass(frozen=True, slots=True, kw_only=True)
class NsqdOptions(DaemonOptions):
    """Options of nsqd. Raises OptionError for values out of range, FlagError for features of later versions."""

    ignored_flags: ClassVar = (
        VERBOSE,
        IgnoredFlag("worker-id", "use --node-id, which it sets when given a number", old_name_of="node-id"),
    )

    log_prefix: str = option("[nsqd] ", "put before each log line")
    node_id: int = option(
        default_node_id,
        "unique part of message ids, in [0,1024)",
        kind=INT,
        key="id",
        within=(0, NODE_IDS - 1),
        error="--node-id must be [0,1024)",
        default_text="from the host name",
        group="General",
    )
    data_path: PathOption = option(
        "", "directory of messages, metadata and lock; empty: current directory", kind=PATH
    )

    sigterm: Sigterm = option(
        Sigterm.SHUTDOWN,
        "what SIGTERM does: shutdown ends at once; drain refuses publishes, and ends when every message is finished, "
        "after --drain-timeout, or at a second SIGTERM",
        kind=SIGTERMS,
        live=True,
    )
    drain_timeout: DurationOption = option(
        Duration.parse("1m"),
        "time after which a drain is over, whatever is left, deferred messages for example; 0: no limit",
        within=(Duration(0), None),
        live=True,
    )

    tcp_address: str = option(
        "0.0.0.0:4150",
        "host:port for clients, or the path of a unix socket, with a / in it; no host, 0.0.0.0 and :: are every "
        "address, IPv6 included",
        kind=ListenAddress(unix=True),
        group="Network",
    )
    http_address: str = option(
        "0.0.0.0:4151",
        "host:port for HTTP, or the path of a unix socket; empty: no HTTP",
        kind=ListenAddress(unix=True, empty=True),
    )
    https_address: str = option(
        "0.0.0.0:4152",
        "host:port for HTTPS, opened only with a certificate; empty: no HTTPS",
        kind=ListenAddress(unix=True, empty=True),
    )
    broadcast_address: str = option(
        socket.gethostname,
        "address announced to lookupds and in /info",
        kind=STRING,
        default_text="the host name",
    )
    broadcast_tcp_port: int = option(0, "TCP port announced; 0: the port bound", within=(0, 65535))
    broadcast_http_port: int = option(0, "HTTP port announced; 0: the port bound", within=(0, 65535))
    nsqlookupd_tcp_addresses: tuple[str, ...] = option(
        (),
        "TCP address of an nsqlookupd; may be repeated",
        flag="lookupd-tcp-address",
        live=True,
    )
    lookupd_resolve_interval: DurationOption = option(
        Duration.parse("30s"),
        "time after which the names of nsqlookupds are looked up again",
        within=(MILLISECOND, None),
        live=True,
    )
    http_client_connect_timeout: DurationOption = option(
        Duration.parse("2s"),
        "time to connect for HTTP requests going out",
        within=(MILLISECOND, None),
        live=True,
    )
    http_client_request_timeout: DurationOption = option(
        Duration.parse("5s"), "time for an HTTP request going out", within=(MILLISECOND, None), live=True
    )
    http_client_token_file: str = option(
        "", "file with the token that is sent to nsqlookupds over HTTP; read again on SIGHUP; empty: none"
    )
    auth_http_addresses: tuple[str, ...] = option(
        (),
        "host:port or URL of an auth server, without which clients need no AUTH; may be repeated",
        flag="auth-http-address",
    )
    auth_http_request_method: str = option("get", "HTTP method for the auth server: get or post")
    topology_region: str = option("", "region this nsqd is in, reported to clients")
    topology_zone: str = option("", "zone this nsqd is in, reported to clients")

    durability: Durability = option(
        Durability.OS,
        "what a message must have reached before OK is sent",
        kind=DURABILITIES,
        group="Storage",
    )
    mem_queue_size: int = option(
        10_000, "messages kept in memory, per topic and per channel", within=(0, INT32_MAX), live=True
    )
    mem_queue_bytes: int = option(
        0,
        "bytes of waiting messages kept in memory, of all topics and channels together; the rest is only in the log. "
        "0: a quarter of the machine's memory, 512 MiB at most",
        within=(0, None),
        live=True,
    )
    max_bytes_per_file: int = option(
        104_857_600, "size at which a new log file is begun, in bytes", within=(1, None), live=True
    )
    sync_every: int = option(
        2500, "publish commands after which the logs are synced", within=(1, None), live=True
    )
    sync_timeout: DurationOption = option(
        Duration.parse("2s"), "longest time until a message is synced", within=(MILLISECOND, None), live=True
    )
    checkpoint_interval: DurationOption = option(
        Duration.parse("1s"),
        "longest time until a channel's progress is written",
        within=(MILLISECOND, None),
        live=True,
    )
    min_free_space: int = option(
        DEFAULT_RESERVE,
        "free bytes on the disk below which publishes are refused; 0: no check; "
        "the default is lowered to 5 % of a volume smaller than 1.25 GiB",
        within=(0, None),
        live=True,
    )
    queue_scan_worker_pool_max: int = option(
        4, "workers looking for timeouts", within=(1, None), ignored=True
    )
    queue_scan_selection_count: int = option(
        20, "channels looked at per scan", within=(1, None), ignored=True
    )

    msg_timeout: DurationOption = option(
        Duration.parse("1m"),
        "time a consumer has to finish a message, if it asks for no other",
        within=(MILLISECOND, None),
        group="Messages and clients",
        live=True,
    )
    max_msg_timeout: DurationOption = option(
        Duration.parse("15m"),
        "longest time a client may ask for, TOUCH included",
        within=(MILLISECOND, None),
        live=True,
    )
    max_msg_size: int = option(
        1_048_576, "size of one message body, in bytes", within=(1, INT32_MAX), live=True
    )
    max_body_size: int = option(
        5_242_880, "size of a command's body, in bytes", within=(1, INT32_MAX), live=True
    )
    max_req_timeout: DurationOption = option(
        Duration.parse("1h"),
        "longest delay of REQ and of deferred publishes",
        within=(Duration(0), None),
        live=True,
    )
    max_heartbeat_interval: DurationOption = option(
        Duration.parse("1m"),
        "longest heartbeat interval a client may ask for",
        within=(MILLISECOND, None),
        live=True,
    )
    handshake_timeout: DurationOption = option(
        Duration.parse("10s"),
        "time a TCP client has to say the magic, and to finish a handshake; 0: no limit",
        within=(Duration(0), None),
    )
    # Not live: suites made for NSQ take it for an example of what PUT /config refuses.
    max_rdy_count: int = option(2500, "highest RDY a client may send", within=(1, INT32_MAX))
    max_output_buffer_size: int = option(
        65_536, "largest output buffer a client may ask for", within=(1, INT32_MAX), live=True
    )
    max_output_buffer_timeout: DurationOption = option(
        Duration.parse("30s"),
        "longest output buffering a client may ask for",
        within=(MILLISECOND, None),
        live=True,
    )
    min_output_buffer_timeout: DurationOption = option(
        Duration.parse("25ms"),
        "shortest output buffering a client may ask for",
        within=(MILLISECOND, None),
        live=True,
    )
    output_buffer_timeout: DurationOption = option(
        Duration.parse("250ms"),
        "output buffering of clients that do not say",
        within=(MILLISECOND, None),
        live=True,
    )
    max_topics: int = option(100_000, "topics; no more are made; 0: no limit", within=(0, INT32_MAX))
    max_channels: int = option(
        100_000, "channels of all topics together; no more are made; 0: no limit", within=(0, INT32_MAX)
    )
    max_channel_consumers: int = option(
        0, "consumers per channel; 0: no limit", within=(0, INT32_MAX), live=True
    )
    requeue_on_disconnect: bool = option(
        False,
        "give back at once what a vanished consumer had in flight, instead of after its timeout",
        live=True,
    )

    statsd_address: str = option(
        "", "UDP host:port of a statsd to push to; empty: none", group="Statistics", live=True
    )
    statsd_prefix: str = option(
        "nsq.%s",
        "put before each name; %s is the broadcast address and HTTP port, as in host_4151",
        live=True,
    )
    statsd_interval: DurationOption = option(
        Duration.parse("1m"), "time between two pushes", within=(MILLISECOND, None), live=True
    )
    statsd_mem_stats: bool = option(True, "push memory figures too", live=True)
    statsd_udp_packet_size: int = option(508, "most bytes in one datagram", within=(1, 65507), live=True)
    statsd_exclude_ephemeral: bool = option(False, "leave out ephemeral topics and channels", live=True)
    metrics_max_series: int = option(
        200_000,
        "most series of topics and channels in /metrics, topics first; the others are counted in nsqd_metrics_left_out",
        within=(0, None),
        live=True,
    )
    e2e_processing_latency_percentiles: tuple[float, ...] = option(
        (),
        "percentile of processing latency to report, in (0,1]; may be repeated or hold commas",
        kind=FLOATS,
        flag="e2e-processing-latency-percentile",
        live=True,
    )
    e2e_processing_latency_window_time: DurationOption = option(
        Duration.parse("10m"), "time those percentiles cover", within=(MILLISECOND, None), live=True
    )

    tls_cert: str = option(
        "",
        "certificate, a PEM file, intermediate ones after it; read again on SIGHUP",
        group="TLS, compression, experiments",
    )
    tls_key: str = option("", "key of the certificate, a PEM file that is not encrypted")
    tls_client_auth_policy: str = option(
        "",
        "certificates of clients: require (any) or require-verify (of a known CA); anything else asks for none; "
        "if not empty, --tls-required is true unless it says tcp-https",
    )
    tls_root_ca_file: str = option(
        "", "CA of clients' and auth servers' certificates, a PEM file; empty: the CAs of the system"
    )
    tls_required: TlsRequired = option(
        TlsRequired.NO,
        "whether clients must use TLS; tcp-https leaves plain HTTP open",
        kind=TLS_REQUIRED,
    )
    tls_min_version: TlsVersion = option(TlsVersion.TLS1_2, "oldest TLS version", kind=TLS_VERSIONS)
    deflate: bool = option(True, "let clients ask for deflate compression", live=True)
    max_deflate_level: int = option(6, "highest deflate level a client may ask for", within=(1, 9), live=True)
    snappy: bool = option(True, "let clients ask for snappy compression", live=True)
    enable_experiment: tuple[str, ...] = option(
        (),
        "an experiment to turn on; may be repeated; there is topology-aware-consumption: ready consumers in this"
        " nsqd's zone come first, then those in its region",
    )

    def fit(self, given: set[str]) -> None:
        """Move defaults below or above a limit that was given; NSQ does not compare them at all.

        Who asks clients for certificates requires TLS.
        """
        if self.tls_client_auth_policy and self.tls_required is TlsRequired.NO:
            object.__setattr__(self, "tls_required", TlsRequired.YES)
        for _ in _ORDERED:  # what was moved may push the next one
            for lower, upper in _ORDERED:
                low, high = getattr(self, lower), getattr(self, upper)
                if low <= high:
                    continue
                if lower not in given:
                    object.__setattr__(self, lower, high)
                elif upper not in given:
                    object.__setattr__(self, upper, low)
                    given.add(upper)

    def check(self) -> None:
        """Compare limits, and put percentiles in order."""
        for lower, upper in _ORDERED:
            low, high = getattr(self, lower), getattr(self, upper)
            if low > high:
                flags = {one.name: f"--{one.flag}" for one in declared(NsqdOptions)}
                raise OptionError(f"{flags[lower]} ({low}) must not be above {flags[upper]} ({high})")
        if bool(self.tls_cert) != bool(self.tls_key):
            raise OptionError("--tls-cert and --tls-key go together: a certificate and its key")
        if self.tls_required is not TlsRequired.NO and not self.tls_cert:
            raise OptionError("cannot require TLS client connections without TLS key and cert")
        if len(self.nsqlookupd_tcp_addresses) > MAX_LOOKUPDS:
            raise OptionError(f"more than {MAX_LOOKUPDS} addresses for --lookupd-tcp-address")
        for flag, addresses in (
            ("lookupd-tcp-address", self.nsqlookupd_tcp_addresses),
            ("statsd-address", (self.statsd_address,) if self.statsd_address else ()),
        ):
            for address in addresses:
                try:
                    split_address(address)
                except ValueError as reason:
                    raise OptionError(f"invalid value {address!r} for --{flag}: {reason}") from None
        self._check_auth()
        if len(self.e2e_processing_latency_percentiles) > MAX_PERCENTILES:
            raise OptionError(f"more than {MAX_PERCENTILES} for --e2e-processing-latency-percentile")
        for percentile in self.e2e_processing_latency_percentiles:
            if not 0 < percentile <= 1:
                raise OptionError(f"invalid E2E processing latency percentile: {percentile:g}")
        descending = tuple(sorted(self.e2e_processing_latency_percentiles, reverse=True))
        object.__setattr__(self, "e2e_processing_latency_percentiles", descending)

    def _check_auth(self) -> None:
        if self.auth_http_request_method not in ("get", "post"):
            raise OptionError("--auth-http-request-method must be post or get")
        if len(self.auth_http_addresses) > MAX_AUTH_SERVERS:
            raise OptionError(f"more than {MAX_AUTH_SERVERS} addresses for --auth-http-address")
        for address in self.auth_http_addresses:
            try:
                if "://" in address:
                    _check_url(address)
                else:
                    split_address(address)
            except ValueError as reason:
                raise OptionError(f"invalid value for --auth-http-address: {reason}") from None


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # its text may have a password
        good = False
    if not good:
        raise ValueError("not the URL of an auth server: write http://host:port/path, or https")


_ORDERED = (
    ("msg_timeout", "max_msg_timeout"),
    ("min_output_buffer_timeout", "max_output_buffer_timeout"),
    ("min_output_buffer_timeout", "output_buffer_timeout"),
    ("output_buffer_timeout", "max_output_buffer_timeout"),
)
"""Pairs of options of which the first must not be above the second."""
