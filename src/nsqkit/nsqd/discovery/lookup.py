"""nsqd's side of discovery: tells nsqlookupds which topics and channels there are, asks them for those of a new topic.

Each address of an nsqlookupd has a task of its own, so none waits for another, and nothing else waits for any of them:
a publish is answered while they are dead, slow or lying. A name that stands for several addresses stands for an
nsqlookupd at each; it is looked up again every --lookupd-resolve-interval.

A topic that is new here may have channels elsewhere. While the nsqlookupds are asked, for at most
--http-client-request-timeout, what is published to it is kept but held, so that no channel misses any of it.
"""

import asyncio
import socket
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from nsqkit.address import join_address, split_address
from nsqkit.log import Log
from nsqkit.names import is_ephemeral, valid_name
from nsqkit.nsqd.core.broker import Broker
from nsqkit.nsqd.core.registry import Registry
from nsqkit.nsqd.core.store import StoreError
from nsqkit.nsqd.core.topic import Topic
from nsqkit.nsqd.discovery.peer import Endpoint, LookupPeer
from nsqkit.options.duration import SECOND, Duration

if TYPE_CHECKING:
    from nsqkit.cluster import Cluster

MAX_CHANNELS: Final = 10_000  # of a new topic that nsqlookupds may name
RESOLVE_TIMEOUT_S: Final = 10.0
SETTLE_S: Final = 1.0  # for which statistics wait for the channels of new topics
SAY_GOODBYE_S: Final = 1.0  # for closing connections and tasks when the daemon stops


