"""Clients that send too much, too slowly, or do not take their answers, on real sockets."""

import asyncio
import json

import pytest

from nsqkit.nsqd.daemon import Nsqd
from nsqkit.options import Duration
from tests.scenarios.test_http_server import PUB, exchange, response
from tests.scenarios.test_http_server import run as run  # noqa: PLC0414 - a fixture

SOON = Duration.parse("50ms")
GET = b"GET /ping HTTP/1.1\r\n\r\n"


async def ending(nsqd: Nsqd, request: bytes) -> bytes:
    """What comes until the server closes, without the client ever closing its side."""
    reader, writer = await asyncio.open_connection("127.0.0.1", nsqd.http_port)
    writer.write(request)
    got = await reader.read()
    writer.close()
    return got


@pytest.mark.parametrize(
    "request_", [b"", b"\r\n", b"GET /pi", PUB[:-1], PUB[:-1].replace(b": 1\r", b": 9\r")]
)
def test_request_that_does_not_come(run, request_):
    """A connection whose request never begins, or never ends, is closed after --http-read-timeout."""
    assert b"" == run(lambda nsqd: ending(nsqd, request_), http_read_timeout=SOON)


def test_request_that_does_not_come_whole_after_another(run):
    """The time counts for each request on a connection."""
    got = run(lambda nsqd: ending(nsqd, GET + PUB[:-1]), http_read_timeout=SOON)

    assert got.startswith(b"HTTP/1.1 200 ")
    assert got.endswith(b"OK")
    assert 1 == got.count(b"HTTP/1.1")


def test_idle_connection(run):
    """A connection on which nothing more is asked is closed after --http-idle-timeout."""
    got = run(lambda nsqd: ending(nsqd, GET), http_idle_timeout=SOON)

    assert got.startswith(b"HTTP/1.1 200 ")


def test_answer_that_takes_long(run):
    """An answer may take as long as it takes; the timeouts are those of clients."""
    ask = b"GET /debug/pprof/profile?seconds=1 HTTP/1.1\r\nConnection: close\r\n\r\n"
    limits = {"http_read_timeout": SOON, "http_idle_timeout": SOON, "http_write_timeout": SOON}

    assert run(lambda nsqd: ending(nsqd, ask), **limits).startswith(b"HTTP/1.1 200 ")


def test_connections_are_limited(run):
    """One that is too many is answered 503, and there is room again when another goes."""

    async def scene(nsqd):
        reader, writer = await asyncio.open_connection("127.0.0.1", nsqd.http_port)
        writer.write(GET)
        await response(reader)
        refused = await exchange(nsqd, b"")
        writer.write(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        await reader.read()
        writer.close()
        return refused, await exchange(nsqd, GET, half_close=True)

    refused, served = run(scene, http_max_connections=1)

    assert refused.startswith(b"HTTP/1.1 503 ")
    assert served.startswith(b"HTTP/1.1 200 ")


def test_requests_read_ahead_are_limited(run):
    """However many requests are sent at once, only so many are taken in; all are answered, in order."""
    count = 3000
    most = 0

    async def scene(nsqd):
        def look():
            nonlocal most
            for connection in nsqd._http[0].shared.connections:
                most = max(most, len(connection.pipeline))
            asyncio.get_running_loop().call_soon(look)

        look()
        requests = b"".join(b"GET /stats?topic=%d HTTP/1.1\r\n\r\n" % n for n in range(count))
        closing = b"GET /ping HTTP/1.1\r\nConnection: close\r\n\r\n"
        return await exchange(nsqd, PUB * 100 + requests + closing)

    got = run(scene, http_max_pipelined=4)

    assert 100 + count + 1 == got.count(b"HTTP/1.1 200 OK\r\n")
    parsed_at_once = 4096 // len(b"GET /stats?topic=1 HTTP/1.1\r\n\r\n") + 1
    assert 0 < most <= 4 + parsed_at_once


def test_long_body_after_another_request(run):
    """A body that comes while the request before it is still answered waits, whole, for its turn."""
    body = b"x" * 900_000
    post = b"POST /pub?topic=t HTTP/1.1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )
    slow = b"GET /debug/pprof/profile?seconds=1 HTTP/1.1\r\n\r\n"

    async def scene(nsqd):
        got = await exchange(nsqd, slow + GET + post)
        return got, nsqd.broker.topics["t"].message_bytes

    got, size = run(scene)

    assert 3 == got.count(b"HTTP/1.1 200 OK")
    assert len(body) == size


def test_answer_that_is_not_taken(run, tmp_path):
    """A client that takes nothing of its answer is cut off after --http-write-timeout."""
    topics = [{"name": f"t{n}", "paused": False, "channels": []} for n in range(3000)]
    (tmp_path / "nsqd.dat").write_text(json.dumps({"version": "1.3.0", "topics": topics}))

    async def scene(nsqd):
        reader, writer = await asyncio.open_connection("127.0.0.1", nsqd.http_port, limit=1024)
        writer.write(b"GET /stats?format=json HTTP/1.1\r\n\r\n" * 20)
        await reader.readuntil(b"\r\n\r\n")
        while nsqd._http[0].shared.connections:  # noqa: ASYNC110 - nothing tells when
            await asyncio.sleep(0)
        writer.close()

    run(scene, http_write_timeout=SOON)


@pytest.mark.parametrize("length", [b"0" * 5000 + b"1", b"1" + b"0" * 5000])
def test_length_of_thousands_of_digits(run, capfd, length):
    """A length is a number however it is written; one that is none is refused, and nothing is a defect of ours."""
    got = run(lambda nsqd: exchange(nsqd, PUB.replace(b": 1\r", b": %b\r" % length), half_close=True))

    assert got.startswith(b"HTTP/1.1 200 " if length[-1:] == b"1" else b"HTTP/1.1 400 ")
    assert ("", "") == capfd.readouterr()


@pytest.mark.parametrize("name", [b"\xff", b"caf\xc3\xa9", b"a\xe9"])
def test_name_that_is_not_ascii(run, name):
    """Bytes that should have been escaped are taken, as Go's server does: the name is wrong, and that is the answer."""
    got = run(lambda nsqd: exchange(nsqd, PUB.replace(b"topic=t", b"topic=" + name), half_close=True))

    assert got.startswith(b"HTTP/1.1 400 ")
    assert got.endswith(b'{"message":"INVALID_TOPIC"}')
