"""Who may ask for what: each row of a table of endpoints names a role, and a request must carry a token that has it.

Without --http-token-file everybody may do everything, as in NSQ. A token comes in the header `Authorization: Bearer
<token>` (RFC 6750), and is in no log line.
"""

from collections.abc import Iterable
from typing import Final

from starlette.types import Scope

from nsqkit.address import peer_address
from nsqkit.errors import StartError
from nsqkit.log import Log
from nsqkit.tokens import Role, Tokens, read_tokens
from nsqkit.web.answers import Answer, Style, refusal
from nsqkit.web.errors import Forbidden, HttpError, Unauthorized

FLAG: Final = "--http-token-file"

_SCHEME: Final = b"bearer"
_CHALLENGE: Final = b"www-authenticate"


class Access:
    """The tokens of one daemon. StartError if the file is bad."""

    def __init__(self, path: str, log: Log) -> None:
        self._path = path
        self._log = log
        self.denied = {401: 0, 403: 0}  # requests, by the status that they were answered
        self._tokens: Tokens | None = None
        if path:
            self._tokens = read_tokens(FLAG, path, log)

    def reload(self) -> bool:
        """Read the file again, for requests to come; False: there is none. A bad one leaves everything as it was."""
        if not self._path:
            return False
        try:
            self._tokens = read_tokens(FLAG, self._path, self._log)
        except StartError as error:
            self._log.error(f"HTTP: the tokens that were loaded before stay in use: {error}")
        else:
            self._log.info(f"HTTP: the tokens in {self._path} are loaded anew")
        return True

    def refusal(self, role: Role, scope: Scope) -> Answer | None:
        """The answer to a request that lacks a role; None: it may go on."""
        tokens = self._tokens
        if tokens is None or role is Role.ANYBODY:
            return None
        token = _token(scope["headers"])
        if token is None:
            text = "TOKEN_MISSING: send the header Authorization: Bearer <token>"
            return self._refuse(scope, Unauthorized(text), b"Bearer")
        roles = tokens.roles(token)
        if not roles:
            return self._refuse(scope, Unauthorized("TOKEN_UNKNOWN"), b'Bearer error="invalid_token"')
        if role not in roles:
            challenge = b'Bearer error="insufficient_scope", scope="%b"' % role.value.encode()
            return self._refuse(
                scope, Forbidden(f"TOKEN_INSUFFICIENT: this takes the role {role.value}"), challenge
            )
        return None

    def _refuse(self, scope: Scope, error: HttpError, challenge: bytes) -> Answer:
        peer = peer_address(scope.get("client"))
        self.denied[error.status] += 1
        code = error.text.partition(":")[0]
        self._log.warning(
            f"HTTP: {error.status} {scope['method']} {scope['path']} ({peer}): {code}",
            kind=f"HTTP: {code} from {peer.rpartition(':')[0] or peer}",
            client=peer,
        )
        return refusal(error, Style.NSQ, [(_CHALLENGE, challenge)])


def _token(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """The token that a request carries: the first there is."""
    for name, value in headers:
        if name == b"authorization":
            scheme, _, token = value.strip().partition(b" ")
            if scheme.lower() == _SCHEME and (token := token.strip()):
                return token
    return None
