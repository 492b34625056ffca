"""A consumer's place in a channel: may it take more, and what does it have?

Ready means: RDY is above the number in flight, and the connection takes bytes. What is in flight is kept in order of
delivery. All deliveries to one consumer have the same timeout, so that is the order of deadlines too, but for
messages that were touched; one alarm per consumer is enough.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mypy_extensions import i64

from nsqkit.nsqd.core.deadlines import Alarm

if TYPE_CHECKING:
    from nsqkit.nsqd.core.channel import Channel
    from nsqkit.nsqd.core.session import Session
    from nsqkit.wire.message import Message

SAME_ZONE: Final = 0
SAME_REGION: Final = 1
ELSEWHERE: Final = 2

OUTPUT_LIMIT: Final = 262_144  # bytes gathered in one turn after which a consumer is not ready any more


class Subscriber(Alarm):
    """One session's subscription to one channel. It outlives the session while messages are in flight."""

    def __init__(self, session: Session, channel: Channel) -> None:
        super().__init__()
        self.session: Session | None = session  # None: it is gone
        self.channel = channel
        self.msg_timeout: i64 = session.identity.msg_timeout
        self.distance = _distance(session)
        self.line = channel.willing[
            self.distance if len(channel.willing) > 1 else 0
        ]  # to stand in for its turn
        self.sample_rate: i64 = session.identity.sample_rate
        self.ready_count: i64 = 0  # RDY: the ceiling on messages in flight
        self.confirmed = True  # its SUB was answered; before that it gets nothing
        self.wanted: i64 = 0  # RDY until then
        self.returning = False  # gone, and its messages are to be ready again at once
        self.listed = False  # it stands in the channel's line of willing consumers
        self.in_flight: dict[bytes, Message] = {}  # by id, in order of delivery
        self.message_count: i64 = 0
        self.finish_count: i64 = 0
        self.requeue_count: i64 = 0

    def room(self) -> i64:
        """How many messages it may be sent now; never negative."""
        session = self.session
        flying: i64 = len(self.in_flight)
        if (
            session is None
            or session.blocked
            or session.closed
            or flying >= self.ready_count
            or len(session.out) >= OUTPUT_LIMIT
        ):
            return 0
        return self.ready_count - flying

    def ready(self, count: i64) -> None:
        """RDY."""
        if self.confirmed:
            self.ready_count = count
            self.wake()
        else:
            self.wanted = count

    def confirm(self) -> None:
        """SUB was answered."""
        self.confirmed = True
        self.ready(self.wanted)

    def wake(self) -> None:
        """Something changed that may have made it ready."""
        channel = self.channel
        if not self.listed and self.room() > 0:
            self.listed = True
            self.line.append(self)
        if self.listed:
            channel.want_dispatch()

    def ring(self, now: i64) -> i64:
        """Take back what was not finished in time."""
        again: i64 = 0
        channel = self.channel
        deadlines = channel.broker.deadlines
        expired: list[Message] = []
        for message in self.in_flight.values():
            if message.deadline <= now or self.returning:
                if deadlines.left <= 0:
                    again = now
                    break
                deadlines.left -= 1
                expired.append(message)
                continue
            untouched: i64 = message.delivered_at + self.msg_timeout
            earliest = message.deadline if untouched <= now else untouched
            if again == 0 or earliest < again:
                again = earliest
            if untouched > now:
                break  # what was delivered later is due later
        for message in expired:
            del self.in_flight[message.id]
            channel.take_back(message)
        count: i64 = len(expired)
        if self.returning:
            channel.requeue_count += count
        else:
            channel.timeout_count += count
        if expired:
            channel.forget_departed(self)
            self.wake()
        return again


def _distance(session: Session) -> i64:
    """How far the consumer is from this nsqd, if that matters (spec/nsqd-semantics.md, section 12)."""
    settings = session.broker.settings
    here = settings.limits
    there = session.identity
    if not settings.prefer_near:
        return ELSEWHERE
    if here.topology_zone == there.topology_zone:
        return SAME_ZONE
    return SAME_REGION if here.topology_region == there.topology_region else ELSEWHERE
