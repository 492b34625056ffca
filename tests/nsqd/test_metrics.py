"""/metrics, as Prometheus reads it."""

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from nsqkit.log import Log
from nsqkit.nsqd.core.broker import Broker
from nsqkit.nsqd.core.settings import SECOND, Settings
from nsqkit.nsqd.daemon import Nsqd
from nsqkit.nsqd.metrics import BUCKETS, OF_A_CHANNEL, OF_A_TOPIC, OF_LATENCIES, metrics_page
from nsqkit.nsqd.options import NsqdOptions
from nsqkit.nsqd.storage.disk import Disk
from nsqkit.nsqd.storage.files import FileStorage
from nsqkit.nsqd.traffic import Traffic
from nsqkit.nsqd.web.daemon import LongestPass
from nsqkit.web.access import Access
from nsqkit.web.exposition import PORTION
from tests.scrapes import Samples, read

NOW = 1_700_000_000 * SECOND


def page_of(broker: Broker, most: int = 1000) -> Iterator[bytes]:
    """The pieces of the page."""
    longest = LongestPass(2_500, 40)
    storage = FileStorage(Disk(), "/", lambda topic: f"/{topic}", print, 1 << 20, 0)
    nsqd: Any = SimpleNamespace(
        storage=storage,
        traffic=Traffic(),
        access=Access("", Log()),
        log=Log(),
        data_path="/",
        broker=broker,
        options=NsqdOptions(metrics_max_series=most),
        longest_pass=lambda: longest,
        now=lambda: NOW + SECOND,
    )
    return metrics_page(nsqd)


def scrape(broker: Broker, most: int = 1000) -> Samples:
    """The whole page."""
    return read(b"".join(page_of(broker, most)).decode())


def publish(broker: Broker, topic: str, *bodies: bytes, due: int = 0) -> None:
    """Publish these."""
    data = b"".join(len(body).to_bytes(4, "big") + body for body in bodies)
    broker.topic(topic).publish(data, len(bodies), due, None, NOW)
    broker.work(NOW)


@pytest.fixture
def broker() -> Broker:
    """A broker without a disk."""
    return Broker(Settings(), None)


def test_topics_and_channels(broker):
    """Each figure of each topic and channel is a sample with their names as labels."""
    broker.topic("t").channel("c", NOW).pause(True)
    publish(broker, "t", b"one", b"three")
    publish(broker, "t", b"later", due=NOW + SECOND)
    publish(broker, "alone", b"x")

    found = scrape(broker)

    of_topic = {name: found["nsqd_topic_" + name] for name in ("depth", "messages_total", "bytes_total")}
    assert {
        "depth": {("alone",): 1, ("t",): 0},
        "messages_total": {("alone",): 1, ("t",): 3},
        "bytes_total": {("alone",): 1, ("t",): 13},
    } == of_topic
    assert {("alone",): 0, ("t",): 1} == found["nsqd_topic_channels"]
    assert {("alone",): 1, ("t",): 0} == found["nsqd_topic_oldest_seconds"]
    assert {("alone",): 0, ("t",): 0} == found["nsqd_topic_paused"] == found["nsqd_topic_log_bytes"]
    assert {("alone",): 0, ("t",): 0} == found["nsqd_topic_log_segments"]
    assert {
        "depth": 2,
        "in_flight": 0,
        "deferred": 1,
        "messages_total": 3,
        "requeued_total": 0,
        "timed_out_total": 0,
        "clients": 0,
        "finished_total": 0,
        "oldest_seconds": 1,
        "paused": 1,
    } == {
        name.removeprefix("nsqd_channel_"): samples[("t", "c")]
        for name, samples in found.items()
        if name.startswith("nsqd_channel_")
    }


def test_latencies(broker):
    """Each channel of which something was finished has two histograms, with a bucket for each bound and one more."""
    topic = broker.topic("t")
    used = topic.channel("used", NOW)
    topic.channel("unused", NOW)
    used.finished_count = 3
    for duration in (300_000, 2 * SECOND, 10**5 * SECOND):
        used.latencies.add(duration, 1)

    found = scrape(broker)

    buckets = found["nsqd_channel_publish_to_finish_seconds_bucket"]
    assert len(BUCKETS) + 1 == len(buckets)
    expected = {"0.0003": 1, "0.001": 1, "1": 1, "3": 2, "10000": 2, "+Inf": 3}
    assert expected == {bound: buckets["t", bound, "used"] for bound in expected}
    assert {("t", "used"): 3} == found["nsqd_channel_publish_to_finish_seconds_count"]
    assert {("t", "used"): 100002.0003} == found["nsqd_channel_publish_to_finish_seconds_sum"]
    assert {("t", "used"): 3} == found["nsqd_channel_send_to_finish_seconds_count"]
    assert {("t", "used"): 3e-9} == found["nsqd_channel_send_to_finish_seconds_sum"]


def test_bulk_deferrals_count_at_once(broker):
    """Also those that no turn has taken apart yet."""
    broker.topic("t").channel("c", NOW)
    publish(broker, "t", *[b"x"] * 100, due=NOW + SECOND)
    assert not broker.topics["t"].channels["c"].deferred

    assert {("t", "c"): 100} == scrape(broker)["nsqd_channel_deferred"]


