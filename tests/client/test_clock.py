"""The clock of a loop's clients."""

import asyncio

from nsqkit.client.clock import ClientClock, clock_of, give_clock


class Stopped(ClientClock):
    """A clock that stands still."""

    def now(self):
        """Always the same."""
        return 5.0


def test_a_loop_has_its_own_clock_until_it_is_given_another():
    """The given one counts for this loop only, and until it is taken back."""
    loop, other = asyncio.new_event_loop(), asyncio.new_event_loop()
    try:
        give_clock(loop, Stopped(loop))

        assert 5.0 == clock_of(loop).now()
        assert 5.0 != clock_of(other).now()

        give_clock(loop, None)

        assert 5.0 != clock_of(loop).now()
    finally:
        loop.close()
        other.close()


def test_sleeping_ends_when_the_clock_says_so():
    """Sleep asks the clock for a timer, and a cancelled sleeper takes it back."""

    class ByHand(ClientClock):
        def __init__(self, loop):
            super().__init__(loop)
            self.callbacks = []
            self.asked = asyncio.Event()

        def call_at(self, when, callback):  # noqa: ARG002 - the clock's interface
            self.callbacks.append(callback)
            self.asked.set()
            return asyncio.get_running_loop().call_later(1000, lambda: None)

    async def run():
        clock = ByHand(asyncio.get_running_loop())
        sleeper = asyncio.create_task(clock.sleep(60))
        await clock.asked.wait()

        clock.callbacks[0]()
        clock.callbacks[0]()
        await sleeper

    asyncio.run(run())
