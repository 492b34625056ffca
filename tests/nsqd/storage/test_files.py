"""What the logs of a data path share: the guard of free space, syncs, and the replay of the journal."""

import errno
import os

import pytest

from nsqkit.nsqd.core.batch import FAILED, KEPT, Batch
from nsqkit.nsqd.core.settings import SECOND
from nsqkit.nsqd.core.store import StoreError
from nsqkit.nsqd.durability import Durability
from nsqkit.nsqd.storage.segment import BATCH_HEADER, FILE_HEADER

RESERVE = 1_000_000


class TestDataPath:
    """Nothing is OK'd that goes into a data path which is not where it was."""

    def test_misplaced(self, home, contents):
        """Writes are refused with the cause as soon as it is seen, copies too, until the data path is back."""
        log = home.open()
        home.write(log, b"one")
        home.disk.misplaced = lambda: "moved away"
        home.write(log, b"two")  # not seen yet
        home.storage.shared.look_before_writing()

        for carried in (False, True):
            with pytest.raises(StoreError, match="moved away"):
                home.write(log, b"lost", carried=carried)
        assert {"data path": "moved away"} == home.storage.shared.health.reasons
        home.disk.misplaced = lambda: ""

        home.write(log, b"three")
        assert [b"one", b"two", b"three"] == [body for _, body in contents(log)]
        assert {} == home.storage.shared.health.reasons

    def test_new_topics(self, home):
        """No topic's directory is made in somebody else's data path."""
        home.disk.misplaced = lambda: "moved away"

        with pytest.raises(StoreError, match="the log of new can't be opened: moved away"):
            home.open("new")

        assert not os.path.exists(f"{home.disk.root}/new")


class TestFreeSpace:
    """Publishes are refused before the disk is full."""

    @pytest.fixture
    def home(self, home):
        """A reserve."""
        home.min_free_bytes = RESERVE
        home.begin()
        return home

    def test_enough(self, home):
        """The disk is asked now and then, not at every write."""
        home.disk.free = RESERVE
        log = home.open()
        home.fill(log, 100)

        assert 1 == len(home.disk.names_called("free_bytes"))

    def test_too_little(self, home, contents):
        """A publish fails with the cause, and succeeds as soon as there is room; both are said once."""
        log = home.open()
        home.disk.free = RESERVE - 1
        for _ in range(2):
            with pytest.raises(StoreError, match="less than 1000000 bytes are free"):
                home.write(log, b"one")
        assert [] == home.segments()
        home.disk.free = RESERVE
        home.fill(log, 2)

        assert 2 == len(contents(log))
        assert ["full up to the reserve", "room again"] == [
            word for line in home.reports for word in ("full up to the reserve", "room again") if word in line
        ]

    def test_while_nothing_is_written(self, home):
        """Others write to the disk, too: it is looked at in between, and a look never raises."""
        log = home.open()
        home.fill(log, 1)
        home.disk.free = 0
        home.disk.fail("free_bytes", errno.EIO)
        home.storage.shared.look()
        home.fill(log, 1)

        home.storage.shared.look()

        with pytest.raises(StoreError):
            home.fill(log, 1)

    def test_copies_may_use_the_reserve(self, home, contents):
        """They let files go, or are what a broker in memory mode saves at its end."""
        log = home.open()
        home.disk.free = 0

        home.write(log, b"copy", carried=True)

        assert [(0, b"copy")] == contents(log)

    def test_without_a_reserve(self, home):
        """Nothing is refused before the system refuses it, but what nobody needs goes when there is hardly any room."""
        home.min_free_bytes = 0
        home.begin()
        home.disk.free = 1000
        home.storage.shared.look()
        home.fill(home.open(), 1)

        shared = home.storage.shared
        assert (False, True, True) == (shared.low, shared.full, shared.tight())
        assert {} == shared.health.reasons
        home.disk.free = 1 << 20
        shared.look()
        assert not shared.tight()


