"""nsqlookupd's `Session` and its registry: any bytes of an nsqd, cut anywhere.

Input: a byte for the way to cut, then the stream, magic included. Another nsqd has registered some names before.
"""

from typing import Final

from nsqkit.log import Level, Log
from nsqkit.names import is_ephemeral, valid_name
from nsqkit.nsqlookupd.registrations import Peer, Registrations
from nsqkit.nsqlookupd.session import MAX_BODY, MAX_LINE, Session
from nsqkit.wire.registration import ReplyReader
from tests.fuzz.source import Source, ways
from tests.nsqlookupd.views import everything, nodes

NOW: Final = 1_700_000_000_000_000_000
INTRODUCTION: Final = b'{"version":"1.3.0"}'
Registry = dict[str, list[tuple[str, int]]]


def check(data: bytes) -> None:
    """Replies and registry do not depend on how the stream is cut; what is refused changes nothing."""
    source = Source(data)
    seed = source.byte()
    whole, *others = [_run(chunks) for chunks in ways(source.rest(), seed)]
    for other in others:
        assert whole == other


def _run(chunks: list[bytes]) -> tuple[list[bytes], Registry, Registry]:
    """The replies, and the registry before and after the connection is gone."""
    registrations = Registrations(300 * 10**9, 45 * 10**9, 1000, 100)
    neighbour = Peer("10.0.0.2:1", "other", 4151, b"{}", NOW)
    registrations.join(neighbour)
    for topic, channel in (("t", "c"), ("e#ephemeral", "c#ephemeral")):
        registrations.register(neighbour, topic, channel)
    session = Session(registrations, "10.0.0.1:1", INTRODUCTION, Log("", Level.FATAL))
    replies: list[bytes] = []
    for chunk in chunks:
        before = _everything(registrations) if len(chunk) == 1 else None
        found = _payloads(session.receive(chunk, NOW))
        replies += found
        assert len(session._input) <= max(MAX_LINE, MAX_BODY) + 4 + len(chunk)
        if session.closed:
            assert found[-1].startswith((b"E_INVALID ", b"E_BAD_"))
            assert before is None or before == _everything(registrations), "refused, but not without effect"
            assert session.receive(b"PING\n", NOW) == b""
            break
        assert not any(reply.startswith(b"E_") for reply in found), "goes on after an error"
    replies += _payloads(session.end())
    assert session.closed
    registered = _everything(registrations)
    _check(registrations)
    session.gone(NOW)
    _check(registrations)
    left = _everything(registrations)
    assert not any(peer == "10.0.0.1:1" for having in left.values() for peer, _ in having)
    return replies, registered, left


def _payloads(raw: bytes) -> list[bytes]:
    reader = ReplyReader(1 << 20)
    payloads = reader.feed(raw)
    assert not reader._input, "half a reply"
    return payloads


def _everything(registrations: Registrations) -> Registry:
    return {
        key: [(peer.id, since) for peer, since in having] for key, having in everything(registrations, NOW)
    }


def _check(registrations: Registrations) -> None:
    """The invariants of the registry."""
    peers = nodes(registrations, NOW)
    for topic in registrations.topics(NOW).values():
        assert valid_name(topic.name)
        assert topic.producers or not is_ephemeral(topic.name) or topic in registrations._abandoned
        for index, producer in enumerate(topic.producers):
            assert producer.index == index
            assert producer.peer.producers[topic.name] is producer
        for channel in topic.channels.values():
            assert valid_name(channel.name)
            assert channel.producers == sum(channel in producer.channels for producer in topic.producers)
    for peer in peers:
        assert peer.entries == sum(1 + len(producer.channels) for producer in peer.producers.values())
        for producer in peer.producers.values():
            assert all(channel.topic is producer.topic for channel in producer.channels)
