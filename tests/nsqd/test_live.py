"""What a running nsqd does when a live option is another."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from nsqkit.log import Level, Log
from nsqkit.nsqd.core.quantile import LatencyWindow
from nsqkit.nsqd.daemon import Nsqd
from nsqkit.nsqd.live import visit_channels
from nsqkit.nsqd.options import NsqdOptions
from nsqkit.options import Duration
from nsqkit.web.long_answer import Slices

Scenario = Callable[[Nsqd], Awaitable[None]]


@pytest.fixture
def lines() -> list[str]:
    """What the daemon logs."""
    return []


@pytest.fixture
def play(tmp_path, lines) -> Callable[..., None]:
    """Starts a daemon, does something with it, and stops it."""

    def run(scenario: Scenario, **options: Any) -> None:
        async def main() -> None:
            chosen = NsqdOptions(
                data_path=tmp_path,
                tcp_address="127.0.0.1:0",
                **{"http_address": "", "broadcast_address": "here"} | options,
            )
            async with Nsqd(chosen, Log("", write=lines.append)) as nsqd:
                await scenario(nsqd)

        asyncio.run(main())

    return run


def change(nsqd: Nsqd, **options: Any) -> None:
    """As PUT /config does."""
    nsqd.configure(replace(nsqd.options, **options))


async def visited(nsqd: Nsqd) -> None:
    """Return when every channel follows the options."""
    assert nsqd._live._visiting is not None
    await nsqd._live._visiting


def said(lines: list[str]) -> list[str]:
    """The lines about changes."""
    return [line.partition("CONFIG: ")[2].rstrip() for line in lines if "CONFIG: " in line]


def test_each_change_is_a_line(play, lines):
    """With the value as one writes it, and the one before; what stays is not mentioned."""

    async def scenario(nsqd: Nsqd) -> None:
        change(nsqd, msg_timeout="5s", statsd_prefix="", statsd_address="")
        change(nsqd, msg_timeout="5s")

    play(scenario)

    assert [
        "--msg-timeout is 5s from now on, and was 1m0s",
        "--statsd-prefix is empty from now on, and was nsq.%s",
    ] == said(lines)


def test_limits(play):
    """The broker goes by them: what clients ask for, and what is read where it counts."""

    async def scenario(nsqd: Nsqd) -> None:
        settings = nsqd.broker.settings
        change(nsqd, max_msg_size=7, max_heartbeat_interval="10s", snappy=False, mem_queue_bytes=1000)
        assert (7, False) == (settings.max_msg_size, settings.limits.snappy)
        assert 10 * 10**9 == settings.limits.heartbeat_interval
        assert 1000 == nsqd.broker.held.limit
        change(nsqd, max_heartbeat_interval="2m")
        assert 30 * 10**9 == settings.limits.heartbeat_interval

    play(scenario)


def test_the_log(play):
    """Its level is another, and commands are traced if that is what it takes."""

    async def scenario(nsqd: Nsqd) -> None:
        change(nsqd, log_level="debug")
        assert Level.DEBUG is nsqd.log.level
        assert nsqd.broker.events.traced

    play(scenario)


def test_storage(play):
    """Files roll at another size, the reserve is another, and what waits for a sync or checkpoint waits anew."""

    async def scenario(nsqd: Nsqd) -> None:
        nsqd.broker.topic("t").channel("c", nsqd.now())
        await nsqd.publish("t", b"x")
        nsqd.turn()
        keeper = nsqd._keeper
        sync, checkpoint = keeper._sync_timer, keeper._checkpoint_timer
        assert sync is not None
        assert checkpoint is not None

        change(nsqd, sync_timeout="1h", checkpoint_interval="2h", sync_every=5)

        assert (True, True) == (sync.cancelled(), checkpoint.cancelled())
        assert None not in (keeper._sync_timer, keeper._checkpoint_timer)
        assert (5, 3600.0, 3600.0) == (keeper._sync_every, keeper._sync_timeout, keeper._checkpoint_pause)
        change(nsqd, max_bytes_per_file=1234, min_free_space=1 << 60)
        assert 1234 == nsqd.storage.shared.max_bytes_per_file
        assert nsqd.health.text().startswith(f"less than {1 << 60} bytes are free")
        change(nsqd, min_free_space=0)
        assert "" == nsqd.health.text()

    play(scenario)


def test_a_volume_that_does_not_tell_its_size(play):
    """Then the reserve is what the option says, and everything else counts as well."""

    async def scenario(nsqd: Nsqd) -> None:
        def fail(path: str) -> int:
            raise OSError(5, path)

        change(nsqd, min_free_space=0)
        nsqd._live.reserve = lambda _: fail("/data")
        change(nsqd, min_free_space=1 << 60, max_msg_size=7)
        assert nsqd.health.text().startswith(f"less than {1 << 60} bytes are free")
        assert 7 == nsqd.broker.settings.max_msg_size

    play(scenario)


def test_what_goes_out(play):
    """Timeouts of nsqlookupds and auth servers are others, and so are the addresses."""

    async def scenario(nsqd: Nsqd) -> None:
        change(nsqd, http_client_request_timeout="7s", nsqlookupd_tcp_addresses=["127.0.0.1:1"])
        change(nsqd, http_client_connect_timeout="3s", lookupd_resolve_interval="9s")
        lookup = nsqd._lookup
        assert ["127.0.0.1:1"] == lookup.addresses
        assert (3.0, 7.0, 9.0) == (
            lookup._connect_timeout_s,
            lookup._request_timeout_s,
            lookup._resolve_interval_s,
        )
        assert nsqd._auth is not None
        assert (3.0, 7.0) == nsqd._auth._timeouts

    play(scenario, auth_http_addresses=["127.0.0.1:1"])


def test_http_and_statsd(play):
    """Both are told."""

    async def scenario(nsqd: Nsqd) -> None:
        change(nsqd, http_max_connections=3, http_idle_timeout="4s")
        (server,) = nsqd._http
        assert (3, 4.0) == (server.shared.max_connections, server.shared.idle_timeout_s)
        change(nsqd, statsd_address="127.0.0.1:9", statsd_interval="1h")
        assert ("127.0.0.1:9", 3600.0) == (nsqd._statsd._address, nsqd._statsd._interval_s)

    play(scenario, http_address="127.0.0.1:0")


def test_queues_and_latencies(play):
    """Channels that are there follow as those that are made later; samples outlive everything but another window."""

    async def scenario(nsqd: Nsqd) -> None:
        topic = nsqd.broker.topic("t")
        channel = topic.channel("c", nsqd.now())
        change(nsqd, mem_queue_size=3, e2e_processing_latency_percentiles=[0.5, 0.9])
        await visited(nsqd)
        assert (3, 3) == (topic.waiting.limit, channel.queue.limit)
        window = channel.latency
        assert window is not None
        assert [0.9, 0.5] == window.percentiles
        change(nsqd, e2e_processing_latency_percentiles=[1])
        change(nsqd, e2e_processing_latency_percentiles=[0.25])  # before the one before was done
        await visited(nsqd)
        assert window is channel.latency
        assert [0.25] == window.percentiles
        change(nsqd, e2e_processing_latency_window_time="1m")
        await visited(nsqd)
        assert window is not channel.latency
        change(nsqd, e2e_processing_latency_percentiles=[])
        await visited(nsqd)
        assert channel.latency is None

    play(scenario)


def test_many_channels_are_visited_in_slices(play):
    """No pass of the loop visits more than a hundred topics and channels."""
    turns: list[int] = []

    async def scenario(nsqd: Nsqd) -> None:
        nsqd.broker.settings.latency_quantiles = []
        for number in range(5):
            topic = nsqd.broker.topic(f"t{number}")
            for channel in range(49):
                topic.channel(f"c{channel}", nsqd.now())
        nsqd.broker.settings.latency_quantiles = [0.5]

        class Counted(Slices):
            async def turn(self) -> None:
                done = [c for t in nsqd.broker.topics.values() for c in t.channels.values() if c.latency]
                turns.append(len(done))

        await visit_channels(nsqd.broker, Counted())

    play(scenario)

    assert [98, 196] == turns


def test_a_window_keeps_its_length():
    """By that it is known whether it is still the right one."""
    assert Duration.parse("1m") == LatencyWindow([0.5], Duration.parse("1m")).window_ns
