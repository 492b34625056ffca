"""A full disk: what nobody needs is given up in place, before a checkpoint can be written."""

import errno
import os

import pytest

from nsqkit.nsqd.core.store import StoreError
from nsqkit.nsqd.storage.segment import FILE_HEADER, renewed_header
from tests.nsqd.storage.home import BATCH_BYTES, owed_from


@pytest.fixture
def home(home):
    """Files of four batches, on a full disk."""
    home.max_bytes_per_file = FILE_HEADER + 4 * BATCH_BYTES
    home.begin()
    return home


@pytest.fixture
def log(home):
    """A log of three files, the last with two batches; the disk is full."""
    log = home.open()
    home.fill(log, 10)
    home.sync()
    home.storage.shared.full = True
    home.disk.calls.clear()
    return log


def test_order(home, log):
    """The header is on the disk before anything goes, and the cut file before it is written again."""
    log.checkpoint(owed_from(10, log))
    assert [] == home.run_jobs()

    calls = [call for call, _ in home.disk.names_called("write", "sync", "remove", "truncate", "replace")]
    assert ["write", "sync", "remove", "remove", "truncate", "sync", "replace"] == calls
    assert ([8], FILE_HEADER, 10) == (home.segments(), log.size_bytes(), log.end())


def test_nothing_is_written_meanwhile(home, log, contents):
    """What is published while a thread empties the file is refused, and kept afterwards."""
    log.checkpoint(owed_from(10, log))
    with pytest.raises(StoreError, match="just being given up"):
        home.write(log, b"refused")
    assert [] == home.run_jobs()

    home.write(log, b"kept")

    assert [(10, b"kept")] == contents(log)
    assert [(10, b"kept")] == contents(home.reopen())
    assert [] == home.reports


def test_what_is_needed_stays(home, log, contents):
    """Only whole files before it go, and writing goes on meanwhile."""
    log.checkpoint(owed_from(5, log))
    home.write(log, b"new")
    assert [] == home.run_jobs()

    assert [4, 8] == home.segments()
    assert [4, 5, 6, 7, 8, 9, 10] == [position for position, _ in contents(home.reopen(), 4)]
    assert [] == home.reports


@pytest.mark.parametrize("call", ["open", "write", "sync", "remove", "truncate"])
def test_an_error(home, log, contents, call):
    """It is told, nothing is written until the next checkpoint has done it, and then all is well."""
    home.disk.fail(call, errno.EIO)
    log.checkpoint(owed_from(10, log))
    assert ["Input/output error" in error for error in home.run_jobs()] == [True]
    with pytest.raises(StoreError):
        home.write(log, b"refused")

    log.checkpoint(owed_from(10, log))
    assert [] == home.run_jobs()

    assert ([8], FILE_HEADER) == (home.segments(), log.size_bytes())
    home.write(log, b"kept")
    assert [] == home.sync()
    assert [(10, b"kept")] == contents(home.reopen())


def test_a_start_brings_it_to_its_end(home, log, contents):
    """If the process died after the header was written, the next one removes and cuts, and takes nothing for damage."""
    with open(home.path(8), "r+b") as file:
        file.write(renewed_header(10))

    log = home.reopen()

    assert ([8], 10) == (home.segments(), log.end())
    assert FILE_HEADER == os.path.getsize(home.path(8))
    assert [] == home.reports
    home.write(log, b"kept")
    assert [(10, b"kept")] == contents(home.reopen())


def test_half_a_batch_after_it(home, log, contents):
    """What was being written when the process died is torn, as everywhere."""
    log.checkpoint(owed_from(10, log))
    home.run_jobs()
    home.write(log, b"one")
    home.write(log, b"two")
    os.truncate(home.path(8), os.path.getsize(home.path(8)) - 1)

    log = home.reopen()

    assert [(10, b"one")] == contents(log)
    assert 1 == home.storage.shared.torn_count


def test_a_start_that_can_not_change_it(home, log):
    """That is told, and nothing more of it is delivered."""
    with open(home.path(8), "r+b") as file:
        file.write(renewed_header(10))
    home.disk.fail("truncate", errno.EIO)
    home.begin()

    log = home.open()

    assert (10, 10) == (log.start(), log.end())
    assert ["what was finished before it can't be removed" in line for line in home.reports] == [True]
