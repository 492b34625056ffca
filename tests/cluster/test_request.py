"""One request, over a socket: what is sent, what counts as an answer, and how failures are worded."""

import asyncio
import os
import socket
import ssl

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nsqkit.cluster import request
from nsqkit.cluster.request import NODE_ERRORS, BadStatus, Requester, in_words


@pytest.fixture
def make_requester(runner, nodes):
    """Makes what is tested, with other settings than the usual ones."""
    made: list[Requester] = []

    def make(connect_timeout: float = 20, ssl_context: ssl.SSLContext | None = None) -> Requester:
        made.append(Requester(connect_timeout, ssl_context))
        return made[-1]

    yield make
    for requester in made:
        runner.run(requester.close())


@pytest.fixture
def requester(make_requester):
    """What is tested."""
    return make_requester()


@pytest.fixture
def get(run, requester):
    """Makes a request of an address, and gives the body."""
    return lambda address: run(requester.request("GET", address, "/path", {}))


@pytest.fixture
def failure(run, requester):
    """Makes a request that must fail, and gives the error in words."""

    def fail(address: str, of: Requester = requester) -> str:
        with pytest.raises(NODE_ERRORS) as caught:
            run(of.request("GET", address, "/path", {}))
        return in_words(caught.value)

    return fail


def https_at(nodes, port: int):
    """A node that wants https."""
    return nodes.answering({"message": "TLS_REQUIRED", "https_port": port}, "403 Forbidden")


def has_ipv6() -> bool:
    """Whether the loopback has an IPv6 address."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


# -- what is sent


def test_a_request_is_plain_http_in_version_1(run, requester, nodes):
    """Path and parameters are sent as they are meant, and the headers ask for NSQ's format, uncompressed."""
    node = nodes.answering({})

    run(requester.request("GET", node.address, "/channels", {"topic": "a#ephemeral", "x": "1;2 &+%é"}))

    assert ["GET /channels?topic=a%23ephemeral&x=1%3B2+%26%2B%25%C3%A9"] == node.asked
    lines = node.heads[0].split("\r\n")
    assert f"Host: {node.address}" in lines
    assert "Accept: application/vnd.nsq; version=1.0" in lines
    assert "Accept-Encoding: identity" in lines


def test_a_token_goes_with_each_request(run, nodes):
    """What the program's token is at the time is sent as a bearer token; nothing is sent if it is empty."""
    tokens = ["first", "", "third"]
    node = nodes.answering({})

    async def ask():
        requester = Requester(20, None, lambda: tokens.pop(0))
        for _ in range(3):
            await requester.request("GET", node.address, "/topics", {})
        await requester.close()

    run(ask())

    sent = [[line for line in head.split("\r\n") if line.startswith("Authorization")] for head in node.heads]
    assert [["Authorization: Bearer first"], [], ["Authorization: Bearer third"]] == sent


def test_a_command_has_an_empty_body(run, requester, nodes):
    """A POST says that nothing follows its head."""
    node = nodes.answering(b"")

    assert b"" == run(requester.request("POST", node.address, "/topic/pause", {"topic": "a"}))

    assert ["POST /topic/pause?topic=a"] == node.asked
    assert "Content-Length: 0" in node.heads[0].split("\r\n")


@pytest.mark.skipif(not has_ipv6(), reason="there is no IPv6 here")
def test_ipv6_addresses_stand_in_brackets(get, nodes):
    """A node may be named by an IPv6 address."""
    node = nodes.answering(b"yes", host="::1")

    assert node.address.startswith("[::1]:")
    assert b"yes" == get(node.address)


def test_the_environment_names_no_proxy(get, nodes, monkeypatch):
    """A proxy in the environment is not used."""
    monkeypatch.setenv("http_proxy", f"http://{nodes.refusing()}")
    monkeypatch.setenv("HTTP_PROXY", os.environ["http_proxy"])

    assert b"yes" == get(nodes.answering(b"yes").address)


