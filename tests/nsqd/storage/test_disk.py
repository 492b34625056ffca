"""The system's files, and writing all of what one write does not take."""

import errno
import os

import pytest

from nsqkit.nsqd.storage.disk import IOV_MAX, Disk, write_all


@pytest.fixture
def plain() -> Disk:
    """The disk of production."""
    return Disk()


@pytest.fixture
def file(plain, tmp_path):
    """A new file, open."""
    file = plain.create(str(tmp_path / "file"))
    yield file
    plain.close(file)


def test_pieces_are_written_and_read_at_offsets(plain, file):
    """A write puts its pieces one behind the other where it is told to, and a read takes them from there."""
    assert 5 == plain.write(file, [b"ab", b"", b"cde"], 3)

    assert b"bcd" == plain.read(file, 3, 4)
    assert b"\0\0\0abcde" == plain.read(file, 100, 0)
    assert b"" == plain.read(file, 10, 8)
    assert 8 == plain.size(file)


def test_create_makes_private_files_once(plain, file, tmp_path):
    """A file is made with mode 0600, and never over another."""
    assert 0o600 == os.stat(tmp_path / "file").st_mode & 0o777
    with pytest.raises(FileExistsError):
        plain.create(str(tmp_path / "file"))


def test_truncate_and_sync(plain, file, tmp_path):
    """The calls do what the system's do."""
    plain.write(file, [b"abcdef"], 0)
    plain.truncate(file, 4)
    plain.sync(file)
    plain.sync_directory(str(tmp_path))

    assert b"abcd" == plain.read(file, 100, 0)


@pytest.mark.parametrize("sync", [False, True])
def test_replace_gives_new_content(plain, tmp_path, sync):
    """A small file has the old content or the new, and no temporary file stays."""
    path = str(tmp_path / "small")
    for content in (b"one", b"", b"another"):
        plain.replace(path, content, sync=sync)
        assert content == plain.load(path)

    assert ["small"] == plain.names(str(tmp_path))


def test_replace_writes_to_a_new_file(plain, tmp_path):
    """What a crash left under the temporary name is not written over: a power cut might bring it back."""
    left = tmp_path / "small.tmp"
    left.write_bytes(b"from a crash")
    os.link(left, tmp_path / "witness")

    plain.replace(str(tmp_path / "small"), b"content")

    assert b"from a crash" == (tmp_path / "witness").read_bytes()
    assert b"content" == (tmp_path / "small").read_bytes()
    assert not left.exists()


def test_replace_can_be_durable(tmp_path):
    """With `sync` the content is synced before the name is changed, and the name afterwards."""
    steps = []

    class Recorder(Disk):
        def sync(self, file: int) -> None:  # noqa: ARG002
            steps.append(("content", os.path.exists(tmp_path / "small")))

        def sync_directory(self, path: str) -> None:  # noqa: ARG002
            steps.append(("name", os.path.exists(tmp_path / "small")))

    Recorder().replace(str(tmp_path / "small"), b"content", sync=True)

    assert [("content", False), ("name", True)] == steps


def test_what_is_not_there(plain, tmp_path):
    """Reading what is not there gives nothing, removing it is no error, opening it is one."""
    path = str(tmp_path / "nothing")

    assert plain.load(path) is None
    assert [] == plain.names(path)
    plain.remove(path)
    with pytest.raises(FileNotFoundError):
        plain.open(path)


def test_directories_and_names(plain, tmp_path):
    """Directories are made once, listed in order, and removed when empty."""
    path = str(tmp_path / "one" / "two")
    with pytest.raises(FileNotFoundError):  # what a directory is in is never made with it
        plain.make_directory(path)
    (tmp_path / "one").mkdir()
    assert plain.make_directory(path)
    assert not plain.make_directory(path)
    for name in "ba":
        plain.replace(f"{path}/{name}", b"")
    plain.rename(f"{path}/a", f"{path}/c")

    assert ["b", "c"] == plain.names(path)

    with pytest.raises(OSError):
        plain.remove_directory(path)
    plain.remove(f"{path}/b")
    plain.remove(f"{path}/c")
    plain.remove_directory(path)
    assert [] == plain.names(str(tmp_path / "one"))


def test_misplaced(plain, tmp_path, file):
    """While names lead somewhere else, nothing is made, opened or removed by name; what is open goes on."""
    (tmp_path / "directory").mkdir()
    before = sorted(os.listdir(tmp_path))
    plain.misplaced = lambda: "moved away"
    path = str(tmp_path / "file")
    for act in (
        lambda: plain.create(f"{path}2"),
        lambda: plain.open(path),
        lambda: plain.replace(path, b"new"),
        lambda: plain.make_directory(f"{path}3"),
        lambda: plain.remove(path),
        lambda: plain.rename(path, f"{path}4"),
        lambda: plain.remove_directory(str(tmp_path / "directory")),
    ):
        with pytest.raises(OSError, match="moved away"):
            act()

    assert before == sorted(os.listdir(tmp_path))
    assert 3 == plain.write(file, [b"one"], 0)

    plain.misplaced = lambda: ""
    plain.close(plain.open(path))


def test_free_bytes(plain, tmp_path):
    """The file system has room for a test."""
    assert plain.free_bytes(str(tmp_path)) > 0


@pytest.mark.parametrize("most", [1, 3, 7, 1 << 20])
def test_write_all_goes_on_after_short_writes(disk, most):
    """However little the system takes at a time, every byte is written where it belongs."""
    file = disk.create(f"{disk.root}/file")
    disk.most = most
    pieces = [b"abc", b"", b"defgh", b"i"]

    write_all(disk, file, pieces, 2)

    assert b"\0\0abcdefghi" == disk.read(file, 100, 0)


def test_write_all_splits_what_is_too_much_for_one_call(plain, file):
    """The system takes only so many pieces at once."""
    pieces = [b"%04d" % number for number in range(2 * IOV_MAX + 500)]

    write_all(plain, file, pieces, 0)

    assert b"".join(pieces) == plain.read(file, 1 << 20, 0)


def test_write_all_raises_what_the_system_says(disk):
    """An error in the middle is an error of the whole."""
    file = disk.create(f"{disk.root}/file")
    disk.most = 4
    disk.fail("write", errno.ENOSPC, after=1)

    with pytest.raises(OSError, match="No space left"):
        write_all(disk, file, [b"0123456789"], 0)


def test_write_all_does_not_wait_for_ever(disk):
    """A system that writes nothing and says so without an error is broken."""
    file = disk.create(f"{disk.root}/file")
    disk.most = 0

    with pytest.raises(OSError, match="nothing was written"):
        write_all(disk, file, [b"data"], 0)
