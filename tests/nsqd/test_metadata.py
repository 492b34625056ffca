"""The metadata file."""

import os
from pathlib import Path

import pytest

from nsqkit.nsqd.metadata import ChannelState, Metadata, MetadataError, TopicState, load, save
from nsqkit.nsqd.storage.disk import Disk


def read(data_path: Path, content: str | bytes) -> Metadata:
    """What `load` makes of a file with this content."""
    (data_path / "nsqd.dat").write_bytes(content.encode() if isinstance(content, str) else content)
    return load(Disk(), str(data_path))


class NotingDisk(Disk):
    """Notes what is synced, and whether the file was in its place then."""

    def __init__(self) -> None:
        self.synced: list[str] = []
        self.in_place: list[bool] = []

    def sync(self, file: int) -> None:
        """A file."""
        self.synced.append(f"{os.fstat(file).st_size} bytes")
        self.in_place.append(os.path.exists(os.readlink(f"/proc/self/fd/{file}").removesuffix(".tmp")))
        super().sync(file)

    def sync_directory(self, path: str) -> None:
        """A directory."""
        self.synced.append("directory")
        self.in_place.append(os.path.exists(f"{path}/nsqd.dat"))
        super().sync_directory(path)


def test_missing_file_is_a_fresh_start(tmp_path: Path) -> None:
    """Without a file there are no topics."""
    assert Metadata() == load(Disk(), str(tmp_path))


def test_written_as_nsq_writes_it(tmp_path: Path) -> None:
    """The file is compact JSON in NSQ's order of keys, without a final newline, readable by its owner only."""
    topics = [
        TopicState("t", paused=False, channels=[ChannelState("c", paused=True)]),
        TopicState("u", paused=True),
    ]

    save(Disk(), str(tmp_path), Metadata(topics))

    assert (
        b'{"topics":[{"name":"t","paused":false,"channels":[{"name":"c","paused":true}]},'
        b'{"name":"u","paused":true,"channels":null}],"version":"1.3.0"}'
    ) == (tmp_path / "nsqd.dat").read_bytes()
    assert 0o600 == (tmp_path / "nsqd.dat").stat().st_mode & 0o777
    assert [tmp_path / "nsqd.dat"] == list(tmp_path.iterdir())


def test_nothing_to_write(tmp_path: Path) -> None:
    """Without topics the list is null."""
    save(Disk(), str(tmp_path), Metadata())

    assert b'{"topics":null,"version":"1.3.0"}' == (tmp_path / "nsqd.dat").read_bytes()


def test_ephemeral_names_are_not_written(tmp_path: Path) -> None:
    """Neither an ephemeral topic nor an ephemeral channel of an ordinary topic reaches the file."""
    ephemeral = TopicState("e#ephemeral", channels=[ChannelState("c")])
    ordinary = TopicState("t", channels=[ChannelState("x#ephemeral"), ChannelState("c")])

    save(Disk(), str(tmp_path), Metadata([ephemeral, ordinary]))

    assert [TopicState("t", channels=[ChannelState("c")])] == load(Disk(), str(tmp_path)).topics


def test_round_trip(tmp_path: Path) -> None:
    """What was saved last is loaded, and saving replaces what was there."""
    metadata = Metadata(
        [TopicState("a", paused=True, channels=[ChannelState("b"), ChannelState("c", paused=True)])]
    )
    save(Disk(), str(tmp_path), Metadata([TopicState("old")]))
    save(Disk(), str(tmp_path), metadata)

    assert metadata == load(Disk(), str(tmp_path))


def test_power_cut(tmp_path: Path) -> None:
    """The content is on the disk before the file takes the old one's place, and then the directory is synced."""
    disk = NotingDisk()

    save(disk, str(tmp_path), Metadata())

    size = (tmp_path / "nsqd.dat").stat().st_size
    assert [f"{size} bytes", "directory"] == disk.synced
    assert disk.in_place == [False, True]


