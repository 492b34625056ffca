"""What is pushed to a statsd, and when."""

import asyncio
import errno
import re
import socket
from itertools import pairwise

import pytest

from nsqkit.errors import OptionError
from nsqkit.log import Log
from nsqkit.nsqd.core.broker import Broker
from nsqkit.nsqd.core.settings import SECOND, Settings
from nsqkit.nsqd.daemon import Nsqd
from nsqkit.nsqd.memory import GcPauses
from nsqkit.nsqd.options import NsqdOptions
from nsqkit.nsqd.statsd import Figures, Network, prefix_of
from nsqkit.options.duration import Duration
from nsqkit.web.long_answer import Slices
from tests.nsqd.fake_network import NOW, House, publish, run


def figures(broker: Broker, **options: object) -> Figures:
    """The figures of a broker."""
    return Figures(broker, NsqdOptions(**options), "p.", GcPauses())  # type: ignore[arg-type]


def push(of: Figures) -> dict[str, str]:
    """One push, by name."""
    lines = b"".join(of.lines(NOW)).decode().splitlines()
    pairs = dict(line.split(":") for line in lines)
    assert len(pairs) == len(lines)
    return pairs


@pytest.fixture
def broker() -> Broker:
    """A broker without a disk."""
    return Broker(Settings(), None)


# -- what


def test_names_and_their_order(broker):
    """Topics and channels are sorted; each has NSQ's names in NSQ's order, counters and gauges."""
    for channel in ("z", "a"):
        broker.topic("b.c").channel(channel, NOW)
    broker.topic("a")
    publish(broker, "b.c", b"one", b"three")

    of_topic = ["message_count", "message_bytes", "depth", "backend_depth"]
    of_channel = [
        "message_count",
        "depth",
        "backend_depth",
        "in_flight_count",
        "deferred_count",
        "requeue_count",
        "timeout_count",
        "clients",
    ]
    pushed = push(figures(broker, statsd_mem_stats=False))

    assert [
        *(f"p.topic.a.{name}" for name in of_topic),
        *(f"p.topic.b.c.{name}" for name in of_topic),
        *(f"p.topic.b.c.channel.a.{name}" for name in of_channel),
        *(f"p.topic.b.c.channel.z.{name}" for name in of_channel),
    ] == list(pushed)
    assert ["2|c", "8|c", "0|g", "0|g"] == [pushed[f"p.topic.b.c.{name}"] for name in of_topic]
    values = [pushed[f"p.topic.b.c.channel.z.{name}"] for name in of_channel]
    assert ["2|c", "2|g", "0|g", "0|g", "0|g", "0|c", "0|c", "0|g"] == values


def test_counters_are_differences(broker):
    """The first push has totals, each later one what was added; gauges are what they are."""
    broker.topic("t").channel("c", NOW)
    ours = figures(broker)
    publish(broker, "t", b"one")
    push(ours)
    publish(broker, "t", b"two", b"3")

    second, third = push(ours), push(ours)

    names = ("t.message_count", "t.message_bytes", "t.channel.c.message_count", "t.channel.c.depth")
    assert ["2|c", "4|c", "2|c", "3|g"] == [second[f"p.topic.{name}"] for name in names]
    assert ["0|c", "0|c", "0|c", "3|g"] == [third[f"p.topic.{name}"] for name in names]


def test_what_comes_deferred_in_bulk_is_counted(broker):
    """It is deferred, also before it is taken apart."""
    channel = broker.topic("t").channel("c", NOW)
    broker.topic("t").publish(b"\0\0\0\1x" * 100, 100, NOW + SECOND, None, NOW)
    broker.topic("t").commit(NOW)

    assert channel.early
    assert "100|g" == push(figures(broker))["p.topic.t.channel.c.deferred_count"]


@pytest.mark.parametrize("name", ["t", "t#ephemeral"])
def test_a_counter_is_never_negative(broker, name):
    """A topic that was deleted and made again begins anew."""
    ours = figures(broker)
    publish(broker, name, b"one", b"two")
    push(ours)
    broker.delete_topic(name)
    publish(broker, name, b"x")

    assert "1|c" == push(ours)[f"p.topic.{name}.message_count"]


def test_a_topic_made_again_that_has_more_is_counted_whole(broker):
    """Its counter is not compared with that of its predecessor."""
    ours = figures(broker)
    publish(broker, "t", b"one")
    push(ours)
    broker.delete_topic("t")
    publish(broker, "t", b"x", b"y", b"z")

    assert "3|c" == push(ours)["p.topic.t.message_count"]


def test_what_was_deleted_is_forgotten(broker):
    """No counter of a topic or channel outlives it by more than a push."""
    ours = figures(broker)
    for name in ("a", "b"):
        for channel in ("x", "y"):
            broker.topic(name).channel(channel, NOW)
    push(ours)
    broker.delete_topic("a")
    broker.topic("b").delete_channel("x")
    push(ours)

    assert [("b", ""), ("b", "y")] == sorted(ours._told)


