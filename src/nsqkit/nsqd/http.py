"""nsqd's HTTP server: the table of its endpoints, on the machinery that all daemons share."""

from typing import Final

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


def http_app(nsqd: Daemon) -> HttpApp:
    """The application; a disk that refuses is no defect of it."""
    return HttpApp(nsqd, ENDPOINTS, expected=(StoreError,))


def http_server(nsqd: Daemon, door: Door) -> HttpServer:
    """The server, not started yet."""
    return HttpServer(nsqd, http_app(nsqd), lambda: Refused() if door.closed() else None)
