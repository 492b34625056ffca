"""The lock of the data path, and the names of topic directories."""

import errno
import os
import string
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsqkit.errors import StartError
from nsqkit.names import valid_name
from nsqkit.nsqd.datapath import DataPathLock, require_writable, topic_directory, topic_of_directory

PLAIN = [
    "orders",
    "A.b_c-9",
    "...",
    "journal2",
    "nsqd.data",
    "t.diskqueue",
    "x.dat",
    "t.diskqueue.1.dat",
    ".git",
]
RESERVED = [
    ".",
    "..",
    "imported",
    "Imported",
    "journal",
    "nsqd.dat",
    "nsqd.7.dat",
    "nsqd.dat.123.tmp",
    "t.diskqueue.meta.dat",
    "t.diskqueue.meta.dat.5.tmp",
    "t.diskqueue.000000.dat",
    "t.diskqueue.000000.dat.bad",
    "t.diskqueue.1000000.dat",
]


def test_second_lock_fails(tmp_path: Path) -> None:
    """While the data path is in use, another one gets the text of NSQ."""
    with DataPathLock(str(tmp_path)), pytest.raises(StartError) as caught:
        DataPathLock(str(tmp_path))

    assert (
        f"failed to lock data-path: cannot flock directory {tmp_path} - resource temporarily unavailable"
        " (possibly in use by another instance of nsqd)"
    ) == str(caught.value)


def test_misplaced(tmp_path: Path) -> None:
    """The lock knows when its path was renamed, replaced or removed, and when it is back."""
    path = tmp_path / "data"
    path.mkdir()
    with DataPathLock(str(path)) as lock:
        assert lock.misplaced() == ""
        path.rename(tmp_path / "moved")
        assert lock.misplaced() == f"the data path {path} can't be reached: no such file or directory"
        path.mkdir()
        assert lock.misplaced() == f"the data path {path} is another directory now"
        path.rmdir()
        (tmp_path / "moved").rename(path)
        assert lock.misplaced() == ""


@pytest.mark.parametrize(
    ("number", "fails"), [(errno.EROFS, True), (errno.EACCES, True), (errno.ENOSPC, False)]
)
def test_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, fails: bool) -> None:
    """A data path in which nothing can be made is said by name; a full disk stops no start."""
    require_writable(str(tmp_path))
    assert [] == os.listdir(tmp_path)

    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    if not fails:
        require_writable(str(tmp_path))
        return
    with pytest.raises(StartError) as caught:
        require_writable(str(tmp_path))
    text = os.strerror(number)
    assert f"data-path {tmp_path} is not writable: {text[0].lower()}{text[1:]}" == str(caught.value)


def test_released_lock_can_be_taken(tmp_path: Path) -> None:
    """After a release, which may be repeated, the data path is free."""
    lock = DataPathLock(str(tmp_path))
    lock.release()
    lock.release()

    with DataPathLock(str(tmp_path)):
        pass


def test_lock_leaves_no_file(tmp_path: Path) -> None:
    """The directory itself is locked."""
    with DataPathLock(str(tmp_path)):
        assert [] == list(tmp_path.iterdir())


def test_lock_dies_with_the_process(tmp_path: Path) -> None:
    """A killed process leaves no lock."""
    program = (
        "import sys; from nsqkit.nsqd.datapath import *; lock = DataPathLock(sys.argv[1]); print(1); input()"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    ) as process:
        assert process.stdout is not None
        assert b"1\n" == process.stdout.readline()
        with pytest.raises(StartError):
            DataPathLock(str(tmp_path))
        process.kill()
        process.wait()

    with DataPathLock(str(tmp_path)):
        pass


def test_empty_path_is_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a data path the current directory is locked, and named in the error."""
    monkeypatch.chdir(tmp_path)
    with DataPathLock(""), pytest.raises(StartError, match=f"cannot flock directory {tmp_path} "):
        DataPathLock("")


def test_missing_directory(tmp_path: Path) -> None:
    """A directory that does not exist is an error, and is not made."""
    path = tmp_path / "gone"

    with pytest.raises(
        StartError, match=f"^failed to lock data-path: open {path}: no such file or directory$"
    ):
        DataPathLock(str(path))

    assert not path.exists()


def test_file_instead_of_directory(tmp_path: Path) -> None:
    """A file can't be a data path."""
    path = tmp_path / "file"
    path.touch()

    with pytest.raises(StartError, match=f"^failed to lock data-path: open {path}: not a directory$"):
        DataPathLock(str(path))


@pytest.mark.parametrize("topic", PLAIN)
def test_topic_directory(topic: str) -> None:
    """A topic's directory is called like the topic."""
    assert f"data/{topic}" == topic_directory("data", topic)
    assert topic == topic_of_directory(topic)


@pytest.mark.parametrize("topic", RESERVED)
def test_reserved_names(topic: str) -> None:
    """A topic called like something else in the data path gets a name of its own."""
    assert f"data/%{topic}" == topic_directory("data", topic)
    assert topic == topic_of_directory(f"%{topic}")
    assert topic_of_directory(topic) is None


@pytest.mark.parametrize(
    "name", ["", "%", "%orders", "%%.", "lost+found", "a b", "t:c.diskqueue.000000.dat", "orders\n"]
)
def test_not_a_topic(name: str) -> None:
    """What `topic_directory` never returns belongs to no topic."""
    assert topic_of_directory(name) is None


@pytest.mark.parametrize("topic", ["", "../../etc", "a/b", "%a", "a\0"])
def test_invalid_topic(topic: str) -> None:
    """There is no directory for what is no topic name."""
    with pytest.raises(ValueError, match="^not a topic name: "):
        topic_directory("data", topic)


@given(st.text(string.ascii_letters + string.digits + "._-", min_size=1, max_size=64).filter(valid_name))
def test_round_trip(topic: str) -> None:
    """The directory of a topic lies directly in the data path and leads back to the topic."""
    directory = topic_directory("data", topic)

    parent, name = os.path.split(directory)
    assert ("data", topic) == (parent, topic_of_directory(name))
    assert os.path.normpath(directory) == directory
