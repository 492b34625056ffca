"""Touches messages while somebody works on them, so that nsqd gives them to nobody else.

Each is touched when half of its time is over, again and again, up to a limit. All messages of one connection have the
same time, so the one that is touched next stands first in `Link.busy`; one timer is for the first of all these.
"""

import logging
import math

from nsqkit.client.clock import ClientClock, Timer
from nsqkit.client.link import Link
from nsqkit.client.message import Inbox, Message
from nsqkit.client.options import ConsumerOptions


class Touching:
    """What one consumer's messages are touched by. `links` is the list of its connections, kept by the pool."""

    def __init__(
        self, inbox: Inbox, clock: ClientClock, options: ConsumerOptions, log: logging.Logger, name: str
    ) -> None:
        self.links: list[Link] = []
        self._inbox = inbox
        self._clock = clock
        self._log = log
        self._name = name
        self._longest = options.max_processing_time.seconds
        self._timer: Timer | None = None
        inbox.touching = options.auto_touch
        inbox.on_begin = self._set_timer

    @property
    def busy(self) -> bool:
        """Whether somebody works on a message."""
        return any(link.busy for link in self.links)

    def stop(self) -> None:
        """Touch nothing any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _set_timer(self) -> None:
        times = [next(iter(link.busy)).touch_at for link in self.links if link.busy]
        if self._timer is not None:
            self._timer.cancel()
        self._inbox.touch_due = min(times, default=math.inf)
        if times:
            self._timer = self._clock.call_at(self._inbox.touch_due, self._ring)

    def _ring(self) -> None:
        now = self._clock.now()
        for link in self.links:
            busy = link.busy
            while busy:
                message = next(iter(busy))
                if message.touch_at > now:
                    break
                del busy[message]
                if not message.answered and self._is_worth_it(link, message, now):
                    message.touch()
                    message.touch_at = now + link.msg_timeout / 2
                    busy[message] = None
        self._set_timer()

    def _is_worth_it(self, link: Link, message: Message, now: float) -> bool:
        limit = self._longest or link.max_msg_timeout
        if now - message.received_at < min(limit, link.max_msg_timeout):
            return True
        why = (
            "max_processing_time"
            if limit <= link.max_msg_timeout and self._longest
            else "nsqd's --max-msg-timeout"
        )
        self._log.warning(
            "%s: message %s has been worked on for %.0f s (%s): nsqd will give it to another consumer",
            self._name,
            message.id,
            now - message.received_at,
            why,
        )
        return False
