"""The steps of clients and operators, one function per name in `steps.WEIGHTS`; the machine's are in `machine.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from nsqkit.nsqd.core.store import StoreError
from tests.simulation.client import WHOLE, Client
from tests.simulation.steps import MS, SECOND, channel_name, topic_name

if TYPE_CHECKING:
    from tests.simulation.world import World

GARBAGE: Final = (
    b"HELLO\n",
    b"\x00\xff\n",
    b"PUB\n",
    b"PUB bad!name\n",
    b"PUB t\n\xff\xff\xff\xff",
    b"PUB t\n\x00\x00\x00\x00",
    b"MPUB t\n\x00\x00\x00\x08\x00\x00\x00\x00",
    b"DPUB t -5\n",
    b"FIN short\n",
    b"SUB t\n",
)


# -- publishers


def publish(world: World, a: int, b: int, c: int) -> None:
    """PUB or MPUB, by one of a few publishers."""
    for _ in range(4 if c % 7 == 0 else 1):
        publish_to(world, a, (1, 1, 1 + c % 7, 20)[b % 4], (0, 3, 30, 200)[b % 5 % 4], -1)


def publish_deferred(world: World, a: int, b: int, c: int) -> None:
    """DPUB."""
    publish_to(world, a, 1, (0, 30)[b % 2], (0, 1, 50, 700, 3000, 30_000)[c % 6])


def publish_to(world: World, a: int, count: int, size: int, delay: int, topic: str = "") -> None:
    """PUB or MPUB of new messages, or DPUB with a delay in ms; to one of the topics if it is not named."""
    client = world.pick(a >> 4, lambda one: not one.topic and not one.half_closed)
    if client is None or a % 5 == 0:
        client = world.client()
    topic = topic or topic_name(a)
    bodies = world.new_bodies(count, size)
    data = b"".join(len(body).to_bytes(4, "big") + body for body in bodies)
    name = "DPUB" if delay >= 0 else "PUB" if count == 1 else "MPUB"
    line = f"{name} {topic}{f' {delay}' if delay >= 0 else ''}\n".encode()
    if name == "MPUB":
        data = (len(data) + 4).to_bytes(4, "big") + count.to_bytes(4, "big") + data
    sender = client

    def execute() -> None:
        command = sender.await_reply(name)
        command.publish = world.model.publish(topic, bodies, delay * MS, world.loop.now, sender.number)
        world.model.taken(command.publish)
        world.counts[name] += 1

    client.send(line + data, execute)
    client.flow(WHOLE)


def work(world: World, a: int, b: int, c: int) -> None:
    """A busy while: much is published, and finished but for a message now and then."""
    for turn in range(4):
        publish_to(world, a | 1, 20, 3, -1)
        world.loop.run_ready()
        for client in world.live():
            if turn == 0 and c % 4 and client.inbox and not client.stalled and not client.half_closed:
                say(world, client, "REQ", client.inbox.pop(0), (0, 100, 3000, 30_000)[c % 4])
        finish_all(world, 0, 0, 0)
        world.loop.advance((20, 300)[b % 2] * MS)


# -- consumers


def subscribe(world: World, a: int, b: int, c: int) -> None:
    """A new consumer."""
    consume(world, *subscription_of(a, b, c))


def subscription_of(a: int, b: int, c: int) -> tuple[str, str, int, int]:
    """Topic, channel, RDY, timeout in ms or 0 for the daemon's own."""
    return topic_name(a), channel_name(b), (0, 1, 2, 5, 50)[c % 5], (0, 1000, 4000)[a % 3]


