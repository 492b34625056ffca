"""Discovery: which nsqds have a topic, or which there are at all, as nsqlookupds say.

Each nsqlookupd is asked by a task of its own, and what all of them said last is put together. So one that is down, or
hangs, hides nothing that another knows. The log has a WARNING when one begins to fail and an INFO when it is back.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, Final

from nsqkit.address import join_address
from nsqkit.client.clock import ClientClock, Nap
from nsqkit.client.options import ConnectionOptions

if TYPE_CHECKING:
    from nsqkit.cluster import Cluster

SOON_S: Final = 1.0  # between two questions to one of them, however many connections are lost
CONNECT_S: Final = 5.0  # for a connection to one of them, within `lookupd_poll_timeout`


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
        self.topic = topic
        self.options = options
        self.clock = clock
        self._found = found
        self._log = log
        self._answers: dict[str, list[str]] = {}  # the last one of each
        chance = Random()  # noqa: S311 - no secret
        self._askers = [_Asker(self, lookupd, chance) for lookupd in lookupds]
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
        for asker in self._askers:
            asker.hurry()

    async def _run(self) -> None:
        from nsqkit.cluster import Cluster  # noqa: PLC0415 - loads aiohttp, which only discovery needs

        options = self.options
        limit = options.lookupd_poll_timeout.seconds
        secret = options.auth_secret if options.skip_lookupd_authorization else ""
        cluster = Cluster(connect_timeout=min(limit, CONNECT_S), request_timeout=limit, token=lambda: secret)
        async with cluster, asyncio.TaskGroup() as group:
            for asker in self._askers:
                group.create_task(asker.run(cluster))

    # -- for askers

    def answered(self, lookupd: str, nsqds: list[str]) -> None:
        """One has said who there is."""
        if self.failures.pop(lookupd, None) is not None:
            self._log.info("nsqlookupd %s: it answers again", lookupd)
        self._answers[lookupd] = nsqds
        self._found(list(dict.fromkeys(nsqd for answer in self._answers.values() for nsqd in answer)))

    def failed(self, lookupd: str, reason: str) -> None:
        """One has not; what it said last still holds."""
        if lookupd not in self.failures:
            self._log.warning("nsqlookupd %s: %s; asking again", lookupd, reason)
        self.failures[lookupd] = reason

    def broken(self) -> None:
        """Something happened that nobody foresaw."""
        self._log.exception("nsqlookupds could not be asked; asking again")


class _Asker:
    """Asks one nsqlookupd."""

    def __init__(self, discovery: Discovery, lookupd: str, chance: Random) -> None:
        self._discovery = discovery
        self._lookupd = lookupd
        self._chance = chance
        self._nap = Nap(discovery.clock)
        self._asked_at = 0.0
        self._hurried = False  # while it was asked

    def hurry(self) -> None:
        """Ask soon, or once more if it is being asked."""
        if not self._nap.hurry(max(self._asked_at + SOON_S, self._discovery.clock.now())):
            self._hurried = True

    async def run(self, cluster: "Cluster") -> None:
        """Ask until cancelled."""
        discovery = self._discovery
        interval = discovery.options.lookupd_poll_interval.seconds
        late = self._chance.random() * discovery.options.lookupd_poll_jitter * interval
        while True:
            self._asked_at = discovery.clock.now()
            self._hurried = False
            try:
                await self._ask(cluster)
            except Exception:  # noqa: BLE001 - whatever it is, discovery must not end in silence
                discovery.broken()
            await self._pause(interval + late)
            late = 0.0

    async def _ask(self, cluster: "Cluster") -> None:
        discovery = self._discovery
        if discovery.topic is None:
            nodes = await cluster.nodes([self._lookupd])
            producers, failures = nodes.value, nodes.failures
        else:
            lookup = await cluster.lookup([self._lookupd], discovery.topic)
            producers, failures = lookup.value.producers, lookup.failures
        if failures:
            discovery.failed(self._lookupd, failures[0].text)
        else:
            nsqds = [
                join_address(one.broadcast_address, one.tcp_port) for one in producers if one.tcp_port > 0
            ]
            discovery.answered(self._lookupd, nsqds)

    async def _pause(self, seconds: float) -> None:
        now = self._discovery.clock.now()
        await self._nap.until(max(self._asked_at + SOON_S, now) if self._hurried else now + seconds)
