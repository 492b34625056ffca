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

L, M = "l:4161", "m:4161"


def a_producer(number):
    """An nsqd as nsqlookupds list it."""
    return Producer(node=f"n{number}:4151", broadcast_address=f"n{number}", tcp_port=4150, http_port=4151)


def says(*numbers):
    """What an nsqlookupd answers that knows these."""
    producers = [a_producer(number) for number in numbers]
    return Answers(Lookup(known=True, channels=[], producers=producers), ["it"], [])


def fails(node, text="cannot connect: refused"):
    """What comes of asking one that does not answer."""
    return Answers(Lookup(known=False, channels=[], producers=[]), [], [Failure(node, text)])


class Place:
    """Nsqlookupds that say what they are told to: an answer, an error, or a future of one."""

    def __init__(self, clock, monkeypatch):
        self.clock = clock
        self.answers: dict[str, object] = {L: says(1), M: says(1)}
        self.asked: list[tuple[float, str, str | None]] = []
        self.found: list[list[str]] = []

        async def lookup(_, nodes, topic):
            (node,) = nodes
            self.asked.append((round(clock.now() - 1000, 3), node, topic))
            answer = self.answers[node]
            if isinstance(answer, asyncio.Future):
                answer = await answer
            if isinstance(answer, Exception):
                raise answer
            return answer

        async def nodes(_, nodes):
            return Answers([a_producer(1), a_producer(2)], nodes, [])

        monkeypatch.setattr(Cluster, "lookup", lookup)
        monkeypatch.setattr(Cluster, "nodes", nodes)

    def times(self, node):
        """When it was asked."""
        return [when for when, asked, _ in self.asked if asked == node]

    def discovery(self, topic="orders", lookupds=(L, M), **options):
        """One that asks."""
        return Discovery(
            lookupds,
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

        for node in (L, M):
            first, *times = place.times(node)
            assert 0 == first
            assert 10 <= times[0] <= 15
            assert all(10 == pytest.approx(b - a, abs=0.01) for a, b in pairwise(times))
        assert place.times(L) != place.times(M)
        assert {"orders"} == {topic for _, _, topic in place.asked}
        assert all(["n1:4150"] == found for found in place.found)

    place(test)


def test_what_each_knows_is_put_together(place):
    """Each nsqd once."""

    async def test(place):
        place.answers = {L: says(1, 2), M: says(2, 3)}
        discovery = place.discovery()
        discovery.start()
        await settle()
        await discovery.stop()
        assert ["n1:4150", "n2:4150", "n3:4150"] == place.found[-1]

    place(test)


def test_one_that_hangs_holds_nobody_up(place):
    """What another says counts at once, and that one is asked again in its time."""

    async def test(place):
        place.answers[L] = asyncio.get_running_loop().create_future()
        discovery = place.discovery(lookupd_poll_interval=10, lookupd_poll_jitter=0)
        discovery.start()
        await place.clock.advance(35)
        assert [["n1:4150"]] * 4 == place.found
        assert [0] == place.times(L)
        place.answers[L].set_result(says(7))
        await settle()
        assert ["n7:4150", "n1:4150"] == sorted(place.found[-1], reverse=True)
        await discovery.stop()

    place(test)


def test_a_lost_connection_makes_it_ask_soon(place):
    """But not more often than once a second."""

    async def test(place):
        discovery = place.discovery(lookupds=(L,))
        discovery.start()
        await place.clock.advance(0.5)
        for _ in range(5):
            discovery.poll_soon()
            await place.clock.advance(0.1)
        await place.clock.advance(5)
        assert [0, 1] == place.times(L)
        discovery.poll_soon()
        await place.clock.advance(0)
        assert [0, 1, 6] == place.times(L)
        await discovery.stop()

    place(test)


def test_a_connection_lost_during_a_question_is_asked_about_after_it(place):
    """The answer may be from before."""

    async def test(place):
        answer = place.answers[L] = asyncio.get_running_loop().create_future()
        discovery = place.discovery(lookupds=(L,))
        discovery.start()
        await place.clock.advance(3)
        discovery.poll_soon()
        place.answers[L] = says(1)
        answer.set_result(says(2))
        await place.clock.advance(0)
        assert [0, 3] == place.times(L)
        await discovery.stop()

    place(test)


def test_an_nsqlookupd_that_fails_is_told_of_once(place, caplog):
    """And once when it is back; what it said last counts meanwhile."""
    caplog.set_level(logging.INFO, "nsqkit")

    async def test(place):
        place.answers[M] = says(2)
        discovery = place.discovery(lookupd_poll_interval=1, lookupd_poll_jitter=0)
        discovery.start()
        await settle()
        place.answers[M] = fails(M)
        await place.clock.advance(3)
        assert {M: "cannot connect: refused"} == discovery.failures
        assert {"n1:4150", "n2:4150"} == set(place.found[-1])
        place.answers[M] = says()
        await place.clock.advance(3)
        await discovery.stop()
        assert {} == discovery.failures
        assert ["n1:4150"] == place.found[-1]

    place(test)
    assert [
        "nsqlookupd m:4161: cannot connect: refused; asking again",
        "nsqlookupd m:4161: it answers again",
    ] == [record.getMessage() for record in caplog.records if record.name == "nsqkit.consumer"]


def test_when_nobody_answers_what_was_found_stays(place):
    """No answer is not the answer that there is nothing."""

    async def test(place):
        place.answers = {L: fails(L), M: fails(M)}
        discovery = place.discovery()
        discovery.start()
        await settle()
        await discovery.stop()
        assert [] == place.found

    place(test)


def test_it_goes_on_after_an_error_that_nobody_foresaw(place, caplog):
    """And the log has it."""

    async def test(place):
        place.answers[L] = RuntimeError("what")
        discovery = place.discovery(lookupd_poll_interval=1)
        discovery.start()
        await place.clock.advance(10)
        await discovery.stop()
        assert len(place.times(L)) > 5
        assert len(place.times(M)) > 5

    place(test)
    assert "nsqlookupds could not be asked" in caplog.text


def test_without_a_topic_it_looks_for_all_nsqds(place):
    """As a producer wants it."""

    async def test(place):
        discovery = place.discovery(topic=None)
        discovery.start()
        await settle()
        await discovery.stop()
        assert ["n1:4150", "n2:4150"] == place.found[-1]

    place(test)
