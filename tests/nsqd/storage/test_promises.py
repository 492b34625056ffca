"""What an OK means, over a broker with its logs on a disk that is killed, cut off and fails.

`os`      every publish that was confirmed is there after a kill; after a power cut, what was synced
`fsync`   every publish that was confirmed is there after a kill and after a power cut
`memory`  it is there after a clean exit
all       what was finished before the last checkpoint does not come again after a kill; nothing comes that was never
          published, and nothing that failed before the disk was touched
"""

import errno
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsqkit.nsqd.core.batch import FAILED, KEPT
from nsqkit.nsqd.core.settings import SECOND
from nsqkit.nsqd.core.store import StoreError
from nsqkit.nsqd.durability import Durability

TOPICS = ("t", "u")
CHANNELS = ("a", "b")


class Ledger:
    """What a test knows about each message of each channel."""

    def __init__(self, life) -> None:
        self.life = life
        self.published: set[bytes] = set()
        self.kept: dict[str, set[bytes]] = {topic: set() for topic in TOPICS}  # confirmed
        self.synced: dict[str, set[bytes]] = {topic: set() for topic in TOPICS}  # and then synced
        self.done: dict[tuple[str, str], set[bytes]] = {}  # finished at some time
        self.over: dict[tuple[str, str], set[bytes]] = {}  # finished, as far as the broker knows
        self.gone: dict[tuple[str, str], set[bytes]] = {}  # finished, as far as the last checkpoint knows
        self.consumers: dict[tuple[str, str], Any] = {}
        self.copies = False  # channels saved copies, and no checkpoint says whose they are
        self.number = 0
        for topic in TOPICS:
            life.topic(topic, *CHANNELS)
            for channel in CHANNELS:
                for finished in (self.done, self.over, self.gone):
                    finished[topic, channel] = set()

    def publish(self, topic: str, count: int, delay: int) -> None:
        """Some messages, all different."""
        bodies = [b"%d" % (self.number + n) + b"." * (self.number % 50) for n in range(count)]
        self.number += count
        self.published.update(bodies)
        batch = self.life.publish(topic, *bodies, delay=delay)
        if batch.state == KEPT:
            self.kept[topic].update(bodies)

    def consume(self, topic: str, channel: str, count: int, then: str) -> None:
        """Take some messages, and finish, requeue or hold them."""
        consumer = self.consumers.get((topic, channel))
        if consumer is None or not consumer.alive():
            consumer = self.consumers[topic, channel] = self.life.consumer(topic, channel, ready=5)
        for message_id in consumer.in_flight()[:count]:
            if then == "finish":
                body = consumer.finish(message_id)
                self.done[topic, channel].add(body)
                self.over[topic, channel].add(body)
            elif then == "requeue":
                consumer.requeue(message_id, 0)
            elif then == "defer":
                consumer.requeue(message_id, 60_000)
        self.life.turn()

    def sync(self) -> None:
        """What is confirmed now is safe."""
        kept = {topic: set(bodies) for topic, bodies in self.kept.items()}
        if not self.life.sync():
            self.synced = kept

    def checkpoint(self) -> None:
        """What is finished now does not come again after a kill."""
        if not self.life.checkpoint():
            self.gone = {key: set(bodies) for key, bodies in self.over.items()}

    def restart(self, how: str, chance: random.Random) -> None:
        """The end of a process, and the next one."""
        mode = self.life.settings.durability
        self.consumers = {}
        if how == "exit":
            self.life.exit()
            self.life.kill()
            self.gone = {key: set(bodies) for key, bodies in self.over.items()}
            return
        if how == "kill":
            self.life.kill()
        else:
            self.life.cut(chance if how == "cut by chance" else None)
            self.copies = mode == Durability.MEMORY
            self.gone = {key: set() for key in self.gone}
        self.over = {key: set(bodies) for key, bodies in self.gone.items()}
        if mode == Durability.MEMORY:
            self.kept = {topic: set() for topic in TOPICS}
        elif mode == Durability.OS and how != "kill":
            self.kept = {topic: set(bodies) for topic, bodies in self.synced.items()}

    def check(self) -> None:
        """Take everything there is, and compare."""
        for topic, channel in self.done:
            taken = {body for body, _ in self.life.drain(topic, channel)}
            lost = self.kept[topic] - self.done[topic, channel] - taken
            again = set() if self.copies else self.gone[topic, channel] & taken
            assert (set(), set(), set()) == (lost, again, taken - self.published)


