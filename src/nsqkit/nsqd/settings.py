"""From the options that a user writes to the settings that the broker reads."""

from typing import Final

from nsqkit.nsqd.core.held import UNBOUNDED
from nsqkit.nsqd.core.settings import Settings
from nsqkit.nsqd.memory import total_memory
from nsqkit.nsqd.options import DEFAULT_RESERVE, NsqdOptions, TlsRequired
from nsqkit.nsqd.storage.disk import Disk
from nsqkit.version import NSQ_VERSION
from nsqkit.wire.identify import Limits

MOST_HELD: Final = 1 << 29  # bytes of waiting messages in memory, unless an option says otherwise
TOPOLOGY: Final = "topology-aware-consumption"  # the experiment of that name
SMALL_SHARE: Final = 20  # one part in so many of a volume is kept free, if that is less than the default


def reserve_of(options: NsqdOptions, disk: Disk, data_path: str) -> int:
    """Bytes to keep free on the disk: as the option says, or less on a volume that its default would close. OSError."""
    if options.min_free_space != DEFAULT_RESERVE:
        return options.min_free_space
    return min(DEFAULT_RESERVE, disk.total_bytes(data_path) // SMALL_SHARE)


def settings_of(options: NsqdOptions) -> Settings:
    """The broker's settings."""
    settings = Settings()
    settle(settings, options)
    return settings


def settle(settings: Settings, options: NsqdOptions) -> None:
    """Write what the options say into the broker's settings; durations are ns on both sides."""
    limits = settings.limits
    limits.version = NSQ_VERSION
    limits.max_rdy_count = options.max_rdy_count
    limits.msg_timeout = int(options.msg_timeout)
    limits.max_msg_timeout = int(options.max_msg_timeout)
    limits.heartbeat_interval = min(Limits().heartbeat_interval, int(options.max_heartbeat_interval))
    limits.max_heartbeat_interval = int(options.max_heartbeat_interval)
    limits.output_buffer_size = min(16384, options.max_output_buffer_size)
    limits.max_output_buffer_size = options.max_output_buffer_size
    limits.output_buffer_timeout = int(options.output_buffer_timeout)
    limits.min_output_buffer_timeout = int(options.min_output_buffer_timeout)
    limits.max_output_buffer_timeout = int(options.max_output_buffer_timeout)
    limits.max_deflate_level = options.max_deflate_level
    limits.deflate = options.deflate
    limits.snappy = options.snappy
    limits.tls = bool(options.tls_cert)
    limits.auth_required = bool(options.auth_http_addresses)
    limits.topology_region = options.topology_region
    limits.topology_zone = options.topology_zone
    settings.node_id = options.node_id
    settings.durability = options.durability
    settings.mem_queue_size = options.mem_queue_size
    settings.mem_queue_bytes = min(options.mem_queue_bytes or min(total_memory() // 4, MOST_HELD), UNBOUNDED)
    settings.max_msg_size = options.max_msg_size
    settings.max_body_size = options.max_body_size
    settings.max_req_timeout = int(options.max_req_timeout)
    settings.handshake_timeout = int(options.handshake_timeout)
    settings.tls_required = options.tls_required is not TlsRequired.NO
    settings.max_channel_consumers = options.max_channel_consumers
    settings.requeue_on_disconnect = options.requeue_on_disconnect
    settings.prefer_near = TOPOLOGY in options.enable_experiment
    settings.latency_quantiles = list(options.e2e_processing_latency_percentiles)
    settings.latency_window = int(options.e2e_processing_latency_window_time)


def limit(settings: Settings, options: NsqdOptions) -> None:
    """Set what does not count for what was there before the start."""
    settings.max_topics = options.max_topics
    settings.max_channels = options.max_channels