def test_the_daemon_and_its_process(broker):
    """What is of the whole nsqd, and what prometheus_client knows of a process."""
    broker.topic("t")
    found = scrape(broker)

    assert {(): 1} == found["nsqd_healthy"] == found["nsqd_topics"]
    assert {(): 0} == found["nsqd_metrics_left_out"] == found["nsqd_metrics_latencies_left_out"]
    assert found["nsqd_info"].keys() != set()
    assert found["python_gc_collections_total"].keys() == {("0",), ("1",), ("2",)}


def test_pieces_are_small(broker):
    """However many topics and channels there are, and all of them are there."""
    for number in range(3 * PORTION + 1):
        broker.topic("many").channel(f"c{number}", NOW)
        broker.topic(f"t{number}")
    pieces = [*page_of(broker, 100_000)]

    first = next(at for at, piece in enumerate(pieces) if b"nsqd_topic_depth{" in piece)
    assert max(piece.count(b"\n") for piece in pieces[first:]) <= PORTION + 2
    found = read(b"".join(pieces).decode())
    assert 3 * PORTION + 1 == len(found["nsqd_channel_depth"])
    assert 3 * PORTION + 2 == len(found["nsqd_topic_depth"])


@pytest.mark.parametrize(
    "most,topics,channels,left_out",
    [
        (0, 0, 0, 3),
        (2 * OF_A_TOPIC, 2, 0, 1 + 4),
        (3 * OF_A_TOPIC + OF_A_CHANNEL - 1, 3, 0, 6),
        (3 * OF_A_TOPIC + 5 * OF_A_CHANNEL, 3, 5, 1),
        (3 * OF_A_TOPIC + 6 * OF_A_CHANNEL, 3, 6, 0),
    ],
)
def test_series_are_limited(broker, most, topics, channels, left_out):
    """Topics come first, then channels, both in order; what finds no room is counted."""
    for topic in ("b", "a", "c"):
        for channel in ("x", "y"):
            broker.topic(topic).channel(channel, NOW)
    found = scrape(broker, most)

    assert [("a",), ("b",), ("c",)][:topics] == [*found.get("nsqd_topic_depth", {})]
    every = [(topic, channel) for topic in "abc" for channel in "xy"]
    assert every[:channels] == [*found.get("nsqd_channel_depth", {})]
    assert {(): left_out} == found["nsqd_metrics_left_out"]
    series = sum(len(s) for name, s in found.items() if name.startswith(("nsqd_topic_", "nsqd_channel_")))
    assert series <= most


def test_latencies_come_last(broker):
    """What is left of the limit goes to latencies, in order; those without room are counted, idle ones are not."""
    for name in ("a", "b", "idle", "z"):
        broker.topic("t").channel(name, NOW).finished_count = name != "idle"
    rest = OF_A_TOPIC + 4 * OF_A_CHANNEL

    for most, shown in (
        (rest + OF_LATENCIES - 1, 0),
        (rest + 2 * OF_LATENCIES, 2),
        (rest + 3 * OF_LATENCIES, 3),
    ):
        found = scrape(broker, most)
        counts = found.get("nsqd_channel_send_to_finish_seconds_count", {})
        assert ["a", "b", "z"][:shown] == [channel for _, channel in counts]
        assert {(): 3 - shown} == found["nsqd_metrics_latencies_left_out"]
        assert {(): 0} == found["nsqd_metrics_left_out"]
        series = sum(len(s) for name, s in found.items() if name.startswith(("nsqd_topic_", "nsqd_channel_")))
        assert rest + shown * OF_LATENCIES == series <= most


def test_what_is_deleted_meanwhile_is_missing(broker):
    """The page goes on without it."""
    for number in range(2 * PORTION):
        broker.topic("t").channel(f"c{number:03}", NOW)
        broker.topic(f"u{number:03}")
    pieces = page_of(broker, 100_000)
    text = b""
    while b"nsqd_topic_depth{" not in text:
        text += next(pieces)
    broker.delete_topic(f"u{2 * PORTION - 1:03}")
    broker.topic("t").delete_channel("c000")
    broker.delete_topic("u000")

    found = read((text + b"".join(pieces)).decode())

    assert ("u000",) in found["nsqd_topic_depth"]
    assert ("u000",) not in found["nsqd_topic_messages_total"]
    assert (f"u{2 * PORTION - 1:03}",) not in found["nsqd_topic_depth"]
    assert 2 * PORTION - 1 == len(found["nsqd_channel_depth"])


def test_a_daemon_is_scraped(tmp_path):
    """Over HTTP, with the type that Prometheus wants; a log on the disk has its size."""

    async def main() -> tuple[str, str]:
        options = NsqdOptions(data_path=str(tmp_path), tcp_address="127.0.0.1:0", http_address="127.0.0.1:0")
        async with Nsqd(options, Log("", write=lambda _: None)) as nsqd:
            await nsqd.publish("t", b"one", b"two")
            reader, writer = await asyncio.open_connection("127.0.0.1", nsqd.http_port)
            writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
            async with asyncio.timeout(10):
                head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
            writer.close()
            await writer.wait_closed()
            return head.lower(), body

    head, body = asyncio.run(main())

    assert head.startswith("http/1.1 200 ok\r\n")
    assert "content-type: text/plain; version=0.0.4; charset=utf-8" in head
    found = read(body)
    assert {("t",): 2} == found["nsqd_topic_messages_total"]
    assert found["nsqd_topic_log_bytes"][("t",)] > 6
    assert {("t",): 1} == found["nsqd_topic_log_segments"]
