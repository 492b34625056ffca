"""What the HTTP API needs of the daemon."""

from typing import Protocol

import msgspec

from nsqkit.log import Log
from nsqkit.nsqd.core.broker import Broker
from nsqkit.nsqd.memory import GcPauses
from nsqkit.nsqd.options import NsqdOptions
from nsqkit.nsqd.storage.files import FileStorage
from nsqkit.nsqd.traffic import Traffic
from nsqkit.web.access import Access
from nsqkit.web.long_answer import Slices
from nsqkit.web.profiler import Profiler


class LongestPass(msgspec.Struct):
    """What held up the event loop most, in microseconds."""

    pass_cpu_us: int  # CPU that one pass of it used
    turn_us: int  # time that one turn of the broker took, with its writes


class Daemon(Protocol):
    """A running nsqd; `Nsqd` is one. Times are ns since the epoch."""

    broker: Broker
    options: NsqdOptions
    log: Log
    data_path: str
    started_at: int
    tcp_port: int  # -1 for a unix socket
    http_port: int  # likewise; 0 without HTTP
    access: Access
    profiler: Profiler
    gc_pauses: GcPauses
    slices: Slices
    storage: FileStorage
    traffic: Traffic

    def now(self) -> int:
        """The time."""

    def turn(self) -> None:
        """Finish what was changed. To be called before the answer goes out."""

    async def keep(self) -> None:
        """Likewise, when topics, channels or pauses changed. Returns when that is saved; StoreError if it can't be."""

    async def publish_framed(self, topic: str, data: bytes, count: int, due: int) -> None:
        """Publish `count` messages, each after its size in `data`. PublishFailed or StoreError if they aren't kept."""

    def look(self) -> None:
        """Look at the data path and the free space now. What is wrong is in the broker's health."""

    def drain(self) -> None:
        """Take nothing in any more, and end when every message is finished."""

    def configure(self, options: NsqdOptions) -> None:
        """Go by these options from now on; they differ in live ones only."""

    def schedule(self) -> None:
        """Have a turn at the end of this pass of the event loop, which measures it."""

    def longest_pass(self) -> LongestPass:
        """What held up the event loop most."""

    def forget_longest_pass(self) -> None:
        """Begin anew with that."""

    async def wait_for_channels(self) -> None:
        """Return when no new topic waits for its channels any more, or after a short while."""
