"""Discovery: which nsqds have a topic, or which there are at all, as nsqlookupds say.

All nsqlookupds are asked, and what they say is put together; so one that is down hides nothing that another knows. The
log has a WARNING when one begins to fail and an INFO when it is back.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, Final

from nsqkit.address import join_address
from nsqkit.client.clock import ClientClock, Timer
from nsqkit.client.options import ConnectionOptions

if TYPE_CHECKING:
    from nsqkit.cluster import Cluster

SOON_S: Final = 1.0  # between two questions, however many connections are lost


class Discovery:
    """Asks again and again. `failures` says which nsqlookupds do not answer, and why."""

    def __init__(
        self,
        lookupds: Sequence[str],
        topic: str | None,
        options: ConnectionOptions,
        clock: ClientClock,
        found: Callable[[list[str]], None],
        log: logging.Logger,
    ) -> None:
        """`found` gets the addresses of all nsqds that have the topic; without a topic, of all nsqds."""
        self.failures: dict[str, str] = {}
        self._lookupds = lookupds
        self._topic = topic
        self._options = options
        self._clock = clock
        self._found = found
        self._log = log
        self._random = Random()  # noqa: S311 - no secret
        self._wake = asyncio.Event()
        self._asked_at = 0.0
        self._timer: Timer | None = None
        self._due = 0.0  # when it rings
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Ask now, and then regularly."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="nsqkit: discovery")

    async def stop(self) -> None:
        """Ask no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    def poll_soon(self) -> None:
        """There is a reason to ask: a connection was lost."""
        if self._timer is not None:
            when = max(self._asked_at + SOON_S, self._clock.now())
            if when < self._due:
                self._set_timer(when)

    async def _run(self) -> None:
        from nsqkit.cluster import Cluster  # noqa: PLC0415 - loads aiohttp, which only discovery needs

        options = self._options
        limit = options.lookupd_poll_timeout.seconds
        secret = options.auth_secret if options.skip_lookupd_authorization else ""
        interval = options.lookupd_poll_interval.seconds
        late = self._random.random() * options.lookupd_poll_jitter * interval
        async with Cluster(connect_timeout=limit, request_timeout=limit, token=lambda: secret) as cluster:
            while True:
                self._asked_at = self._clock.now()
                try:
                    await self._ask(cluster)
                except Exception:  # noqa: BLE001 - whatever it is, discovery must not end in silence
                    self._log.exception("nsqlookupds could not be asked; asking again in %g s", interval)
                await self._pause(interval + late)
                late = 0.0

    async def _ask(self, cluster: "Cluster") -> None:
        if self._topic is None:
            nodes = await cluster.nodes(self._lookupds)
            producers, answered, failures = nodes.value, nodes.answered, nodes.failures
        else:
            lookup = await cluster.lookup(self._lookupds, self._topic)
            producers, answered, failures = lookup.value.producers, lookup.answered, lookup.failures
        now_failing = {failure.node: failure.text for failure in failures}
        for node, text in now_failing.items():
            if node not in self.failures:
                self._log.warning("nsqlookupd %s: %s; asking again", node, text)
        for node in self.failures.keys() - now_failing.keys():
            self._log.info("nsqlookupd %s: it answers again", node)
        self.failures = now_failing
        if answered:
            self._found(
                [join_address(one.broadcast_address, one.tcp_port) for one in producers if one.tcp_port > 0]
            )

    async def _pause(self, seconds: float) -> None:
        self._wake.clear()
        self._set_timer(self._clock.now() + seconds)
        try:
            await self._wake.wait()
        finally:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _set_timer(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = when
        self._timer = self._clock.call_at(when, self._wake.set)
