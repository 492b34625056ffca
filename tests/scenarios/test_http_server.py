"""The HTTP server on real sockets: what httptools and uvicorn leave to us."""

import asyncio
import json

import pytest

from nsqkit.log import Level
from nsqkit.nsqd.daemon import Nsqd
from nsqkit.nsqd.options import NsqdOptions
from nsqkit.web.server import OneWrite

PUB = b"POST /pub?topic=t HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx"

CUT_OFF = b"cut off"


@pytest.fixture
def run(tmp_path):
    """Runs a function of a daemon, with an event loop around it."""

    def in_daemon(scene, **options):
        async def main():
            addresses = {"tcp_address": "127.0.0.1:0", "http_address": "127.0.0.1:0"} | options
            async with Nsqd(NsqdOptions(data_path=str(tmp_path), log_level=Level.FATAL, **addresses)) as nsqd:
                return await scene(nsqd)

        return asyncio.run(main())

    return in_daemon


async def exchange(nsqd, request: bytes, *, half_close: bool = False) -> bytes:
    """Send bytes; everything that comes back until the server closes, CUT_OFF if it does so with bytes unread."""
    reader, writer = await asyncio.open_connection("127.0.0.1", nsqd.http_port)
    try:
        writer.write(request)
        if half_close:
            writer.write_eof()
        return await reader.read()
    except ConnectionError:
        return CUT_OFF
    finally:
        writer.close()


async def response(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """One response: head and body."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    return head, await reader.readexactly(length)


def test_half_closed_connection_is_answered(run):
    """A client that closes its sending side after a whole request gets its answer, then the end."""
    got = run(lambda nsqd: exchange(nsqd, PUB, half_close=True))

    assert got.startswith(b"HTTP/1.1 200 OK\r\n")
    assert got.endswith(b"\r\n\r\nOK")


def test_half_a_request_is_not_answered(run):
    """A client that closes within its request gets nothing, and nothing is published."""

    async def scene(nsqd):
        return await exchange(nsqd, PUB[:-1], half_close=True), nsqd.broker.topics

    assert (b"", {}) == run(scene)


def test_pipelined_requests(run):
    """Requests sent without waiting are answered in order on one connection, each with a date; one is HEAD."""

    async def scene(nsqd):
        reader, writer = await asyncio.open_connection("127.0.0.1", nsqd.http_port)
        writer.write(PUB + b"HEAD /ping HTTP/1.1\r\nHost: x\r\n\r\n" + PUB)
        first = await response(reader)
        head = await reader.readuntil(b"\r\n\r\n")
        last = await response(reader)
        writer.close()
        return first, (head, b"OK"), last

    got = run(scene)

    assert [b"OK"] * 3 == [body for _, body in got]
    assert all(b"\r\ndate: " in head for head, _ in got)


@pytest.mark.parametrize("endless", [b"GET /ping HTTP/1.1\r\nX: ", b"GET /", PUB[:-5] + b"\r\nY: "])
def test_endless_head(run, endless):
    """A request whose head has no end is cut off, whether in its line or in a header."""
    got = run(lambda nsqd: exchange(nsqd, endless + b"a" * 400_000))

    assert got == CUT_OFF or got.startswith(b"HTTP/1.1 431 ")


def test_endless_trailer(run):
    """A body in chunks that never comes to its end after the last chunk is cut off."""
    head = b"POST /pub?topic=t HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"

    async def scene(nsqd):
        return await exchange(nsqd, head + b"X: a\r\n" * 60_000), nsqd.broker.topics

    got, topics = run(scene)

    assert got == CUT_OFF or got.startswith(b"HTTP/1.1 431 ")
    assert {} == topics


@pytest.mark.parametrize("length", [b"Content-Length: 3000000", b"Transfer-Encoding: chunked"])
def test_oversize_body_sees_its_answer(run, length):
    """Who is in the middle of sending too much still gets to read why it is refused."""
    body = b"x" * 3_000_000
    if b"chunked" in length:
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    request = b"POST /pub?topic=t HTTP/1.1\r\nHost: x\r\n" + length + b"\r\n\r\n" + body

    got = run(lambda nsqd: exchange(nsqd, request))

    assert got.startswith(b"HTTP/1.1 413 ")
    assert got.endswith(b'{"message":"MSG_TOO_BIG"}')


def test_hash_sign_is_part_of_the_query(run):
    """`#ephemeral` may be sent without an escape, as Go's server takes it."""

    async def scene(nsqd):
        await exchange(nsqd, PUB.replace(b"topic=t", b"topic=t#ephemeral"), half_close=True)
        return [*nsqd.broker.topics]

    assert ["t#ephemeral"] == run(scene)


def test_nonsense(run, capfd):
    """What is no HTTP is refused, and nothing but our own log is written to."""
    got = run(lambda nsqd: exchange(nsqd, b"\x16\x03\x01\x02\x00nonsense\r\n\r\n"))

    assert got.startswith(b"HTTP/1.1 400 ")
    assert ("", "") == capfd.readouterr()


def test_offer_of_another_protocol_is_declined(run):
    """A request that offers HTTP/2 is served as HTTP/1.1."""
    offer = b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\nUpgrade: h2c\r\n\r\n"

    assert run(lambda nsqd: exchange(nsqd, offer, half_close=True)).endswith(b"\r\n\r\nOK")


def test_stop_closes_idle_connections(run):
    """An idle connection is closed when the daemon stops, and so is one in the middle of a request."""

    async def scene(nsqd):
        idle = await asyncio.open_connection("127.0.0.1", nsqd.http_port)
        idle[1].write(PUB)
        await response(idle[0])
        busy = await asyncio.open_connection("127.0.0.1", nsqd.http_port)
        busy[1].write(b"GET /debug/pprof/profile?seconds=60 HTTP/1.1\r\nHost: x\r\n\r\n")
        late = await asyncio.open_connection("127.0.0.1", nsqd.http_port)
        late[1].write(PUB[:-1])
        await exchange(nsqd, b"GET /ping HTTP/1.0\r\n\r\n")  # the others have been read by now
        await nsqd.stop()
        profile = await response(busy[0])
        ends = [await reader.read() for reader, _ in (idle, busy, late)]
        for _, writer in (idle, busy, late):
            writer.close()
        return profile[0], ends

    head, ends = run(scene)

    assert head.startswith(b"HTTP/1.1 200 ")
    assert [b"", b"", b""] == ends


def test_unix_socket(run, tmp_path):
    """HTTP can be served on a unix socket; the ports are -1 then."""
    path = str(tmp_path / "http.sock")

    async def scene(_):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"GET /info HTTP/1.0\r\n\r\n")
        got = await response(reader)
        writer.close()
        return json.loads(got[1])

    assert -1 == run(scene, http_address=path)["http_port"]


def test_one_write_for_each_answer():
    """Head and body of an answer go out together, a lone head when it is flushed, everything else as it comes."""
    written: list[bytes] = []

    class Recorder(asyncio.Transport):
        def write(self, data):
            written.append(bytes(data))

        def close(self):
            written.append(b"closed")

    transport = OneWrite(Recorder())
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"
    transport.write(head)
    transport.write(b"OK")
    transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    transport.write(head)
    transport.flush()
    transport.flush()
    transport.write(head)
    transport.close()

    assert [head + b"OK", b"HTTP/1.1 100 Continue\r\n\r\n", head, head, b"closed"] == written
