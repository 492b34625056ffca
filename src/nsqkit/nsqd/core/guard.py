"""What one client may do: asked when it sends AUTH, and again when the permissions have expired.

A command that finds them expired waits here while the authority is asked, and nothing after it is executed. A
subscription is never looked at again.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from nsqkit.wire.errors import AuthFailed, AuthFirst, Invalid, Unauthorized, quoted

if TYPE_CHECKING:
    from nsqkit.nsqd.core.authority import Authority, Permissions
    from nsqkit.nsqd.core.commands import Command
    from nsqkit.nsqd.core.session import Session


class Guard:
    """One session's permissions, and the command that waits for new ones."""

    def __init__(self, session: Session, authority: Authority) -> None:
        self.permissions: Permissions | None = None
        self._session = session
        self._authority = authority
        self._secret = b""
        self._topic = b" "  # the last one that may be published to; at first one that no word can be
        self._command: Command | None = None  # the one that waits; None: AUTH itself
        self._words: list[bytes] = []
        self._body = b""

    def authenticate(self, secret: bytes) -> None:
        """AUTH: ask the authority. Its answer is the client's."""
        if self.permissions is not None:
            raise Invalid("AUTH already set")
        self._secret = secret
        self._ask()

    def permits(self, command: Command, words: list[bytes], body: bytes) -> bool:
        """May the client do this? False: the authority is asked first, then the command is performed again."""
        permissions = self.permissions
        if permissions is None:
            raise AuthFirst(f"AUTH required before {command.name}")
        if self._session.now >= permissions.expires_at:
            self._command = command
            self._words = words
            self._body = body
            self._ask()
            return False
        channel = words[2] if command.name == "SUB" else b""
        if not channel and words[1] == self._topic:
            return True  # a publisher mostly says the same name again
        if not permissions.allow(words[1].decode(), channel.decode()):
            raise Unauthorized(f"AUTH failed for {command.name} on {quoted(words[1])} {quoted(channel)}")
        if not channel:
            self._topic = words[1]
        return True

    def answered(self, permissions: Permissions | None) -> None:
        """Go on with what waits for it. None: there is no good answer."""
        command = self._command
        if permissions is None:
            raise AuthFailed("AUTH failed")
        if command is None and permissions.count == 0:
            raise Unauthorized("AUTH no authorizations found")
        self.permissions = permissions
        self._topic = b" "
        if command is None:
            self._session.respond(_reply(permissions))
            return
        words, body = self._words, self._body
        self._command = None
        self._words = []
        self._body = b""
        self._session.perform(command, words, body)

    def forget(self) -> None:
        """The session is gone."""
        self._secret = b""
        self._authority.forget(self._session)

    def _ask(self) -> None:
        self._session.wait()
        self._authority.ask(self._session, self._secret)


def _reply(permissions: Permissions) -> bytes:
    fields: dict[str, object] = {
        "identity": permissions.identity,
        "identity_url": permissions.identity_url,
        "permission_count": permissions.count,
    }
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")
