"""One nsqd's conversation with nsqlookupd: bytes in, replies out (spec/nsqlookupd.md, section 1). No I/O.

Replies come in the order of the commands. Every error is the last reply; what comes after it is not looked at.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from nsqkit.gojson import encode_json
from nsqkit.lines import cut
from nsqkit.log import Level, Log
from nsqkit.names import valid_name
from nsqkit.nsqlookupd.registrations import Peer, Registrations, TooMany
from nsqkit.wire.document import BadDocument, decode_document
from nsqkit.wire.registration import MAGIC, OK, encode_reply

MAX_LINE: Final = 16_384  # bytes of a command line; the longest that makes sense has 140
MAX_BODY: Final = 65_536  # bytes of IDENTIFY's body
SHARE: Final = 200  # commands executed at once: a millisecond's work

_FIELDS: Final[dict[str, type]] = {
    "remote_address": str,
    "hostname": str,
    "broadcast_address": str,
    "tcp_port": int,
    "http_port": int,
    "version": str,
    "topology_zone": str,
    "topology_region": str,
}
"""What an nsqd may say of itself, in the order of /lookup's answer."""

_SECOND: Final = 1_000_000_000  # ns

_REQUIRED: Final = ("broadcast_address", "tcp_port", "http_port", "version")


class Refused(Exception):
    """The connection ends with this error. The text is what the peer gets."""


class Traffic:
    """What all connections have said so far."""

    def __init__(self) -> None:
        self.commands = dict.fromkeys(_COMMANDS, 0)  # executed, by name
        self.refused = 0  # connections that ended with an error


