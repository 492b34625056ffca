"""One request to one node: `http://node/path?params`, what limits it, and its failures in words.

A node is `host:port`, the path of a unix socket, or a URL, whose path, if it has one, is asked instead.

A node that answers 403 and names an `https_port` is asked again there: so one gets at an nsqd that requires TLS.
Redirects are not followed, the environment's proxies are not used, and cookies are not kept. Each request has a
connection of its own, so a command never fails because the other side had just closed one that was kept. If it breaks
before the answer, aiohttp repeats a GET once, and never a POST.
"""

import os
import ssl
from collections.abc import Callable, Mapping
from typing import Final

import aiohttp
import msgspec
from yarl import URL

from nsqkit.address import is_unix, split_address
from nsqkit.version import VERSION

MAX_ANSWER_SIZE: Final = 64 << 20  # bytes; people have met a /stats of 17 MB
MAX_ERROR_SIZE: Final = 1024  # bytes of the body of an answer other than 200; the rest is not read
MAX_TEXT: Final = 2048  # characters of a failure's text

NODE_ERRORS: Final = (aiohttp.ClientError, msgspec.MsgspecError, OSError, RecursionError, ValueError)
"""Whatever a node, its address or its answer may cause. An OSError may be a timeout, a ValueError a bad address."""

_Answer = tuple[int, str, bytes]  # status, reason, body
_PIECE: Final = 64 << 10  # bytes read at once
_HEADERS: Final = {
    "Accept": "application/vnd.nsq; version=1.0",
    "Accept-Encoding": "identity",
    "User-Agent": f"nsqkit/{VERSION}",
}


class BadStatus(ValueError):
    """A node answered with another status than 200. `message` is NSQ's word for it, if the body is as NSQ sends it."""

    def __init__(self, status: int, reason: str, body: bytes) -> None:
        super().__init__(f"got response {status} {reason} {_quoted(body)}")
        self.status = status
        self.message = _problem(body).message


class _Problem(msgspec.Struct):
    """The body of an answer other than 200."""

    message: str = ""
    https_port: int = 0


class Requester:
    """Makes requests in one event loop. The first one opens the session."""

    def __init__(
        self, connect_timeout: float, ssl_context: ssl.SSLContext | None, token: Callable[[], str] = str
    ) -> None:
        """`connect_timeout` is in seconds and covers name and TLS. The rest of the time is the caller's to limit.

        What `token` gives goes with each request, if it is not empty.
        """
        self.connect_timeout = connect_timeout  # may be changed
        self._ssl_context = ssl_context
        self._token = token
        self._session: aiohttp.ClientSession | None = None

    async def request(self, method: str, node: str, path: str, params: Mapping[str, str]) -> bytes:
        """The body of an answer with status 200. All else raises one of NODE_ERRORS."""
        if is_unix(node):
            url = URL.build(scheme="http", host="localhost", path=path, query=params)
            async with self._open(aiohttp.UnixConnector(node, force_close=True)) as session:
                return _good(await self._attempt(session, method, url, MAX_ANSWER_SIZE))
        if node.startswith(("http://", "https://")):
            base = URL(node)
            own_path = base.path not in ("", "/")
            url = (base if own_path else base.with_path(path)).update_query(base.query).update_query(params)
        else:
            host, port = split_address(node)
            url = URL.build(scheme="http", host=host, port=port, path=path, query=params)
        return await self.fetch(method, url, MAX_ANSWER_SIZE)

    async def fetch(self, method: str, url: URL, limit: int, document: bytes | None = None) -> bytes:
        """The body, up to `limit` bytes long, of an answer with status 200; a JSON document may be sent along."""
        if self._session is None:
            self._session = self._open(
                aiohttp.TCPConnector(ssl=self._ssl_context or True, limit=0, force_close=True)
            )
        answer = await self._attempt(self._session, method, url, limit, document)
        status, _, body = answer
        if status == 403 and 0 < (https_port := _problem(body).https_port) < 65536:
            secure = url.with_port(https_port).with_scheme("https")
            answer = await self._attempt(self._session, method, secure, limit, document)
        return _good(answer)

    async def close(self) -> None:
        """Close the session, if there is one."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _attempt(
        self,
        session: aiohttp.ClientSession,
        method: str,
        url: URL,
        limit: int,
        document: bytes | None = None,
    ) -> _Answer:
        """Status, reason and body; at most one byte more than MAX_ERROR_SIZE if the status is not 200."""
        headers = {} if document is None else {"Content-Type": "application/json"}
        if token := self._token():
            headers["Authorization"] = f"Bearer {token}"
        try:
            response = await session.request(
                method,
                url,
                data=document,
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(connect=self.connect_timeout),
            )
        except aiohttp.ConnectionTimeoutError:
            raise TimeoutError(f"no connection within {self.connect_timeout:g} s") from None
        async with response:
            limit = limit if response.status == 200 else MAX_ERROR_SIZE
            body = bytearray()
            while len(body) <= limit and (
                piece := await response.content.read(min(_PIECE, limit + 1 - len(body)))
            ):
                body += piece
        if response.status == 200 and len(body) > limit:
            raise ValueError(f"the answer is longer than {limit} bytes")
        return response.status, response.reason or "", bytes(body)

    @staticmethod
    def _open(connector: aiohttp.BaseConnector) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=_HEADERS,
            trust_env=False,
            auto_decompress=False,
        )


def _good(answer: _Answer) -> bytes:
    """The body, if the status is 200. BadStatus."""
    status, reason, body = answer
    if status != 200:
        raise BadStatus(status, reason, body)
    return body


def in_words(error: Exception) -> str:
    """One of NODE_ERRORS as a line of text, without the node."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            text = f"cannot look up the name: {error.os_error.strerror or error.os_error}"
        case aiohttp.ClientConnectorCertificateError():
            text = f"TLS: {error.certificate_error}"
        case aiohttp.ClientSSLError():
            text = f"TLS: {error.os_error}"
        case aiohttp.ClientConnectorError():
            number = error.os_error.errno  # its text is asyncio's, and repeats the address
            text = f"cannot connect: {os.strerror(number) if number else error.os_error}"
        case aiohttp.ServerDisconnectedError():
            text = "it hung up in the middle of its answer"
        case aiohttp.ClientOSError():
            text = f"the connection broke: {error.strerror or error}"
        case aiohttp.ClientResponseError():
            text = f"not HTTP: {error.message}"
        case msgspec.MsgspecError() | RecursionError() | UnicodeDecodeError():
            text = f"not what NSQ answers: {error}"
        case _:
            text = str(error) or type(error).__name__
    return " ".join(text.split())[:MAX_TEXT]


def _problem(body: bytes) -> _Problem:
    try:
        return msgspec.json.decode(body, type=_Problem)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return _Problem()


def _quoted(body: bytes) -> str:
    """The body as a string literal: nothing in it breaks the line or ends the quotes."""
    text = body[:MAX_ERROR_SIZE].decode(errors="replace")
    return msgspec.json.encode(text + "…" if len(body) > MAX_ERROR_SIZE else text).decode()
