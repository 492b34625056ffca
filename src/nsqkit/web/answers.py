"""Answers: what an endpoint returned or raised, as status, headers and body. Nothing else knows how they look.

value   Style.NSQ                   Style.PLAIN     Style.ENVELOPE (before 0.3)
None    200, empty                  200, empty      {"status_code":200,"status_txt":"OK","data":null}
str     200, text                   200, text       200, text
other   200, JSON                   -               {"status_code":200,"status_txt":"OK","data":<JSON>}
error   status, {"message":<text>}  status, text    500, {"status_code":500,"status_txt":<text>,"data":null}
"""

import asyncio
from collections.abc import Sequence
from enum import Enum
from typing import Final

from starlette.types import Receive, Scope, Send

from nsqkit.gojson import encode_json
from nsqkit.lines import cut, harmless
from nsqkit.web.errors import HttpError

JSON: Final = "application/json; charset=utf-8"
TEXT: Final = "text/plain; charset=utf-8"
HTML: Final = "text/html; charset=utf-8"
METRICS: Final = "text/plain; version=0.0.4; charset=utf-8"

LINGER: Final = 0.5
"""Seconds for which what a client still sends is read and dropped, so that it gets to see why it was refused."""

Header = tuple[bytes, bytes]

NSQ: Final[Header] = (b"x-nsq-content-type", b"nsq; version=1.0")
_CLOSE: Final[Header] = (b"connection", b"close")


class Style(Enum):
    """How the answers of an endpoint look."""

    NSQ = 1
    PLAIN = 2
    ENVELOPE = 3


class Answer:
    """A finished response, which sends itself. An endpoint may return one to say more than a value can."""

    __slots__ = ("_closes", "_finish", "_start", "body", "headers", "status")

    def __init__(
        self,
        status: int,
        body: bytes = b"",
        content_type: str = "",
        headers: Sequence[Header] = (),
        *,
        closes: bool = False,
    ) -> None:
        """`closes`: the connection can't go on, for there is more of the request's body than anybody wants."""
        self.status = status
        self.body = body
        self.headers = [*headers, (b"content-length", b"%d" % len(body))]
        if content_type:
            self.headers.append((b"content-type", content_type.encode()))
        if closes:
            self.headers.append(_CLOSE)
        self._closes = closes
        self._start = {"type": "http.response.start", "status": status, "headers": self.headers}
        self._finish = {"type": "http.response.body", "body": body}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        """Send it."""
        await send(self._start)
        if self._closes:
            await send({**self._finish, "more_body": True})
            await _linger(receive)
            await send({"type": "http.response.body"})
        else:
            await send(self._finish)


def answer(value: object, style: Style) -> Answer:
    """The answer to a request that succeeded."""
    if isinstance(value, Answer):
        return value
    if value == "OK" and style is Style.NSQ:
        return _OK
    headers = [NSQ] if style is Style.NSQ else []
    if isinstance(value, str):
        return Answer(200, value.encode("utf-8", "replace"), TEXT, headers)
    if style is Style.ENVELOPE:
        return Answer(200, _envelope(200, "OK", value), JSON)
    if value is None:
        return Answer(200, headers=headers)
    return Answer(200, encode_json(value), JSON, headers)


def refusal(error: HttpError, style: Style, headers: Sequence[Header] = ()) -> Answer:
    """The answer to a request that failed."""
    if style is Style.PLAIN:
        return Answer(error.status, error.text.encode("utf-8", "replace"), TEXT, headers, closes=error.unread)
    if style is Style.ENVELOPE:
        return Answer(500, _envelope(500, error.text, None), JSON, headers, closes=error.unread)
    if error.reason:
        reason = harmless(cut(error.reason)).encode("ascii", "backslashreplace")
        headers = [*headers, (b"x-nsqkit-reason", reason)]
    body = encode_json({"message": error.text})
    return Answer(error.status, body, JSON, [NSQ, *headers], closes=error.unread)


def json_answer(value: object, headers: Sequence[Header]) -> Answer:
    """A value as JSON, as `answer` makes it, with further headers."""
    return Answer(200, encode_json(value), JSON, [NSQ, *headers])


def _envelope(status: int, text: str, data: object) -> bytes:
    return encode_json({"status_code": status, "status_txt": text, "data": data})


async def _linger(receive: Receive) -> None:
    """Drop what still comes in. Closing a socket with unread bytes would take the answer from the client."""
    try:
        async with asyncio.timeout(LINGER):
            while True:
                message = await receive()
                if message["type"] != "http.request" or not message.get("more_body"):
                    return
    except TimeoutError:
        return


_OK: Final = Answer(200, b"OK", TEXT, [NSQ])