class Session:
    """What one connection has said so far.

    `closed` is set when it has to be hung up on, `busy` while there are commands that have to wait for others' turn:
    then nothing more should be read, and `receive` be called again soon.
    """

    def __init__(
        self,
        registrations: Registrations,
        address: str,
        introduction: bytes,
        log: Log,
        traffic: Traffic | None = None,
    ) -> None:
        """`address` is the peer's host:port, `introduction` the reply to IDENTIFY."""
        self.closed = False
        self.busy = False
        self.peer: Peer | None = None  # set by IDENTIFY
        self._registrations = registrations
        self._address = address
        self._introduction = introduction
        self._log = log
        self._traffic = traffic or Traffic()
        self._input = bytearray()
        self._greeted = False  # the magic has come
        self._identifying = False  # the line IDENTIFY has come, its body has not

    def receive(self, data: bytes, now: int) -> bytes:
        """Take bytes; the replies to the first SHARE commands that are complete now."""
        if self.closed:
            return b""
        self._input += data
        replies: list[bytes] = []
        try:
            left = SHARE
            while left and (reply := self._next(now)) is not None:
                left -= 1
                if reply:
                    replies.append(encode_reply(reply))
            self.busy = not left
        except Refused as error:
            replies.append(self._refuse(error))
        return b"".join(replies)

    def end(self) -> bytes:
        """The peer will send no more; the last reply, if something is left to be said."""
        if self.closed:
            return b""
        if self._identifying:
            missing = "body size" if len(self._input) < 4 else "body"
            return self._refuse(Refused(f"E_BAD_BODY IDENTIFY failed to read {missing}"))
        self.closed = True
        return b""

    def gone(self, now: int) -> None:
        """The connection is gone."""
        self.closed = True
        peer, self.peer = self.peer, None
        if peer is not None:
            self._registrations.leave(peer, now)

    def _refuse(self, error: Refused) -> bytes:
        self.closed = True
        self.busy = False
        self._input.clear()
        self._traffic.refused += 1
        host, code = self._address.rpartition(":")[0], str(error).partition(" ")[0]
        text = f"[{self._address}] - {cut(str(error))}"
        self._log.error(text, kind=f"client({host}) - {code}", client=self._address)
        return encode_reply(str(error).encode("utf-8", "surrogateescape"))

    def _next(self, now: int) -> bytes | None:
        """Take one thing off the input, and the reply to it, maybe empty; None if there is nothing whole."""
        if self._identifying:
            return self._take_identity(now)
        if not self._greeted:
            return self._take_magic()
        end = self._input.find(b"\n")
        if end > MAX_LINE or (end < 0 and len(self._input) > MAX_LINE):
            raise Refused(f"E_INVALID line of more than {MAX_LINE} bytes")
        if end < 0:
            return None
        line = self._input[:end].strip().decode("utf-8", "surrogateescape")
        del self._input[: end + 1]
        command, *params = line.split(" ")
        execute = _COMMANDS.get(command)
        if execute is None:
            raise Refused(f"E_INVALID invalid command {command}")
        self._traffic.commands[command] += 1
        return execute(self, params, now)

    def _take_magic(self) -> bytes | None:
        if len(self._input) < len(MAGIC):
            return None
        if not self._input.startswith(MAGIC):
            raise Refused("E_BAD_PROTOCOL")
        del self._input[: len(MAGIC)]
        self._greeted = True
        return b""

    # -- the commands

    def _ping(self, _: list[str], now: int) -> bytes:
        if self.peer is not None:
            ago = (now - self.peer.last_update) / _SECOND
            if self._log.enabled(Level.DEBUG):
                text = f"CLIENT({self._address}): pinged (last ping {ago:.0f} s ago)"
                self._log.debug(text, client=self._address)
            self.peer.last_update = now
        return OK

    def _identify(self, _: list[str], __: int) -> bytes:
        if self.peer is not None:
            raise Refused("E_INVALID cannot IDENTIFY again")
        self._identifying = True
        return b""

    def _take_identity(self, now: int) -> bytes | None:
        if len(self._input) < 4:
            return None
        size = int.from_bytes(self._input[:4], "big", signed=True)
        if size < 0:
            raise Refused(f"E_BAD_BODY IDENTIFY invalid body size {size}")
        if size > MAX_BODY:
            raise Refused(f"E_BAD_BODY IDENTIFY body too big {size} > {MAX_BODY}")
        if len(self._input) < 4 + size:
            return None
        body = bytes(self._input[4 : 4 + size])
        del self._input[: 4 + size]
        self._identifying = False
        identity = decode_identity(body) | {"remote_address": self._address}
        broadcast_address, http_port = identity["broadcast_address"], identity["http_port"]
        self.peer = Peer(self._address, broadcast_address, http_port, encode_json(identity), now)
        self._registrations.join(self.peer)
        self._log.info(
            f"CLIENT({self._address}): IDENTIFY Address:{cut(broadcast_address)} TCP:{identity['tcp_port']} "
            f"HTTP:{http_port} Version:{cut(identity['version'])}",
            client=self._address,
        )
        return self._introduction

    def _register(self, params: list[str], _: int) -> bytes:
        peer, topic, channel = self._names("REGISTER", params)
        try:
            self._registrations.register(peer, topic, channel)
        except TooMany as error:
            raise Refused(f"E_TOO_MANY REGISTER {error}") from None
        self._note("REGISTER", topic, channel)
        return OK

    def _unregister(self, params: list[str], _: int) -> bytes:
        peer, topic, channel = self._names("UNREGISTER", params)
        self._registrations.unregister(peer, topic, channel)
        self._note("UNREGISTER", topic, channel)
        return OK

    def _note(self, change: str, topic: str, channel: str) -> None:
        if self._log.enabled(Level.INFO):
            category = "channel" if channel else "topic"
            self._log.info(
                f"DB: client({self._address}) {change} category:{category} key:{topic} subkey:{channel}",
                client=self._address,
                topic=topic,
                **({"channel": channel} if channel else {}),
            )

    def _names(self, command: str, params: list[str]) -> tuple[Peer, str, str]:
        """The peer, the topic, and the channel or nothing."""
        if self.peer is None:
            raise Refused("E_INVALID client must IDENTIFY")
        if not params:
            raise Refused(f"E_INVALID {command} insufficient number of params")
        topic = params[0]
        channel = params[1] if len(params) > 1 else ""
        if not valid_name(topic):
            raise Refused(f"E_BAD_TOPIC {command} topic name '{topic}' is not valid")
        if channel and not valid_name(channel):
            raise Refused(f"E_BAD_CHANNEL {command} channel name '{channel}' is not valid")
        return self.peer, topic, channel


_COMMANDS: Final[Mapping[str, Callable[[Session, list[str], int], bytes]]] = {
    "PING": Session._ping,  # noqa: SLF001 - the table of the class above
    "IDENTIFY": Session._identify,  # noqa: SLF001
    "REGISTER": Session._register,  # noqa: SLF001
    "UNREGISTER": Session._unregister,  # noqa: SLF001
}


def decode_identity(body: bytes) -> dict[str, Any]:
    """What an nsqd says of itself, every field there. Refused if it is not what it should be."""
    try:
        identity = {name: kind() for name, kind in _FIELDS.items()} | decode_document(body, _FIELDS)
    except BadDocument as error:
        raise Refused(f"E_BAD_BODY IDENTIFY {str(error) or 'failed to decode JSON body'}") from None
    if not all(identity[name] for name in _REQUIRED):
        raise Refused("E_BAD_BODY IDENTIFY missing fields")
    return identity
