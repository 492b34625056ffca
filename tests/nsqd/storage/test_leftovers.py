"""Leftovers that keep an old segment, and can't be copied to the log's end: bad health, as long as that lasts."""

import asyncio
import errno

import pytest

from nsqkit.nsqd.core.batch import KEPT
from nsqkit.wire.message import Message
from tests.nsqd.storage.keeper import Keeper

CAUSE = "copying leftovers of t"


@pytest.fixture
def keeper(home):
    """Makes housekeeping in the loop that runs."""
    return lambda: Keeper(home)


async def fail_to_copy(keeper: Keeper) -> None:
    """A topic whose leftover could not be copied."""
    batch = keeper.publish("t", b"one")
    await keeper.rest()
    assert KEPT == batch.state
    topic = keeper.broker.topics["t"]
    assert topic.store is not None
    leftover = Message(b"", 0, 1, b"", 0)
    leftover.loaded = False
    keeper.home.disk.fail("write", errno.ENOSPC, times=100)
    keeper.keeping._carry(topic, topic.store, [leftover])
    assert CAUSE in keeper.broker.health.reasons
    keeper.home.disk.heal()


@pytest.mark.parametrize("deleted", [False, True])
def test_a_failure_ends_with_its_leftovers(keeper, deleted):
    """When there is nothing to copy any more, or no topic, nothing fails any more, and that is said once."""

    async def scenario() -> Keeper:
        one: Keeper = keeper()
        await fail_to_copy(one)
        if deleted:
            one.broker.delete_topic("t")
        for _ in range(2):
            one.keeping._checkpoint()
            await one.rest()
        await one.keeping.stop()
        return one

    one = asyncio.run(scenario())

    assert {} == one.broker.health.reasons
    assert 1 == one.lines.getvalue().count(f"STORAGE: {CAUSE} works again")
    assert {} == one.keeping._complaints
