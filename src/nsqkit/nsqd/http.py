"""nsqd's HTTP server: the table of its endpoints, on the machinery that all daemons share."""

from typing import Final

from starlette.types import Receive, Scope, Send

from nsqkit.nsqd.core.store import StoreError
from nsqkit.nsqd.descriptors import Door, Refused
from nsqkit.nsqd.web import debug, info, legacy, publishing, topics
from nsqkit.nsqd.web.daemon import Daemon
from nsqkit.web import pprof
from nsqkit.web.app import HttpApp
from nsqkit.web.routes import Route
from nsqkit.web.server import HttpServer

ENDPOINTS: Final[tuple[Route[Daemon], ...]] = (
    *publishing.routes,
    *topics.routes,
    *info.routes,
    *pprof.routes,
    *debug.routes,
    *legacy.routes,
)
"""Every endpoint, in the order of the docs."""


class MeasuredApp(HttpApp):
    """The application. Each pass of the loop that serves a request has a turn, which measures it.

    A disk that refuses is no defect of it.
    """

    def __init__(self, nsqd: Daemon) -> None:
        super().__init__(nsqd, ENDPOINTS, expected=(StoreError,))
        self._schedule = nsqd.schedule

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        self._schedule()
        await super().__call__(scope, receive, send)


def http_app(nsqd: Daemon) -> HttpApp:
    """The application of this daemon."""
    return MeasuredApp(nsqd)


def http_server(nsqd: Daemon, door: Door) -> HttpServer:
    """The server, not started yet."""
    return HttpServer(nsqd, http_app(nsqd), lambda: Refused() if door.closed() else None)
