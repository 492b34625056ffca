"""The broker's turn in the event loop."""

import asyncio

from nsqkit.clock import Clock
from nsqkit.nsqd.backlog import BUDGET
from nsqkit.nsqd.core.broker import Broker
from nsqkit.nsqd.core.session import Outlet, Session
from nsqkit.nsqd.core.settings import Settings
from nsqkit.nsqd.turns import Turns
from nsqkit.wire.frames import OK_FRAME


class Sent(Outlet):
    """What was sent."""

    def __init__(self):
        self.data = b""

    def send(self, data):
        """Keep it."""
        self.data += data


def test_changed_metadata_are_saved():
    """Each turn sees to it while there is something to save, and nobody asks when there is nothing."""
    asked = []

    async def turns_of() -> bytes:
        broker = Broker(Settings(), None)
        outlet = Sent()
        turns = Turns(broker, Clock(lambda: 1, lambda: 1), lambda: asked.append(outlet.data), lambda: None)
        session = Session(broker, outlet, "10.0.0.1:4321", 1)
        turns.run()
        session.receive(b"  V2SUB t c\n", 1)
        turns.run()
        broker.changes.finish(broker.changes.count, "")
        turns.run()
        turns.stop()
        return outlet.data

    assert OK_FRAME == asyncio.run(turns_of())
    assert [b""] == asked


def test_longest_pass():
    """What used the CPU between two turns is told, and how long the longest turn took."""
    cpu = iter([1.0, 1.25, 3.5, 4.0])  # at first, and after all turns but the second, which comes too soon
    time_ns = iter(ms * 1_000_000 for ms in (0, 10, 12, 12, 12, 20, 70, 80, 90))

    async def turns_of() -> tuple[float, int, float, int]:
        broker = Broker(Settings(), None)
        clock = Clock(lambda: 0, lambda: next(time_ns))
        turns = Turns(broker, clock, lambda: None, lambda: None, lambda: next(cpu))
        for _ in range(3):
            turns.run()
        longest = turns.longest_pass, int(turns.longest_turn)
        turns.forget()
        turns.run()
        return *longest, turns.longest_pass, int(turns.longest_turn)

    assert (2.25, 50_000_000, 0.5, 10_000_000) == asyncio.run(turns_of())


def test_one_turn_in_each_pass():
    """However often somebody wants one at once, one follows by itself: sockets are looked at in between."""
    turned: list[int] = []
    passes = 0

    async def scene() -> None:
        nonlocal passes
        now = iter(range(1, 1_000_000_000_000, BUDGET))
        turns = Turns(
            Broker(Settings(), None), Clock(lambda: 0, lambda: next(now)), lambda: None, lambda: None
        )

        def share(_: int) -> bool:
            turned.append(passes)
            return True

        turns.backlog.add(share)
        for _ in range(5):
            turns.run()
        turned.clear()
        for _ in range(20):
            await asyncio.sleep(0)
            passes += 1

    asyncio.run(scene())

    assert list(range(20)) == turned[:20]


def test_a_clock_that_was_moved():
    """A deadline that was far away is kept in time after the clock has moved near to it, or past it."""
    now = 0

    class Closed(Outlet):
        """Notes when it is closed."""

        def __init__(self):
            self.closed_at = asyncio.get_running_loop().create_future()

        def close(self):
            """It is."""
            self.closed_at.set_result(now)

    async def closed_at(*moves: int) -> int:
        nonlocal now
        now = 0
        broker = Broker(Settings(), None)
        turns = Turns(broker, Clock(lambda: 0, lambda: now), lambda: None, lambda: None)
        outlet = Closed()
        session = Session(broker, outlet, "10.0.0.1:4321", 0)  # which has 10 s to say the magic
        turns.run()
        for move in moves:
            now = move
            turns.clock_moved()
        now = max(now, 10_000_000_000)  # as it is 10 ms later
        at: int = await asyncio.wait_for(outlet.closed_at, 5)
        turns.stop()
        assert session.closed
        return at

    assert 10_000_000_000 == asyncio.run(closed_at(9_980_000_000, 9_990_000_000))
    assert 12_000_000_000 == asyncio.run(closed_at(12_000_000_000))
