"""Options that are changed at run time: what goes by them is told here, and the log names each.

Limits that are read where they count need nothing; queues and channels, of which there may be many, are visited a
slice at a time.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from nsqkit.log import Log
from nsqkit.nsqd.auth.servers import AuthServers
from nsqkit.nsqd.core.broker import Broker
from nsqkit.nsqd.core.quantile import LatencyWindow
from nsqkit.nsqd.core.settings import Settings
from nsqkit.nsqd.discovery.lookup import Lookup
from nsqkit.nsqd.events import LoggedEvents
from nsqkit.nsqd.housekeeping import Housekeeping
from nsqkit.nsqd.options import NsqdOptions
from nsqkit.nsqd.settings import settle
from nsqkit.nsqd.statsd import Statsd, prefix_of
from nsqkit.nsqd.storage.shared import Shared
from nsqkit.options import differing
from nsqkit.options.duration import Duration
from nsqkit.options.running import say_changes
from nsqkit.web.long_answer import Slices

if TYPE_CHECKING:
    from nsqkit.web.server import HttpServer

VISITS: Final = 100  # channels in one pass of the loop


@dataclass(kw_only=True)
class Live:
    """The parts of a running nsqd that go by live options."""

    log: Log
    events: LoggedEvents
    broker: Broker
    shared: Shared  # by all logs
    reserve: Callable[[NsqdOptions], int]  # bytes to keep free on the disk; OSError
    keeper: Housekeeping
    lookup: Lookup
    auth: AuthServers | None
    statsd: Statsd
    http_port: int
    http: Sequence["HttpServer"]
    slices: Slices
    _visiting: asyncio.Task[None] | None = None

    def follow(self, before: NsqdOptions, after: NsqdOptions) -> None:
        """Tell every part; what is not another than before is left alone."""
        changed = differing(before, after)
        names = {one.name for one in changed}
        if "log_level" in names:
            self.log.level = after.log_level
            self.events.level_changed()
        say_changes(self.log, changed, before, after)
        settle(self.broker.settings, after)
        self.broker.held.limit = self.broker.settings.mem_queue_bytes
        if names & {"max_bytes_per_file", "min_free_space"}:
            try:
                reserve = self.reserve(after)
            except OSError:  # the volume does not tell its size now
                reserve = after.min_free_space
            self.shared.configure(after.max_bytes_per_file, reserve)
        if names & {"sync_every", "sync_timeout", "checkpoint_interval"}:
            self.keeper.configure(after)
        self._reach_out(after)
        for server in self.http:
            server.configure(after)
        if any(name.startswith("statsd_") for name in names):
            self.statsd.configure(after, prefix_of(after, self.http_port))
        if any(name == "mem_queue_size" or name.startswith("e2e_") for name in names):
            self.stop()
            self._visiting = asyncio.get_running_loop().create_task(visit_channels(self.broker, self.slices))

    def _reach_out(self, options: NsqdOptions) -> None:
        connect_timeout = Duration(options.http_client_connect_timeout)
        request_timeout = Duration(options.http_client_request_timeout)
        self.lookup.set_times(
            connect_timeout=connect_timeout,
            request_timeout=request_timeout,
            resolve_interval=Duration(options.lookupd_resolve_interval),
        )
        self.lookup.configure(options.nsqlookupd_tcp_addresses)
        if self.auth is not None:
            self.auth.set_timeouts(connect_timeout, request_timeout)

    def stop(self) -> None:
        """Visit no more channels."""
        if self._visiting is not None:
            self._visiting.cancel()


async def visit_channels(broker: Broker, slices: Slices) -> None:
    """Have the queues of all topics and channels, and what measures latency, follow the settings."""
    settings = broker.settings
    visits = 0
    for topic in list(broker.topics.values()):
        topic.waiting.limit = settings.mem_queue_size
        for channel in (None, *topic.channels.values()):
            if channel is not None:
                channel.queue.limit = settings.mem_queue_size
                channel.latency = _window(settings, channel.latency)
            visits += 1
            if visits % VISITS == 0:
                await slices.turn()


def _window(settings: Settings, before: LatencyWindow | None) -> LatencyWindow | None:
    """What measures latency from now on: the same, with all its samples, unless the window has another length."""
    if not settings.latency_quantiles:
        return None
    if before is None or before.window_ns != settings.latency_window:
        return LatencyWindow(settings.latency_quantiles, settings.latency_window)
    before.percentiles = sorted(settings.latency_quantiles, reverse=True)
    return before