@pytest.mark.parametrize(
    "content",
    [
        "{}",
        "null",
        '{"topics":null,"version":"1.3.0"}',
        '{"topics":[],"version":"0.3.8","unknown":1}',
    ],
)
def test_nothing_there(tmp_path: Path, content: str) -> None:
    """Missing and null lists, and keys of other versions, are accepted."""
    assert Metadata() == read(tmp_path, content)


def test_missing_and_null_fields(tmp_path: Path) -> None:
    """A topic without channels has none, and what is not said to be paused is not."""
    content = (
        '{"topics":[{"name":"t"},'
        '{"name":"u","paused":null,"channels":[{"name":"c"}]},{"name":"v","channels":null}]}'
    )

    expected = [TopicState("t"), TopicState("u", channels=[ChannelState("c")]), TopicState("v")]
    assert expected == read(tmp_path, content).topics


def test_invalid_names_are_skipped(tmp_path: Path) -> None:
    """Invalid names are left out and told; what is around them is loaded."""
    content = (
        '{"topics":[{"name":"a b","channels":[{"name":"c"}]},{},'
        '{"name":"t","channels":[{"name":"x/y"},{"name":"c"}]}]}'
    )

    metadata = read(tmp_path, content)

    assert [TopicState("t", channels=[ChannelState("c")])] == metadata.topics
    assert [
        "skipping creation of invalid topic 'a b'",
        "skipping creation of invalid topic ''",
        "skipping creation of invalid channel 'x/y' of topic t",
    ] == metadata.warnings


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0\0\0",
        b"{",
        b"[]",
        b'{"topics":5}',
        b'{"topics":[{"name":7}]}',
        b'{"topics":[{"name":"\xff"}]}',
        b"t:c\n",
    ],
)
def test_damaged_file(tmp_path: Path, content: bytes) -> None:
    """Anything but the expected JSON is an error that names the file, and the file stays as it is."""
    path = tmp_path / "nsqd.dat"

    with pytest.raises(MetadataError, match=f"^failed to parse metadata in {path} - .+"):
        read(tmp_path, content)

    assert content == path.read_bytes()


def test_unreadable_file(tmp_path: Path) -> None:
    """A file that can't be read is an error that says why."""
    path = tmp_path / "nsqd.dat"
    path.mkdir()

    with pytest.raises(MetadataError, match=f"^failed to read metadata from {path} - Is a directory$"):
        load(Disk(), str(tmp_path))


def test_failed_write_leaves_nothing(tmp_path: Path) -> None:
    """A write that fails is an error that names the file, and leaves no temporary file."""
    path = tmp_path / "nsqd.dat"
    path.mkdir()

    with pytest.raises(MetadataError, match=f"^failed to write metadata to {path} - "):
        save(Disk(), str(tmp_path), Metadata())

    assert [tmp_path / "nsqd.dat"] == list(tmp_path.iterdir())


def test_what_is_there_needs_no_room(tmp_path: Path) -> None:
    """On a full disk only a change can't be saved: the content that is there is made sure of, and stays."""

    class FullDisk(NotingDisk):
        def replace(self, path: str, content: bytes, **_: object) -> None:  # noqa: ARG002
            raise OSError(28, "No space left on device")

    metadata = Metadata([TopicState("orders")])
    save(Disk(), str(tmp_path), metadata)
    disk = FullDisk()

    save(disk, str(tmp_path), metadata)
    with pytest.raises(MetadataError, match="No space left"):
        save(disk, str(tmp_path), Metadata([TopicState("other")]))

    assert metadata.topics == load(disk, str(tmp_path)).topics
    with pytest.raises(MetadataError):
        save(FullDisk(), str(tmp_path / "nowhere"), metadata)


def test_data_path_is_gone(tmp_path: Path) -> None:
    """Writing into a directory that does not exist is a MetadataError too."""
    with pytest.raises(MetadataError, match="No such file or directory"):
        save(Disk(), str(tmp_path / "gone"), Metadata())
