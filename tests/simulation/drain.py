"""The end of a world: everything is healed, and everything owed must come."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.books import Violation
from tests.simulation.client import WHOLE
from tests.simulation.disk import ROOT
from tests.simulation.loop import running
from tests.simulation.operators import consume, say, set_channel_paused, set_topic_paused
from tests.simulation.steps import SECOND

if TYPE_CHECKING:
    from tests.simulation.world import World


def drain(world: World) -> None:
    """Heal everything, end all pauses, and take what there is: nothing owed may be missing, nothing may be left."""
    world.heal()
    world.layers = 0
    calendar = world.model.calendar
    calendar.set(calendar.most_ahead, world.loop.now)  # or what was asked for by it would be due in hours
    world.disk.die(-1)
    with running(world.loop):
        world.loop.advance(2 * SECOND)  # what failed is tried again each second
        world.settle()
        _drain(world)
        world.loop.advance(10 * SECOND)
        world.settle()
    if (
        not world.failures and not world.counts["batch damaged"]
    ):  # otherwise something may be kept until it is read
        _look_at_the_disk(world)
    world.end("restart" if world.chance.random() < 0.5 else "kill")
    with running(world.loop):
        _drain(world)


def _look_at_the_disk(world: World) -> None:
    """What is finished takes no room: one segment is left of each log, and one file of the journal."""
    assert world.process is not None
    for topic in world.process.broker.topics.values():
        if topic.store is not None:
            _at_most_one(world, f"{ROOT}/{topic.name}", ".log")
    if world.config["durability"] == "fsync":
        _at_most_one(world, f"{ROOT}/journal", ".journal")


def _at_most_one(world: World, directory: str, suffix: str) -> None:
    files = [name for name in world.disk.names(directory) if name.endswith(suffix)]
    if len(files) > 1:
        raise Violation("disk not freed", f"{directory}: {', '.join(files)}")


def _drain(world: World) -> None:
    process = world.process
    assert process is not None
    for client in world.live():
        client.hang_up(None)
    world.loop.run_ready()
    world.settle()
    for number in range(len(process.broker.topics)):
        topic = process.broker.topics[sorted(process.broker.topics)[number]]
        if not topic.channels:
            consume(world, topic.name, "a", 50, 0)
            world.loop.run_ready()
            world.settle()
        set_topic_paused(world, number, False)
        for index in range(len(topic.channels)):
            set_channel_paused(world, number, index, False)
    world.touching = ""
    world.loop.run_ready()
    world.settle()
    for name in sorted(process.broker.topics):
        for channel in sorted(process.broker.topics[name].channels):
            consume(world, name, channel, 50, 0)
    _take_all(world)


def _take_all(world: World) -> None:
    end = world.loop.now + 200 * SECOND
    while True:
        world.loop.run_ready()
        world.settle()
        busy = False
        for client in world.live():
            busy = busy or bool(client.inbox)
            for message_id in client.inbox:
                say(world, client, "FIN", message_id, 0)
            client.inbox = []
            client.flow(WHOLE)
        if busy:
            continue
        if not _owed(world):
            break
        when = world.loop.next_timer()
        if when is None or when > end:
            break
        world.loop.advance(when - world.loop.now)
    missing = world.model.missing()
    if missing:
        raise Violation("lost", ", ".join(missing[:5]))
    left = _owed(world)
    if left:
        raise Violation("left over", ", ".join(left))


def _owed(world: World) -> list[str]:
    """What the broker's own books say is left."""
    assert world.process is not None
    return [
        f"{topic.name}:{channel.name} has {channel.queue.depth()} ready, {channel.in_flight_count} in flight,"
        f" {len(channel.deferred)} deferred"
        for topic in world.process.broker.topics.values()
        for channel in topic.channels.values()
        if channel.queue.depth() or channel.in_flight_count or channel.deferred
    ] + [
        f"{topic.name} has {topic.depth()} waiting"
        for topic in world.process.broker.topics.values()
        if topic.depth() and topic.channels
    ]
