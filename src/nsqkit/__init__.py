"""NSQ in Python. Importing this package loads nothing; what it offers is loaded when it is asked for.

async with Producer("127.0.0.1:4150") as producer:
    await producer.publish("orders", b"one book")

async with Consumer("orders", "billing", nsqd="127.0.0.1:4150", max_in_flight=50) as consumer:
    async for message in consumer:
        async with message:
            print(message.body)

async with Nsqd(NsqdOptions(data_path=path, tcp_address="127.0.0.1:0")) as nsqd:
    await nsqd.publish("orders", b"one book", delay=1.5)
    await nsqd.wait()
"""

from importlib import import_module
from typing import TYPE_CHECKING

from nsqkit.version import VERSION

if TYPE_CHECKING:
    from nsqkit.client.consumer import Consumer
    from nsqkit.client.message import Message
    from nsqkit.client.options import (
        BackoffRecovery,
        BackoffStrategy,
        ConsumerOptions,
        ProducerOptions,
        Strategy,
        TlsVersion,
    )
    from nsqkit.client.producer import Producer
    from nsqkit.client.state import ConsumerState
    from nsqkit.client.sync import SyncConsumer, SyncMessage, SyncProducer
    from nsqkit.errors import (
        AlreadyAnswered,
        AuthFailed,
        BadDelay,
        BadTopicName,
        ConnectionFailed,
        ConsumerFailed,
        EmptyMessage,
        HandshakeFailed,
        MessageTooLarge,
        NotSent,
        NsqkitError,
        OptionError,
        OutcomeUnknown,
        PublishError,
        Refused,
        RequeueMessage,
        StartError,
    )
    from nsqkit.log import Level, Log
    from nsqkit.logger import LoggerLog
    from nsqkit.nsqd.daemon import Nsqd
    from nsqkit.nsqd.durability import Durability
    from nsqkit.nsqd.options import NsqdOptions

__all__ = [
    "AlreadyAnswered",
    "AuthFailed",
    "BackoffRecovery",
    "BackoffStrategy",
    "BadDelay",
    "BadTopicName",
    "ConnectionFailed",
    "Consumer",
    "ConsumerFailed",
    "ConsumerOptions",
    "ConsumerState",
    "Durability",
    "EmptyMessage",
    "HandshakeFailed",
    "Level",
    "Log",
    "LoggerLog",
    "Message",
    "MessageTooLarge",
    "NotSent",
    "Nsqd",
    "NsqdOptions",
    "NsqkitError",
    "OptionError",
    "OutcomeUnknown",
    "Producer",
    "ProducerOptions",
    "PublishError",
    "Refused",
    "RequeueMessage",
    "StartError",
    "Strategy",
    "SyncConsumer",
    "SyncMessage",
    "SyncProducer",
    "TlsVersion",
]
__version__ = VERSION

_HOMES = {
    "TlsVersion": "nsqkit.client.options",
    "Strategy": "nsqkit.client.options",
    "BackoffStrategy": "nsqkit.client.options",
    "BackoffRecovery": "nsqkit.client.options",
    "SyncProducer": "nsqkit.client.sync",
    "SyncMessage": "nsqkit.client.sync",
    "SyncConsumer": "nsqkit.client.sync",
    "MessageTooLarge": "nsqkit.errors",
    "EmptyMessage": "nsqkit.errors",
    "BadTopicName": "nsqkit.errors",
    "BadDelay": "nsqkit.errors",
    "AlreadyAnswered": "nsqkit.errors",
    "AuthFailed": "nsqkit.errors",
    "ConnectionFailed": "nsqkit.errors",
    "Consumer": "nsqkit.client.consumer",
    "ConsumerFailed": "nsqkit.errors",
    "ConsumerOptions": "nsqkit.client.options",
    "ConsumerState": "nsqkit.client.state",
    "Durability": "nsqkit.nsqd.durability",
    "HandshakeFailed": "nsqkit.errors",
    "Level": "nsqkit.log",
    "Log": "nsqkit.log",
    "LoggerLog": "nsqkit.logger",
    "Message": "nsqkit.client.message",
    "NotSent": "nsqkit.errors",
    "Nsqd": "nsqkit.nsqd.daemon",
    "NsqdOptions": "nsqkit.nsqd.options",
    "NsqkitError": "nsqkit.errors",
    "OptionError": "nsqkit.errors",
    "OutcomeUnknown": "nsqkit.errors",
    "Producer": "nsqkit.client.producer",
    "ProducerOptions": "nsqkit.client.options",
    "PublishError": "nsqkit.errors",
    "Refused": "nsqkit.errors",
    "RequeueMessage": "nsqkit.errors",
    "StartError": "nsqkit.errors",
}
"""Where each name is defined: mypy reads the imports above, Python these."""


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'nsqkit' has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