def test_cookies_are_not_kept(get, nodes):
    """A node's cookie does not come back to it."""
    node = nodes.sending(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n")

    get(node.address)
    get(node.address)

    assert 2 == len(node.heads)
    assert "cookie" not in node.heads[1].lower()


def test_a_closed_requester_opens_again(run, requester, get, nodes):
    """Closing gives up what is open, and harms no later request."""
    node = nodes.answering(b"yes")
    get(node.address)

    run(requester.close())

    assert b"yes" == get(node.address)


# -- https


def test_a_node_that_wants_https_is_asked_there(run, make_requester, nodes, server_tls, trusting_tls):
    """403 with a port leads to the same request at that port, over TLS."""
    secure = nodes.answering(b"yes", tls=server_tls)
    plain = https_at(nodes, secure.port)
    requester = make_requester(ssl_context=trusting_tls)

    assert b"yes" == run(requester.request("POST", plain.address, "/topic/pause", {"topic": "a"}))

    assert ["POST /topic/pause?topic=a"] == plain.asked == secure.asked


def test_a_certificate_must_be_trusted(failure, nodes, server_tls):
    """By default the system decides which certificates are good, and this one is not."""
    secure = nodes.answering(b"yes", tls=server_tls)

    text = failure(https_at(nodes, secure.port).address)

    assert text.startswith("TLS: ")
    assert "certificate verify failed" in text
    assert [] == secure.asked


def test_what_listens_must_speak_tls(failure, nodes):
    """A port that does not speak TLS is a failure that says TLS."""
    other = nodes.sending(b"220 mail.example ready\r\n", speaks_first=True)

    assert failure(https_at(nodes, other.port).address).startswith("TLS: ")


def test_a_client_certificate_may_be_missing(failure, make_requester, nodes, server_tls, trusting_tls):
    """A server that requires a certificate of the client does not answer without."""
    server_tls.verify_mode = ssl.CERT_REQUIRED
    secure = nodes.answering(b"no", tls=server_tls)

    assert failure(https_at(nodes, secure.port).address, make_requester(ssl_context=trusting_tls))
    assert [] == secure.asked


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_without_a_port_403_is_the_answer(port, failure, nodes):
    """A node that wants https and has none is a failure with status 403."""
    assert failure(https_at(nodes, port).address).startswith("got response 403 Forbidden ")


def test_https_is_tried_once(failure, make_requester, nodes, server_tls, trusting_tls):
    """A 403 over TLS is the answer."""
    secure = nodes.answering({"https_port": 1}, "403 Forbidden", tls=server_tls)

    text = failure(https_at(nodes, secure.port).address, make_requester(ssl_context=trusting_tls))

    assert 'got response 403 Forbidden "{\\"https_port\\": 1}"' == text


# -- other answers than 200


def test_a_status_is_quoted_with_its_body():
    """The text has status, reason and body, and the error has NSQ's word."""
    error = BadStatus(404, "Not Found", b'{"message":"TOPIC_NOT_FOUND"}')

    assert 'got response 404 Not Found "{\\"message\\":\\"TOPIC_NOT_FOUND\\"}"' == in_words(error)
    assert (404, "TOPIC_NOT_FOUND") == (error.status, error.message)


@pytest.mark.parametrize(
    "body", [b"", b"\xff", b"no", b"[" * 9999, b'{"message":1}', b"null", b'{"https_port":"1"}']
)
def test_a_status_needs_no_document(body, failure, nodes):
    """A body that is not NSQ's is quoted and otherwise ignored."""
    assert "" == BadStatus(403, "", body).message
    assert failure(nodes.answering(body, "403 No").address).startswith('got response 403 No "')


def test_redirects_are_not_followed(failure, nodes):
    """A redirect is a status like others."""
    there = nodes.answering(b"")
    here = nodes.sending(
        f"HTTP/1.1 301 Moved\r\nLocation: http://{there.address}/\r\nContent-Length: 0\r\n\r\n".encode()
    )

    assert 'got response 301 Moved ""' == failure(here.address)
    assert [] == there.asked


def test_only_200_is_an_answer(failure, nodes):
    """No content is no answer."""
    assert 'got response 204 No Content ""' == failure(
        nodes.sending(b"HTTP/1.1 204 No Content\r\n\r\n").address
    )


# -- limits


async def endless(reader, writer):
    """Answer without an end, for as long as the client takes it."""
    while True:
        writer.write(b"x" * 1000)
        await writer.drain()


@pytest.mark.parametrize("status, text", [
    ("200 OK", "the answer is longer than 5000 bytes"),
    ("500 No", f'got response 500 No "{"x" * 1024}…"'),
])  # fmt: skip
def test_an_endless_answer_is_cut(status, text, run, failure, nodes, monkeypatch):
    """Reading stops at the limit, and the connection is closed."""
    monkeypatch.setattr(request, "MAX_ANSWER_SIZE", 5000)

    async def handler(reader, writer):
        writer.write(f"HTTP/1.1 {status}\r\n\r\n".encode())
        await endless(reader, writer)

    node = nodes.handled_by(handler)

    assert text == failure(node.address)
    run(node.lost_client.wait())


def test_the_longest_answer_is_taken(get, nodes, monkeypatch):
    """An answer of exactly the limit is whole."""
    monkeypatch.setattr(request, "MAX_ANSWER_SIZE", 200_000)
    body = bytes(200_000)

    assert body == get(nodes.answering(body).address)


def test_endless_headers_are_cut(failure, nodes):
    """Headers have a limit too, and the text about them."""

    async def handler(reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nX: ")
        await endless(reader, writer)

    text = failure(nodes.handled_by(handler).address)

    assert text.startswith("not HTTP: ")
    assert len(text) <= request.MAX_TEXT


def test_connecting_has_a_limit(failure, make_requester, nodes):
    """A server that takes the connection and does not go on with TLS has the connect timeout for it."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        node = https_at(nodes, listener.getsockname()[1])

        assert "no connection within 0.2 s" == failure(node.address, make_requester(connect_timeout=0.2))


# -- failures in words


def test_a_refused_connection_says_so(failure, nodes):
    """The text is that of the system."""
    assert "cannot connect: Connection refused" == failure(nodes.refusing())


def test_a_name_nobody_knows_says_so(failure, monkeypatch):
    """A name that cannot be looked up is a failure with the resolver's text."""

    async def fail(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr("aiohttp.resolver.ThreadedResolver.resolve", fail)

    assert "cannot look up the name: Name or service not known" == failure("nowhere.invalid:4161")


@pytest.mark.parametrize("raw, text", [
    (b"", "it hung up in the middle of its answer"),
    (b"nsqd v1.3.0\r\n\r\n", "not HTTP: "),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", "Response payload is not completed"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "not HTTP: "),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "not HTTP: "),
])  # fmt: skip
def test_broken_http_is_one_line(raw, text, failure, nodes):
    """Whatever is wrong with an answer is said in one line."""
    got = failure(nodes.sending(raw).address)

    assert got.startswith(text)
    assert "\n" not in got


def test_a_broken_connection_says_so(failure, nodes):
    """A connection that is reset is a failure with the system's text."""

    async def handler(reader, writer):
        writer.transport.abort()

    text = failure(nodes.handled_by(handler).address)

    assert text in (
        "the connection broke: Connection reset by peer",
        "it hung up in the middle of its answer",
    )


def test_an_alert_of_tls_is_quoted():
    """The number of an error of TLS is not taken for one of the system."""
    error = aiohttp.ClientOSError(1, "[SSL] certificate required")

    assert "the connection broke: [SSL] certificate required" == in_words(error)


@pytest.mark.parametrize(
    "data", [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", b""], ids=["answer", "noise"]
)
def test_no_bytes_get_past_the_errors(data, run, requester, nodes):
    """Whatever a node sends gives a body or one of the errors that stand for a node."""
    sent = b""
    texts: list[str] = []

    async def handler(reader, writer):
        writer.write(sent)

    node = nodes.handled_by(handler)

    @settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.binary(max_size=60), st.integers(0, len(data)))
    def check(noise: bytes, at: int) -> None:
        nonlocal sent
        sent = data[:at] + noise + data[at + len(noise) // 2 :]
        try:
            run(asyncio.wait_for(requester.request("GET", node.address, "/", {}), 20))
        except NODE_ERRORS as error:
            texts.append(in_words(error))

    check()

    assert all(texts)


@pytest.mark.parametrize(
    "node", ["a b:80", "a/b:80", "a@b:80", "a?b:80", "a#b:80", "[a]:80", "\ud800:80", "a..b:80", "1:80"]
)
def test_a_host_is_nothing_but_a_host(node, failure):
    """What would lead elsewhere, or nowhere, is a failure and not a request."""
    assert failure(node)
