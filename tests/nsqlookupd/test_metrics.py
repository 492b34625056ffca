"""nsqlookupd's /metrics, as Prometheus reads it."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from nsqkit.log import Log
from nsqkit.nsqlookupd.daemon import Nsqlookupd
from nsqkit.nsqlookupd.http import Counts
from nsqkit.nsqlookupd.metrics import OF_TOPICS, metrics_page
from nsqkit.nsqlookupd.options import NsqlookupdOptions
from nsqkit.nsqlookupd.registrations import PORTION as TOMBSTONES
from nsqkit.web.exposition import PORTION
from nsqkit.wire.registration import MAGIC
from tests.nsqlookupd.conftest import INACTIVE_AFTER, MOST, NOW, TOMBSTONE_LIFETIME
from tests.scrapes import read


@pytest.fixture
def lookupd(registrations) -> Any:
    """A daemon in name, whose clock is set by hand."""
    counts = Counts(3, 2, 7, {"PING": 5, "REGISTER": 4}, 1, {"max_connections": 8}, 0.0025)
    return SimpleNamespace(
        registrations=registrations,
        options=NsqlookupdOptions(metrics_max_series=1000, max_registrations=MOST),
        log=SimpleNamespace(dropped_count=6),
        access=SimpleNamespace(denied={401: 0, 403: 9}),
        now=lambda: NOW,
        counts=lambda: counts,
    )


def scrape(lookupd):
    """The whole page."""
    return read(b"".join(metrics_page(lookupd)).decode())


def test_what_is_known(lookupd, registrations, join):
    """Topics, channels and registrations are counted, and of each topic its producers and channels."""
    a, b = join("a"), join("b", now=NOW - INACTIVE_AFTER - 1)
    registrations.register(a, "t", "c")
    registrations.register(b, "t", "d")
    registrations.create_topic("alone")

    found = scrape(lookupd)

    assert {(): 2} == found["nsqlookupd_topics"] == found["nsqlookupd_channels"]
    assert {(): 4} == found["nsqlookupd_registrations"]
    assert {(): MOST} == found["nsqlookupd_max_registrations"]
    assert {("active",): 1, ("inactive",): 1} == found["nsqlookupd_producers"]
    assert (
        {("alone",): 0, ("t",): 2}
        == found["nsqlookupd_topic_producers"]
        == found["nsqlookupd_topic_channels"]
    )
    assert {(): 0} == found["nsqlookupd_tombstones"] == found["nsqlookupd_metrics_left_out"]


def test_what_the_daemon_counts(lookupd):
    """Connections, requests, commands, refusals, dropped lines, the longest pass, and what a process has."""
    found = scrape(lookupd)

    assert {(): 3} == found["nsqlookupd_connections"]
    assert {(): 2} == found["nsqlookupd_http_connections"]
    assert {(): 7} == found["nsqlookupd_http_requests_total"]
    assert {("PING",): 5, ("REGISTER",): 4} == found["nsqlookupd_commands_total"]
    assert {(): 1} == found["nsqlookupd_refused_total"]
    assert {("max_connections",): 8} == found["nsqlookupd_connections_refused_total"]
    assert {("401",): 0, ("403",): 9} == found["nsqlookupd_http_denied_total"]
    assert {(): 6} == found["nsqlookupd_log_lines_dropped_total"]
    assert {(): 0.0025} == found["nsqlookupd_longest_pass_seconds"]
    assert "nsqlookupd_info" in found
    assert found["python_gc_collections_total"].keys() == {("0",), ("1",), ("2",)}


def test_tombstones_are_counted_as_long_as_they_hide(lookupd, registrations, join):
    """One that is over, or whose producer is gone, counts no more; one that was set again counts once."""
    a, b = join("a"), join("b")
    for topic in ("t", "u", "v"):
        registrations.register(a, topic, "")
    registrations.register(b, "t", "")
    registrations.tombstone("t", "b:4151", NOW - TOMBSTONE_LIFETIME)
    registrations.tombstone("t", "a:4151", NOW - TOMBSTONE_LIFETIME)
    for topic in ("t", "u", "v"):
        registrations.tombstone(topic, "a:4151", NOW)

    assert {(): 3} == scrape(lookupd)["nsqlookupd_tombstones"]

    registrations.unregister(a, "t", "")
    assert {(): 2} == scrape(lookupd)["nsqlookupd_tombstones"]
    registrations.delete_topic("u")
    assert {(): 1} == scrape(lookupd)["nsqlookupd_tombstones"]
    registrations.leave(a, NOW)
    assert {(): 0} == scrape(lookupd)["nsqlookupd_tombstones"]


def test_many_tombstones_are_forgotten_in_portions(registrations, join):
    """However many are over at once."""
    peer = join("a")
    for number in range(TOMBSTONES + 1):
        registrations.register(peer, f"t{number}", "")
        registrations.tombstone(f"t{number}", "a:4151", NOW)
    later = NOW + TOMBSTONE_LIFETIME

    assert registrations.forget_tombstones(later)
    assert 1 == registrations.counts().tombstones
    assert not registrations.forget_tombstones(later)
    assert 0 == registrations.counts().tombstones


@pytest.mark.parametrize("most,shown", [(0, 0), (OF_TOPICS, 1), (2 * OF_TOPICS + 1, 2), (100, 3)])
def test_series_are_limited(lookupd, registrations, most, shown):
    """The first topics by name are there, and the others are counted."""
    lookupd.options = NsqlookupdOptions(metrics_max_series=most)
    for topic in ("b", "a", "c"):
        registrations.create_topic(topic)

    found = scrape(lookupd)

    assert [("a",), ("b",), ("c",)][:shown] == [*found.get("nsqlookupd_topic_producers", {})]
    assert {(): 3 - shown} == found["nsqlookupd_metrics_left_out"]


def test_pieces_are_small(lookupd, registrations, join):
    """However many topics there are; what is forgotten meanwhile is missing."""
    join("a")
    for number in range(2 * PORTION + 1):
        registrations.create_topic(f"t{number:03}")
    pieces = metrics_page(lookupd)
    text = b""
    while b"nsqlookupd_topic_producers{" not in text:
        text += next(pieces)
    registrations.delete_topic("t000")
    rest = [*pieces]

    assert max(piece.count(b"\n") for piece in rest) <= PORTION + 2
    found = read((text + b"".join(rest)).decode())
    assert 2 * PORTION + 1 == len(found["nsqlookupd_topic_producers"])
    assert 2 * PORTION == len(found["nsqlookupd_topic_channels"])


def test_a_daemon_is_scraped():
    """Over HTTP, with the type that Prometheus wants; its traffic and its passes are counted."""

    async def main() -> tuple[str, str]:
        options = NsqlookupdOptions(tcp_address="127.0.0.1:0", http_address="127.0.0.1:0")
        async with Nsqlookupd(options, Log("", write=lambda _: None)) as daemon, asyncio.timeout(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", daemon.tcp_port)
            writer.write(MAGIC + b"PING\nPING\nREGISTER t\n")
            await reader.read()  # up to the error
            writer.close()
            await writer.wait_closed()
            for _ in range(2):
                reader, writer = await asyncio.open_connection("127.0.0.1", daemon.http_port)
                writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
                head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
                writer.close()
                await writer.wait_closed()
            return head.lower(), body

    head, body = asyncio.run(main())

    assert head.startswith("http/1.1 200 ok\r\n")
    assert "content-type: text/plain; version=0.0.4; charset=utf-8" in head
    found = read(body)
    expected = {("IDENTIFY",): 0, ("PING",): 2, ("REGISTER",): 1, ("UNREGISTER",): 0}
    assert expected == found["nsqlookupd_commands_total"]
    assert {(): 1} == found["nsqlookupd_refused_total"] == found["nsqlookupd_http_requests_total"]
    assert {(): 1} == found["nsqlookupd_http_connections"]
    assert found["nsqlookupd_longest_pass_seconds"][()] > 0
