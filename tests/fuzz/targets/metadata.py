"""nsqd.dat. Input: the content of the file."""

import os

from nsqkit.names import is_ephemeral, valid_name
from nsqkit.nsqd.metadata import ChannelState, Metadata, MetadataError, TopicState, load, path_of, save
from nsqkit.nsqd.storage.disk import Disk
from tests.fuzz.source import same
from tests.fuzz.targets.diskqueue import scratch


def check(data: bytes) -> None:
    """It is understood or refused with MetadataError; what was understood can be saved and loaded again."""
    with scratch() as path:
        with open(path_of(path), "wb") as file:
            file.write(data)
        try:
            metadata = load(Disk(), path)
        except MetadataError as error:
            same(True, path_of(path) in str(error))
            return
        for topic in metadata.topics:
            assert valid_name(topic.name)
            assert all(valid_name(channel.name) for channel in topic.channels)
        assert all(warning.isprintable() for warning in metadata.warnings)
        save(Disk(), path, metadata)
        assert _kept(metadata) == load(Disk(), path)
        assert os.listdir(path) == ["nsqd.dat"]


def _kept(metadata: Metadata) -> Metadata:
    return Metadata(
        [
            TopicState(
                topic.name,
                topic.paused,
                [ChannelState(c.name, c.paused) for c in topic.channels if not is_ephemeral(c.name)],
            )
            for topic in metadata.topics
            if not is_ephemeral(topic.name)
        ]
    )
