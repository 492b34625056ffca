"""Discovery: which nsqds there are, as nsqlookupds say."""

import asyncio
import logging
from itertools import pairwise

import pytest

from nsqkit.client.clock import give_clock
from nsqkit.client.discovery import Discovery
from nsqkit.client.options import ConsumerOptions
from nsqkit.cluster import Answers, Cluster, Failure, Lookup, Producer
from tests.client.places import FakeClock, settle


def a_producer(number):
    """An nsqd as nsqlookupds list it."""
    return Producer(node=f"n{number}:4151", broadcast_address=f"n{number}", tcp_port=4150, http_port=4151)


class Place:
    """Nsqlookupds that say what they are told to."""

    def __init__(self, clock, monkeypatch):
        self.clock = clock
        self.answer = Answers(Lookup(known=True, channels=[], producers=[a_producer(1)]), ["l:4161"], [])
        self.asked: list[tuple[float, tuple[str, ...], str | None]] = []
        self.found: list[list[str]] = []

        async def lookup(_, nodes, topic):
            self.asked.append((clock.now() - 1000, tuple(nodes), topic))
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

        async def nodes(_, nodes):
            self.asked.append((clock.now() - 1000, tuple(nodes), None))
            return Answers([a_producer(1), a_producer(2)], ["l:4161"], [])

        monkeypatch.setattr(Cluster, "lookup", lookup)
        monkeypatch.setattr(Cluster, "nodes", nodes)

    def discovery(self, topic="orders", **options):
        """One that asks."""
        return Discovery(
            ["l:4161", "m:4161"],
            topic,
            ConsumerOptions(**options),
            self.clock,
            self.found.append,
            logging.getLogger("nsqkit.consumer"),
        )


@pytest.fixture
def place(monkeypatch):
    """A function that runs a test in a place."""

    def run(test):
        async def inside():
            loop = asyncio.get_running_loop()
            clock = FakeClock(loop)
            give_clock(loop, clock)
            await test(Place(clock, monkeypatch))

        asyncio.run(inside())

    return run


def test_it_asks_at_once_and_then_regularly(place):
    """The second time somewhat later, so that not all ask together."""

    async def test(place):
        discovery = place.discovery(lookupd_poll_interval=10, lookupd_poll_jitter=0.5)
        discovery.start()
        await place.clock.advance(100)
        await discovery.stop()

        times = [when for when, _, _ in place.asked]
        assert 0 == times[0]
        assert 10 <= times[1] <= 15
        assert [10] * len(times[2:]) == [round(b - a) for a, b in pairwise(times[1:])]
        assert {(("l:4161", "m:4161"), "orders")} == {(nodes, topic) for _, nodes, topic in place.asked}
        assert [["n1:4150"]] * len(times) == place.found

    place(test)


def test_a_lost_connection_makes_it_ask_soon(place):
    """But not more often than once a second."""

    async def test(place):
        discovery = place.discovery()
        discovery.start()
        await place.clock.advance(0.5)
        for _ in range(5):
            discovery.poll_soon()
            await place.clock.advance(0.1)
        await place.clock.advance(5)
        assert [0, 1] == [round(when, 3) for when, _, _ in place.asked]
        discovery.poll_soon()
        await place.clock.advance(0)
        assert [0, 1, 6] == [round(when) for when, _, _ in place.asked]
        await discovery.stop()

    place(test)


def test_an_nsqlookupd_that_fails_is_told_of_once(place, caplog):
    """And once when it is back; what the others say counts meanwhile."""
    caplog.set_level(logging.INFO, "nsqkit")

    async def test(place):
        good = place.answer
        place.answer = Answers(good.value, ["l:4161"], [Failure("m:4161", "cannot connect: refused")])
        discovery = place.discovery(lookupd_poll_interval=1, lookupd_poll_jitter=0)
        discovery.start()
        await place.clock.advance(3)
        assert {"m:4161": "cannot connect: refused"} == discovery.failures
        place.answer = good
        await place.clock.advance(3)
        await discovery.stop()
        assert {} == discovery.failures
        assert all(found == ["n1:4150"] for found in place.found)

    place(test)
    assert [
        "nsqlookupd m:4161: cannot connect: refused; asking again",
        "nsqlookupd m:4161: it answers again",
    ] == [record.getMessage() for record in caplog.records if record.name == "nsqkit.consumer"]


def test_when_nobody_answers_what_was_found_stays(place):
    """No answer is not the answer that there is nothing."""

    async def test(place):
        place.answer = Answers(Lookup(known=False, channels=[], producers=[]), [], [Failure("l:4161", "no")])
        discovery = place.discovery()
        discovery.start()
        await settle()
        await discovery.stop()
        assert [] == place.found

    place(test)


def test_it_goes_on_after_an_error_that_nobody_foresaw(place, caplog):
    """And the log has it."""

    async def test(place):
        place.answer = RuntimeError("what")
        discovery = place.discovery(lookupd_poll_interval=1)
        discovery.start()
        await place.clock.advance(10)
        await discovery.stop()
        assert len(place.asked) > 5

    place(test)
    assert "nsqlookupds could not be asked" in caplog.text


def test_without_a_topic_it_looks_for_all_nsqds(place):
    """As a producer wants it."""

    async def test(place):
        discovery = place.discovery(topic=None)
        discovery.start()
        await settle()
        await discovery.stop()
        assert [["n1:4150", "n2:4150"]] == place.found

    place(test)