class TestSyncs:
    """Which logs have something to sync."""

    def test_only_what_was_written(self, home):
        """Each log once, however often it was written."""
        logs = [home.open(topic) for topic in "abc"]
        for log in (logs[0], logs[1], logs[0]):
            home.fill(log, 1)

        assert 3 == home.storage.shared.unsynced_batches
        jobs = home.storage.sync_jobs()

        assert (2, 0) == (len(jobs), home.storage.shared.unsynced_batches)
        assert [] == home.storage.sync_jobs()

    def test_a_deleted_log(self, home):
        """There is nothing to sync any more."""
        log = home.open()
        home.fill(log, 1)
        log.delete()

        assert [] == home.storage.sync_jobs()

    def test_no_descriptors(self, home):
        """The others are synced, and this one is tried again."""
        for topic in "ab":
            home.fill(home.open(topic), 1)
        home.disk.fail("open", errno.EMFILE)

        assert ["sync failed: Too many open files"] == home.sync()
        assert 1 == home.storage.shared.sync_failures
        assert 1 == home.storage.shared.unsynced_batches
        assert [] == home.sync()


class TestOpenFiles:
    """Few logs keep their files open, however many there are."""

    @pytest.fixture
    def home(self, home):
        """Three logs may."""
        home.max_open_logs = 3
        home.begin()
        return home

    def test_the_one_idle_for_longest_closes_its_files(self, home):
        """Writing and reading count; which log comes next is not foreseen."""
        logs = {topic: home.open(topic) for topic in "abcde"}
        for topic in "abc":
            home.fill(logs[topic], 2)
        logs["a"].read(0, 1, 1)
        assert {"a", "b", "c"} == home.disk.directories_open()

        home.fill(logs["d"], 1)
        assert {"a", "c", "d"} == home.disk.directories_open()

        logs["b"].read(0, 1, 1)
        assert {"a", "b", "d"} == home.disk.directories_open()

        logs["d"].delete()
        home.fill(logs["e"], 1)
        assert {"a", "b", "e"} == home.disk.directories_open()

    def test_nothing_is_lost(self, home, contents):
        """What was written through files that were closed is read, written on, synced, and survives a power cut."""
        home.max_bytes_per_file = 500
        home.begin()
        logs = [home.open(f"t{number}") for number in range(8)]
        written: list[list[bytes]] = [[] for _ in logs]
        for _ in range(5):
            for log, kept in zip(logs, written, strict=True):
                kept.extend(home.fill(log, 2))
            assert home.disk.opened() <= 6
        for log, kept in zip(logs, written, strict=True):
            assert list(enumerate(kept)) == contents(log)
            assert home.disk.opened() <= 6

        assert [] == home.sync()
        home.disk.cut()
        home.begin()

        for number, kept in enumerate(written):
            assert list(enumerate(kept)) == contents(home.open(f"t{number}"))


