"""The options that topics, channels and sessions look at; one object carries them all. Times in ns."""

import random
from typing import Final

from mypy_extensions import i64

from nsqkit.nsqd.durability import Durability
from nsqkit.wire.identify import Limits

SECOND: Final = 1_000_000_000


class Settings:
    """Options of the broker; the defaults are NSQ's."""

    def __init__(self) -> None:
        self.limits = Limits()
        self.node_id: i64 = 0
        self.durability = Durability.OS
        self.mem_queue_size: i64 = 10_000  # messages in memory per topic and channel
        self.mem_queue_bytes: i64 = 1 << 29  # bytes in memory of all of them
        self.max_msg_size: i64 = 1_048_576
        self.max_body_size: i64 = 5_242_880
        self.max_req_timeout: i64 = 3600 * SECOND
        self.handshake_timeout: i64 = 10 * SECOND  # 0: none
        self.tls_required = False
        self.max_channel_consumers: i64 = 0  # per channel, 0: any number
        self.max_topics: i64 = 0  # 0: any number
        self.max_channels: i64 = 0  # of all topics together, 0: any number
        self.requeue_on_disconnect = False
        self.prefer_near = False  # consumers of this zone come first, then those of this region
        self.latency_quantiles: list[float] = []
        self.latency_window: i64 = 600 * SECOND
        self.random = random.Random()  # noqa: S311 - sampling, not secrets; a simulation seeds it
