"""A call: one request as an endpoint sees it. Parameters come from the query string only, as in NSQ."""

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote_to_bytes

from starlette.types import Receive, Scope

from nsqkit.names import valid_name
from nsqkit.web.errors import BadRequest, Internal, TooLarge

_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9a-fA-F]{2})")


class Call:
    """What was asked for. The query is parsed when the first parameter is wanted; then BadRequest if it is bad."""

    __slots__ = ("_params", "body", "scope")

    def __init__(self, scope: Scope, body: bytes) -> None:
        self.scope = scope
        self.body = body
        self._params: Mapping[str, str] | None = None

    @property
    def raw_query(self) -> bytes:
        """The query string as it came."""
        query: bytes = self.scope["query_string"]
        return query

    @property
    def params(self) -> Mapping[str, str]:
        """The query's parameters."""
        if self._params is None:
            self._params = parse_query(self.raw_query)
        return self._params

    def path_param(self, name: str) -> str:
        """The part of the path that the route calls `name`."""
        value: str = self.scope["path_params"][name]
        return value

    def required(self, name: str) -> str:
        """A parameter that must be there; it may be empty."""
        value = self.params.get(name)
        if value is None:
            raise BadRequest(f"MISSING_ARG_{name.upper()}")
        return value

    def topic(self, wrong: str = "INVALID_TOPIC") -> str:
        """The topic's name; `wrong` is the error's text if it isn't one."""
        name = self.required("topic")
        if not valid_name(name):
            raise BadRequest(wrong)
        return name

    def topic_and_channel(self) -> tuple[str, str]:
        """The names of a topic and a channel."""
        topic = self.topic("INVALID_ARG_TOPIC")
        channel = self.required("channel")
        if not valid_name(channel):
            raise BadRequest("INVALID_ARG_CHANNEL")
        return topic, channel

    def switch(self, name: str) -> bool:
        """A parameter that is on unless it is `false` or `0`."""
        return self.params.get(name) not in {"false", "0"}


def parse_query(raw: bytes) -> dict[str, str]:
    """Read a query string as Go does: `;` and bad escapes spoil all of it, and the first value of a name counts.

    Bytes that are not UTF-8 become U+FFFD, which no name may hold.
    """
    if b";" in raw or _BAD_ESCAPE.search(raw):
        raise BadRequest("INVALID_REQUEST")
    params: dict[str, str] = {}
    for pair in raw.split(b"&"):
        if pair:
            name, _, value = pair.partition(b"=")
            params.setdefault(_unescape(name), _unescape(value))
    return params


async def read_body(scope: Scope, receive: Receive, limit: int, too_big: str) -> bytes:
    """The request's body, of at most `limit` bytes. TooLarge with the text `too_big` as soon as it can't be kept.

    No more than the limit and one chunk (64 KiB) is ever held in memory.
    """
    for name, value in scope["headers"]:
        if name == b"content-length":
            digits = value.lstrip(b"0")  # Python refuses to read thousands of them
            if len(digits) > 19 or int(digits or b"0") > limit:
                raise TooLarge(too_big, unread=True)
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise Internal("INTERNAL_ERROR")  # the client went away within its body: nobody reads this
        chunk: bytes = message["body"]
        more: bool = message.get("more_body", False)
        size += len(chunk)
        if size > limit:
            raise TooLarge(too_big, unread=more)
        if not more:
            return b"".join([*chunks, chunk]) if chunks else chunk
        chunks.append(chunk)


def _unescape(raw: bytes) -> str:
    return unquote_to_bytes(raw.replace(b"+", b" ")).decode("utf-8", "replace")