class TestReplay:
    """What the logs lost comes back from the journal."""

    @pytest.fixture
    def life(self, new_life):
        """A broker in fsync mode."""
        return new_life(Durability.FSYNC, mem_queue_size=0)

    def test_the_end_of_a_log(self, life):
        """A power cut took it; the messages come once, in order, to every channel, ids and times as they were."""
        life.topic("t", "a", "b")
        life.publish("t", b"1", b"2")
        life.sync()
        batches = [life.publish("t", b"3"), life.publish("t", b"4", b"5")]

        life.cut()

        assert 3 == life.replayed
        consumer = life.consumer("t", "a")
        assert [b"1", b"2", b"3", b"4", b"5"] == [body for body, _, _ in consumer.held.values()]
        times = {body: (message_id, time) for message_id, (body, _, time) in consumer.held.items()}
        assert (b"%016x" % batches[0].first_id, batches[0].timestamp) == times[b"3"]
        assert (b"%016x" % (batches[1].first_id + 1), batches[1].timestamp) == times[b"5"]
        assert [b"1", b"2", b"3", b"4", b"5"] == [body for body, _ in life.drain("t", "b")]
        assert [] == life.home.storage.journal.files()
        life.kill()
        assert (0, 5) == (life.replayed, life.broker.topic("t").store.end())

    def test_nothing_is_missing(self, life):
        """After a kill the logs have everything; nothing comes twice."""
        life.topic("t", "a")
        life.publish("t", b"1")

        life.kill()

        assert 0 == life.replayed
        assert [(b"1", 1)] == life.drain("t", "a")

    def test_a_kill_and_then_a_power_cut(self, life):
        """The second process syncs what the first one wrote before it lets the journal go."""
        life.topic("t", "a")
        life.publish("t", b"1")
        life.kill()
        life.cut()

        assert 0 == life.replayed
        assert [(b"1", 1)] == life.drain("t", "a")

    def test_a_checkpoint_ahead_of_the_log(self, life):
        """A checkpoint that survived knows positions that the log has lost: they come back as they were."""
        life.topic("t", "a")
        life.publish("t", b"1")
        life.sync()
        life.publish("t", b"2", b"3")
        life.publish("t", b"4")
        consumer = life.consumer("t", "a", ready=2)
        consumer.finish(list(consumer.held)[1])
        life.checkpoint()
        kept = life.disk.load(f"{life.disk.root}/t/checkpoint")
        life.disk.cut()
        life.disk.replace(f"{life.disk.root}/t/checkpoint", kept)

        life.begin()

        assert 3 == life.replayed
        assert 4 == life.broker.topic("t").store.end()
        assert [(b"1", 2), (b"3", 1), (b"4", 1)] == sorted(life.drain("t", "a"))
        assert 0 == life.channel("t", "a").queue.lost_count

    def test_a_hole_in_front_of_the_end(self, life):
        """The system writes in any order: what is missing in front of whole batches comes back, at the end."""
        life.topic("t", "a")
        for body in (b"1", b"2", b"3", b"4"):
            life.publish("t", body)
        life.disk.kill()
        size = BATCH_HEADER + 5
        with open(f"{life.disk.root}/t/{0:020d}.log", "r+b") as file:
            file.seek(FILE_HEADER + size)
            file.write(bytes(size))

        life.begin()

        assert 1 == life.replayed
        assert [b"1", b"3", b"4", b"2"] == [body for body, _ in life.drain("t", "a")]

    def test_a_file_in_front_that_is_gone(self, life):
        """The system may have made the name of a later file durable, and not that of the first."""
        life.home.max_bytes_per_file = 1
        life.topic("t", "a")
        life.kill()
        for body in (b"1", b"2", b"3"):
            life.publish("t", body)
        life.disk.kill()
        os.unlink(f"{life.disk.root}/t/{0:020d}.log")
        os.truncate(f"{life.disk.root}/t/{1:020d}.log", 0)

        life.begin()

        assert 2 == life.replayed
        assert [b"3", b"1", b"2"] == [body for body, _ in life.drain("t", "a")]

    def test_a_log_that_is_gone(self, life):
        """All of it comes back under the old positions."""
        life.topic("t", "a")
        life.publish("t", b"1", b"2")
        life.cut()

        assert 2 == life.replayed
        assert [b"1", b"2"] == [body for body, _ in life.drain("t", "a")]

    def test_what_nobody_needs(self, life):
        """What is in front of the log was removed because everybody had it."""
        life.home.max_bytes_per_file = 200
        life.topic("t", "a")
        life.kill()
        for _ in range(6):
            life.publish("t", b"x" * 50)
        life.drain("t", "a")
        life.checkpoint()
        assert life.broker.topic("t").store.start() > 0
        life.kill()

        assert 0 == life.replayed
        assert [] == life.drain("t", "a")

    def test_unknown_topics(self, life):
        """They were deleted, and stay so."""
        life.topic("t", "a")
        life.publish("t", b"1")
        life.broker.delete_topic("t")
        life.known = {}

        life.kill()

        assert (0, []) == (life.replayed, [n for n in os.listdir(life.disk.root) if n != "journal"])

    @pytest.mark.parametrize("cut", [False, True])
    def test_a_topic_that_was_deleted_and_made_again(self, life, cut):
        """Its positions begin anew, but it gets nothing of what the old one had."""
        life.topic("t", "a")
        life.publish("t", b"old 1", b"old 2")
        life.publish("t", b"old 3")
        life.broker.delete_topic("t")
        life.topic("t", "a")
        life.publish("t", b"new")

        life.cut() if cut else life.kill()

        assert [(b"new", 1)] == life.drain("t", "a")

    def test_deleted_and_made_again_within_a_turn(self, life):
        """The journal hears of the deletion between the publishes of the old topic and those of the new one."""
        life.topic("t", "a")
        old = Batch(b"\0\0\0\1o", 1, 0, 0, None)
        life.broker.topic("t").publish(old.data, 1, 0, None, life.now)
        life.broker.changes.finish(life.broker.changes.count, "")  # a daemon saves it
        life.broker.work(life.now)
        life.broker.delete_topic("t")
        life.topic("t", "a")
        life.publish("t", b"new")

        life.cut()

        assert [(b"new", 1)] == life.drain("t", "a")

    def test_other_modes_bury_nothing(self, new_life):
        """Without a journal a deletion is nothing to wait for."""
        life = new_life(Durability.OS)
        life.topic("t", "a")
        life.broker.delete_topic("t")

        assert [] == life.broker.unsynced

    def test_the_reserve_may_be_used(self, life):
        """What was confirmed is brought back even if publishes would be refused."""
        life.home.min_free_bytes = RESERVE
        life.topic("t", "a")
        life.publish("t", b"1")
        life.disk.free = 0

        life.cut()

        assert 1 == life.replayed
        assert FAILED == life.publish("t", b"2").state

    @pytest.mark.parametrize("call", ["write", "sync", "load", "open"])
    def test_a_replay_that_fails(self, life, call):
        """It is an error of the start, the journal stays, and the next start succeeds."""
        life.topic("t", "a")
        life.publish("t", b"1")
        life.sync()
        life.publish("t", b"2")
        life.disk.cut()
        life.disk.fail(call, errno.EIO, after=2 if call == "load" else 0, times=2)

        with pytest.raises(StoreError, match="Input/output error"):
            life.begin()
        life.kill()

        assert [b"1", b"2"] == [body for body, _ in life.drain("t", "a")]

    def test_a_damaged_journal(self, life):
        """Everything else comes back, and the file is kept, with a line."""
        life.topic("t", "a")
        for body in (b"1", b"2", b"3"):
            life.publish("t", body)
        path = life.home.storage.journal.files()[0]
        life.disk.cut()
        with open(path, "r+b") as file:
            file.seek(100)
            file.write(b"?")

        life.begin()

        assert [b"1", b"3"] == [body for body, _ in life.drain("t", "a")]
        assert [f"{os.path.basename(path)}.damaged"] == os.listdir(f"{life.disk.root}/journal")
        assert ["damaged or incomplete" in line for line in life.home.reports] == [True]

    def test_publishing_goes_on(self, life):
        """Positions and ids behind a replay are new."""
        life.topic("t", "a")
        old = life.publish("t", b"1")
        life.now -= 3600 * SECOND  # the clock was set back
        life.cut()

        new = life.publish("t", b"2")

        assert KEPT == new.state
        assert new.first_id > old.first_id
        assert (0, 1) == (old.first_position, new.first_position)
        assert [b"1", b"2"] == [body for body, _ in life.drain("t", "a")]
