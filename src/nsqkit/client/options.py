"""The options of producers and consumers: names, defaults and limits of NSQ's own client (spec/client.md, section 2).

Times are seconds, text like "1m30s", or a timedelta. An object that exists is valid.
"""

import os
import socket
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Any, ClassVar, Literal, TypedDict, TypeVar

from nsqkit.errors import OptionError
from nsqkit.options import Duration, DurationOption, Options, Words, declared, option
from nsqkit.options.kinds import PATH, STRING, Json, Kind, PathOption
from nsqkit.version import VERSION

Length = float | str | timedelta
"""A length of time as users give it: seconds, text, or a timedelta. A Duration is one, too."""


class Strategy(Enum):
    """Which nsqd the next publish goes to."""

    ROUND_ROBIN = "round_robin"
    STICKY = "sticky"


class BackoffStrategy(Enum):
    """How long a pause is."""

    EXPONENTIAL = "exponential"
    FULL_JITTER = "full_jitter"


class BackoffRecovery(Enum):
    """What a success does to the level of back-off."""

    STEP = "step"
    HALVE = "halve"
    IMMEDIATE = "immediate"


class TlsVersion(Enum):
    """The oldest version of TLS that is spoken."""

    TLS12 = "tls1.2"
    TLS13 = "tls1.3"


class _ContextKind(Kind[ssl.SSLContext | None]):
    name = "ssl.SSLContext"

    def parse(self, text: str) -> ssl.SSLContext | None:  # noqa: ARG002 - the interface of kinds
        raise ValueError("it can be given in Python only")

    def accept(self, value: object) -> ssl.SSLContext | None:
        if value is None or isinstance(value, ssl.SSLContext):
            return value
        raise ValueError("not an ssl.SSLContext")

    def report(self, value: ssl.SSLContext | None) -> Json:
        return None if value is None else repr(value)

    def show(self, value: ssl.SSLContext | None) -> str:
        return "" if value is None else repr(value)


def _no_context() -> None:
    return None


def _short_host() -> str:
    return socket.gethostname().partition(".")[0]


