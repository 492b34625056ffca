"""One question to one auth server, over a socket: what is sent, and how failures are told without the secret."""

import re
import traceback

import pytest

from nsqkit.nsqd.auth import NoAnswer
from nsqkit.nsqd.auth.query import Questioner
from nsqkit.nsqd.core.settings import SECOND
from tests.nsqd.auth.conftest import grant, reply

NOW = 1_700_000_000 * SECOND
SECRET = b"s3cret &=%/\xc3\xbc"
CLIENT = {"common_name": "", "remote_ip": "10.0.0.1", "tls": "false"}


async def ask(address, *, method="get", limit=20.0, secret=SECRET):
    """Ask once."""
    questioner = Questioner(method, 20.0, limit, None)
    try:
        return await questioner.ask(address, CLIENT, secret, NOW)
    finally:
        await questioner.close()


async def failure(address, **more):
    """Why there is no answer. The secret is not in it, nor in what Python says of it."""
    with pytest.raises(NoAnswer) as caught:
        await ask(address, **more)
    everything = "".join(traceback.format_exception(caught.value))
    assert "s3cret" not in everything
    return str(caught.value)


def test_get(play):
    """The values are in the query, by name, and the header asks for NSQ's format."""

    async def test(server):
        granted = await ask(server.address)

        assert "me" == granted.identity
        ((method, path, query, head),) = server.asked
        assert ("GET", "/auth") == (method, path)
        values = {
            "common_name": [""],
            "remote_ip": ["10.0.0.1"],
            "secret": [SECRET.decode()],
            "tls": ["false"],
        }
        assert list(values.items()) == list(query.items())
        assert "?common_name=&remote_ip=10.0.0.1&secret=s3cret+%26%3D%25%2F%C3%BC&tls=false HTTP" in head
        assert "Accept: application/vnd.nsq; version=1.0\r\n" in head

    play(test)


def test_post(play):
    """The values are lists of one string in a JSON document; bytes that are no text are replaced."""

    async def test(server):
        await ask(server.address, method="post", secret=b"a\xff")

        ((method, path, query, head),) = server.asked
        assert ("POST", "/auth") == (method, path)
        assert {
            "common_name": [""],
            "remote_ip": ["10.0.0.1"],
            "secret": ["a\ufffd"],
            "tls": ["false"],
        } == query
        assert "Content-Type: application/json\r\n" in head

    play(test)


def test_secret_of_any_bytes(play):
    """A GET carries bytes that are no text as they are."""

    async def test(server):
        await ask(server.address, secret=b"\xff\x00 ")

        assert "&secret=%FF%00+&" in server.asked[0][3]

    play(test)


def test_url(play):
    """An address with a scheme is used as it is, with a question mark and the query after it."""

    async def test(server):
        await ask(f"http://{server.address}/custom/place?x=1")

        assert "GET /custom/place?x=1?common_name=&" in server.asked[0][3]

    play(test)


@pytest.mark.parametrize(
    "raw, why",
    [
        (reply(b"s3cret", "403 Forbidden"), "^it answered with status 403$"),
        (reply(b"s3cret", "500 s3cret"), "^it answered with status 500$"),
        (b"s3cret\r\n\r\n", "the connection broke, or it does not speak HTTP"),
        (b"", "the connection broke, or it does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ns3", "the connection broke"),
        (reply(b"s3cret"), "^its answer is not the JSON of an auth server$"),
        (reply(grant(ttl="s3cret")), "^its answer is not the JSON of an auth server$"),
        (reply(grant(authorizations=[{"topic": "(s3cret"}])), "no regular expression"),
        (reply(grant(authorizations=[{"permissions": ["s3cret"]}])), "permission"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"s3cret " * 10_000, "^its answer has more than 65536 bytes$"),
        (b"HTTP/1.1 302 Found\r\nLocation: /s3cret\r\nContent-Length: 0\r\n\r\n", "status 302"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"s3cret" * 10_000 + b"\r\n\r\n", "does not speak HTTP"),
    ],
)
def test_what_is_no_answer(play, raw, why):
    """It is told in words of ours."""

    async def test(server):
        server.reply = raw
        text = await failure(server.address)
        assert re.search(why, text), text

    play(test)


def test_a_server_that_says_nothing(play):
    """It is given up after the time for a request, and hung up on."""

    async def test(server):
        server.reply = None

        assert "it did not answer in time" == await failure(server.address, limit=0.05)
        await server.lost.wait()

    play(test)


def test_nobody_there(play):
    """Who can't be reached is said to be so."""

    async def test(_):
        assert "cannot connect: Connection refused" == await failure("127.0.0.1:1")

    play(test)


def test_a_name_that_leads_nowhere(play):
    """A name that can't be found is said to be so."""

    async def test(_):
        assert "cannot look up the name" == await failure("name.invalid:80")

    play(test)
