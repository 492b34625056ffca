"""What the broker tells a client that did something wrong.

An error is raised where it is known and becomes an error frame in one place, `Session.fail`. The codes and
texts are those of NSQ 1.3 (spec/tcp-protocol.md, section 3); clients compare them, so they are exact.
"""

from typing import ClassVar


class ClientError(Exception):
    """An error frame `CODE text`. By default the connection is closed after it."""

    code: ClassVar[str] = "E_INVALID"
    fatal: ClassVar[bool] = True

    def frame_payload(self) -> bytes:
        """The payload of the error frame. Raw bytes of the peer are kept as they came (surrogateescape)."""
        return f"{self.code} {self}".encode("utf-8", "surrogateescape")


class Invalid(ClientError):
    """Wrong state, unknown command, missing or malformed parameter."""


class BadTopic(ClientError):
    """The topic's name breaks the rules of names."""

    code = "E_BAD_TOPIC"


class BadChannel(ClientError):
    """The channel's name breaks the rules of names."""

    code = "E_BAD_CHANNEL"


class BadBody(ClientError):
    """The body of IDENTIFY, AUTH or MPUB is unusable."""

    code = "E_BAD_BODY"


class BadMessage(ClientError):
    """A message body is empty, too big or incomplete."""

    code = "E_BAD_MESSAGE"


class IdentifyFailed(ClientError):
    """The features asked for can't be had together."""

    code = "E_IDENTIFY_FAILED"


class AuthDisabled(ClientError):
    """AUTH was sent, and no auth server is configured."""

    code = "E_AUTH_DISABLED"


class AuthFirst(ClientError):
    """An auth server is configured, and AUTH was not sent."""

    code = "E_AUTH_FIRST"


class AuthFailed(ClientError):
    """No auth server gave a good answer."""

    code = "E_AUTH_FAILED"


class Unauthorized(ClientError):
    """The auth server does not allow it."""

    code = "E_UNAUTHORIZED"


class SubscribeFailed(ClientError):
    """The channel has no room for another consumer, or is going away."""

    code = "E_SUB_FAILED"


class PublishFailed(ClientError):
    """A message could not be kept; the code is that of the command (E_PUB_FAILED and so on)."""

    def __init__(self, command: str, cause: str) -> None:
        super().__init__(f"{command} failed {cause}")
        self.command = command
        self.cause = cause

    def frame_payload(self) -> bytes:
        """`E_PUB_FAILED PUB failed <cause>`, likewise for MPUB and DPUB."""
        return f"E_{self.command}_FAILED {self}".encode("utf-8", "surrogateescape")


class FinishFailed(ClientError):
    """The message is not in flight to this client: it timed out, or never was."""

    code = "E_FIN_FAILED"
    fatal = False


class RequeueFailed(ClientError):
    """The message to give back is not in flight to this client."""

    code = "E_REQ_FAILED"
    fatal = False


class TouchFailed(ClientError):
    """The message that needs more time is not in flight to this client."""

    code = "E_TOUCH_FAILED"
    fatal = False


class LineTooLong(Exception):
    """A command line has no end within `MAX_LINE` bytes."""


def quoted(raw: bytes) -> str:
    """Peer's bytes in double quotes with Go's escapes (`%q`), as error texts show names."""
    out = ['"']
    for char in raw.decode("utf-8", "surrogateescape"):
        point = ord(char)
        if char in _GO_ESCAPES:
            out.append(_GO_ESCAPES[char])
        elif 0xDC80 <= point <= 0xDCFF:
            out.append(f"\\x{point - 0xDC00:02x}")
        elif point < 0x20 or point == 0x7F:
            out.append(f"\\x{point:02x}")
        elif char.isprintable():
            out.append(char)
        else:
            out.append(f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}")
    out.append('"')
    return "".join(out)


_GO_ESCAPES = {
    '"': '\\"',
    "\\": "\\\\",
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
}
