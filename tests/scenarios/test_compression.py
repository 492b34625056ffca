"""deflate and snappy over a real socket; the client's side is zlib's and cramjam's own."""

import json
import random
import sys
import zlib
from contextlib import suppress

import cramjam
import pytest

from tests.scenarios.conftest import Client, Closed, Peak, batch, command

MEGABYTE = 1 << 20
ROOM = (
    48 * MEGABYTE
)  # what a hostile stream may cost: some pieces, the transport's buffers, the allocator's waste
CODECS = ["deflate", "snappy"]
SNAPPY_START = b"\xff\x06\x00\x00sNaPpY"


class SnappyReader:
    """Decodes a stream in snappy's framing format, chunk by chunk as they get complete."""

    def __init__(self):
        self._rest = b""

    def __call__(self, data: bytes) -> bytes:
        """What these bytes complete."""
        raw, at, decoded = self._rest + data, 0, []
        while len(raw) >= at + 4 and len(raw) >= (
            end := at + 4 + int.from_bytes(raw[at + 1 : at + 4], "little")
        ):
            if raw[at] != 0xFF:
                decoded.append(bytes(cramjam.snappy.decompress(SNAPPY_START + raw[at:end])))
            at = end
        self._rest = raw[at:]
        return b"".join(decoded)


def compress(client: Client, codec: str, level: int = 6) -> Client:
    """Negotiate, switch, and take the OK that comes through the codec."""
    agreed = json.loads(
        client.identify(json.dumps({"feature_negotiation": True, codec: True, "deflate_level": level}))
    )
    assert agreed[codec] is True
    if codec == "deflate":
        assert agreed["deflate_level"] == min(level, 6)
    compress_with(client, codec, level)
    client.ok()
    return client


def compress_with(client: Client, codec: str, level: int = 6) -> None:
    """Switch."""
    if codec == "deflate":
        out = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
        back = zlib.decompressobj(-zlib.MAX_WBITS)
        client.encode = lambda data: out.compress(data) + out.flush(zlib.Z_SYNC_FLUSH)
        client.decode = back.decompress
    else:
        packer = cramjam.snappy.Compressor()

        def pack(data: bytes) -> bytes:
            packer.compress(data)
            return bytes(packer.flush())

        client.encode = pack
        client.decode = SnappyReader()


def bodies_of_all_kinds() -> list[bytes]:
    """Small, big, easy to compress, impossible to compress."""
    noise = random.Random(7).randbytes
    return [
        b"x",
        b"x" * MEGABYTE,
        noise(MEGABYTE),
        noise(65536),
        b"y" * 65536,
        *[noise(50) for _ in range(500)],
    ]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("level", [1, 9])
def test_both_directions(launch, codec, level):
    """Publishes and deliveries of any size go through the codec, next to clients without one."""
    nsqd = launch()
    bodies = bodies_of_all_kinds()
    publisher = compress(nsqd.connect(), codec, level)
    publisher.publish("orders", *bodies)
    publisher.publish_many("orders", bodies[-500:])
    plain = nsqd.consumer("orders", "plain")
    consumer = compress(nsqd.connect(), codec, level)
    consumer.subscribe("orders", "packed")
    nsqd.connect().publish("orders", b"in the clear")

    expected = sorted([*bodies, *bodies[-500:]])
    assert expected == sorted(message.body for message in plain.messages(len(expected)))
    assert [b"in the clear"] == [message.body for message in consumer.messages(1)]
    publisher.publish("orders", *bodies)
    assert sorted(bodies) == sorted(message.body for message in consumer.messages(len(bodies)))


@pytest.mark.parametrize("codec", CODECS)
def test_errors_and_the_end_come_through_the_codec(launch, codec):
    """The last error frame of a compressed connection is compressed, and complete."""
    client = compress(launch().connect(), codec)

    client.send(b"FROB\n")

    assert client.error() == "E_INVALID invalid command FROB"
    assert client.closed()


@pytest.mark.parametrize("codec", CODECS)
def test_byte_by_byte(launch, codec):
    """The compressed stream may come in any pieces."""
    nsqd = launch()
    client = compress(nsqd.connect(), codec)
    stream = client.encode(command("PUB orders", b"one") + command("MPUB orders", batch([b"two", b"three"])))

    for at in range(len(stream)):
        client.socket.sendall(stream[at : at + 1])

    client.ok(2)
    assert [b"one", b"two", b"three"] == [message.body for message in nsqd.consumer("orders").messages(3)]


@pytest.mark.parametrize("codec", CODECS)
def test_a_corrupt_stream_closes_the_connection(launch, codec):
    """What is not the agreed format ends the connection, and nothing else."""
    nsqd = launch()
    for seed in range(20):
        client = compress(nsqd.connect(), codec)
        client.publish("orders", b"before")
        noise = random.Random(seed).randbytes(70_000)
        with suppress(Closed):
            client.socket.sendall((b"\x07" if codec == "deflate" else b"\x00\x10\x00\x00") + noise)
        with suppress(Closed, ConnectionError):
            assert client.socket.recv(1) == b""
        client.close()

    assert len(nsqd.consumer("orders").messages(20)) == 20


def test_a_deflate_stream_that_ends(launch):
    """A final block is the end of what a client can say; what it sends after it is not gathered anywhere."""
    client = compress(launch().connect(), "deflate")
    packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    client.encode = bytes
    client.send(packer.compress(command("PUB orders", b"one")) + packer.flush(zlib.Z_FINISH))

    with suppress(Closed):
        client.ok()
        for _ in range(64):
            client.send(b"x" * MEGABYTE)
        client.frame()


BOMBS = {
    "a line without an end": b"A" * 64 * MEGABYTE,
    "a body too big": command("PUB orders", b"x" * 64 * MEGABYTE),
    "a body, then no commands": command("PUB orders#ephemeral", b"x" * MEGABYTE) + b"x" * 64 * MEGABYTE,
    "many commands": b"NOP\n" * 300_000,
    "messages that nobody keeps": command("PUB orders#ephemeral", b"x" * MEGABYTE) * 128,
}


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("what", BOMBS)
def test_a_bomb_costs_bounded_memory(launch, codec, what):
    """A stream that unpacks to a thousand times as much is taken piece by piece, and treated as any other."""
    nsqd = launch("--mem-queue-size=1")
    client = compress(nsqd.connect(), codec)
    client.publish("orders#ephemeral", b"x")
    peak = Peak(nsqd.pid)

    with suppress(Closed, ConnectionError):
        client.send(BOMBS[what])
        client.end()
        while True:
            client.frame()

    assert peak.growth() < ROOM
    nsqd.connect().publish("orders", b"still there")
