"""The pace of a consumer: which RDY each connection is sent, and when.

`Flow` shares `max_in_flight` among the connections, `Backoff` takes it away for a while after failures; here are their
timers.
"""

import logging
from collections.abc import Callable, Sequence
from random import Random

from nsqkit.client.backoff import Backoff, BackoffState, Signal
from nsqkit.client.clock import ClientClock, Timer
from nsqkit.client.flow import Flow
from nsqkit.client.link import Link
from nsqkit.client.message import BACK_OFF, RESUME, Inbox
from nsqkit.client.options import BackoffStrategy, ConsumerOptions


class Pace:
    """RDY and back-off. `changed` hears when back-off begins or ends."""

    def __init__(
        self, options: ConsumerOptions, log: logging.Logger, name: str, changed: Callable[[], None]
    ) -> None:
        self.max_in_flight = options.max_in_flight
        self._options = options
        self._log = log
        self._name = name
        self._changed = changed
        chance = Random()  # noqa: S311 - no secret
        self._flow: Flow[Link] = Flow(
            options.max_in_flight,
            chance,
            options.low_rdy_idle_timeout.seconds,
            options.low_rdy_timeout.seconds,
        )
        self._backoff = Backoff(
            options.backoff_multiplier.seconds,
            options.max_backoff_duration.seconds,
            options.backoff_strategy is BackoffStrategy.FULL_JITTER,
            chance,
            options.backoff_recovery.value,
        )
        self._clock: ClientClock | None = None
        self._inbox: Inbox
        self._links: list[Link]
        self._pause_timer: Timer | None = None
        self._share_timer: Timer | None = None

    def start(self, clock: ClientClock, inbox: Inbox, links: list[Link]) -> None:
        """Begin. `links` is the list of all connections, kept by the pool."""
        self._clock, self._inbox, self._links = clock, inbox, links

    def stop(self) -> None:
        """Set no timer any more."""
        for timer in (self._pause_timer, self._share_timer):
            if timer is not None:
                timer.cancel()

    @property
    def level(self) -> int:
        """Of back-off; 0 is none."""
        return self._backoff.level

    def rdy(self, link: Link) -> int:
        """What this connection was sent last."""
        return self._flow.rdy(link)

    # -- connections

    def add(self, link: Link) -> None:
        """One stands."""
        self._tell(self._flow.add(link, int(link.max_rdy_count), self._now()))

    def remove(self, link: Link) -> None:
        """One is gone."""
        self._tell(self._flow.remove(link, self._now()))

    def received(self, link: Link) -> None:
        """Messages came by one."""
        self._flow.received(link, self._now())

    def set_max_in_flight(self, count: int) -> None:
        """Another limit."""
        self.max_in_flight = count
        self._tell(self._flow.set_max_in_flight(count, self._now()))

    def _now(self) -> float:
        return self._clock.now() if self._clock is not None else 0.0

    def _tell(self, changes: Sequence[tuple[Link, int]]) -> None:
        """Send what `Flow` has decided. One that was lost meanwhile is told nothing."""
        for link, ready in changes:
            if not link.lost:
                link.ready(ready)
        self._share_later()

    def _share_later(self) -> None:
        """Somebody has less than others: let them change places after a while."""
        clock = self._clock
        if clock is None or self._share_timer is not None or len(self._links) < 2:
            return
        if len(self._links) > self._flow.limit > 0:
            interval = self._options.rdy_redistribute_interval.seconds
            self._share_timer = clock.call_at(clock.now() + interval, self._share)

    def _share(self) -> None:
        self._share_timer = None
        self._tell(self._flow.redistribute(self._now()))

    # -- back-off

    def answered(self, answer: int) -> None:
        """What became of a message."""
        signal = (
            Signal.RESUME if answer == RESUME else Signal.BACKOFF if answer == BACK_OFF else Signal.CONTINUE
        )
        before = self._backoff.state
        pause = self._backoff.signal(signal)
        state = self._backoff.state
        self._inbox.attentive = state is not BackoffState.NORMAL
        clock = self._clock
        if pause is not None and clock is not None:
            self._log.warning(
                "%s: back-off, level %d: no messages for %.1f s", self._name, self._backoff.level, pause
            )
            self._pause_timer = clock.call_at(clock.now() + pause, self._pause_over)
        elif state is before:
            return
        else:
            self._log.info("%s: back-off is over", self._name)
        self._tell(self._flow.backoff_changed(state, self._now()))
        self._changed()

    def _pause_over(self) -> None:
        self._pause_timer = None
        self._backoff.pause_over()
        self._tell(self._flow.backoff_changed(self._backoff.state, self._now()))
