"""What a test sees of its nsqd: what was published, what channels hold, and which commands are to fail."""

from dataclasses import dataclass
from typing import Final

from nsqkit.errors import NsqkitError
from nsqkit.nsqd.core.channel import Channel
from nsqkit.nsqd.core.probe import Probe
from nsqkit.wire.errors import AuthFailed, ClientError, IdentifyFailed, PublishFailed, SubscribeFailed

KEEP: Final = 64 << 20  # bytes of messages that are kept to be looked at
_WHY: Final = "because the test wants it (fail_next)"
_SIZE: Final = 4  # bytes, before each body
_OTHERS: Final = {"SUB": SubscribeFailed, "IDENTIFY": IdentifyFailed, "AUTH": AuthFailed}
_MAY_FAIL: Final = ("PUB", "MPUB", "DPUB", *_OTHERS)


class NotDrained(NsqkitError, AssertionError):
    """Something was not finished in time. The text says what."""


class TooMuchPublished(NsqkitError):
    """More was published than is kept to be looked at."""


@dataclass(frozen=True, slots=True)
class ChannelView:
    """A channel as it was when the test looked. The last three count since nsqd's start."""

    depth: int  # messages that wait for a consumer
    in_flight: int
    deferred: int
    consumers: int
    finished: int
    requeued: int
    timed_out: int

    @staticmethod
    def of(channel: Channel) -> "ChannelView":
        """As it is now."""
        return ChannelView(
            depth=int(channel.queue.depth()),
            in_flight=int(channel.in_flight_count),
            deferred=int(channel.deferred_count()),
            consumers=len(channel.subscribers),
            finished=int(channel.finished_count),
            requeued=int(channel.requeue_count),
            timed_out=int(channel.timeout_count),
        )

    @property
    def left(self) -> int:
        """Messages that are not finished."""
        return self.depth + self.in_flight + self.deferred


class Record(Probe):
    """Keeps what was published, up to `keep` bytes, and refuses the commands that are to fail."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._bytes = 0
        self._published: dict[str, list[bytes]] = {}  # by topic: bodies after their sizes, as they came
        self._failing: dict[str, int] = {}  # how many of each command

    def published(self, topic: str, data: bytes, count: int) -> None:  # noqa: ARG002 - a probe's interface
        """Keep them."""
        self._bytes += len(data)
        if self._bytes > self._keep:
            self._published.clear()
        else:
            self._published.setdefault(topic, []).append(data)

    def bodies(self, topic: str) -> list[bytes]:
        """What was published to a topic so far. TooMuchPublished."""
        if self._bytes > self._keep:
            raise TooMuchPublished(
                f"{self._bytes} bytes were published, and only {self._keep} are kept: Nsq(keep=...)"
            )
        return [body for data in self._published.get(topic, ()) for body in _bodies(data)]

    def fail_next(self, command: str, times: int) -> None:
        """Let the next ones fail. ValueError for a command that can't."""
        if command not in _MAY_FAIL:
            raise ValueError(f"{command!r} can't be made to fail, only {', '.join(_MAY_FAIL)}")
        if times < 0:
            raise ValueError(f"times is {times}")
        self._failing[command] = times

    def command_came(self, command: str) -> None:
        """Refuse it, if it is to fail."""
        times = self._failing.get(command, 0)
        if times:
            self._failing[command] = times - 1
            raise _refusal(command)


def _refusal(command: str) -> ClientError:
    """What the client is told: in NSQ's words for it."""
    if command in ("PUB", "MPUB", "DPUB"):
        return PublishFailed(command, _WHY)
    return _OTHERS[command](f"{command} failed {_WHY}")


def _bodies(data: bytes) -> list[bytes]:
    bodies: list[bytes] = []
    at = 0
    while at < len(data):
        end = at + _SIZE + int.from_bytes(data[at : at + _SIZE], "big")
        bodies.append(data[at + _SIZE : end])
        at = end
    return bodies
