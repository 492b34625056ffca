"""Errors that an endpoint raises: a status and the text of the spec. `answers` turns them into responses.

The texts are compared by clients, so they are exact (spec/nsqd-http.md).
"""

from typing import ClassVar


class HttpError(Exception):
    """An answer that is an error. `unread` says that part of the request's body was left unread.

    `reason` goes into a header, for a person, where clients compare the text.
    """

    status: ClassVar[int] = 500

    def __init__(self, text: str, *, unread: bool = False, reason: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.unread = unread
        self.reason = reason


class BadRequest(HttpError):
    """A parameter is missing or wrong."""

    status = 400


class Unauthorized(HttpError):
    """There is no token, or one that is not known."""

    status = 401


class Forbidden(HttpError):
    """The token is known, but not good for this."""

    status = 403


class NotFound(HttpError):
    """There is no such path, topic or channel."""

    status = 404


class MethodNotAllowed(HttpError):
    """The path is known, but not with this method."""

    status = 405


class TooLarge(HttpError):
    """The body is over its limit, or (NSQ's choice of status) malformed."""

    status = 413


class Internal(HttpError):
    """It's our fault."""

    status = 500


class Unavailable(HttpError):
    """A message could not be kept: the daemon is stopping, or the disk refuses."""

    status = 503


class VersionNotSupported(HttpError):
    """Not with this version of HTTP."""

    status = 505