def test_ephemeral_ones_may_be_left_out(broker):
    """Topics and channels; by default they are there, under their whole names."""
    broker.topic("e#ephemeral").channel("c", NOW)
    for channel in ("c", "d#ephemeral"):
        broker.topic("t").channel(channel, NOW)

    def shown(of: Figures) -> set[str]:
        return {name for name in push(of) if name.endswith(".depth")}

    assert {"p.topic.t.depth", "p.topic.t.channel.c.depth"} == shown(
        figures(broker, statsd_exclude_ephemeral=True)
    )
    assert {"p.topic.e#ephemeral.depth", "p.topic.t.channel.d#ephemeral.depth"} < shown(figures(broker))


def test_memory_comes_last(broker):
    """Nine figures, of which the collections are counted since the last push; or none."""
    ours = figures(broker)
    names = list(push(ours))
    assert [
        "p.mem.heap_objects",
        "p.mem.heap_idle_bytes",
        "p.mem.heap_in_use_bytes",
        "p.mem.heap_released_bytes",
        "p.mem.gc_pause_usec_100",
        "p.mem.gc_pause_usec_99",
        "p.mem.gc_pause_usec_95",
        "p.mem.next_gc_bytes",
        "p.mem.gc_runs",
    ] == names
    runs, kind = push(ours)["p.mem.gc_runs"].split("|")
    assert "c" == kind
    assert int(runs) < 100
    assert {} == push(figures(broker, statsd_mem_stats=False))


def test_latencies():
    """A gauge for each percentile, of a channel and of all of a topic's, also of 99.9 beside 100."""
    settings = Settings()
    settings.latency_quantiles = [1.0, 0.999, 0.99, 0.5]
    broker = Broker(settings, None)
    for name, value in (("a", 1024), ("b", 2048)):
        window = broker.topic("t").channel(name, NOW).latency
        assert window is not None
        window.add(value, NOW)
    broker.topic("empty")

    pushed = push(figures(broker))

    shown = {name[8:]: value for name, value in pushed.items() if "latency" in name}
    high, low = (pushed[f"p.topic.t.channel.{name}.e2e_processing_latency_50"] for name in ("b", "a"))
    assert {
        f"{whose}e2e_processing_latency_{share}": low if whose == "t.channel.a." else high
        for whose in ("t.", "t.channel.a.", "t.channel.b.")
        for share in ("100", "99_9", "99", "50")
        if (whose, share) != ("t.", "50")
    } | {"t.e2e_processing_latency_50": low} == shown


@pytest.mark.parametrize(
    "prefix,host,http_port,announced,expected",
    [
        ("nsq.%s", "host", 4151, 0, "nsq.host_4151."),
        ("nsq.%s", "a.example.com", 4151, 80, "nsq.a_example_com_80."),
        ("nsq.%s", "::1", 4151, 0, "nsq.[__1]_4151."),
        ("%s.x.%s.", "h", -1, 0, "h_0.x.h_0."),
        ("plain", "h", 4151, 0, "plain."),
        ("", "h", 4151, 0, ""),
        ("%d", "h", 4151, 0, "%d."),
    ],
)
def test_prefix(prefix, host, http_port, announced, expected):
    """%s is the announced address, dots and colons made underscores; a dot ends what is not empty."""
    options = NsqdOptions(statsd_prefix=prefix, broadcast_address=host, broadcast_http_port=announced)

    assert expected == prefix_of(options, http_port)


# -- when, and how


def test_each_interval_is_a_push():
    """The first one comes an interval after the start."""

    async def scenario(house: House) -> None:
        publish(house.broker, "t", b"one")
        assert [] == await house.network.advance(59.9)
        first = await house.network.advance(0.1)
        second = await house.network.advance(60)

        rest = b"p.topic.t.depth:1|g\np.topic.t.backend_depth:0|g\n"
        assert [b"p.topic.t.message_count:1|c\np.topic.t.message_bytes:3|c\n" + rest] == first
        assert [b"p.topic.t.message_count:0|c\np.topic.t.message_bytes:0|c\n" + rest] == second
        assert [("stats", 8125)] * 2 == house.network.asked

    run(scenario)


def test_packets_hold_whole_lines_and_are_spread_over_the_interval():
    """Each is as full as its size allows; the last second of the interval is free of them."""

    async def scenario(house: House) -> None:
        for number in range(200):
            house.broker.topic(f"topic-{number:03}").channel("c", NOW)
        await house.network.advance(60)
        packets = await house.network.advance(59.999)
        packets = [packet for _, packet in house.network.packets]

        lines = b"".join(packets).splitlines(keepends=True)
        assert 200 * 12 == len(lines) == len({line.split(b":")[0] for line in lines})
        for packet, after in pairwise(packets):
            assert len(packet) <= 508 < len(packet) + len(after.splitlines(keepends=True)[0])
            assert packet.endswith(b"\n")
        times = [when for when, _ in house.network.packets]
        assert 1060 <= times[0] < times[-1] <= 1119
        assert all(later - earlier < 1 for earlier, later in pairwise(times))

    run(scenario)


