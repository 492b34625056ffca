"""A conversation with nsqlookupd, without a socket."""

import json

from nsqkit.log import Level, Log
from nsqkit.nsqlookupd.registrations import Registrations
from nsqkit.nsqlookupd.session import Session
from nsqkit.wire.registration import MAGIC, ReplyReader, encode_identify
from tests.nsqlookupd.conftest import NOW
from tests.nsqlookupd.views import everything

INTRODUCTION = b'{"version":"1.3.0"}'
IDENTITY = {"broadcast_address": "b", "hostname": "h", "tcp_port": 1, "http_port": 2, "version": "v"}
KNOWN = {**IDENTITY, "remote_address": "", "topology_zone": "", "topology_region": ""}
HELLO = MAGIC + encode_identify(json.dumps(IDENTITY).encode())
DECODE = b"E_BAD_BODY IDENTIFY failed to decode JSON body"
MISSING = b"E_BAD_BODY IDENTIFY missing fields"


class Conversation:
    """A session, its replies one by one, and the log's lines."""

    def __init__(self, registrations: Registrations) -> None:
        self.registrations = registrations
        self.lines: list[str] = []
        log = Log("", Level.DEBUG, write=self.lines.append, now=lambda: NOW)
        self.session = Session(registrations, "10.0.0.1:50000", INTRODUCTION, log)
        self._reader = ReplyReader(1 << 20)

    def say(self, *chunks: bytes, now: int = NOW) -> list[bytes]:
        """Send chunks; the replies to all of them."""
        return [reply for chunk in chunks for reply in self._reader.feed(self.session.receive(chunk, now))]

    def end(self) -> list[bytes]:
        """Send no more; what is still answered."""
        return self._reader.feed(self.session.end())

    def snapshot(self) -> dict[str, list[str]]:
        """What is registered, by key."""
        return {key: [peer.id for peer, _ in peers] for key, peers in everything(self.registrations, NOW)}
