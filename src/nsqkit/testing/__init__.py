"""NSQ for tests: a true nsqd and a true nsqlookupd in the test's own event loop, with a clock that the test moves.

    async with Nsq() as nsq:
        async with nsq.producer() as producer:
            await producer.publish("orders", b"one book", delay=3600)
        await nsq.advance(3600)
        await nsq.drained("orders", "billing")

pytest has it as the fixture `nsq`. docs/testing.md tells the rest. Importing this package loads nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nsqkit.testing.nsq import Nsq, TopicView
    from nsqkit.testing.record import ChannelView, NotDrained, TooMuchPublished

__all__ = ["ChannelView", "NotDrained", "Nsq", "TooMuchPublished", "TopicView"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'nsqkit.testing' has no attribute {name!r}")
    return getattr(
        import_module(f"nsqkit.testing.{'nsq' if name in ('Nsq', 'TopicView') else 'record'}"), name
    )
