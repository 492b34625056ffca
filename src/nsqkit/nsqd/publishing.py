"""What a program that embeds nsqd publishes, checked by the rules that clients obey, and framed as in MPUB."""

import asyncio
from collections.abc import Sequence

from nsqkit.errors import BadDelay, BadTopicName, EmptyMessage, MessageTooLarge
from nsqkit.names import valid_name
from nsqkit.nsqd.core.batch import FAILED, Batch, Publisher
from nsqkit.nsqd.options import NsqdOptions
from nsqkit.options.duration import Duration
from nsqkit.wire.errors import PublishFailed

Body = bytes | bytearray | memoryview
SIZE_BYTES = 4  # before each body


def framed(options: NsqdOptions, topic: str, bodies: Sequence[Body]) -> bytes:
    """The bodies, each after its size. PublishError names what is wrong, and where; TypeError if it is not bytes."""
    if not valid_name(topic):
        raise BadTopicName(f"{topic!r} is no name for a topic: 1 to 64 characters of .a-zA-Z0-9_-")
    if not bodies:
        raise EmptyMessage("there is no message to publish")
    parts: list[Body] = []
    total = SIZE_BYTES  # MPUB counts the number of its messages as well
    for number, body in enumerate(bodies, 1):
        if not isinstance(body, Body):
            raise TypeError(f"message {number} of {len(bodies)} is {type(body).__name__}, not bytes")
        size = memoryview(body).nbytes
        if not size:
            raise EmptyMessage(f"message {number} of {len(bodies)} is empty")
        if size > options.max_msg_size:
            raise MessageTooLarge(
                f"message {number} of {len(bodies)} has {size} bytes, above --max-msg-size ({options.max_msg_size})"
            )
        total += SIZE_BYTES + size
        if total > options.max_body_size:
            raise MessageTooLarge(
                f"{len(bodies)} messages are together above --max-body-size ({options.max_body_size} bytes)"
            )
        parts += (size.to_bytes(SIZE_BYTES, "big"), body)
    return b"".join(parts)


def delay_of(options: NsqdOptions, delay: Duration | str | float) -> Duration:
    """A delay in seconds, or text like 250ms, as a Duration. BadDelay."""
    try:
        wanted = Duration.of(delay)
    except ValueError as reason:
        raise BadDelay(f"a delay of {delay!r}: {reason}") from None
    if not 0 <= wanted <= options.max_req_timeout:
        raise BadDelay(
            f"a delay of {wanted} is not within 0 and --max-req-timeout ({options.max_req_timeout})"
        )
    return wanted


class Waiter(Publisher):
    """Turns a settled batch into a future's result."""

    def __init__(self, future: asyncio.Future[None]) -> None:
        self.future = future

    def settled(self, batch: Batch) -> None:
        """The batch was kept, or was not."""
        if self.future.done():
            return  # whoever waited has gone
        if batch.state == FAILED:
            self.future.set_exception(PublishFailed("PUB", batch.cause))
        else:
            self.future.set_result(None)