delays = st.sampled_from([0, 0, 0, 1, 30 * SECOND, 7200 * SECOND])
steps = st.one_of(
    st.tuples(st.just("publish"), st.sampled_from(TOPICS), st.integers(1, 6), delays),
    st.tuples(
        st.just("consume"),
        st.sampled_from(TOPICS),
        st.sampled_from(CHANNELS),
        st.integers(1, 5),
        st.sampled_from(["finish", "finish", "finish", "requeue", "defer", "hold"]),
    ),
    st.just(("sync",)),
    st.just(("checkpoint",)),
    st.tuples(st.just("wait"), st.sampled_from([1, 20, 70])),
)
restarts = st.tuples(st.just("restart"), st.sampled_from(["kill", "kill", "cut", "cut by chance", "exit"]))


@pytest.mark.parametrize("mode", list(Durability))
@settings(max_examples=60)
@given(
    lives=st.lists(st.tuples(st.lists(steps, max_size=25), restarts), min_size=1, max_size=4),
    in_memory=st.sampled_from([0, 3, 1000]),
    seed=st.integers(0, 1 << 30),
)
def test_every_mode_keeps_its_promise(new_life, mode, lives, in_memory, seed):
    """Whatever is done between restarts of every kind."""
    life = new_life(mode, mem_queue_size=in_memory, max_bytes_per_file=500)
    ledger = Ledger(life)
    chance = random.Random(seed)
    for some_steps, end in lives:
        for name, *arguments in [*some_steps, end]:
            if name == "wait":
                life.now += arguments[0] * SECOND
                life.turn()
            elif name == "restart":
                ledger.restart(arguments[0], chance)
            else:
                getattr(ledger, name)(*arguments)
    ledger.check()


@pytest.mark.parametrize("mode", [Durability.OS, Durability.FSYNC])
@settings(max_examples=60)
@given(
    before=st.lists(steps, max_size=15),
    writes=st.integers(0, 12),
    after=st.lists(steps, max_size=10),
    in_memory=st.sampled_from([0, 3, 1000]),
)
def test_dying_in_the_middle_of_a_write(new_life, killed, mode, before, writes, after, in_memory):
    """Wherever the process dies: what was confirmed until then is there, and it goes on."""
    life = new_life(mode, mem_queue_size=in_memory, max_bytes_per_file=500)
    ledger = Ledger(life)
    steps = [*before, ("publish", "t", 3, 0), ("publish", "u", 1, 0)]
    life.disk.die(writes)
    try:
        for name, *arguments in [step for step in steps if step[0] != "wait"]:
            getattr(ledger, name)(*arguments)
    except killed:
        pass
    ledger.restart("kill", random.Random(0))
    for name, *arguments in [step for step in after if step[0] != "wait"]:
        getattr(ledger, name)(*arguments)
    ledger.check()


@pytest.mark.parametrize("mode", list(Durability))
@settings(max_examples=60)
@given(
    some_steps=st.lists(steps, min_size=5, max_size=30),
    faults=st.lists(
        st.tuples(
            st.sampled_from(["write", "sync", "open", "create", "read", "truncate", "replace", "remove"]),
            st.sampled_from([errno.EIO, errno.ENOSPC, errno.EMFILE]),
            st.integers(0, 6),
            st.integers(1, 3),
        ),
        max_size=4,
    ),
    in_memory=st.sampled_from([0, 3]),
    short=st.sampled_from([7, 61, 1 << 20]),
)
def test_a_disk_that_fails(new_life, mode, some_steps, faults, in_memory, short):
    """An error loses nothing that was confirmed: not now, and not after the next kill."""
    life = new_life(mode, mem_queue_size=in_memory, max_bytes_per_file=500)
    ledger = Ledger(life)
    for call, error, after, times in faults:
        life.disk.fail(call, error, after=after, times=times)
    life.disk.most = short
    for name, *arguments in some_steps:
        if name == "wait":
            life.now += arguments[0] * SECOND
            life.turn()
        else:
            getattr(ledger, name)(*arguments)
    life.disk.heal()
    if mode != Durability.MEMORY:
        ledger.restart("kill", random.Random(0))
    else:
        life.now += 2 * SECOND
        life.turn()
    ledger.check()