def test_a_push_gives_way_to_the_others_after_each_slice(monkeypatch):
    """Even if all of it is late: here a slice has no time for more than one line."""
    monkeypatch.setattr("nsqkit.nsqd.statsd.SLICE", 0)
    turns = 0

    class Counted(Slices):
        async def turn(self) -> None:
            nonlocal turns
            turns += 1
            await super().turn()

    async def scenario(house: House) -> None:
        house.statsd._slices = Counted()
        for number in range(50):
            house.broker.topic(f"t{number}")
        assert [] != await house.network.advance(0.1)

        assert turns > 50 * 4

    run(scenario, statsd_interval=Duration.parse("100ms"))


def test_a_line_that_fits_in_no_packet_is_left_out():
    """The others go out, and the log says so once."""

    async def scenario(house: House) -> None:
        house.broker.topic("t")
        house.broker.topic("u" * 60)
        for _ in range(3):
            packets = await house.network.advance(1)
            assert 4 == sum(packet.count(b"\n") for packet in packets)
            assert all(len(packet) <= 30 for packet in packets)

        (said,) = house.said()
        assert said.startswith(
            "lines longer than --statsd-udp-packet-size (30) are left out, such as p.topic.uuu"
        )

    run(scenario, statsd_udp_packet_size=30, statsd_interval=Duration.parse("1s"))


def test_a_name_that_is_not_found_is_said_once():
    """It is looked up again with each push; when it is found, everything since the last push is counted."""

    async def scenario(house: House) -> None:
        network = house.network
        network.unknown = "Name or service not known"
        publish(house.broker, "t", b"one")
        await network.advance(180)
        network.unknown = ""
        publish(house.broker, "t", b"two")
        packets = await network.advance(60)
        await network.advance(60)

        assert b"p.topic.t.message_count:2|c\n" in packets[0]
        assert [
            "can't push, tried again each interval - Name or service not known",
            "packets go out again",
        ] == (house.said())

    run(scenario)


def test_a_host_that_takes_nothing_is_said_once():
    """An error of the network ends the push; what it did not get to is in the next one."""

    async def scenario(house: House) -> None:
        network = house.network
        for name in ("a" * 60, "b" * 60, "c" * 60, "d" * 60):
            publish(house.broker, name, b"one")
        for _ in range(3):
            network.fails = 1
            assert 1 >= len(await network.advance(60))
        network.fails = -1
        packets = b"".join(await network.advance(120))

        assert f"p.topic.{'d' * 60}.message_count:1|c\n".encode() in packets
        assert ["can't push, tried again each interval - Connection refused", "packets go out again"] == (
            house.said()
        )

    run(scenario)


def test_what_the_network_says_later_counts_too():
    """A lone packet is refused only after it was sent."""

    async def scenario(house: House) -> None:
        house.broker.topic("t")
        house.network.late_error = errno.ECONNREFUSED
        await house.network.advance(240)
        house.network.late_error = 0
        await house.network.advance(60)

        assert [
            "can't push, tried again each interval - Connection refused",
            "packets go out again",
        ] == house.said()

    run(scenario)


def test_an_address_without_a_port_is_refused():
    """The error names the flag and says what is right."""
    with pytest.raises(
        OptionError, match=r"^invalid value 'stats' for --statsd-address: not an address: write host:port"
    ):
        NsqdOptions(statsd_address="stats")


def test_a_daemon_pushes(tmp_path):
    """Over a real socket, until it stops; its prefix has the HTTP port that was bound."""
    lines: list[str] = []

    async def main() -> list[str]:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
            sink.bind(("127.0.0.1", 0))
            sink.setblocking(False)
            options = NsqdOptions(
                data_path=str(tmp_path),
                tcp_address="127.0.0.1:0",
                http_address="127.0.0.1:0",
                broadcast_address="here",
                statsd_address=f"127.0.0.1:{sink.getsockname()[1]}",
                statsd_interval=Duration.parse("20ms"),
            )
            text = ""
            async with Nsqd(options, Log("", write=lines.append)) as nsqd:
                await nsqd.publish("t", b"one", b"two")
                async with asyncio.timeout(10):
                    while "mem.gc_runs" not in text:
                        text += (await asyncio.get_running_loop().sock_recv(sink, 65536)).decode()
                prefix = f"nsq.here_{nsqd.http_port}."
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            assert not tasks
            return [line.removeprefix(prefix) for line in text.splitlines()]

    pushed = asyncio.run(main())

    assert {"topic.t.message_count:2|c", "topic.t.message_bytes:6|c", "topic.t.depth:2|g"} <= set(pushed)
    assert all(re.fullmatch(r"(topic\.t|mem)\.\w+:\d+\|[cg]", line) for line in pushed)
    assert [] == [line for line in lines if "STATSD" in line]


def test_a_real_host_that_takes_nothing_costs_nothing():
    """Where nobody listens, packets are refused, and that is an OSError of a later packet or of the socket."""

    async def main() -> int:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with await Network().connect("127.0.0.1", port) as datagrams:
            datagrams.send(bytearray(b"x"))
            return datagrams.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    assert asyncio.run(main()) == errno.ECONNREFUSED
