"""A fixture's worth of NSQ without the plugin, as the tests here are about what the plugin is made of."""

import asyncio
import functools

from nsqkit.testing import Nsq


def in_nsq(**options):
    """A decorator: the test is run in a loop of its own, with an `Nsq` of these options."""

    def decorate(test):
        @functools.wraps(test)
        def run():
            async def inside():
                async with asyncio.timeout(30), Nsq(**options) as nsq:
                    await test(nsq)

            asyncio.run(inside())

        del run.__wrapped__  # pytest would look for a fixture of the argument's name
        return run

    return decorate


async def received(consumer):
    """The next message; there must be one within 10 real seconds."""
    message = await consumer.get(timeout=10)
    assert message is not None, "no message came"
    return message
