"""nsqlookupd's lists as JSON, in pieces: each costs little, however much is registered.

What is registered meanwhile may be missing; what is gone is.
"""

from collections.abc import Collection, Iterator
from functools import cache
from itertools import islice
from typing import Any, Final

import msgspec

from nsqkit.gojson import encode_json
from nsqkit.nsqlookupd.registrations import NEVER, Peer, Registrations, Topic
from nsqkit.web.long_answer import in_order

GO_ZERO_TIME: Final = -6795364578871345152
"""When a producer was tombstoned that never was, according to NSQ: January of the year 1, in ns of the Unix epoch."""

PORTION: Final = 200
"""Names or producers in one piece."""

Pieces = Iterator[bytes]

_encode = msgspec.json.encode  # names hold nothing to escape


def names_page(key: bytes, names: Collection[str]) -> Pieces:
    """An object with a sorted list of names."""
    ordered = yield from in_order(names)
    yield b'{"%b":[' % key
    yield from _names(ordered)
    yield b"]}"


def lookup_page(registrations: Registrations, topic: Topic, now: int) -> Pieces:
    """What /lookup says of a topic."""
    ordered = yield from in_order(topic.channels)
    yield b'{"channels":['
    yield from _names(ordered)
    yield b'],"producers":['
    yield from _joined(_lookup_rows(registrations, topic, now))
    yield b"]}"


def _lookup_rows(registrations: Registrations, topic: Topic, now: int) -> Pieces:
    for producer in list(topic.producers):
        shown = registrations.is_shown(producer, now)
        yield producer.peer.document if shown else b""


def nodes_page(registrations: Registrations, now: int) -> Pieces:
    """Every active peer: what /lookup says of it, and its topics."""
    separator = b""
    yield b'{"producers":['
    for peer in registrations.peers():
        if not registrations.is_active(peer, now):
            continue
        topics = list((yield from in_order(peer.producers)))
        yield separator + peer.document[:-1] + b',"tombstones":['
        for at in range(0, len(topics), PORTION):
            stones = [registrations.is_tombstoned(peer, name, now) for name in topics[at : at + PORTION]]
            yield (b"," if at else b"") + _encode(stones)[1:-1]
        yield b'],"topics":['
        yield from _names(iter(topics))
        yield b"]}"
        separator = b","
    yield b"]}"


def debug_page(registrations: Registrations, now: int) -> Pieces:
    """Everybody who has something, by `category:key:subkey`."""
    entry = cache(_entry)  # one nsqd is in many lists, and looks the same in most of them
    peers = registrations.peers()
    yield b"{"
    separator = b""
    if peers:
        yield b'"client::":['
        yield from _joined(entry(peer, NEVER) for peer in peers)
        yield b"]"
        separator = b","
    for topic in list(registrations.topics(now).values()):
        producers = [one for one in topic.producers if not one.peer.gone]
        if not producers:
            continue
        yield b'%b"topic:%b:":[' % (separator, topic.name.encode())
        yield from _joined(entry(one.peer, one.tombstoned_at) for one in producers)
        yield b"]"
        separator = b","
        for channel in list(topic.channels.values()):
            heading = b',"channel:%b:%b":[' % (topic.name.encode(), channel.name.encode())
            for piece in _joined(
                entry(one.peer, NEVER) if channel in one.channels else b"" for one in producers
            ):
                yield heading + piece if piece else b""
                heading = b"" if piece else heading
            yield b"" if heading else b"]"
    yield b"}"


def _names(names: Iterator[str]) -> Pieces:
    separator = b""
    while portion := list(islice(names, PORTION)):
        yield separator + _encode(portion)[1:-1]
        separator = b","


def _joined(rows: Pieces) -> Pieces:
    """Rows with commas between them; empty ones are left out."""
    separator = b""
    while portion := list(islice(rows, PORTION)):
        joined = b",".join(filter(None, portion))
        yield separator + joined if joined else b""
        separator = b"," if joined else separator


def _entry(peer: Peer, tombstoned_at: int) -> bytes:
    """What /debug says of a peer in one list."""
    fields: dict[str, Any] = msgspec.json.decode(peer.document)
    del fields["remote_address"]
    fields["id"] = peer.id
    fields["last_update"] = peer.last_update
    fields["tombstoned"] = tombstoned_at != NEVER
    fields["tombstoned_at"] = tombstoned_at if tombstoned_at != NEVER else GO_ZERO_TIME
    return encode_json(dict(sorted(fields.items())))
