"""What housekeeping does with the journal: syncs, and files that can go."""

import asyncio
import errno

import pytest

from nsqkit.nsqd.core.batch import FAILED, KEPT, PENDING
from tests.nsqd.storage.keeper import Keeper


class TestHousekeeping:
    """Files of the journal go when, and only when, the logs have what is in them."""

    @pytest.fixture
    def run(self, home):
        """Run a scenario in a loop."""

        def run(scenario):
            async def main():
                keeper = Keeper(home)
                await scenario(keeper)
                await keeper.keeping.stop()

            asyncio.run(main())

        return run

    def test_kept_after_the_journal_is_synced(self, run):
        """A publish is settled by the commit that covers it."""

        async def scenario(keeper):
            batch = keeper.publish("t", b"one")
            assert PENDING == batch.state
            await keeper.rest()
            assert KEPT == batch.state
            assert ["0001"] == keeper.files()

        run(scenario)

    def test_one_commit_for_all_that_arrive_meanwhile(self, run):
        """While one sync runs, everything else waits for the next, together."""

        async def scenario(keeper):
            batches = [keeper.publish(f"t{n}", b"one") for n in range(20)]
            await keeper.rest()
            assert {KEPT} == {batch.state for batch in batches}
            assert [("sync", "0000000001.journal")] * 2 == keeper.home.disk.names_called("sync")

        run(scenario)

    def test_files_are_removed_after_a_sync(self, run):
        """All that were complete when the sync began, also the last one."""

        async def scenario(keeper):
            for number in range(3):
                keeper.publish("t", b"one")
                await keeper.rest()
                keeper.keeping._sync()
                assert [f"{number + 1:04d}"] == keeper.files()
                await keeper.rest()
                assert [] == keeper.files()

        run(scenario)

    def test_what_is_published_meanwhile_stays(self, run, home, contents):
        """A sync that is running does not cover what comes now: that is in another file."""

        async def scenario(keeper):
            keeper.publish("t", b"one")
            await keeper.rest()
            keeper.keeping._sync()
            late = keeper.publish("t", b"two")
            await keeper.rest()
            assert (KEPT, ["0002"]) == (late.state, keeper.files())

            home.disk.cut()
            home.begin().replay_journal({"t"}.__contains__)
            assert [(0, b"one"), (1, b"two")] == contents(home.open())

        run(scenario)

    def test_a_commit_that_is_running(self, run, home, contents):
        """Whether its file is there already or not: what it writes is covered by the sync, or stays."""

        async def scenario(keeper):
            keeper.publish("t", b"one")  # its commit runs now
            keeper.keeping._sync()
            await keeper.rest()

            home.disk.cut()
            home.begin().replay_journal({"t"}.__contains__)
            assert [(0, b"one")] == contents(home.open())

        run(scenario)

    def test_a_log_that_can_not_be_synced(self, run, home, contents):
        """Its publishes stay in the journal, whatever is synced later, until that log is synced, too."""

        async def scenario(keeper):
            keeper.publish("bad", b"one")
            await keeper.rest()
            home.disk.fail("sync", errno.EIO)
            keeper.keeping._sync()
            await keeper.rest()
            assert ["0001"] == keeper.files()
            assert "sync failed" in keeper.broker.health.text()

            keeper.publish("good", b"two")
            await keeper.rest()
            home.disk.fail("sync", errno.EIO)
            keeper.keeping._sync()
            await keeper.rest()
            assert ["0001", "0002"] == keeper.files()

            keeper.keeping._sync()
            await keeper.rest()
            assert [] == keeper.files()
            home.disk.cut()
            home.begin()
            assert [(0, b"one")] == contents(home.open("bad"))
            assert [(0, b"two")] == contents(home.open("good"))

        run(scenario)

    def test_no_descriptor_for_a_sync(self, run, home):
        """A log that could not even be tried is tried the next time."""

        async def scenario(keeper):
            keeper.publish("t", b"one")
            await keeper.rest()
            home.disk.fail("open", errno.EMFILE)
            keeper.keeping._sync()
            await keeper.rest()
            assert ["0001"] == keeper.files()
            keeper.keeping._sync()
            await keeper.rest()
            assert [] == keeper.files()

        run(scenario)

    def test_a_commit_that_fails(self, run, home):
        """The publish fails; the next one is kept."""

        async def scenario(keeper):
            home.disk.fail("sync", errno.EIO)
            bad = keeper.publish("t", b"one")
            await keeper.rest()
            good = keeper.publish("t", b"two")
            await keeper.rest()
            assert (FAILED, "journal: Input/output error", KEPT) == (bad.state, bad.cause, good.state)

        run(scenario)

    def test_no_checkpoint_names_a_channel_that_is_not_saved(self, run):
        """What the topic gave to it would be nobody's after a kill: neither the topic's, nor a known channel's."""

        async def scenario(keeper):
            keeper.publish("t", b"one")
            keeper.broker.topics["t"].channel("new", 1)
            assert [] == [one.topic for one in keeper.keeping._look_at_owed()]
            assert [keeper.broker.topics["t"]] == keeper.broker.dirty

            keeper.broker.changes.finish(keeper.broker.changes.count, "")
            assert [keeper.broker.topics["t"]] == [one.topic for one in keeper.keeping._look_at_owed()]

        run(scenario)

    def test_a_deletion_counts_until_the_journal_knows_of_it(self, run, home, contents):
        """A new topic of the name gets nothing of the old one, when power fails right after it was made."""

        async def scenario(keeper):
            keeper.publish("t", b"old")
            await keeper.rest()
            keeper.broker.delete_topic("t")
            keeper.broker.topic("t")
            assert 1 == keeper.broker.deletions  # until then the metadata is not saved
            keeper.turn()
            await keeper.rest()
            assert 0 == keeper.broker.deletions

            home.disk.cut()
            assert 0 == home.begin().replay_journal({"t"}.__contains__)
            assert [] == contents(home.open())

        run(scenario)

    def test_a_clean_end(self, run, home, contents):
        """The journal is empty, and power may fail: nothing is checked or replayed at the next start."""

        async def scenario(keeper):
            for topic in ("a", "b"):
                keeper.publish(topic, b"one")
            await keeper.keeping.stop()
            keeper.keeping.close_logs()
            assert [] == keeper.files()
            assert 0 == home.disk.opened()

            home.disk.cut()
            assert 0 == home.begin().replay_journal(lambda _: True)
            assert [(0, b"one")] == contents(home.open("b"))

        run(scenario)

    def test_an_end_on_a_bad_disk(self, run, home):
        """What could not be synced stays in the journal, and the error is logged."""

        async def scenario(keeper):
            keeper.publish("t", b"one")
            await keeper.keeping.stop()
            home.disk.fail("sync", errno.EIO, times=9)
            keeper.keeping.close_logs()
            assert ["0001"] == keeper.files()
            assert "sync failed: Input/output error" in keeper.lines.getvalue()

        run(scenario)