class TestReadErrors:
    """A log that can't be read now keeps its messages where they are."""

    @pytest.fixture
    def life(self, new_life):
        """A broker that keeps nothing in memory."""
        return new_life(Durability.OS, mem_queue_size=0)

    @pytest.mark.parametrize("call, error", [("read", errno.EIO), ("open", errno.EMFILE)])
    def test_delivery_goes_on_when_it_works_again(self, life, call, error):
        """Nothing is lost; the broker is unhealthy meanwhile, and tries again each second."""
        life.home.max_bytes_per_file = 1  # each batch in a file of its own
        life.kill()
        life.topic("t", "a")
        life.publish("t", b"1", b"2")
        life.publish("t", b"3")
        life.kill()
        life.disk.fail(call, error, times=100)

        consumer = life.consumer("t", "a")
        assert ({}, 3) == (consumer.held, life.channel("t", "a").queue.depth())
        assert "can't be read" in life.broker.health.text()
        assert not life.broker.busy()
        assert life.now < life.broker.deadlines.next() <= life.now + SECOND

        life.now += SECOND
        life.turn()
        assert {} == consumer.held
        life.disk.heal()
        life.now += SECOND
        life.turn()
        assert [b"1", b"2", b"3"] == [body for body, _, _ in consumer.held.values()]
        assert "" == life.broker.health.text()
        assert 0 == life.channel("t", "a").queue.lost_count
        life.channel("t", "a").check()

    def test_another_publish_is_another_try(self, life):
        """The channel need not wait for the second to pass."""
        life.topic("t", "a")
        life.publish("t", b"1")
        life.kill()
        life.disk.fail("read", errno.EIO, times=100)
        consumer = life.consumer("t", "a")
        life.disk.heal()

        life.publish("t", b"2")

        assert [b"1", b"2"] == [body for body, _, _ in consumer.held.values()]

    def test_other_channels_are_not_held_up(self, life):
        """A topic whose log can be read is delivered."""
        for topic in TOPICS:
            life.topic(topic, "a")
            life.publish(topic, b"1")
        life.kill()
        life.disk.fail("read", errno.EIO, times=100)
        first = life.consumer("t", "a")
        life.disk.heal()

        assert (0, 1) == (len(first.held), len(life.consumer("u", "a").held))

    def test_messages_with_attempts(self, life):
        """What was in flight and is loaded in several reads stays, too, with its attempts."""
        life.topic("t", "a")
        one, two, three = (body * 300_000 for body in (b"1", b"2", b"3"))
        for body in (one, two, three):
            life.publish("t", body)
        life.consumer("t", "a")
        life.checkpoint()
        life.kill()
        life.disk.fail("read", errno.EIO, after=3, times=100)

        consumer = life.consumer("t", "a")
        assert [(one, 2)] == [message[:2] for message in consumer.held.values()]
        life.disk.heal()
        life.now += SECOND
        life.turn()

        assert [(one, 2), (two, 2), (three, 2)] == [message[:2] for message in consumer.held.values()]

    def test_at_a_start(self, life):
        """A start goes on without the log; everything is delivered once it can be read, deferred messages in time."""
        life.topic("t", "a")
        life.publish("t", b"now")
        life.publish("t", b"later", delay=20 * SECOND)
        life.checkpoint()
        life.publish("t", b"behind the checkpoint")
        life.publish("t", b"and later", delay=20 * SECOND)
        life.disk.kill()
        life.disk.fail("read", errno.EIO, after=2, times=100)  # the log can be opened

        life.begin()
        assert "can't be read" in life.broker.health.text()
        life.disk.heal()
        consumer = life.consumer("t", "a")

        assert [b"now", b"behind the checkpoint"] == [body for body, _, _ in consumer.held.values()]
        assert 2 == len(life.channel("t", "a").deferred)
        life.now += 21 * SECOND
        life.turn()
        assert 4 == len({body for body, _, _ in consumer.held.values()})
        life.channel("t", "a").check()

    def test_leftovers_that_can_not_be_carried(self, life):
        """A read error leaves them where they are, and appends nothing to the log."""
        life.home.max_bytes_per_file = 1000
        life.kill()
        life.topic("t", "a")
        life.publish("t", *[b"x" * 20 for _ in range(30)])
        life.checkpoint()
        consumer = life.consumer("t", "a")
        for message_id in list(consumer.held)[1:]:
            consumer.finish(message_id)
        life.publish("t", b"y" * 900)
        end = life.broker.topic("t").store.end()
        life.disk.fail("read", errno.EIO)

        with pytest.raises(Exception, match="can't be read"):
            life.checkpoint()

        assert end == life.broker.topic("t").store.end()
        assert KEPT == life.publish("t", b"z").state
        assert end + 1 == life.broker.topic("t").store.end()


def test_copies_without_a_checkpoint_go_to_every_channel(new_life):
    """Nobody knows any more who they were for; too many get them, but they are not lost."""
    life = new_life(Durability.MEMORY)
    life.topic("t", "a", "b")
    life.publish("t", b"1", b"2")
    life.exit()
    life.disk.remove(f"{life.disk.root}/t/checkpoint")

    life.kill()

    assert [b"1", b"2"] == [body for body, _ in life.drain("t", "a")]
    assert [b"1", b"2"] == [body for body, _ in life.drain("t", "b")]


