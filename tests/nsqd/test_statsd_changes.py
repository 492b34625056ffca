"""What becomes of pushes to a statsd when their options change."""

import asyncio
from dataclasses import replace

from tests.nsqd.fake_network import NOW, House, publish, run


def test_other_options_between_pushes():
    """The next push is an interval from then; it goes where it should now, and counters go on from where they were."""

    async def scenario(house: House) -> None:
        publish(house.broker, "t", b"x")
        assert b"p.topic.t.message_count:1|c" in b"".join(await house.network.advance(61))
        publish(house.broker, "t", b"y")

        changed = replace(house.options, statsd_address="others:1", statsd_interval="10s")
        house.statsd.configure(changed, "q.")
        await asyncio.sleep(0)

        assert [] == await house.network.advance(8)
        assert b"q.topic.t.message_count:1|c" in b"".join(await house.network.advance(2))
        assert [("stats", 8125), ("others", 1)] == house.network.asked

    run(scenario)


def test_other_options_during_a_push():
    """The push is finished as it began; the next one is the new interval away."""

    async def scenario(house: House) -> None:
        for number in range(4):
            house.broker.topic(f"t{number}").channel("c", NOW)
            publish(house.broker, f"t{number}", b"x")
        first = await house.network.advance(60.1)
        assert 0 < len(first) < 48

        house.statsd.configure(replace(house.options, statsd_interval="1h"), "p.")
        rest = await house.network.advance(60)

        text = b"".join(first + rest)
        assert 48 == len(first + rest)
        assert all(b"p.topic.t%d.message_count:1|c" % number in text for number in range(4))
        assert [] == await house.network.advance(3400)
        assert b"p.topic.t0.message_count:0|c" in b"".join(await house.network.advance(300))

    run(scenario, statsd_udp_packet_size=45)


def test_pushing_can_be_turned_off_and_on():
    """Without an address nothing is pushed; with one again, it goes on."""

    async def scenario(house: House) -> None:
        house.statsd.configure(replace(house.options, statsd_address=""), "p.")
        publish(house.broker, "t", b"x")
        assert house.statsd._task is None
        house.statsd.configure(house.options, "p.")
        await asyncio.sleep(0)
        assert b"message_count:1|c" in b"".join(await house.network.advance(61))

    run(scenario)


def test_turned_off_during_a_push():
    """The push is finished, and is the last."""

    async def scenario(house: House) -> None:
        for number in range(4):
            house.broker.topic(f"t{number}").channel("c", NOW)
        first = await house.network.advance(60.1)
        assert 0 < len(first) < 48
        task = house.statsd._task
        assert task is not None
        house.statsd.configure(replace(house.options, statsd_address=""), "p.")
        house.network.let_go(200)
        await task
        assert 48 == len(house.network.packets)
        assert house.statsd._task is None

    run(scenario, statsd_udp_packet_size=45)
