"""What was there before a start: topics from nsqd.dat, topics whose logs are there, and what only the journal has.

`nsqd` and `nsqkit export` begin with it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from nsqkit.nsqd import metadata
from nsqkit.nsqd.core.broker import Broker
from nsqkit.nsqd.datapath import topic_of_directory
from nsqkit.nsqd.storage.disk import Disk
from nsqkit.nsqd.storage.files import FileStorage
from nsqkit.nsqd.storage.segment import is_segment


@dataclass(frozen=True, slots=True)
class Found:
    """The topics, those that nsqd.dat names first; and how many messages the journal gave back to their logs."""

    topics: list[metadata.TopicState]
    replayed: int


def recover(data_path: str, disk: Disk, storage: FileStorage, warn: Callable[[str], None]) -> Found:
    """Look what there is, and mend the logs, before any of them is used. MetadataError, StoreError, OSError."""
    known = metadata.load(disk, data_path)
    for warning in known.warnings:
        warn(warning)
    topics = {topic.name: topic for topic in known.topics}
    for entry in disk.names(data_path):
        name = topic_of_directory(entry)
        if name is not None and name not in topics and _is_log(f"{data_path}/{entry}", disk, warn):
            warn(f"TOPIC({name}): nsqd.dat does not name it, but its log is there")
            topics[name] = metadata.TopicState(name)
    return Found(list(topics.values()), storage.replay_journal(topics.__contains__))


def restore(broker: Broker, topic: metadata.TopicState, now: int) -> None:
    """Give the broker a topic, with its channels and what they are owed. StoreError."""
    channels = {channel.name: channel.paused for channel in topic.channels}
    broker.restore_topic(topic.name, channels, topic.paused, now)


def _is_log(path: str, disk: Disk, warn: Callable[[str], None]) -> bool:
    try:
        return any(is_segment(file) for file in disk.names(path))
    except OSError as error:
        warn(f"{path}: passed over, it can't be read: {error.strerror}")
        return False
