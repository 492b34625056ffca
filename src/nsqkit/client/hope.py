"""When a consumer gives up: after a time without any connection, or when every nsqd refuses it for good."""

from collections.abc import Callable, Sequence

from nsqkit.client.clock import ClientClock, Timer
from nsqkit.client.pool import Pool
from nsqkit.options.duration import Duration


class Hope:
    """Calls `fail` with a reason, and the error behind it, when there is nothing left to hope for."""

    def __init__(
        self,
        clock: ClientClock,
        give_up_after: Duration,
        all_known: bool,
        fail: Callable[[str, Exception | None], None],
    ) -> None:
        """`give_up_after` of 0 is never. `all_known`: no nsqlookupd may know another nsqd."""
        self._clock = clock
        self._limit = give_up_after
        self._all_known = all_known
        self._fail = fail
        self._pool: Pool
        self._nsqds: Sequence[str] = ()
        self._timer: Timer | None = None
        self._was_connected = False

    def start(self, pool: Pool, nsqds: Sequence[str]) -> None:
        """There is no connection yet."""
        self._pool, self._nsqds = pool, nsqds
        self.lost()

    def stop(self) -> None:
        """Give up no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def connected(self) -> None:
        """A connection stands."""
        self._was_connected = True
        self.stop()

    def lost(self) -> None:
        """There is one connection less."""
        if self._limit > 0 and not self._pool.links and self._timer is None:
            self._timer = self._clock.call_at(self._clock.now() + self._limit.seconds, self._give_up)

    def refused(self) -> None:
        """A try was in vain. If every nsqd refuses, and always has, none will ever do otherwise."""
        pool = self._pool
        if pool.links or self._was_connected or not self._all_known:
            return
        failures = [pool.failures.get(nsqd) for nsqd in self._nsqds]
        if all(error is not None and error.final for error in failures):
            self._fail("; ".join(str(error) for error in failures), failures[0])

    def _give_up(self) -> None:
        self._timer = None
        failures = list(self._pool.failures.values())
        reasons = "; ".join(str(error) for error in failures) or "none is known"
        reason = f"no connection to an nsqd for {self._limit} (give_up_after): {reasons}"
        self._fail(reason, failures[0] if failures else None)
