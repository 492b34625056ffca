"""The broker's promises, tried with random histories: nothing is lost or early, and the books are balanced."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from nsqkit.nsqd.core.ledger import carry_forward, record, stuck
from nsqkit.nsqd.core.owed import TopicOwed

SECOND = 1_000_000_000
CHANNELS = ("one", "two")
START = 2_000_000  # ns that no start of a process is quicker than

channels = st.sampled_from(CHANNELS)
picks = st.integers(0, 20)


class Fate:
    """What is known of one message in one channel."""

    def __init__(self, due: int) -> None:
        self.due = self.published_due = due  # not to be delivered before
        self.attempts = 0  # of the last delivery
        self.done = False  # finished or emptied
        self.in_topic = False  # maybe: a kill during a pause may have put it back there


class History(RuleBasedStateMachine):
    """One topic, two channels, some consumers. `make` gives the broker."""

    make: Any

    @initialize(
        limit=st.sampled_from([0, 1, 3, 1000]), requeue=st.booleans(), segment=st.sampled_from([0, 3, 20])
    )
    def begin(self, limit: int, requeue: bool, segment: int) -> None:
        """A broker with a topic."""
        self.node = self.make(mem_queue_size=limit, requeue_on_disconnect=requeue)
        if self.node.flavour == "nothing":
            self.node.settings.mem_queue_size = 100_000  # without a log more than that would be dropped
        self.node.topic("t")
        self.segment = segment
        if self.node.storage is not None:
            self.node.log("t").segment = segment
        self.published = 0
        self.waiting: dict[bytes, int] = {}  # due, by body
        self.channels: dict[str, dict[bytes, Fate]] = {}
        self.paused = False
        self.consumers: list[tuple[str, Any]] = []
        self.channel_of: dict[Any, str] = {}
        self.in_hand: list[tuple[Any, str, Any]] = []  # consumer, channel, delivery
        self.killed = False
        self.owed: TopicOwed | None = None  # a checkpoint that was begun

    # -- what is published

    def expect(self, body: bytes, due: int) -> None:
        """A message was accepted."""
        if self.paused or not self.channels:
            self.waiting[body] = due
        for owed in self.channels.values():
            if not self.paused:
                owed[body] = Fate(due)

    @rule(count=st.integers(1, 6), delay=st.sampled_from([0, 0, 0, 1, 30, 200]))
    def publish(self, count: int, delay: int) -> None:
        """Some messages in one batch."""
        bodies = [b"%d" % (self.published + n) for n in range(count)]
        self.published += count
        due = self.node.clock.now + delay * SECOND if delay else 0
        for body in bodies:
            self.expect(body, due)
        self.node.publish("t", *bodies, delay=delay)
        self.look()

    @precondition(lambda self: self.node.flavour in ("os", "fsync"))
    @rule(count=st.integers(1, 3))
    def fail_to_publish(self, count: int) -> None:
        """The disk is full."""
        self.node.log("t").failure = "disk full"
        self.node.publish("t", *[b"never"] * count)
        self.node.log("t").failure = ""

    @precondition(lambda self: self.node.storage is not None)
    @rule(broken=st.booleans())
    def break_the_disk(self, broken: bool) -> None:
        """The log can't be read for a while."""
        self.node.log("t").read_failure = "read error" if broken else ""

    # -- consumers

    @rule(channel=channels, ready=st.integers(0, 5), timeout=st.sampled_from([1000, 60_000]))
    def subscribe(self, channel: str, ready: int, timeout: int) -> None:
        """A new consumer, and maybe a new channel."""
        if channel not in self.channels:
            self.channels[channel] = {}
            self.release()
        consumer = self.node.client().identify(msg_timeout=timeout)
        self.consumers.append((channel, consumer))
        self.channel_of[consumer] = channel
        consumer.subscribe("t", channel).ready(ready)
        self.look()

    def release(self) -> None:
        """What waited goes to every channel."""
        if self.channels and not self.paused:
            for owed in self.channels.values():
                for message in owed.values():
                    message.in_topic = False
                owed.update({body: Fate(due) for body, due in self.waiting.items()})
            self.waiting = {}

    @precondition(lambda self: self.consumers)
    @rule(pick=picks, ready=st.integers(0, 5))
    def ready(self, pick: int, ready: int) -> None:
        """RDY."""
        self.consumers[pick % len(self.consumers)][1].ready(ready)
        self.look()

    @precondition(lambda self: self.consumers)
    @rule(pick=picks)
    def leave(self, pick: int) -> None:
        """A consumer hangs up; its messages are not to be finished any more."""
        _, consumer = self.consumers.pop(pick % len(self.consumers))
        consumer.leave()
        self.in_hand = [hand for hand in self.in_hand if hand[0] is not consumer]
        self.look()

    @precondition(lambda self: self.in_hand)
    @rule(
        pick=picks,
        command=st.sampled_from(["FIN", "FIN", "REQ", "TOUCH"]),
        delay=st.sampled_from([0, 0, 500, 90_000]),
    )
    def answer(self, pick: int, command: str, delay: int) -> None:
        """FIN, REQ or TOUCH for something delivered, maybe too late."""
        consumer, channel, delivery = self.in_hand[pick % len(self.in_hand)]
        if command != "TOUCH":
            self.in_hand.pop(pick % len(self.in_hand))
        consumer.replies()
        consumer.send(b"%s %s %d\n" % (command.encode(), delivery.id, delay))
        owed = self.channels[channel][delivery.body]
        replies = consumer.replies()
        if replies:
            assert [b"E_%s_FAILED" % command.encode()] == [payload.split()[0] for _, payload in replies]
        elif command == "FIN":
            owed.done = True
        elif command == "REQ" and delay:
            owed.due = self.node.clock.now + delay * 1_000_000
        self.look()

    # -- time and operators

    @rule(seconds=st.sampled_from([0.2, 1, 5, 31, 61, 300]))
    def advance(self, seconds: float) -> None:
        """Time passes; deadlines are served on time."""
        self.node.clock.advance(seconds)
        self.look()

    @rule(seconds=st.sampled_from([0.5, 25]))
    def sleep(self, seconds: float) -> None:
        """Time passes at once."""
        self.node.clock.jump(seconds)
        self.look()

    @precondition(lambda self: self.channels)
    @rule(pick=picks, paused=st.booleans())
    def pause_channel(self, pick: int, paused: bool) -> None:
        """Pause a channel or end its pause."""
        self.channel(pick).pause(paused=paused)
        self.node.turn()
        self.look()

    @rule(paused=st.booleans())
    def pause_topic(self, paused: bool) -> None:
        """Pause the topic or end its pause."""
        self.paused = paused
        self.node.topic("t").pause(paused, self.node.clock.now)
        self.release()
        self.node.turn()
        self.look()

    @precondition(lambda self: self.channels)
    @rule(pick=picks)
    def empty_channel(self, pick: int) -> None:
        """Drop everything in a channel."""
        channel = self.channel(pick)
        channel.empty()
        for owed in self.channels[channel.name].values():
            owed.done = True
        self.look()

    @rule()
    def empty_topic(self) -> None:
        """Drop what waits in the topic."""
        self.node.topic("t").empty()
        self.waiting = {}
        for message in [message for owed in self.channels.values() for message in owed.values()]:
            message.done |= message.in_topic

    def channel(self, pick: int):
        """One of the channels."""
        return self.node.topic("t").channels[sorted(self.channels)[pick % len(self.channels)]]

    # -- restarts

    @precondition(lambda self: self.node.storage is not None)
    @rule()
    def look_at_owed(self) -> None:
        """Begin a checkpoint, which is written down later."""
        self.owed = TopicOwed(self.node.topic("t"), self.node.log("t"))

    @precondition(lambda self: self.node.storage is not None)
    @rule(carry=st.booleans())
    def checkpoint(self, carry: bool) -> None:
        """Write down what is owed, or was owed a while ago, and maybe carry old messages forward after it."""
        log = self.node.log("t")
        owed, self.owed = self.owed or TopicOwed(self.node.topic("t"), log), None
        left = [] if owed.oldest is None else stuck(owed, owed.oldest)
        log.checkpoint(record(owed))
        if carry and not log.read_failure:
            carry_forward(left, log)

    @precondition(lambda self: self.node.storage is not None)
    @rule(seconds=st.sampled_from([0, 0, 45]))
    def restart(self, seconds: int) -> None:
        """A clean exit and a new start."""
        self.node.stop()
        self.node.clock.now += seconds * SECOND
        self.node.restart()
        self.owed = None
        self.consumers, self.in_hand = [], []

    @precondition(lambda self: self.node.flavour in ("os", "fsync"))
    @rule()
    def kill(self) -> None:
        """No clean exit: second deliveries are allowed, losses are not."""
        self.node.clock.now += START  # without it ids of messages that can't be read now might be given again
        self.node.restart()
        self.owed = None
        self.consumers, self.in_hand = [], []
        self.killed = True
        for owed in self.channels.values():
            for message in owed.values():
                message.attempts = 0
                message.in_topic |= self.paused
                message.due = message.published_due  # the delay of a REQ may be forgotten

    # -- what must hold

    def look(self) -> None:
        """Take in what was delivered."""
        sent, self.node.sent = self.node.sent, []
        for now, consumer, delivery in sent:
            channel = self.channel_of[consumer]
            message = self.channels[channel].get(delivery.body)
            if self.killed and message is None:
                message = self.channels[channel][delivery.body] = Fate(0)
            assert message is not None, f"{delivery.body!r} was never given to {channel}"
            assert self.killed or not message.done, f"{delivery.body!r} came again after its end"
            assert message.due <= now, f"{delivery.body!r} came early"
            assert message.attempts < delivery.attempts, f"attempts of {delivery.body!r} fell"
            message.attempts = delivery.attempts
            self.in_hand.append((consumer, channel, delivery))

    @invariant()
    def books_are_balanced(self) -> None:
        """Everything that entered a channel is somewhere."""
        self.node.check()

    def teardown(self) -> None:
        """Whatever is owed is delivered in the end."""
        if not hasattr(self, "node"):
            return
        node = self.node
        if node.storage is not None:
            node.log("t").read_failure = ""
        self.pause_topic(False)
        for _, consumer in self.consumers:
            consumer.leave()
        self.look()
        self.in_hand = []
        for name in self.channels:
            node.channel("t", name).pause(paused=False)
            consumer = node.client().subscribe("t", name)
            self.channel_of[consumer] = name
            consumer.ready(2500)
        for _ in range(14):
            self.look()
            while self.in_hand:
                consumer, channel, delivery = self.in_hand.pop()
                consumer.finish(delivery.id)
                self.channels[channel][delivery.body].done = True
                self.look()
            node.clock.jump(29)
        for name, owed in self.channels.items():
            assert [] == [body for body, message in owed.items() if not message.done], (
                f"never delivered to {name}"
            )
            channel = node.topic("t").channels[name]
            assert (0, 0) == (channel.queue.lost_count, channel.queue.dropped_count)
            assert (0, 0, 0) == (channel.queue.depth(), channel.in_flight_count, len(channel.deferred))
        node.check()


@pytest.mark.parametrize("flavour", ["nothing", "memory", "os", "fsync"])
def test_random_histories(new_node, flavour):
    """Whatever happens, every message is delivered until it is finished, in its time, with growing attempts."""

    class Machine(History):
        make = staticmethod(lambda **options: new_node(flavour, **options))

    run_state_machine_as_test(Machine, settings=settings(max_examples=60, stateful_step_count=40))