class Lookup(Registry):
    """All of nsqd's nsqlookupds. Lives in one event loop, between `start` and `stop`."""

    def __init__(
        self,
        broker: Broker,
        log: Log,
        turn: Callable[[], None],
        now: Callable[[], int],
        *,
        connect_timeout: Duration,
        request_timeout: Duration,
        resolve_interval: Duration,
        token: Callable[[], str] = str,
    ) -> None:
        """`turn` lets the broker act on what was found. Timeouts and `token` are those of HTTP requests."""
        super().__init__()
        self._broker = broker
        self._log = log
        self._turn = turn
        self._now = now
        self._connect_timeout_s = int(connect_timeout) / SECOND
        self._request_timeout_s = int(request_timeout) / SECOND
        self._resolve_interval_s = int(resolve_interval) / SECOND
        self._token = token
        self._identity = b""
        self._addresses: dict[str, _Address] = {}
        self._peers: dict[Endpoint, LookupPeer] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._asking: set[asyncio.Task[None]] = set()  # those for the channels of new topics
        self._cluster: Cluster | None = None

    # -- start and stop

    def start(self, identity: bytes, addresses: Iterable[str]) -> None:
        """Announce everything there is, and from now on what changes. `identity` is the JSON for IDENTIFY."""
        self._identity = identity
        self._broker.registry = self
        self.configure(addresses)

    def configure(self, addresses: Iterable[str]) -> None:
        """Have these nsqlookupds and no others. Those that stay are left in peace."""
        wanted = dict.fromkeys(addresses)
        for name in [name for name in self._addresses if name not in wanted]:
            self._addresses.pop(name).watcher.cancel()
            self._log.info(f"LOOKUPD({name}): removing peer", nsqlookupd=name)
        for name in wanted:
            if name not in self._addresses:
                self._log.info(f"LOOKUPD({name}): adding peer", nsqlookupd=name)
                address = _Address(name)
                self._addresses[name] = address
                address.watcher = self._spawn(self._watch(address))
        if wanted and self._cluster is None:
            self._spawn(self._load())
        self._reconcile()

    def set_times(
        self, *, connect_timeout: Duration, request_timeout: Duration, resolve_interval: Duration
    ) -> None:
        """Have other timeouts, and look names up again as often as this."""
        self._connect_timeout_s = int(connect_timeout) / SECOND
        self._request_timeout_s = int(request_timeout) / SECOND
        if self._cluster is not None:
            self._cluster.set_timeouts(self._connect_timeout_s, self._request_timeout_s)
        if self._resolve_interval_s != int(resolve_interval) / SECOND:
            self._resolve_interval_s = int(resolve_interval) / SECOND
            for address in self._addresses.values():  # they wait for the old time
                address.watcher.cancel()
                address.watcher = self._spawn(self._watch(address))

    async def stop(self) -> None:
        """Hang up everywhere. The nsqlookupds forget this nsqd when its connections close."""
        self._broker.registry = Registry()
        self._addresses = {}
        self._reconcile()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=SAY_GOODBYE_S)
        if self._cluster is not None:
            await self._cluster.close()
            self._cluster = None

    @property
    def addresses(self) -> Sequence[str]:
        """What is configured."""
        return [*self._addresses]

    # -- what the broker says

    def topic_made(self, topic: Topic) -> None:
        """Announce it, and ask which channels it has elsewhere."""
        for peer in self._peers.values():
            peer.made(topic.name)
        http = [peer.http_address for peer in self._peers.values() if peer.http_address]
        if http:
            topic.await_channels()
            asking = self._spawn(self._discover(topic, http))
            self._asking.add(asking)
            asking.add_done_callback(self._asking.discard)
        elif self._addresses:
            self._log.error(
                f"no available nsqlookupd to query for channels to pre-create for topic {topic.name}",
                topic=topic.name,
            )

    def channel_made(self, topic: str, channel: str) -> None:  # noqa: ARG002 - the peers look for themselves
        """Announce it."""
        for peer in self._peers.values():
            peer.made(topic)

    def channel_deleted(self, topic: str, channel: str) -> None:
        """Take it back."""
        for peer in self._peers.values():
            peer.deleted(topic, channel)

    def topic_deleted(self, topic: str) -> None:
        """Take it back."""
        self.channel_deleted(topic, "")

    # -- channels of a new topic

    async def wait_for_channels(self) -> None:
        """Return when no new topic waits for its channels, or after SETTLE_S."""
        if self._asking:
            await asyncio.wait(self._asking, timeout=SETTLE_S)

    async def _discover(self, topic: Topic, http: Sequence[str]) -> None:
        """Make the channels that a new topic has elsewhere, then let its messages go."""
        found: list[str] = []
        try:
            cluster = await self._ready_cluster()
            answers = await cluster.channels(
                http, topic.name
            )  # who does not answer in time is a failure of it
            for failure in answers.failures:
                text = f"TOPIC({topic.name}): failed to query nsqlookupd for channels - {failure}"
                self._log.warning(text, topic=topic.name, nsqlookupd=failure.node)
            found = answers.value
        finally:
            if not topic.deleted and not self._broker.exiting:
                self._make_channels(topic, found)
                topic.channels_known(self._now())
                self._turn()

    def _make_channels(self, topic: Topic, names: Sequence[str]) -> None:
        if len(names) > MAX_CHANNELS:
            self._log.warning(
                f"TOPIC({topic.name}): nsqlookupd names {len(names)} channels; only {MAX_CHANNELS} are made",
                topic=topic.name,
            )
        for name in names[:MAX_CHANNELS]:
            if not valid_name(name):
                text = f"TOPIC({topic.name}): nsqlookupd names a channel that can't be: {name!r}"
                self._log.warning(text, topic=topic.name)
            elif not is_ephemeral(name):
                try:
                    topic.channel(name, self._now())
                except StoreError as error:
                    self._log.warning(
                        f"TOPIC({topic.name}): channel {name} is not made: {error}", kind="channels"
                    )

    async def _load(self) -> None:
        """Have the client at hand before the first topic is made."""
        await self._ready_cluster()

    async def _ready_cluster(self) -> "Cluster":
        """The client; loading it takes a while, which a thread can spend."""
        module: Any = await asyncio.to_thread(import_module, "nsqkit.cluster")
        if self._cluster is None:
            self._cluster = module.Cluster(
                connect_timeout=self._connect_timeout_s,
                request_timeout=self._request_timeout_s,
                token=self._token,
            )
        return self._cluster

    def connected(self) -> dict[str, bool]:
        """Whether there is a connection, by address; by its name if none was found for that."""
        lost = {address.name: False for address in self._addresses.values() if not address.endpoints}
        return lost | {join_address(*endpoint): peer.connected for endpoint, peer in self._peers.items()}

    # -- names and their addresses

    async def _watch(self, address: "_Address") -> None:
        """Keep the endpoints of a configured address up to date."""
        try:
            host, port = split_address(address.name)
        except ValueError as reason:
            self._log.error(f"LOOKUPD({address.name}): {reason}", nsqlookupd=address.name)
            return
        while True:
            found, error = await _resolve(host, port)
            if error != address.error:
                address.error = error
                if error:
                    text = f"LOOKUPD({address.name}): can't find its address - {error}"
                    self._log.error(text, nsqlookupd=address.name)
                else:
                    self._log.info(f"LOOKUPD({address.name}): found its address", nsqlookupd=address.name)
            if found:  # names that can't be found now keep what they had
                address.endpoints = found
                self._reconcile()
            if found == {(host, port)}:
                return  # it was no name
            await asyncio.sleep(self._resolve_interval_s)

    def _reconcile(self) -> None:
        """Have a peer for each endpoint, and no others."""
        wanted = {
            endpoint: address.name
            for address in self._addresses.values()
            for endpoint in sorted(address.endpoints)
        }
        for endpoint in [endpoint for endpoint in self._peers if endpoint not in wanted]:
            self._peers.pop(endpoint).task.cancel()
        for endpoint, name in wanted.items():
            if endpoint not in self._peers:
                peer = LookupPeer(name, endpoint, self._identity, self._broker, self._log)
                self._peers[endpoint] = peer
                peer.task = self._spawn(peer.run())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error(f"LOOKUPD: a defect of ours: {error!r}")


class _Address:
    """An address as it was configured."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.endpoints: set[Endpoint] = set()
        self.error = ""
        self.watcher: asyncio.Task[None]


async def _resolve(host: str, port: int) -> tuple[set[Endpoint], str]:
    """Where a name leads to; or nothing, and why.

    A name with IPv4 and IPv6 addresses is taken for hosts that have both, so only one kind counts.
    """
    loop = asyncio.get_running_loop()
    with suppress(TimeoutError):
        async with asyncio.timeout(RESOLVE_TIMEOUT_S):
            try:
                found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            except OSError as error:
                return set(), error.strerror or str(error)
            family = min((one[0] for one in found), key=lambda family: family != socket.AF_INET)
            return {(str(one[4][0]), port) for one in found if one[0] == family}, ""
    return set(), f"no answer within {RESOLVE_TIMEOUT_S:g} s"
