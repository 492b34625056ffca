"""nsqd's HTTP server: the table of its endpoints, on the machinery that all daemons share."""

from ssl import SSLContext
from typing import Final

from starlette.types import Receive, Scope, Send

from nsqkit.accept import Tls
from nsqkit.nsqd.core.store import StoreError
from nsqkit.nsqd.options import NsqdOptions
from nsqkit.nsqd.web import debug, info, legacy, publishing, topics
from nsqkit.nsqd.web.daemon import Daemon
from nsqkit.options.duration import SECOND
from nsqkit.web import pprof
from nsqkit.web.answers import JSON, NSQ, Answer
from nsqkit.web.app import HttpApp
from nsqkit.web.routes import Route

LONGEST_HANDSHAKE_S: Final = 3600.0  # where no limit is wanted, for asyncio has none for "none"

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


class TlsRequired:
    """The application that refuses everything: TLS is required, and this is not it."""

    def __init__(self, https_port: int) -> None:
        body = b'{"message": "TLS_REQUIRED", "https_port": %d}' % https_port
        self._answer = Answer(403, body, JSON, [NSQ])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse one request."""
        await self._answer(scope, receive, send)


def tls(context: SSLContext, options: NsqdOptions) -> Tls:
    """What HTTPS takes."""
    return Tls(context, int(options.handshake_timeout) / SECOND or LONGEST_HANDSHAKE_S)