_S = Duration.parse


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionOptions(Options):
    """What producers and consumers have in common. OptionError for a value that makes no sense."""

    has_flags: ClassVar[bool] = False
    needs_heartbeats: ClassVar[bool] = False

    dial_timeout: DurationOption = option(
        _S("1s"), "time for a TCP connection", within=(_S("1ms"), None), group="Connection"
    )
    read_timeout: DurationOption = option(
        _S("1m"), "time for each answer of a handshake", within=(_S("100ms"), _S("5m"))
    )
    write_timeout: DurationOption = option(
        _S("1s"),
        "time within which nsqd takes something of what it is sent, once 1 MiB of it waits",
        within=(_S("100ms"), _S("5m")),
    )
    local_addr: str = option("", "address to connect from: host, or host:port")
    reconnect_min: DurationOption = option(
        _S("1s"),
        "time before an nsqd is tried again; it doubles each time, at random down to a half",
        within=(_S("1ms"), None),
    )
    reconnect_max: DurationOption = option(_S("1m"), "the longest such time", within=(_S("1ms"), None))
    heartbeat_interval: DurationOption = option(
        _S("30s"),
        "time between two heartbeats of nsqd; a connection on which nothing came for two is made anew; -1s is none, "
        "which a consumer can't have",
        within=(_S("-1s"), _S("5m")),
    )
    max_msg_size: int = option(
        0, "bytes of a message that is received at most; 0 is 128 MiB", within=(0, 1 << 30)
    )

    lookupd_poll_interval: DurationOption = option(
        _S("1m"),
        "time between two questions to nsqlookupds; they are also asked when a connection is lost",
        within=(_S("10ms"), _S("5m")),
        group="Discovery",
    )
    lookupd_poll_jitter: float = option(
        0.3, "share of the interval up to which the second question comes later, at random", within=(0, 1)
    )
    lookupd_poll_timeout: DurationOption = option(
        _S("1m"), "time for an answer of an nsqlookupd", within=(_S("1ms"), None)
    )
    skip_lookupd_authorization: bool = option(
        True, "whether nsqlookupds are sent the auth_secret as a bearer token; the name is go-nsq's"
    )

    client_id: str = option(
        _short_host,
        "what nsqd shows of this client",
        kind=STRING,
        default_text="the host name without its domain",
        group="Identity",
    )
    hostname: str = option(
        socket.gethostname, "what nsqd shows as its host", kind=STRING, default_text="the host name"
    )
    user_agent: str = option(f"nsqkit/{VERSION}", "what nsqd shows as its program")
    topology_region: str = option("", "where this client is, for nsqds that know regions")
    topology_zone: str = option("", "the same, for zones")

    tls_v1: bool = option(
        False,
        "whether to speak TLS; an nsqd that does not offer it is refused. The options below need it",
        group="Security",
    )
    tls_root_ca_file: PathOption = option(
        "", "certificates of authorities to trust (PEM); the system's by default", kind=PATH
    )
    tls_cert: PathOption = option("", "certificate to show (PEM)", kind=PATH)
    tls_key: PathOption = option("", "its key (PEM), if it is not in the same file", kind=PATH)
    tls_insecure_skip_verify: bool = option(False, "whether to trust any certificate")
    tls_min_version: TlsVersion = option(
        TlsVersion.TLS12,
        "the oldest version to speak; older ones than 1.2, which go-nsq has words for, mean 1.2",
        kind=Words(
            {member.value: member for member in TlsVersion}
            | dict.fromkeys(("ssl3.0", "tls1.0", "tls1.1"), TlsVersion.TLS12)
        ),
    )
    tls_context: ssl.SSLContext | None = option(
        _no_context,
        "a context of your own, instead of the options above",
        kind=_ContextKind(),
        default_text="none",
    )
    auth_secret: str = option("", "what an nsqd that wants AUTH is told")

    snappy: bool = option(
        False, "whether to compress by snappy, if nsqd offers it", group="What nsqd is asked for"
    )
    deflate: bool = option(False, "whether to compress by deflate, if nsqd offers it; not both")
    deflate_level: int = option(6, "how much: 1 is fastest", within=(1, 9))
    output_buffer_size: int = option(
        16384, "bytes that nsqd may collect before it sends; -1 is none, 0 its default", within=(-1, None)
    )
    output_buffer_timeout: DurationOption = option(
        _S("250ms"),
        "time for which it may; nsqkit's nsqd never waits. -1s is none, 0 its default",
        within=(_S("-1s"), None),
    )

    def check(self) -> None:
        """Raise OptionError if values contradict each other."""
        if self.snappy and self.deflate:
            raise OptionError("snappy and deflate can't be had together")
        if self.reconnect_max < self.reconnect_min:
            raise OptionError("reconnect_max must not be less than reconnect_min")
        if self.heartbeat_interval > self.read_timeout:
            raise OptionError("heartbeat_interval must not be more than read_timeout")
        if self.heartbeat_interval < 0 and self.heartbeat_interval != _S("-1s"):
            raise OptionError("heartbeat_interval must be -1s, for none, or more than 0")
        if self.heartbeat_interval < 0 and self.needs_heartbeats:
            raise OptionError("heartbeat_interval: a consumer can't be without heartbeats")
        if self.tls_key and not self.tls_cert:
            raise OptionError("tls_key needs tls_cert")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerOptions(ConnectionOptions):
    """Options of `Producer`, for several producers alike: `Producer("host:4150", options=options)`. OptionError."""

    max_msg_size: int = option(
        1 << 20, "bytes of a message that is published at most; 0 is no limit here", within=(0, None)
    )
    max_body_size: int = option(
        5 << 20, "bytes of all messages of one publish_many; 0 is no limit here", within=(0, None)
    )
    max_delay: DurationOption = option(
        _S("1h"),
        "the longest delay; nsqd ends the connection above its --max-req-timeout, so raise both. 0 is no limit here",
        within=(_S("0"), None),
    )
    max_pending: int = option(
        1000,
        "publishes of one connection that wait for their answers; further ones wait for room",
        within=(1, None),
        group="Publishing",
    )
    max_pending_bytes: int = option(16 << 20, "the same in bytes", within=(1, None))
    send_timeout: DurationOption = option(
        _S("5s"), "time for which a publish waits for a connection, or for room", within=(_S("0"), None)
    )
    retries: int = option(
        3,
        "how often what was not sent is sent again, and what one of several nsqds could not keep",
        within=(0, None),
    )
    retry_unknown: bool = option(
        False, "whether what may have arrived is sent again as well, which may make a copy"
    )
    strategy: Strategy = option(
        Strategy.ROUND_ROBIN,
        "the nsqd for the next publish: each in turn, or the first that is there",
        kind=Words({member.value: member for member in Strategy}),
    )
    connections_per_nsqd: int = option(1, "connections to each nsqd", within=(1, 64))


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerOptions(ConnectionOptions):
    """Options of `Consumer`, for several consumers alike: `Consumer(..., options=options)`. OptionError."""

    needs_heartbeats: ClassVar[bool] = True

    max_in_flight: int = option(
        1,
        "messages under way at most, over all connections; 0 pauses. `concurrency`, if that is given, is the default",
        within=(0, None),
        group="Messages",
    )
    msg_timeout: DurationOption = option(
        _S("0"),
        "time after which nsqd gives a message to another consumer; 0 is its --msg-timeout",
        within=(_S("0"), None),
    )
    sample_rate: int = option(0, "percentage of messages that are delivered at all; 0 is all", within=(0, 99))
    max_attempts: int = option(
        5,
        "deliveries of a message that a handler may fail at; after them it is given up. 0 is no limit",
        within=(0, 65535),
    )
    default_requeue_delay: DurationOption = option(
        _S("90s"), "delay of what is requeued, for each attempt so far", within=(_S("0"), _S("60m"))
    )
    max_requeue_delay: DurationOption = option(_S("15m"), "the longest of these", within=(_S("0"), _S("60m")))
    auto_touch: bool = option(True, "whether messages are touched while a handler or a block works on them")
    max_processing_time: DurationOption = option(
        _S("0"),
        "time after which they are not any more; 0 is nsqd's --max-msg-timeout",
        within=(_S("0"), None),
    )

    backoff_strategy: BackoffStrategy = option(
        BackoffStrategy.EXPONENTIAL,
        "pauses that double, or anything up to that",
        kind=Words({member.value: member for member in BackoffStrategy}),
        group="Back-off",
    )
    backoff_multiplier: DurationOption = option(
        _S("1s"), "half of the first pause", within=(_S("0"), _S("60m"))
    )
    max_backoff_duration: DurationOption = option(
        _S("2m"), "the longest pause; 0 is no back-off", within=(_S("0"), _S("60m"))
    )
    backoff_recovery: BackoffRecovery = option(
        BackoffRecovery.STEP,
        "what a success does: one level back, half of them, or all",
        kind=Words({member.value: member for member in BackoffRecovery}),
    )

    low_rdy_idle_timeout: DurationOption = option(
        _S("10s"),
        "with fewer messages under way than connections: how long one may have a slot and get nothing",
        within=(_S("1s"), _S("5m")),
        group="Sharing",
    )
    low_rdy_timeout: DurationOption = option(
        _S("30s"), "how long one may have a slot", within=(_S("1s"), _S("5m"))
    )
    rdy_redistribute_interval: DurationOption = option(
        _S("5s"), "time between two looks at this", within=(_S("1ms"), _S("5s"))
    )

    give_up_after: DurationOption = option(
        _S("0"),
        "time without any connection after which the consumer fails; 0 is never",
        within=(_S("0"), None),
        group="The end",
    )
    shutdown_timeout: DurationOption = option(
        _S("30s"), "time that handlers have to finish when the consumer is stopped", within=(_S("0"), None)
    )


