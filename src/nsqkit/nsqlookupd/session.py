"""One nsqd's conversation with nsqlookupd: bytes in, replies out (spec/nsqlookupd.md, section 1). No I/O.

Replies come in the order of the commands. Every error is the last reply; what comes behind it is not looked at.
"""

import json
from collections.abc import Callable, Mapping
from typing import Final, NoReturn

from nsqkit.gojson import encode_json
from nsqkit.log import Log
from nsqkit.names import valid_name
from nsqkit.nsqlookupd.registrations import Peer, Registrations
from nsqkit.options.kinds import INT64
from nsqkit.wire.registration import MAGIC, OK, encode_reply

MAX_LINE: Final = 16_384  # bytes of a command line; the longest that makes sense has 140
MAX_BODY: Final = 65_536  # bytes of IDENTIFY's body

_STRINGS: Final = ("broadcast_address", "hostname", "version", "topology_zone", "topology_region")
_PORTS: Final = ("tcp_port", "http_port")
_REQUIRED: Final = ("broadcast_address", "tcp_port", "http_port", "version")


class Refused(Exception):
    """The connection ends with this error. The text is what the peer gets."""


class Session:
    """What one connection has said so far. `closed` is set when it has to be hung up on."""

    def __init__(self, registrations: Registrations, address: str, introduction: bytes, log: Log) -> None:
        """`address` is the peer's host:port, `introduction` the reply to IDENTIFY."""
        self.closed = False
        self.peer: Peer | None = None  # set by IDENTIFY
        self._registrations = registrations
        self._address = address
        self._introduction = introduction
        self._log = log
        self._input = bytearray()
        self._greeted = False  # the magic has come
        self._identifying = False  # the line IDENTIFY has come, its body has not

    def receive(self, data: bytes, now: int) -> bytes:
        """Take bytes; the replies to what is complete now."""
        if self.closed:
            return b""
        self._input += data
        replies: list[bytes] = []
        try:
            while (reply := self._next(now)) is not None:
                if reply:
                    replies.append(encode_reply(reply))
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
        if self.peer is not None:
            self._registrations.leave(self.peer, now)
            self.peer = None

    def _refuse(self, error: Refused) -> bytes:
        self.closed = True
        self._input.clear()
        self._log.error(f"CLIENT({self._address}): {error}")
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
        if not 0 <= size <= MAX_BODY:
            raise Refused("E_BAD_BODY IDENTIFY failed to read body")
        if len(self._input) < 4 + size:
            return None
        body = bytes(self._input[4 : 4 + size])
        del self._input[: 4 + size]
        self._identifying = False
        self.peer = _peer(self._address, decode_identity(body), now)
        self._registrations.join(self.peer)
        self._log.info(f"CLIENT({self._address}): IDENTIFY {self.peer.document.decode()}")
        return self._introduction

    def _register(self, params: list[str], _: int) -> bytes:
        peer, topic, channel = self._names("REGISTER", params)
        self._registrations.register(peer, topic, channel)
        self._log.debug(f"DB: client({self._address}) REGISTER topic:{topic} channel:{channel}")
        return OK

    def _unregister(self, params: list[str], _: int) -> bytes:
        peer, topic, channel = self._names("UNREGISTER", params)
        self._registrations.unregister(peer, topic, channel)
        self._log.debug(f"DB: client({self._address}) UNREGISTER topic:{topic} channel:{channel}")
        return OK

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


def decode_identity(body: bytes) -> dict[str, str | int]:
    """What an nsqd says of itself, every key there. Refused if it is not what it should be.

    As in Go's decoder, keys match regardless of case, unknown ones are ignored, and null means absent.
    """
    identity: dict[str, str | int] = {**dict.fromkeys(_STRINGS, ""), **dict.fromkeys(_PORTS, 0)}
    try:
        document: object = json.loads(body.decode("utf-8", "replace"), parse_constant=_no_number)
        if document is not None:
            identity.update(_checked(document))
    except (ValueError, RecursionError):
        raise Refused("E_BAD_BODY IDENTIFY failed to decode JSON body") from None
    if not all(identity[name] for name in _REQUIRED):
        raise Refused("E_BAD_BODY IDENTIFY missing fields")
    return identity


def _checked(document: object) -> dict[str, str | int]:
    """The known fields. ValueError for a wrong type."""
    if not isinstance(document, dict):
        raise ValueError("no object")
    fields: dict[str, str | int] = {}
    for key, value in document.items():
        name = key.lower()
        if value is None or name not in _STRINGS + _PORTS:
            continue
        if name in _STRINGS and isinstance(value, str):
            fields[name] = value.encode("utf-8", "replace").decode()  # JSON can hold halves of characters
        elif name in _PORTS and isinstance(value, int) and not isinstance(value, bool) and value in INT64:
            fields[name] = value
        else:
            raise ValueError(name)
    return fields


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)


def _peer(address: str, identity: Mapping[str, str | int], now: int) -> Peer:
    document = {
        "remote_address": address,
        "hostname": identity["hostname"],
        "broadcast_address": identity["broadcast_address"],
        "tcp_port": identity["tcp_port"],
        "http_port": identity["http_port"],
        "version": identity["version"],
        "topology_zone": identity["topology_zone"],
        "topology_region": identity["topology_region"],
    }
    broadcast = str(identity["broadcast_address"])
    return Peer(address, broadcast, int(identity["http_port"]), encode_json(document), now)