def test_a_clean_exit_in_memory_mode_survives_a_power_cut(new_life):
    """What was in memory is in the log, and what names it is on the disk, before the process ends."""
    life = new_life(Durability.MEMORY)
    life.topic("t", "a", "b")
    life.publish("t", b"1", b"2", b"3")
    consumer = life.consumer("t", "a", ready=1)
    consumer.finish(next(iter(consumer.held)))
    life.turn()
    life.exit()

    life.cut()

    assert [(b"2", 2), (b"3", 1)] == sorted(life.drain("t", "a"))
    assert [b"1", b"2", b"3"] == [body for body, _ in life.drain("t", "b")]


def test_a_long_delay_pins_no_finished_messages(new_life):
    """One message that is deferred for days leaves the large file that it shares with what is finished."""
    life = new_life(Durability.OS, mem_queue_size=10, max_bytes_per_file=100 << 20)
    topic = life.topic("t", "a", "b")
    life.publish("t", b"later", delay=7 * 24 * 3600 * SECOND)
    for number in range(30):
        life.publish("t", b"%d" % number + bytes(100_000))
    assert [] == life.checkpoint()
    for channel in ("a", "b"):
        consumer = life.consumer("t", channel)
        while consumer.held:
            consumer.finish(next(iter(consumer.held)))
            life.turn()
    for _ in range(3):
        assert [] == life.checkpoint()

    assert topic.store.size_bytes() < 1000
    assert 1 == topic.store.segment_count()
    for end in (life.kill, life.cut):
        end()
        assert [1, 1] == [channel.deferred_count() for channel in life.broker.topics["t"].channels.values()]
    life.now += 8 * 24 * 3600 * SECOND
    life.turn()
    assert [(b"later", 1)] == life.drain("t", "a") == life.drain("t", "b")


def test_what_is_written_is_not_left_early(new_life):
    """A segment that grows from checkpoint to checkpoint stays until it is full: what is in flight is not copied."""
    life = new_life(Durability.OS, mem_queue_size=10, max_bytes_per_file=100 << 20)
    topic = life.topic("t", "a")
    consumer = life.consumer("t", "a", ready=2)
    for number in range(30):
        life.publish("t", b"%d" % number + bytes(100_000))
        if len(consumer.held) == 2:
            consumer.finish(next(iter(consumer.held)))
        assert [] == life.checkpoint()

    assert 1 == topic.store.segment_count()
    assert topic.store.size_bytes() > 3_000_000


def test_no_room_to_leave_a_segment(new_life):
    """Nothing changes, and it is tried again."""
    life = new_life(Durability.OS, max_bytes_per_file=100 << 20)
    topic = life.topic("t", "a")
    life.publish("t", b"later", delay=3600 * SECOND)
    life.publish("t", *[bytes(100_000)] * 20)
    life.checkpoint()
    consumer = life.consumer("t", "a")
    for message_id in list(consumer.held):
        consumer.finish(message_id)
    life.turn()
    life.disk.fail("create", errno.ENOSPC)
    with pytest.raises(StoreError, match="No space left"):
        life.checkpoint()

    life.home.storage.shared.full = False
    topic.note_change()
    for _ in range(3):
        assert [] == life.checkpoint()

    assert topic.store.size_bytes() < 1000
    assert 1 == life.channel("t", "a").deferred_count()


def test_leftovers_survive_power_cuts(new_life):
    """A message that was carried forward is safe before the file it was in is removed."""
    life = new_life(Durability.OS, max_bytes_per_file=1000)
    life.topic("t", "a")
    life.publish("t", *[b"%02d" % n + b"x" * 20 for n in range(30)])
    life.publish("t", b"y" * 900)
    life.publish("t", b"z" * 900)
    life.sync()
    life.checkpoint()
    consumer = life.consumer("t", "a")
    for message_id in list(consumer.held)[1:]:
        consumer.finish(message_id)
    life.checkpoint()  # copies it
    life.checkpoint()
    assert life.broker.topic("t").store.start() > 0

    life.cut()

    assert b"00" + b"x" * 20 in [body for body, _ in life.drain("t", "a")]


def test_a_publish_that_fails_is_not_delivered(new_life):
    """The error is the publisher's, and the next publish is kept."""
    life = new_life(Durability.OS)
    life.topic("t", "a")
    life.disk.fail("write", errno.ENOSPC)

    bad, good = life.publish("t", b"bad"), life.publish("t", b"good")

    assert (FAILED, KEPT) == (bad.state, good.state)
    assert "No space left on device" in bad.cause
    assert [b"good"] == [body for body, _ in life.drain("t", "a")]
