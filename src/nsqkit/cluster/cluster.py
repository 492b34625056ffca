"""Ask nodes at once or in turn, and say what they answered.

Nodes are `host:port` of their HTTP API, or paths of unix sockets; one that is named twice is asked once. Reads go to
all nodes at the same time, but no more than MAX_REQUESTS to one; commands go to one node after the other. What is wrong
with a node is a `Failure` in the answer, and never raised; cancellation is. To name no node at all is no failure.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Generic, Self, TypeVar
from weakref import WeakValueDictionary

import msgspec

from nsqkit.cluster import merge
from nsqkit.cluster.documents import ChannelNames, Info, NodeStats, Registrations, TopicNames, read_stats
from nsqkit.cluster.request import NODE_ERRORS, BadStatus, Requester, in_words

MAX_REQUESTS: Final = 100  # to one node at the same time
CONNECT_TIMEOUT: Final = 2.0  # seconds
REQUEST_TIMEOUT: Final = 5.0  # seconds

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True, slots=True)
class Failure:
    """A node that gave no usable answer, and why. `status` is the HTTP status if that is why, and otherwise 0."""

    node: str
    text: str
    status: int = 0

    def __str__(self) -> str:
        return f"{self.node}: {self.text}"


@dataclass(frozen=True, slots=True)
class Answers(Generic[T]):
    """What came of asking some nodes.

    `value` is made of what those in `answered` said. Each node is either there or in `failures`; both lists are in the
    order in which the nodes were named.
    """

    value: T
    answered: list[str]
    failures: list[Failure]

    @property
    def all_failed(self) -> bool:
        """Nodes were asked, and none answered."""
        return bool(self.failures) and not self.answered


class Cluster:
    """Asks nsqlookupds and nsqds. Use it in one event loop, and close it: `async with Cluster() as cluster`."""

    def __init__(
        self,
        *,
        connect_timeout: float = CONNECT_TIMEOUT,
        request_timeout: float = REQUEST_TIMEOUT,
        ssl_context: ssl.SSLContext | None = None,
        token: Callable[[], str] = str,
    ) -> None:
        """Timeouts are in seconds: until a connection stands, and for all that one node is asked in one call.

        `ssl_context` is for nodes that want https; by default they must show a certificate that the system trusts.
        `token` gives what every node is sent as its bearer token; nothing, by default.
        """
        self._request_timeout = request_timeout
        self._requester = Requester(connect_timeout, ssl_context, token)
        self._slots = WeakValueDictionary[str, asyncio.Semaphore]()  # of nodes that are being asked

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def set_timeouts(self, connect_timeout: float, request_timeout: float) -> None:
        """Have others, in seconds, for calls to come."""
        self._request_timeout = request_timeout
        self._requester.connect_timeout = connect_timeout

    async def close(self) -> None:
        """Close what the calls have opened. Call it when none is under way."""
        await self._requester.close()

    # -- nsqlookupds

    async def topics(self, lookupds: Iterable[str]) -> Answers[list[str]]:
        """The names of all topics, sorted."""
        answers = await self._ask(lookupds, lambda node: self._get(node, "/topics", {}, TopicNames))
        return _with_value(answers, merge.merge_names(answer.topics for answer in answers.value.values()))

    async def channels(self, lookupds: Iterable[str], topic: str) -> Answers[list[str]]:
        """The names of all channels of a topic, sorted; none if nobody knows the topic."""
        params = {"topic": topic}
        answers = await self._ask(lookupds, lambda node: self._get(node, "/channels", params, ChannelNames))
        return _with_value(answers, merge.merge_names(answer.channels for answer in answers.value.values()))

    async def lookup(self, lookupds: Iterable[str], topic: str) -> Answers[merge.Lookup]:
        """Who produces a topic. An nsqlookupd that does not know the topic has answered."""

        async def ask(node: str) -> Registrations | None:
            try:
                return await self._get(node, "/lookup", {"topic": topic}, Registrations)
            except BadStatus as error:
                if (error.status, error.message) == (404, "TOPIC_NOT_FOUND"):
                    return None
                raise

        answers = await self._ask(lookupds, ask)
        return _with_value(answers, merge.merge_lookups(answers.value))

    async def nodes(self, lookupds: Iterable[str]) -> Answers[list[merge.Producer]]:
        """Every nsqd that nsqlookupds list, with its topics, sorted by host name."""
        answers = await self._ask(lookupds, lambda node: self._get(node, "/nodes", {}, Registrations))
        return _with_value(answers, merge.merge_nodes(answers.value))

    # -- nsqds

    async def nsqd_nodes(self, nsqds: Iterable[str]) -> Answers[list[merge.Producer]]:
        """The same of nsqds that are asked themselves. They know no tombstones and no nsqlookupds."""

        async def ask(node: str) -> tuple[Info, NodeStats]:
            info = await self._get(node, "/info", {}, Info)
            return info, await self._stats(node, include_clients=False)

        answers = await self._ask(nsqds, ask)
        return _with_value(answers, merge.merge_infos(answers.value))

    async def stats(
        self, nsqds: Iterable[str], topic: str = "", channel: str = "", *, include_clients: bool = True
    ) -> Answers[merge.Stats]:
        """What nsqds count: of all topics or one, of all channels or those of one name, node by node and summed up."""
        answers = await self._ask(
            nsqds, lambda node: self._stats(node, topic, channel, include_clients=include_clients)
        )
        return _with_value(answers, merge.merge_stats(answers.value))

    # -- commands

    async def post(self, nodes: Iterable[str], path: str, params: Mapping[str, str]) -> Answers[None]:
        """Give a command to nodes, one after the other, also after one has failed: `/topic/pause`, `{"topic": …}`."""
        outcomes = [
            (node, await self._one(node, lambda node: self._requester.request("POST", node, path, params)))
            for node in dict.fromkeys(nodes)
        ]
        return _with_value(_sort_out(outcomes), None)

    # -- one node

    async def _get(self, node: str, path: str, params: Mapping[str, str], document: type[T]) -> T:
        return msgspec.json.decode(await self._requester.request("GET", node, path, params), type=document)

    async def _stats(
        self, node: str, topic: str = "", channel: str = "", *, include_clients: bool
    ) -> NodeStats:
        params = {"format": "json", "include_clients": str(include_clients).lower(), "include_mem": "false"}
        params |= {name: value for name, value in (("topic", topic), ("channel", channel)) if value}
        return read_stats(node, await self._requester.request("GET", node, "/stats", params), topic, channel)

    async def _one(self, node: str, ask: Callable[[str], Awaitable[T]]) -> T | Failure:
        slots = self._slots.setdefault(node, asyncio.Semaphore(MAX_REQUESTS))
        try:
            async with asyncio.timeout(self._request_timeout) as limit, slots:
                return await ask(node)
        except NODE_ERRORS as error:
            text = f"no answer within {self._request_timeout:g} s" if limit.expired() else in_words(error)
            return Failure(node, text, error.status if isinstance(error, BadStatus) else 0)

    async def _ask(self, nodes: Iterable[str], ask: Callable[[str], Awaitable[T]]) -> Answers[dict[str, T]]:
        """Ask all nodes at once. The value is what each said, by address."""
        async with asyncio.TaskGroup() as group:
            tasks = [(node, group.create_task(self._one(node, ask))) for node in dict.fromkeys(nodes)]
        return _sort_out([(node, task.result()) for node, task in tasks])


def _sort_out(outcomes: list[tuple[str, T | Failure]]) -> Answers[dict[str, T]]:
    value = {node: outcome for node, outcome in outcomes if not isinstance(outcome, Failure)}
    return Answers(value, list(value), [outcome for _, outcome in outcomes if isinstance(outcome, Failure)])


def _with_value(answers: Answers[U], value: T) -> Answers[T]:
    return Answers(value, answers.answered, answers.failures)
