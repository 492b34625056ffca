"""A disk without a byte left, whose messages are finished: nsqd makes room by itself."""

import pytest

from tests.simulation.disk import Died
from tests.simulation.drain import drain
from tests.simulation.loop import running
from tests.simulation.operators import consume, finish_all, publish_to, say
from tests.simulation.steps import MS, SECOND
from tests.simulation.world import World

CONFIG = {
    "durability": "os",
    "mem_queue_size": 10,
    "max_bytes_per_file": 1 << 20,
    "sync_every": 2500,
    "sync_timeout": 500 * MS,
    "checkpoint_interval": 1000 * MS,
    "min_free_space": 0,
    "msg_timeout": 60 * SECOND,
    "max_msg_timeout": 60 * SECOND,
    "requeue_on_disconnect": 0,
    "sector": 512,
    "high_water": 100_000,
    "layers": 0,
}


def let_pass(world: World, seconds: int) -> None:
    """Time goes on, and the books are compared."""
    with running(world.loop):
        world.loop.advance(seconds * SECOND)
    world.settle()


def begin(**changes: object) -> World:
    """A world with two consumers of a topic, which has many messages, none of them finished."""
    world = World({**CONFIG, **changes})
    world.start()
    world.disk.chance = world.chance
    with running(world.loop):
        for channel in ("a", "b"):
            consume(world, "t", channel, 500, 0)
        for _ in range(10):
            publish_to(world, 1, 20, 200, -1, "t")
            world.loop.advance(20 * MS)  # the first has to wait until the log is there
    let_pass(world, 3)
    return world


def fill(world: World) -> None:
    """Somebody else takes what was left of the disk."""
    world.disk.free = 0
    world.broken = True


@pytest.mark.parametrize("durability", ["os", "fsync"])
@pytest.mark.parametrize("size", [1 << 20, 20_000])
def test_finishing_makes_room(durability, size):
    """Without a reserve, and with nobody's help: the next publish is kept, and every channel gets it."""
    world = begin(durability=durability, max_bytes_per_file=size)
    fill(world)
    with running(world.loop):
        publish_to(world, 1, 20, 200, -1, "t")
    let_pass(world, 1)
    assert world.counts["E_MPUB_FAILED"] == 1

    with running(world.loop):
        finish_all(world, 0, 0, 0)
    let_pass(world, 5)

    assert world.disk.free > 40_000
    sent = world.counts["MPUB"]
    with running(world.loop):
        publish_to(world, 1, 20, 200, -1, "t")
    let_pass(world, 1)
    assert world.counts["E_MPUB_FAILED"] == 1
    assert world.counts["MPUB"] == sent + 1
    assert world.process is not None
    topic = world.process.broker.topics["t"]
    assert [220, 220] == [channel.entered_count for channel in topic.channels.values()]
    assert world.process.storage.shared.damaged_count == 0
    assert world.process.broker.health.reasons == {}


@pytest.mark.parametrize("how", ["kill", "cut"])
def test_deleting_what_nobody_wants_makes_room(how):
    """A channel that is deleted takes its messages with it, although `nsqd.dat` can't be saved before there is room."""
    world = begin()
    fill(world)
    assert world.process is not None
    topic = world.process.broker.topics["t"]
    with running(world.loop):
        for name in ("a", "b"):
            topic.delete_channel(name)
            world.model.removed("t", name, world.loop.now)
            world.process.turn()
        world.loop.advance(100 * MS)
        assert world.process.broker.changes.pending()
    let_pass(world, 5)

    assert world.disk.free > 40_000
    assert world.process.broker.health.reasons == {}
    world.end(how)
    assert world.process is not None
    assert {"t": {}} == world.process.there()
    assert world.process.storage.shared.damaged_count == 0


@pytest.mark.parametrize("how", ["kill", "cut", "restart"])
def test_what_comes_after_it_is_kept(how):
    """Whatever ends the process: what was published into the new room is there, and nothing is taken for damage."""
    world = begin()
    fill(world)
    with running(world.loop):
        finish_all(world, 0, 0, 0)
    let_pass(world, 5)
    with running(world.loop):
        publish_to(world, 1, 20, 200, -1, "t")
    let_pass(world, 5)

    world.end(how)

    assert world.process is not None
    topic = world.process.broker.topics["t"]
    assert [20, 20] == [channel.queue.depth() for channel in topic.channels.values()]
    assert world.process.storage.shared.damaged_count == 0


@pytest.mark.parametrize("how", ["kill", "cut"])
@pytest.mark.parametrize("size", [1 << 20, 20_000])
@pytest.mark.parametrize("changes", range(24))
def test_dying_meanwhile(how, size, changes):
    """Between any two changes of the disk: nothing is taken for damage, and all that is published then comes."""
    world = begin(max_bytes_per_file=size)
    fill(world)
    world.chance.seed(changes)
    world.disk.die(changes)
    try:
        with running(world.loop):
            finish_all(world, 0, 0, 0)
            world.loop.advance(5 * SECOND)
    except Died:
        world.interrupted = True
        world.end(how)
    world.settle()
    assert world.process is not None
    assert world.process.storage.shared.damaged_count == 0

    with running(world.loop):
        publish_to(world, 1, 20, 200, -1, "t")
    drain(world)


def test_only_some_of_it_is_finished():
    """Whole files that nobody needs go; what is owed stays, whatever happens."""
    world = begin(max_bytes_per_file=5_000)
    fill(world)
    with running(world.loop):
        for client in world.live():
            for message_id in client.inbox[:150]:
                say(world, client, "FIN", message_id, 0)
            client.inbox = client.inbox[150:]
            client.flow(1 << 20)
    let_pass(world, 5)

    assert 20_000 < world.disk.free < 40_000
    world.end("cut")
    assert world.process is not None
    assert world.process.storage.shared.damaged_count == 0
    drain(world)
