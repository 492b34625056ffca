"""The ASGI application of a table of endpoints: what is hot first, then Starlette's router, and a log line for it.

Paths are exact. One that is wrong only in its case or its slashes is redirected, as NSQ does.
"""

import posixpath
import traceback
from collections.abc import Iterable, Mapping
from functools import partial
from inspect import isawaitable
from time import perf_counter_ns
from typing import Final, TypeVar
from urllib.parse import quote

from starlette.routing import Route as StarletteRoute
from starlette.routing import Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nsqkit.address import peer_address
from nsqkit.log import Level
from nsqkit.options.duration import Duration
from nsqkit.web.answers import Answer, Style, answer, refusal
from nsqkit.web.call import Call, read_body
from nsqkit.web.errors import HttpError, Internal, MethodNotAllowed, NotFound
from nsqkit.web.host import Host
from nsqkit.web.routes import Route

H = TypeVar("H", bound=Host)

_TODAY: Final = (b"accept", b"application/vnd.nsq; version=1.0")


class HttpApp:
    """The HTTP API of one daemon.

    Exceptions among `expected` are failures of what the daemon stands on, such as the disk: 500, and a line in the
    log that needs no traceback.
    """

    def __init__(
        self, daemon: H, table: Iterable[Route[H]], expected: tuple[type[Exception], ...] = ()
    ) -> None:
        self._log = daemon.log
        resources: dict[str, Resource] = {}
        self._hot: dict[str, Resource] = {}
        for row in table:
            resource = resources.setdefault(row.path, Resource())
            resource.add(row.methods, Endpoint(row, daemon, expected))
            if row.hot:
                self._hot[row.path] = resource
        self._router: ASGIApp = Router(
            [StarletteRoute(path, resource) for path, resource in resources.items()],
            redirect_slashes=False,
            default=Elsewhere(resources),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        hot = self._hot.get(scope["path"])
        endpoint = hot.endpoint(scope["method"]) if hot else None
        if endpoint is not None:
            await endpoint(scope, receive, send)
        elif self._log.enabled(Level.INFO):
            await self._serve_and_log(scope, receive, send)
        else:
            await self._router(scope, receive, send)

    async def _serve_and_log(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Write `<status> <method> <uri> (<peer>) <elapsed>` after the answer."""
        began = perf_counter_ns()
        status = 0

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        await self._router(scope, receive, watch)
        elapsed = Duration(perf_counter_ns() - began)
        method, uri, client = scope["method"], _uri(scope), _peer(scope)
        self._log.info(
            f"{status} {method} {uri} ({client}) {elapsed}",
            client=client,
            method=method,
            uri=uri,
            status=status,
            seconds=elapsed.seconds,
        )


class Endpoint:
    """One row of the table: body in, answer out. Whatever the function raises becomes an answer here.

    Who lacks the row's role is refused before anything is read.
    """

    def __init__(self, row: Route[H], daemon: H, expected: tuple[type[Exception], ...]) -> None:
        self._row = row
        self._function = partial(row.endpoint, daemon)
        self._log = daemon.log
        self._access = daemon.access
        self._expected = expected
        self._host = daemon

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        row = self._row
        refused = self._access.refusal(row.role, scope)
        if refused is not None:
            await refused(scope, receive, send)
            return
        style = row.style
        if style is Style.ENVELOPE and _TODAY in scope["headers"]:
            style = Style.NSQ
        try:
            body = b""
            if row.body:
                limit = row.body.limit(self._host.options)
                body = await read_body(scope, receive, limit, row.body.too_big)
            value = self._function(Call(scope, body))
            if isawaitable(value):
                value = await value
            response = answer(value, style)
        except HttpError as error:
            response = refusal(error, style)
        except self._expected as error:
            response = self._failed(scope, f"failed - {error}", style)
        except Exception:  # noqa: BLE001 - a defect in one endpoint must not show as anything but this
            response = self._failed(scope, f"crashed - {traceback.format_exc()}", style)
        await response(scope, receive, send)

    def _failed(self, scope: Scope, how: str, style: Style) -> Answer:
        self._log.error(f"{scope['method']} {_uri(scope)} {how}")
        return refusal(Internal("INTERNAL_ERROR"), style)


class Resource:
    """Everything at one path: an endpoint for each method, or one for all."""

    def __init__(self) -> None:
        self._by_method: dict[str, Endpoint] = {}
        self._for_any: Endpoint | None = None

    def add(self, methods: Iterable[str], endpoint: Endpoint) -> None:
        """Serve these methods with the endpoint; without any, all of them."""
        for method in methods:
            self._by_method[method] = endpoint
        if not methods:
            self._for_any = endpoint

    def endpoint(self, method: str) -> Endpoint | None:
        """What serves this method."""
        return self._by_method.get(method, self._for_any)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or say which methods there are."""
        response: ASGIApp | None = self.endpoint(scope["method"])
        if response is None:
            allow = (b"allow", ", ".join([*sorted(self._by_method), "OPTIONS"]).encode())
            if scope["method"] == "OPTIONS":
                response = Answer(200, headers=[allow])
            else:
                response = refusal(MethodNotAllowed("METHOD_NOT_ALLOWED"), Style.NSQ, [allow])
        await response(scope, receive, send)


class Elsewhere:
    """What answers paths that are in no row: with a redirect to the one that was meant, or 404."""

    def __init__(self, resources: Mapping[str, Resource]) -> None:
        self._resources = [(path.split("/"), resource) for path, resource in resources.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        response = refusal(NotFound("NOT_FOUND"), Style.NSQ)
        method: str = scope["method"]
        path = self.repaired(method, scope["path"])
        if path is not None:
            query: bytes = scope["query_string"]
            location = quote(path).encode() + (b"?" + query if query else b"")
            response = Answer(301 if method == "GET" else 307, headers=[(b"location", location)])
        await response(scope, receive, send)

    def repaired(self, method: str, path: str) -> str | None:
        """The path that was meant: the same but for letter case and slashes, with an endpoint for this method."""
        words = posixpath.normpath("/" + path.lstrip("/")).split("/")
        for template, resource in self._resources:
            known = template[:-1] if not template[-1] else template
            if resource.endpoint(method) is not None and len(known) == len(words):
                pairs = list(zip(known, words, strict=True))
                if all(name.startswith("{") or name == word.lower() for name, word in pairs):
                    found = [word if name.startswith("{") else name for name, word in pairs]
                    return "/".join(found) + ("" if known is template else "/")
        return None


def _uri(scope: Scope) -> str:
    path: bytes = scope["raw_path"]
    query: bytes = scope["query_string"]
    return (path + (b"?" + query if query else b"")).decode("utf-8", "replace")


def _peer(scope: Scope) -> str:
    client: tuple[str, int] | None = scope.get("client")
    if client is None:
        return "@"  # a unix socket, as Go shows it
    return peer_address(tuple(client))
