"""A clock that is moved by hand, and nsqds that are there in name only, for tests of producers and consumers."""

import asyncio
import heapq
import itertools

from nsqkit.client.clock import ClientClock, give_clock
from nsqkit.client.connection import Opener
from nsqkit.client.consumer import Consumer
from nsqkit.client.link import Link
from nsqkit.errors import ConnectionFailed
from tests.client.wires import CLOSE_WAIT, Wire

PASSES = 30  # of the loop: more than anything here needs to come to rest


async def settle():
    """Let everything happen that needs no time."""
    for _ in range(PASSES):
        await asyncio.sleep(0)


class Alarm:
    """A timer of the clock."""

    def __init__(self, callback):
        self.callback = callback

    def cancel(self):
        """Not to be called."""
        self.callback = None


class FakeClock(ClientClock):
    """Stands still until it is moved."""

    def __init__(self, loop):
        super().__init__(loop)
        self.time = 1000.0
        self._alarms = []
        self._order = itertools.count()

    def now(self):
        """Seconds."""
        return self.time

    def call_at(self, when, callback):
        """Remember it."""
        alarm = Alarm(callback)
        heapq.heappush(self._alarms, (when, next(self._order), alarm))
        return alarm

    async def advance(self, seconds):
        """Move on, from alarm to alarm, and let what follows from each happen."""
        await settle()
        end = self.time + seconds
        while self._alarms and self._alarms[0][0] <= end:
            when, _, alarm = heapq.heappop(self._alarms)
            self.time = max(self.time, when)
            if alarm.callback is not None:
                alarm.callback()
                await settle()
        self.time = end
        await settle()


class Nsqd:
    """What one nsqd is sent, and what it sends. `wire` is that of its newest connection."""

    def __init__(self, address):
        self.address = address
        self.error = None  # instead of a connection
        self.tries = 0
        self.links = []
        self.wire = Wire()
        self.max_rdy_count = 2500

    @property
    def link(self):
        """The newest connection."""
        return self.links[-1]

    def sent(self):
        """The commands that came since it was asked last."""
        self.link.flush()
        return self.wire.take().split(b"\n")[:-1]

    def send(self, *frames):
        """Send frames."""
        self.link.data_received(b"".join(frames))

    def die(self):
        """As if it was killed."""
        self.error = ConnectionFailed(self.address, "connection refused")
        for link in self.links:
            link.connection_lost(None)


class Nsqds(Opener):
    """Nsqds by address, each made when it is first asked for."""

    def __init__(self, clock):
        self.clock = clock
        self.all = {}

    def __getitem__(self, address):
        return self.all.setdefault(address, Nsqd(address))

    async def open(self, nsqd, inbox=None):
        """A connection."""
        place = self[nsqd]
        place.tries += 1
        if place.error is not None:
            raise place.error
        link = Link(nsqd, self.clock.now, 0, inbox)
        link.max_rdy_count = place.max_rdy_count
        place.wire = Wire()
        link.connection_made(place.wire)
        place.links.append(link)
        return link


def running(kind, **fixed):
    """A decorator: the test gets clock, nsqds, and `make`, which makes a producer or consumer of this kind there."""

    def decorate(test):
        def run():
            async def inside():
                loop = asyncio.get_running_loop()
                clock = FakeClock(loop)
                nsqds = Nsqds(clock)
                give_clock(loop, clock)

                class Local(kind):  # type: ignore[valid-type, misc]
                    def _opener(self, _):
                        return nsqds

                await test(clock, nsqds, lambda *args, **more: Local(*args, **(fixed | more)))

            asyncio.run(inside())

        run.__doc__ = test.__doc__
        run.__name__ = test.__name__
        return run

    return decorate


A, B, C = "a:4150", "b:4150", "c:4150"


def consuming(test):
    """The test gets clock, nsqds and `make`, which makes a consumer."""
    return running(Consumer)(test)


def made(make, *nsqd, **more):
    """A consumer of these nsqds."""
    return make("orders", "billing", nsqd=nsqd or (A,), **more)


def numbers(*messages):
    """Their ids as numbers."""
    return [int(message.id, 16) for message in messages]


def assert_state(consumer, state):
    """It is in this state; a function, as mypy takes it that a state never changes."""
    assert state is consumer.state


async def stopped(consumer, nsqds, *answering):
    """Stop it, while these nsqds answer CLS."""
    stop = asyncio.ensure_future(consumer.stop(timeout=0))
    await settle()
    for nsqd in answering:
        nsqds[nsqd].send(CLOSE_WAIT)
    await stop
