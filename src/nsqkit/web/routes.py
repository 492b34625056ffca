"""The table of endpoints: one row for each, written where its function is. Each needs a role, its own or its group's.

    @routes.post("/topic/pause", params="topic")
    def pause_topic(nsqd: Daemon, call: Call) -> None:
        \"\"\"Hold messages back from the topic's channels. Publishing goes on.\"\"\"

An endpoint returns a value or raises HttpError (`answers` tells how each looks); it may be a coroutine function. The
first line of its docstring is what docs/http.md says.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

from nsqkit.options import Options
from nsqkit.tokens import Role
from nsqkit.web.answers import Style
from nsqkit.web.call import Call

MAX_ADMIN_BODY: Final = 65_536
"""Bytes of a body that is read only because somebody sent it."""


D = TypeVar("D", contravariant=True)  # noqa: PLC0105 - the daemon, as an endpoint sees it
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Body:
    """How long a body may be: the value of an option. `too_big` is the text of the error 413."""

    option: str = ""
    too_big: str = "BODY_TOO_BIG"

    def limit(self, options: Options) -> int:
        """The limit in bytes."""
        return int(getattr(options, self.option)) if self.option else MAX_ADMIN_BODY


@dataclass(frozen=True, slots=True, kw_only=True)
class Route(Generic[D]):
    """One row. No methods: any will do."""

    group: str  # heading in the docs
    methods: tuple[str, ...]
    path: str
    endpoint: Callable[[D, Call], Any]  # what it returns may be awaitable
    role: Role  # what a token must be good for, if tokens are asked for
    params: str = ""  # for the docs; optional ones in brackets
    style: Style = Style.NSQ
    body: Body | None = None  # None: the body is not looked at
    hot: bool = False  # served without asking the router, and not logged

    @property
    def meaning(self) -> str:
        """The first line of the endpoint's docstring."""
        return (self.endpoint.__doc__ or "").partition("\n")[0]


Daemon = TypeVar("Daemon")


class Adder(Protocol[Daemon]):
    """A decorator that puts an endpoint into a table."""

    def __call__(self, endpoint: Callable[[Daemon, Call], R], /) -> Callable[[Daemon, Call], R]:
        """Add it, and leave it as it is."""


class Routes(Generic[D]):
    """The rows of one module. `group` is their heading in the docs; a row may have another role or style."""

    def __init__(self, group: str, role: Role, style: Style = Style.NSQ) -> None:
        self._group = group
        self._role = role
        self._style = style
        self._rows: list[Route[D]] = []

    def __iter__(self) -> Iterator[Route[D]]:
        """The rows, in the order they were written."""
        return iter(self._rows)

    def add(self, *methods: str, path: str, **more: Any) -> Adder[D]:
        """Put a function into the table; `more` are the fields of Route."""

        def register(endpoint: Callable[[D, Call], R]) -> Callable[[D, Call], R]:
            row = {"role": self._role, "style": self._style, **more}
            self._rows.append(Route(group=self._group, methods=methods, path=path, endpoint=endpoint, **row))
            return endpoint

        return register

    def get(self, path: str, **more: Any) -> Adder[D]:
        """Add an endpoint for GET."""
        return self.add("GET", path=path, **more)

    def post(self, path: str, *, body: Body = Body(), **more: Any) -> Adder[D]:
        """Add an endpoint for POST."""
        return self.add("POST", path=path, body=body, **more)

    def put(self, path: str, *, body: Body = Body(), **more: Any) -> Adder[D]:
        """Add an endpoint for PUT."""
        return self.add("PUT", path=path, body=body, **more)

    def any(self, path: str, *, body: Body = Body(), **more: Any) -> Adder[D]:
        """Add an endpoint for every method."""
        return self.add(path=path, body=body, **more)