def consume(world: World, topic: str, channel: str, count: int, timeout: int) -> Client:
    """A new consumer with RDY `count`; `timeout` is in ms, 0 for the daemon's own."""
    timeout = min(timeout, world.config["max_msg_timeout"] // MS)
    client = world.client(timeout)
    client.topic, client.channel = topic, channel
    client.msg_timeout = timeout * MS or world.config["msg_timeout"]

    def execute() -> None:
        client.await_reply("SUB")

    client.send(f"SUB {topic} {channel}\n".encode(), execute)
    _ready(client, count)
    client.flow(WHOLE)
    return client


def _await(client: Client, name: str) -> None:
    client.await_reply(name)


def _ready(client: Client, count: int) -> None:
    def execute() -> None:
        client.ready = count

    client.send(b"RDY %d\n" % count, execute)


def _consumer(world: World, number: int) -> Client | None:
    return world.pick(number, lambda one: bool(one.topic) and not one.stalled and not one.half_closed)


def ready(world: World, a: int, b: int, _: int) -> None:
    """RDY."""
    client = _consumer(world, a)
    if client is not None and not client.closing:
        _ready(client, (0, 1, 2, 5, 50)[b % 5])
        client.flow(WHOLE)


def finish(world: World, a: int, b: int, c: int) -> None:
    """FIN some of what was received."""
    _answer(world, a, "FIN", 1 + b % 6, c, 0)


def finish_all(world: World, _: int, __: int, ___: int) -> None:
    """Everybody FINs everything, in turn."""
    for client in world.live():
        if not client.stalled and not client.half_closed:
            for message_id in client.inbox:
                say(world, client, "FIN", message_id, 0)
            client.inbox = []
            client.flow(WHOLE)


def requeue(world: World, a: int, b: int, c: int) -> None:
    """REQ one."""
    _answer(world, a, "REQ", 1 + c % 3, c, (0, 0, 100, 2000, 30_000)[b % 5])


def touch(world: World, a: int, _: int, c: int) -> None:
    """TOUCH one."""
    _answer(world, a, "TOUCH", 1, c, 0)


def _answer(world: World, a: int, name: str, count: int, which: int, delay: int) -> None:
    client = world.pick(a, lambda one: bool(one.inbox) and not one.stalled and not one.half_closed)
    if client is None:
        return
    for _ in range(min(count, len(client.inbox))):
        at = which % len(client.inbox) if which % 4 == 0 else 0
        message_id = client.inbox[at] if name == "TOUCH" else client.inbox.pop(at)
        say(world, client, name, message_id, delay)
    client.flow(WHOLE)


def say(world: World, client: Client, name: str, message_id: bytes, delay: int) -> None:
    """Queue FIN, REQ (`delay` in ms) or TOUCH."""

    def execute() -> None:
        client.await_failure(name, message_id, delay * MS)
        world.counts[name] += 1

    parameter = b" %d" % delay if name == "REQ" else b""
    client.send(name.encode() + b" " + message_id + parameter + b"\n", execute)


def stop_consuming(world: World, a: int, _: int, __: int) -> None:
    """CLS."""
    client = world.pick(a, lambda one: bool(one.topic) and not one.half_closed and not one.closing)
    if client is not None:
        client.closing = True
        sender = client

        def execute() -> None:
            sender.await_reply("CLS")
            sender.ready = 0

        client.send(b"CLS\n", execute)
        client.flow(WHOLE)


def disconnect(world: World, a: int, _: int, __: int) -> None:
    """A client vanishes."""
    client = world.pick(a, lambda _: True)
    if client is not None:
        client.hang_up(ConnectionResetError())


def half_close(world: World, a: int, _: int, __: int) -> None:
    """A client sends no more."""
    client = world.pick(a, lambda _: True)
    if client is not None:
        client.end()


def stall(world: World, a: int, _: int, __: int) -> None:
    """A client does not read."""
    client = world.pick(a, lambda one: not one.stalled)
    if client is not None:
        client.stalled = True


def read_again(world: World, a: int, _: int, __: int) -> None:
    """It reads again."""
    stalled = [client for client in world.clients if client.stalled]
    if stalled:
        stalled[a % len(stalled)].read_again()


def split(world: World, a: int, b: int, c: int) -> None:
    """A publish arrives in two pieces, with time in between; the rest may never come."""
    client = world.pick(a >> 4, lambda one: not one.topic and not one.half_closed)
    if client is None:
        client = world.client()
        client.flow(WHOLE)
    bodies = world.new_bodies(1 + b % 3, 20)
    topic = topic_name(a)
    data = b"".join(len(body).to_bytes(4, "big") + body for body in bodies)
    data = (len(data) + 4).to_bytes(4, "big") + len(bodies).to_bytes(4, "big") + data
    sender = client

    def execute() -> None:
        command = sender.await_reply("MPUB")
        command.publish = world.model.publish(topic, bodies, 0, world.loop.now, sender.number)
        world.model.taken(command.publish)
        world.counts["MPUB"] += 1
        world.counts["split command"] += 1

    client.send(f"MPUB {topic}\n".encode() + data, execute)
    client.flow(1 + c % (len(data) + 6))
    if c % 4:
        wait(world, b, 0, 0)
        client.flow(WHOLE)


def garbage(world: World, a: int, b: int, _: int) -> None:
    """A client sends what is no command."""
    client = world.pick(a, lambda one: not one.half_closed)
    if client is not None:
        sender = client
        client.send(GARBAGE[b % len(GARBAGE)], lambda: _await(sender, "garbage"))
        client.flow(WHOLE)
        client.spoil()
        world.counts["garbage"] += 1


# -- time


def wait(world: World, a: int, _: int, __: int) -> None:
    """A little time passes."""
    world.loop.advance((0, MS, 20 * MS, 130 * MS, 600 * MS, 1200 * MS)[a % 6])


def wait_long(world: World, a: int, _: int, __: int) -> None:
    """Much time passes."""
    world.loop.advance((3, 8, 25)[a % 3] * SECOND)


def sleep(world: World, a: int, _: int, __: int) -> None:
    """The machine sleeps: nothing happens in its time."""
    world.model.trouble(world.loop.now, over=False)
    world.loop.now += (1, 30)[a % 2] * SECOND
    world.model.trouble(world.loop.now, over=True)
    world.loop.advance(0)


def hold(world: World, _: int, __: int, ___: int) -> None:
    """The next step happens in the same pass of the loop."""
    world.held = True


# -- operators


def _topic(world: World, a: int) -> Any:
    process = world.process
    assert process is not None
    names = sorted(process.broker.topics)
    if not names:
        return None
    topic = process.broker.topics[names[a % len(names)]]
    world.touching = topic.name
    return topic


def _channel(world: World, a: int, b: int) -> Any:
    topic = _topic(world, a)
    if topic is None or not topic.channels:
        return None
    return topic.channels[sorted(topic.channels)[b % len(topic.channels)]]


def _now(world: World) -> int:
    assert world.process is not None
    return int(world.process.now())


def _turn(world: World) -> None:
    assert world.process is not None
    world.process.turn()


def pause_topic(world: World, a: int, _: int, __: int) -> None:
    """Pause a topic."""
    set_topic_paused(world, a, True)


def set_topic_paused(world: World, a: int, paused: bool) -> None:
    """Pause a topic, or end its pause."""
    topic = _topic(world, a)
    if topic is not None:
        world.counts["topic paused" if paused else "topic unpaused"] += topic.paused != paused
        topic.pause(paused, _now(world))
        world.model.pause(topic.name, "", paused, world.loop.now)
        _turn(world)


def pause_channel(world: World, a: int, b: int, _: int) -> None:
    """Pause a channel."""
    set_channel_paused(world, a, b, True)


def set_channel_paused(world: World, a: int, b: int, paused: bool) -> None:
    """Pause a channel, or end its pause."""
    channel = _channel(world, a, b)
    if channel is not None:
        world.counts["channel paused" if paused else "channel unpaused"] += channel.paused != paused
        channel.pause(paused)
        world.model.pause(channel.topic.name, channel.name, paused, world.loop.now)
        _turn(world)


def resume(world: World, a: int, b: int, c: int) -> None:
    """End a pause."""
    if c % 2:
        set_topic_paused(world, a, False)
    else:
        set_channel_paused(world, a, b, False)


def empty_topic(world: World, a: int, _: int, __: int) -> None:
    """Drop what waits in a topic."""
    topic = _topic(world, a)
    if topic is not None:
        world.counts["topic emptied"] += topic.depth() > 0
        topic.empty()
        world.model.emptied(topic.name, "", world.loop.now)
        _turn(world)


def empty_channel(world: World, a: int, b: int, _: int) -> None:
    """Drop what is in a channel."""
    channel = _channel(world, a, b)
    if channel is not None:
        world.counts["channel emptied"] += 1
        channel.empty()
        world.model.emptied(channel.topic.name, channel.name, world.loop.now)
        _turn(world)


def delete_topic(world: World, a: int, _: int, __: int) -> None:
    """Delete one."""
    topic = _topic(world, a)
    if topic is not None:
        world.counts["topic deleted"] += 1
        assert world.process is not None
        failures = world.failures
        world.process.broker.delete_topic(topic.name)
        world.model.removed(topic.name, "", world.loop.now)
        _turn(world)
        if world.failures > failures:
            world.model.haunted.add(topic.name)  # something of it is still there


def recreate(world: World, a: int, b: int, c: int) -> None:
    """Delete a topic, and publish to one of the same name at once."""
    delete_topic(world, a, b, c)
    name, world.touching = world.touching, ""
    if name:
        publish_to(world, a | 1, 1 + c % 3, 3, -1, name)


def delete_channel(world: World, a: int, b: int, _: int) -> None:
    """Delete one."""
    channel = _channel(world, a, b)
    if channel is not None:
        world.counts["channel deleted"] += 1
        channel.topic.delete_channel(channel.name)
        world.model.removed(channel.topic.name, channel.name, world.loop.now)
        _turn(world)


def create(world: World, a: int, b: int, _: int) -> None:
    """Create a topic and a channel."""
    assert world.process is not None
    name = topic_name(a)
    world.touching = name
    try:
        topic = world.process.broker.topic(name)
    except StoreError:
        return
    topic.channel(channel_name(b), _now(world))
    world.observe()
    _turn(world)
