"""The metadata file: which topics and channels exist and which are paused.

`<data-path>/nsqd.dat` is NSQ's own file (spec/nsqd-semantics.md, section 7), so that either nsqd reads
what the other wrote:

    {"topics":[{"name":"t","paused":false,"channels":[{"name":"c","paused":false}]}],"version":"1.3.0"}

Without topics or channels the list is null. Ephemeral names are never written.
"""

import os
import time
from collections.abc import Iterable
from typing import Final

import msgspec

from nsqkit.errors import NsqkitError
from nsqkit.names import is_ephemeral, valid_name
from nsqkit.nsqd.storage.disk import Disk
from nsqkit.version import NSQ_VERSION

FILE_NAME: Final = "nsqd.dat"

_SLICE: Final = 100  # changes that are taken in before other threads may run

Change = tuple[str, str, bool | None]
"""A topic and one of its channels, or "" for the topic itself; and whether it is paused, None when it is gone."""


class MetadataError(NsqkitError):
    """The metadata file can't be read, understood or written; the text names it and says why."""


class ChannelState(msgspec.Struct):
    """A channel as the file knows it."""

    name: str
    paused: bool = False


class TopicState(msgspec.Struct):
    """A topic as the file knows it."""

    name: str
    paused: bool = False
    channels: list[ChannelState] = []


class Metadata(msgspec.Struct):
    """All topics. `warnings` says, a line each, what `load` left out."""

    topics: list[TopicState] = []
    warnings: list[str] = []


def path_of(data_path: str) -> str:
    """The metadata file of a data path."""
    return os.path.join(data_path, FILE_NAME)


def load(disk: Disk, data_path: str) -> Metadata:
    """What the file says; nothing if there is none. Invalid names are left out, with a warning.

    Raises MetadataError if the file can't be read or is not the JSON it should be: to go on without its topics
    would soon overwrite it.
    """
    path = path_of(data_path)
    try:
        content = disk.load(path)
    except OSError as error:
        raise MetadataError(f"failed to read metadata from {path} - {error.strerror}") from error
    if content is None:
        return Metadata()
    try:
        read = msgspec.json.decode(content, type=_File | None)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MetadataError(f"failed to parse metadata in {path} - {error}") from error
    return _checked(read or _File())


def save(disk: Disk, data_path: str, metadata: Metadata) -> None:
    """Replace the file by one that says this. Raises MetadataError."""
    file = MetadataFile(disk, data_path)
    for topic in metadata.topics:
        file.change([(topic.name, "", topic.paused)])
        file.change([(topic.name, channel.name, channel.paused) for channel in topic.channels])
    file.write(file.encode())


class MetadataFile:
    """The file, and what is in it once all changes so far are written; at first nothing.

    Each topic is kept as it will stand in the file, so one that did not change costs next to nothing.
    """

    def __init__(self, disk: Disk, data_path: str) -> None:
        self._disk = disk
        self._path = path_of(data_path)
        self._topics: dict[str, tuple[bool, dict[str, bytes]]] = {}  # paused, and the text of each channel
        self._texts: dict[str, bytes] = {}  # of each topic

    def change(self, changes: Iterable[Change]) -> None:
        """Take in changes. In between other threads may run: there may be very many."""
        changed: dict[str, None] = {}  # in order
        for number, (name, channel, paused) in enumerate(changes):
            if is_ephemeral(name) or is_ephemeral(channel):
                continue
            changed[name] = None
            self._change(name, channel, paused)
            if number % _SLICE == _SLICE - 1:
                time.sleep(0)
        for name in changed:
            topic = self._topics.get(name)
            if topic is None:
                self._texts.pop(name, None)
            else:
                paused, channels = topic
                self._texts[name] = b'{"name":%b,"paused":%b,"channels":%b}' % (
                    msgspec.json.encode(name),
                    msgspec.json.encode(paused),
                    _listed(channels),
                )

    def _change(self, name: str, channel: str, paused: bool | None) -> None:
        if not channel:
            if paused is None:
                self._topics.pop(name, None)
            else:
                self._topics[name] = (paused, self._topics[name][1] if name in self._topics else {})
        elif paused is not None:
            _, channels = self._topics.setdefault(name, (False, {}))
            channels[channel] = msgspec.json.encode(ChannelState(channel, paused))
        elif name in self._topics:
            self._topics[name][1].pop(channel, None)

    def encode(self) -> bytes:
        """The file's content."""
        return b'{"topics":%b,"version":%b}' % (_listed(self._texts), msgspec.json.encode(NSQ_VERSION))

    def write(self, content: bytes) -> None:
        """Replace the file. A reader, also one after a crash, finds the old content or the new one, never a part.

        Returns only after the file and its directory entry are on the disk, whatever the durability mode: a power cut
        may cost messages, never the knowledge of who has to get them. Raises MetadataError, but not on a full disk for
        what is there already: a start on it must find its consumers, who make room.
        """
        try:
            self._disk.replace(self._path, content, sync=True)
        except OSError as error:
            if self._has(content):
                return
            raise MetadataError(f"failed to write metadata to {self._path} - {error.strerror}") from error

    def _has(self, content: bytes) -> bool:
        """Does the file have this content, for good?"""
        try:
            if self._disk.load(self._path) != content:
                return False
            file = self._disk.open(self._path)
            try:
                self._disk.sync(file)
            finally:
                self._disk.close(file)
            self._disk.sync_directory(os.path.dirname(self._path))
        except OSError:
            return False
        return True


def _listed(texts: dict[str, bytes]) -> bytes:
    return b"[%b]" % b",".join(texts.values()) if texts else b"null"


class _ChannelInFile(msgspec.Struct):
    name: str | None = None
    paused: bool | None = None


class _TopicInFile(msgspec.Struct):
    name: str | None = None
    paused: bool | None = None
    channels: list[_ChannelInFile] | None = None


class _File(msgspec.Struct):
    topics: list[_TopicInFile] | None = None


def _checked(read: _File) -> Metadata:
    """The usable part of what was in the file. A name that stands there twice is one topic, or channel, as in NSQ."""
    metadata = Metadata()
    topics: dict[str, TopicState] = {}
    for topic in read.topics or []:
        name = topic.name or ""
        if not valid_name(name):
            metadata.warnings.append(f"skipping creation of invalid topic {name!r}")
            continue
        state = topics.setdefault(name, TopicState(name))
        state.paused = state.paused or bool(topic.paused)
        channels = {channel.name: channel for channel in state.channels}
        for channel in topic.channels or []:
            name = channel.name or ""
            if valid_name(name):
                known = channels.setdefault(name, ChannelState(name))
                known.paused = known.paused or bool(channel.paused)
            else:
                metadata.warnings.append(
                    f"skipping creation of invalid channel {name!r} of topic {state.name}"
                )
        state.channels = list(channels.values())
    metadata.topics = list(topics.values())
    return metadata
