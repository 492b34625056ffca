"""The metadata file: which topics and channels exist and which are paused.

`<data-path>/nsqd.dat` is NSQ's own file (spec/nsqd-semantics.md, section 7), so that either nsqd reads
what the other wrote:

    {"topics":[{"name":"t","paused":false,"channels":[{"name":"c","paused":false}]}],"version":"1.3.0"}

Without topics or channels the list is null. Ephemeral names are never written.
"""

import os
from typing import Final

import msgspec

from nsqkit.errors import NsqkitError
from nsqkit.names import is_ephemeral, valid_name
from nsqkit.nsqd.storage.disk import Disk
from nsqkit.version import NSQ_VERSION

FILE_NAME: Final = "nsqd.dat"


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
    """Replace the file. A reader, also one after a crash, finds the old content or the new one, never a part.

    Returns only after the file and its directory entry are on the disk, whatever the durability mode: a power cut may
    cost messages, never the knowledge of who has to get them. Raises MetadataError.
    """
    path = path_of(data_path)
    try:
        disk.replace(path, _encode(metadata), sync=True)
    except OSError as error:
        raise MetadataError(f"failed to write metadata to {path} - {error.strerror}") from error


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
    """The usable part of what was in the file."""
    metadata = Metadata()
    for topic in read.topics or []:
        name = topic.name or ""
        if not valid_name(name):
            metadata.warnings.append(f"skipping creation of invalid topic {name!r}")
            continue
        state = TopicState(name, bool(topic.paused))
        metadata.topics.append(state)
        for channel in topic.channels or []:
            name = channel.name or ""
            if valid_name(name):
                state.channels.append(ChannelState(name, bool(channel.paused)))
            else:
                metadata.warnings.append(
                    f"skipping creation of invalid channel {name!r} of topic {state.name}"
                )
    return metadata


def _encode(metadata: Metadata) -> bytes:
    topics = [
        {
            "name": topic.name,
            "paused": topic.paused,
            "channels": [channel for channel in topic.channels if not is_ephemeral(channel.name)] or None,
        }
        for topic in metadata.topics
        if not is_ephemeral(topic.name)
    ]
    return msgspec.json.encode({"topics": topics or None, "version": NSQ_VERSION})
