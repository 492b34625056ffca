"""Connections to several nsqds: each is kept, and opened again after it was lost.

An nsqd that can't be reached is tried after a delay that doubles, at random down to a half, from `reconnect_min` up to
`reconnect_max`. The log has a WARNING when that begins and an INFO when it ends, not one for each try.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from random import Random
from typing import Final

from nsqkit.client.clock import ClientClock, Nap
from nsqkit.client.link import Link
from nsqkit.client.options import ConnectionOptions
from nsqkit.errors import ConnectionFailed

SOON_S: Final = 1.0  # a try that somebody waits for begins no sooner than this after the last one began


class Pool:
    """Links to the nsqds of one producer or consumer, by address."""

    def __init__(
        self,
        options: ConnectionOptions,
        clock: ClientClock,
        log: logging.Logger,
        connect: Callable[[str], Awaitable[Link]],
        up: Callable[[Link], None],
        down: Callable[[Link], None],
        failed: Callable[[], None],
    ) -> None:
        """`up` hears of a new link, `down` of one that was lost, `failed` of a try that was in vain."""
        self.links: list[Link] = []  # that are of use
        self.failures: dict[str, ConnectionFailed] = {}  # the last one, of nsqds without a link
        self._options = options
        self._clock = clock
        self._log = log
        self._connect = connect
        self._up = up
        self._down = down
        self._failed = failed
        self._random = Random()  # noqa: S311 - no secret
        self._fixed: set[str] = set()
        self._found: set[str] = set()
        self._keepers: dict[str, _Keeper] = {}
        self._ending: set[asyncio.Task[None]] = set()  # that were cancelled

    def add(self, addresses: Iterable[str], count: int = 1) -> None:
        """Keep `count` connections to each of these for good."""
        for address in addresses:
            self._fixed.add(address)
            self._keep(address, count)

    def found(self, addresses: Iterable[str], count: int = 1) -> None:
        """These are all that discovery knows now. Who is connected stays so, listed or not."""
        self._found = set(addresses)
        for address in sorted(self._found):
            self._keep(address, count)
        for key, keeper in list(self._keepers.items()):
            if not self.wanted(keeper.address) and keeper.link is None:
                keeper.stop()
                self._forget(key)

    def wanted(self, address: str) -> bool:
        """Whether somebody has named this address."""
        return address in self._fixed or address in self._found

    @property
    def addresses(self) -> list[str]:
        """Who is connected, or tried."""
        return list(dict.fromkeys(keeper.address for keeper in self._keepers.values()))

    def hurry(self) -> None:
        """Somebody waits for a connection: try soon."""
        for keeper in self._keepers.values():
            keeper.hurry()

    def stop_trying(self) -> None:
        """Open no connection any more. Those that stand are left."""
        for key, keeper in list(self._keepers.items()):
            keeper.stop()
            self._ending.add(keeper.task)
            self._forget(key)

    async def close(self) -> None:
        """Close everything, and return when nothing is left of it."""
        self.stop_trying()
        for link in list(self.links):
            link.close()
        if self._ending:
            await asyncio.wait(self._ending)

    def _keep(self, address: str, count: int) -> None:
        for number in range(count):
            key = f"{address} {number}"
            if key not in self._keepers:
                self._keepers[key] = _Keeper(self, key, address)

    def _forget(self, key: str) -> None:
        keeper = self._keepers.pop(key, None)
        if keeper is not None and keeper.address not in self.addresses:
            self.failures.pop(keeper.address, None)

    # -- for keepers

    async def open(self, address: str) -> Link:
        """One connection. ConnectionFailed."""
        return await self._connect(address)

    def stands(self, link: Link) -> None:
        """It is of use from here on."""
        self.failures.pop(link.nsqd, None)
        self.links.append(link)
        self._watch(link)
        self._up(link)
        link.begin()

    def lost(self, link: Link) -> None:
        """It is not of use any more."""
        self.links.remove(link)
        self._down(link)

    def refuse(self, error: ConnectionFailed) -> None:
        """A try was in vain."""
        if error.nsqd not in self.failures:
            self._log.warning("%s; trying again", error)
        else:
            self._log.debug("%s; trying again", error)
        self.failures[error.nsqd] = error
        self._failed()

    def delay(self, tries: int) -> float:
        """Seconds before the next try, after this many in vain."""
        options = self._options
        longest: float = min(
            options.reconnect_min.seconds * 2.0 ** float(min(tries, 30)), options.reconnect_max.seconds
        )
        return longest * self._random.uniform(0.5, 1.0)

    @property
    def clock(self) -> ClientClock:
        """The clock of the client."""
        return self._clock

    def ended(self, key: str) -> None:
        """A keeper has nothing to keep any more."""
        self._forget(key)

    def _watch(self, link: Link) -> None:
        """Hang up when nothing was heard for two heartbeats."""
        if link.heartbeat <= 0:
            return
        patience = 2 * link.heartbeat

        def look() -> None:
            if link.lost:
                return
            if self._clock.now() - link.heard_at >= patience:
                link.abort(f"nothing was heard of it for {patience:g} s")
            else:
                self._clock.call_at(link.heard_at + patience, look)

        self._clock.call_at(link.heard_at + patience, look)


class _Keeper:
    """Keeps one connection. `task` is its task."""

    def __init__(self, pool: Pool, key: str, address: str) -> None:
        self.address = address
        self.link: Link | None = None
        self._pool = pool
        self._key = key
        self._tries = 0
        self._began = 0.0
        self._over = asyncio.Event()
        self._nap = Nap(pool.clock)
        self.task = asyncio.get_running_loop().create_task(self._run(), name=f"nsqkit: nsqd {address}")

    def hurry(self) -> None:
        """Try soon."""
        self._nap.hurry(max(self._began + SOON_S, self._pool.clock.now()))

    def stop(self) -> None:
        """Keep nothing any more; the connection that stands is left alone."""
        self.task.cancel()

    async def _run(self) -> None:
        pool = self._pool
        while True:
            self._began = pool.clock.now()
            try:
                link = await self._open()
            except ConnectionFailed as error:
                pool.refuse(error)
                await self._pause(pool.delay(self._tries))
                self._tries += 1
                continue
            self.link = link
            self._over.clear()
            link.on_lost = self._lost
            pool.stands(link)
            await self._over.wait()
            self.link = None
            if not pool.wanted(self.address):
                pool.ended(self._key)
                return
            lived = pool.clock.now() - self._began
            # One that is refused at once is no success.
            self._tries = 0 if lived >= SOON_S else self._tries + 1
            await self._pause(pool.delay(self._tries) / 2)

    async def _open(self) -> Link:
        try:
            return await self._pool.open(self.address)
        except ConnectionFailed:
            raise
        except Exception as error:  # whatever it is, it must not end in silence
            raise ConnectionFailed(self.address, f"it could not be connected: {error!r}") from error

    def _lost(self, link: Link) -> None:
        self._pool.lost(link)
        self._over.set()

    async def _pause(self, seconds: float) -> None:
        await self._nap.until(self._pool.clock.now() + seconds)
