"""One question to one auth server: what is sent, and what its failures are called.

The secret is in the URL of a GET, so no text of another's error is passed on; `NoAnswer` has words of ours only.
"""

import asyncio
import json
import os
import ssl
from typing import Final
from urllib.parse import urlencode

import aiohttp
from yarl import URL

from nsqkit.cluster.request import NODE_ERRORS, BadStatus, Requester
from nsqkit.nsqd.auth import NoAnswer
from nsqkit.nsqd.auth.answer import MAX_ANSWER, Granted, Reader

POST: Final = "post"


class Questioner:
    """Asks auth servers, in one event loop. Times are in seconds."""

    def __init__(
        self, method: str, connect_timeout: float, request_timeout: float, context: ssl.SSLContext | None
    ) -> None:
        self._method = method
        self._request_timeout = request_timeout
        self._requester = Requester(connect_timeout, context)
        self._reader = Reader()

    async def ask(self, address: str, client: dict[str, str], secret: bytes, now: int) -> Granted:
        """What a server says of a client. NoAnswer."""
        try:
            async with asyncio.timeout(self._request_timeout):
                body = await self._fetch(address, client, secret)
                return await asyncio.to_thread(self._reader.read, body, now)
        except NODE_ERRORS as error:
            raise NoAnswer(_cause(error)) from None

    def set_timeouts(self, connect_timeout: float, request_timeout: float) -> None:
        """Have others for questions to come."""
        self._request_timeout = request_timeout
        self._requester.connect_timeout = connect_timeout

    async def close(self) -> None:
        """Close what is open."""
        await self._requester.close()

    async def _fetch(self, address: str, client: dict[str, str], secret: bytes) -> bytes:
        endpoint = address if "://" in address else f"http://{address}/auth"
        if self._method == POST:
            values = {**client, "secret": secret.decode("utf-8", "replace")}
            document = json.dumps({name: [value] for name, value in sorted(values.items())}).encode()
            return await self._requester.fetch("POST", URL(endpoint), MAX_ANSWER, document)
        query = urlencode(sorted({**client, "secret": secret}.items()))
        return await self._requester.fetch("GET", URL(f"{endpoint}?{query}", encoded=True), MAX_ANSWER)


def _cause(error: Exception) -> str:
    match error:
        case TimeoutError():
            text = "it did not answer in time"
        case BadStatus():
            text = f"it answered with status {error.status}"
        case aiohttp.ClientConnectorDNSError():
            text = "cannot look up the name"
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError():
            text = "TLS failed"
        case aiohttp.ClientConnectorError() if error.os_error.errno:
            text = f"cannot connect: {os.strerror(error.os_error.errno)}"
        case aiohttp.ClientError() | OSError():
            text = f"the connection broke, or it does not speak HTTP ({type(error).__name__})"
        case _:
            text = f"its answer has more than {MAX_ANSWER} bytes"
    return text
