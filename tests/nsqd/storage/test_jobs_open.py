"""A new topic's directory and first segment are made by a job of a thread."""

import errno
import os

import pytest


def synced(home):
    """Directories that were synced."""
    return {path for call, path in home.disk.calls if call == "sync_directory"}


class TestOpenJob:
    """A new topic's directory and first segment are made in a thread."""

    @pytest.fixture
    def unopened(self, home):
        """A log that nothing was done for."""
        home.storage.opens_later = True
        return home.open()

    @staticmethod
    def opened(home, log):
        """Open it, as a daemon does; returns the error."""
        job = home.storage.open_job(log)
        job.run()
        job.finish()
        return job.error

    def test_nothing_is_there_before(self, home, unopened):
        """Whoever makes a topic makes no file."""
        assert not unopened.opened()
        assert [] == os.listdir(home.disk.root)

    def test_the_log_begins(self, home, unopened, contents):
        """It is written to and read like any other, and its names are synced."""
        assert "" == self.opened(home, unopened)
        assert unopened.opened()
        written = home.fill(unopened, 2)

        assert list(enumerate(written)) == contents(unopened)
        assert [0] == home.segments()
        assert [] == home.sync()
        assert {home.disk.root, f"{home.disk.root}/t"} == synced(home)
        assert list(enumerate(written)) == contents(home.reopen())

    def test_something_is_there(self, home, contents):
        """A log of an earlier time is opened as at a start."""
        written = home.fill(home.open(), 2)
        home.begin()
        home.storage.opens_later = True
        log = home.open()

        assert "" == self.opened(home, log)
        assert list(enumerate(written)) == contents(log)

    @pytest.mark.parametrize("call", ["create", "write"])
    def test_it_fails_and_is_tried_again(self, home, unopened, call):
        """The error names the directory; what was half made is no harm."""
        home.disk.fail(call, errno.ENOSPC)

        assert f"{home.disk.root}/t: can't be made: No space left on device" == self.opened(home, unopened)
        assert not unopened.opened()
        assert "" == self.opened(home, unopened)
        home.fill(unopened, 1)
        assert [0] == home.segments()
        assert 0 == home.storage.shared.damaged_count

    def test_what_is_there_can_not_be_read(self, home):
        """That is an error of opening."""
        home.fill(home.open(), 2)
        home.begin()
        home.storage.opens_later = True
        log = home.open()
        home.disk.fail("read", errno.EIO)

        assert f"{home.disk.root}/t: can't be opened: Input/output error" == self.opened(home, log)

    def test_an_empty_directory_is_synced(self, home, unopened):
        """A power cut brings back nothing of a deleted topic beside what comes now."""
        home.disk.make_directory(f"{home.disk.root}/t")

        assert "" == self.opened(home, unopened)
        assert {f"{home.disk.root}/t"} == synced(home)

    def test_the_topic_is_deleted_before(self, home, unopened):
        """Nothing is made in a directory that may be a new topic's by then."""
        job = home.storage.open_job(unopened)
        unopened.delete()

        job.run()
        job.finish()

        assert [] == os.listdir(home.disk.root)
        assert not unopened.opened()

    def test_the_topic_is_deleted_after(self, home, unopened):
        """What was made goes."""
        job = home.storage.open_job(unopened)
        job.run()
        unopened.delete()
        job.finish()

        assert [] == os.listdir(home.disk.root)
        assert not unopened.opened()
