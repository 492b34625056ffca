"""`Session` over a whole broker: what a client gets, for any bytes, cut anywhere.

Input: a byte for the way to cut, one for what is under the broker (nothing, a log, a log that is synced), then the
stream, magic included. Ids that the stream may name are predictable: the clock stands still.
"""

import json
import random
from typing import Final, NamedTuple

from nsqkit.nsqd.core.session import OPEN
from nsqkit.nsqd.core.settings import Settings
from nsqkit.wire.commands import MAX_LINE
from nsqkit.wire.frames import ERROR, MESSAGE
from tests.fuzz.source import Source, ways
from tests.nsqd.core.node import Client, Clock, Node

FLAVOURS: Final = ("nothing", "os", "fsync")
GOES_ON: Final = (b"E_FIN_FAILED ", b"E_REQ_FAILED ", b"E_TOUCH_FAILED ")
FATAL: Final = (
    b"E_INVALID ",
    b"E_BAD_TOPIC ",
    b"E_BAD_CHANNEL ",
    b"E_BAD_BODY ",
    b"E_BAD_MESSAGE ",
    b"E_IDENTIFY_FAILED ",
    b"E_AUTH_DISABLED ",
    b"E_SUB_FAILED ",
    b"E_PUB_FAILED ",
    b"E_MPUB_FAILED ",
    b"E_DPUB_FAILED ",
)


class Outcome(NamedTuple):
    """All that a client can see, and what the broker has afterwards."""

    frames: list[tuple[int, bytes]]
    upgraded: bool
    topics: dict[str, tuple[int, int, dict[str, tuple[int, int, int]]]]


def check(data: bytes) -> None:
    """The outcome does not depend on how the stream is cut, and keeps the rules of the protocol."""
    source = Source(data)
    seed = source.byte()
    flavour = FLAVOURS[source.byte() % 3]
    stream = source.rest()
    whole, *others = [_run(flavour, chunks, turns=False) for chunks in ways(stream, seed)]
    for other in others:
        assert whole == other
    turned = [_run(flavour, chunks, turns=True) for chunks in ways(stream, seed)[1:]]
    for one in turned:
        assert _replies(whole) == _replies(one)
        assert whole.upgraded == one.upgraded
        assert whole.topics.keys() == one.topics.keys()


def _run(flavour: str, chunks: list[bytes], *, turns: bool) -> Outcome:
    """What becomes of a client that sends these chunks and then its end; with a turn after each, or one for all."""
    settings = Settings()
    settings.random = random.Random(1)
    settings.max_msg_size = 64
    settings.max_body_size = 300
    settings.max_channel_consumers = 1
    node = Node(flavour, settings, Clock())
    client = node.client(greeted=False)
    session = client.session
    for chunk in chunks:
        if session.phase > OPEN or client.outlet.upgrades:
            break
        client.receive(chunk)
        assert session._reader.pending() <= max(MAX_LINE, settings.max_body_size + 8) + len(chunk)
        if turns:
            node.turn()
    node.turn()
    session.end()
    node.turn()
    assert client.ended == "closed", "a client that has said all is let go"
    _check_frames(client)
    node.check()
    return Outcome(client.outlet.frames, bool(client.outlet.upgrades), _topics(node))


def _check_frames(client: Client) -> None:
    outlet = client.outlet
    assert outlet._reader.feed(b"") == []
    assert not outlet._reader._rest, "half a frame"
    for number, (kind, payload) in enumerate(outlet.frames):
        if kind == MESSAGE:
            assert len(payload) > 26
        elif kind == ERROR and not payload.startswith(GOES_ON):
            assert payload == b"E_BAD_PROTOCOL" or payload.startswith(FATAL)
            assert number == len(outlet.frames) - 1, "an answer after a fatal error"
        elif kind != ERROR and payload not in {b"OK", b"CLOSE_WAIT", b"_heartbeat_"}:
            assert "max_rdy_count" in json.loads(payload)
    client.session.receive(b"NOP\nBAD\n", client.node.clock.now)
    before = len(outlet.frames)
    client.node.turn()
    assert before == len(outlet.frames), "a closed session answers"


def _topics(node: Node) -> dict[str, tuple[int, int, dict[str, tuple[int, int, int]]]]:
    return {
        topic.name: (
            int(topic.message_count),
            int(topic.depth()),
            {
                channel.name: (
                    int(channel.message_count),
                    int(channel.queue.depth()),
                    int(channel.finished_count),
                )
                for channel in topic.channels.values()
            },
        )
        for topic in node.broker.topics.values()
    }


def _replies(outcome: Outcome) -> list[tuple[int, bytes]]:
    """Without what depends on whether a message was delivered before its id was named."""
    return [
        (kind, payload)
        for kind, payload in outcome.frames
        if kind != MESSAGE and not (kind == ERROR and payload.startswith(GOES_ON))
    ]