class ConnectionKeywords(TypedDict, total=False):
    """The options of `ConnectionOptions` as keyword arguments."""

    dial_timeout: Length
    read_timeout: Length
    write_timeout: Length
    local_addr: str
    reconnect_min: Length
    reconnect_max: Length
    heartbeat_interval: Length
    max_msg_size: int
    lookupd_poll_interval: Length
    lookupd_poll_jitter: float
    lookupd_poll_timeout: Length
    skip_lookupd_authorization: bool
    client_id: str
    hostname: str
    user_agent: str
    topology_region: str
    topology_zone: str
    tls_v1: bool
    tls_root_ca_file: str | os.PathLike[str]
    tls_cert: str | os.PathLike[str]
    tls_key: str | os.PathLike[str]
    tls_insecure_skip_verify: bool
    tls_min_version: TlsVersion | Literal["tls1.2", "tls1.3"]
    tls_context: ssl.SSLContext | None
    auth_secret: str
    snappy: bool
    deflate: bool
    deflate_level: int
    output_buffer_size: int
    output_buffer_timeout: Length


class ProducerKeywords(ConnectionKeywords, total=False):
    """The options of `ProducerOptions` as keyword arguments."""

    max_body_size: int
    max_delay: Length
    max_pending: int
    max_pending_bytes: int
    send_timeout: Length
    retries: int
    retry_unknown: bool
    strategy: Strategy | Literal["round_robin", "sticky"]
    connections_per_nsqd: int


class ConsumerKeywords(ConnectionKeywords, total=False):
    """The options of `ConsumerOptions` as keyword arguments."""

    max_in_flight: int
    msg_timeout: Length
    sample_rate: int
    max_attempts: int
    default_requeue_delay: Length
    max_requeue_delay: Length
    auto_touch: bool
    max_processing_time: Length
    backoff_strategy: BackoffStrategy | Literal["exponential", "full_jitter"]
    backoff_multiplier: Length
    max_backoff_duration: Length
    backoff_recovery: BackoffRecovery | Literal["step", "halve", "immediate"]
    low_rdy_idle_timeout: Length
    low_rdy_timeout: Length
    rdy_redistribute_interval: Length
    give_up_after: Length
    shutdown_timeout: Length


AnyOptions = TypeVar("AnyOptions", bound=ConnectionOptions)


def options_from_pairs(kind: type[AnyOptions], pairs: Iterable[str]) -> AnyOptions:
    """Options as tools are given them: `name,value`, or `name` alone for true (spec/utilities.md). OptionError."""
    known = {one.name: one for one in declared(kind)}
    values: dict[str, Any] = {}
    for pair in pairs:
        name, comma, text = pair.partition(",")
        declaration = known.get(name.strip())
        if declaration is None:
            raise OptionError(f"there is no option {name.strip()!r}: {', '.join(known)}")
        try:
            values[declaration.name] = declaration.kind.parse(text.strip() if comma else "true")
        except ValueError as reason:
            raise OptionError(f"invalid value {text!r} for {declaration.name}: {reason}") from None
    return kind(**values)
