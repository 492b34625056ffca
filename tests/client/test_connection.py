"""Opening a connection: what is asked for, what is made of the answers, and what is refused."""

import asyncio
import errno
import json
import logging
import socket
import ssl
from typing import Any

import pytest

from nsqkit.client.connection import Opener, _in_words, _local_address
from nsqkit.client.link import Link
from nsqkit.client.message import Inbox
from nsqkit.client.options import ConsumerOptions, ProducerOptions
from nsqkit.errors import AuthFailed, ConnectionFailed, HandshakeFailed, OptionError
from nsqkit.nsqd.options import NsqdOptions
from nsqkit.nsqd.tls import Certificates, Tls
from nsqkit.wire.compression import Deflate, Snappy
from nsqkit.wire.identify import Identity, Limits
from nsqkit.wire.layer import Layers
from tests.client.wires import OK, Wire, error, frame, message_frame

LOG = logging.getLogger("nsqkit.consumer")
AGREED = {"max_rdy_count": 100, "version": "1.3.0", "max_msg_timeout": 600_000, "msg_timeout": 5_000}


class Local(Opener):
    """Opens links on wires. `answers` are what nsqd sends, one at a time, cut into chunks of `chunk` bytes."""

    def __init__(self, options, answers, chunk=1 << 20):
        super().__init__(options, lambda: 0.0, LOG)
        self.answers = list(answers)
        self.chunk = chunk
        self.wire = Wire()
        self.link: Any = None

    async def _connect(self, nsqd, inbox):
        link = self.link = Link(nsqd, lambda: 0.0, 0, inbox)
        link.connection_made(self.wire)
        asyncio.get_running_loop().call_soon(self._answer)
        return link

    def _answer(self):
        link = self.link
        if link.lost:
            return
        link.flush()
        if self.answers and self.wire.written:
            self.heard = getattr(self, "heard", b"") + self.wire.take()
            answer = self.answers.pop(0)
            for at in range(0, len(answer), self.chunk):
                link.data_received(answer[at : at + self.chunk])
        if self.answers or not link.is_open:
            asyncio.get_running_loop().call_soon(self._answer)


def agreed(**more):
    """An answer to IDENTIFY."""
    return frame(0, json.dumps(AGREED | more).encode())


def opened(options, *answers, chunk=1 << 20, consuming=True):
    """The opener and its link, after the handshake."""

    async def run():
        opener = Local(options, answers, chunk)
        inbox = Inbox("orders", "billing", lambda: 0.0, lambda _: 0) if consuming else None
        try:
            link = await opener.open("n:4150", inbox)
        except ConnectionFailed:
            assert opener.wire.closed
            raise
        link.begin()
        opener.heard += opener.wire.take()
        return opener, link

    return asyncio.run(run())


@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_a_consumer_identifies_itself_and_subscribes(chunk):
    """What is agreed on counts, and what comes next is taken."""
    options = ConsumerOptions(client_id="me", msg_timeout=7, sample_rate=10, output_buffer_timeout=-1)
    opener, link = opened(options, agreed(), OK + message_frame(1), chunk=chunk)

    assert opener.heard.startswith(b"  V2IDENTIFY\n")
    size = int.from_bytes(opener.heard[13:17], "big")
    asked = json.loads(opener.heard[17 : 17 + size])
    assert b"SUB orders billing\n" == opener.heard[17 + size :]
    assert {
        "client_id": "me", "feature_negotiation": True, "msg_timeout": 7000, "sample_rate": 10,
        "heartbeat_interval": 30_000, "output_buffer_timeout": -1, "output_buffer_size": 16384, "tls_v1": False,
    }.items() <= asked.items()  # fmt: skip
    assert (100, 5.0, 600.0) == (link.max_rdy_count, link.msg_timeout, link.max_msg_timeout)
    assert 1 == len(link.inbox.waiting)


def test_a_producer_asks_for_nothing_that_is_a_consumers():
    """And subscribes to nothing."""
    opener, link = opened(ProducerOptions(heartbeat_interval=-1), agreed(), consuming=False)

    assert b"msg_timeout" not in opener.heard
    assert b"SUB" not in opener.heard
    assert 0 == link.heartbeat


def test_an_old_nsqd_that_says_ok_has_no_features():
    """Then the defaults of NSQ hold."""
    _, link = opened(ConsumerOptions(), OK, OK)

    assert (2500, 60.0) == (link.max_rdy_count, link.msg_timeout)


@pytest.mark.parametrize(
    ("options", "answers", "kind", "words"),
    [
        ({"tls_v1": True}, [agreed()], HandshakeFailed, "does not offer TLS"),
        ({}, [agreed(auth_required=True)], AuthFailed, "set auth_secret"),
        (
            {"auth_secret": "x"},
            [agreed(auth_required=True), error("E_AUTH_FAILED AUTH failed")],
            AuthFailed,
            "E_AUTH",
        ),
        ({}, [agreed(), error("E_UNAUTHORIZED AUTH failed for SUB")], AuthFailed, "E_UNAUTHORIZED"),
        ({}, [error("E_BAD_BODY IDENTIFY sample rate")], HandshakeFailed, "E_BAD_BODY IDENTIFY"),
        ({}, [agreed(), error("E_SUB_FAILED SUB failed exiting")], HandshakeFailed, "E_SUB_FAILED"),
        ({}, [agreed(), frame(0, b"WHAT")], HandshakeFailed, "SUB was answered b'WHAT'"),
        ({}, [frame(0, b"hello")], HandshakeFailed, "IDENTIFY was answered b'hello'"),
        ({}, [frame(0, b'{"max_rdy_count": "x"}')], HandshakeFailed, "IDENTIFY was answered"),
        ({}, [b"HTTP/1.1 400 Bad Request\r\n"], ConnectionFailed, "it is no nsqd"),
        ({"snappy": True}, [agreed(snappy=True) + b"no snappy at all"], HandshakeFailed, "snappy"),
    ],
)
def test_what_can_not_be_used_is_refused(options, answers, kind, words):
    """With the address and a reason, by an error of its kind; and the connection is closed."""
    with pytest.raises(kind, match=f"n:4150: .*{words}") as refused:
        opened(ConsumerOptions(**options), *answers)
    passing = any(word in str(refused.value) for word in ("E_AUTH_FAILED", "E_SUB_FAILED", "no nsqd, or"))
    assert refused.value.final is not passing


def test_compression_that_is_not_offered_is_a_warning(caplog):
    """The messages come all the same."""
    _, link = opened(ConsumerOptions(deflate=True), agreed(), OK)

    assert link.is_open
    assert "does not offer deflate" in caplog.text


def test_auth_says_who_one_is():
    """And the opener keeps it."""
    opener, _ = opened(
        ConsumerOptions(auth_secret="secret"),
        agreed(auth_required=True),
        frame(0, b'{"identity": "me", "identity_url": "http://me", "permission_count": 2}'),
        OK,
    )

    assert ("me", "http://me", 2) == (
        opener.identity.identity,
        opener.identity.identity_url,
        opener.identity.permission_count,
    )
    assert b"AUTH\n\0\0\0\6secret" in opener.heard


@pytest.mark.parametrize("chunk", [1, 1000])
@pytest.mark.parametrize(("name", "layer"), [("snappy", Snappy), ("deflate", lambda: Deflate(6))])
def test_compression_begins_with_ok_inside(name, layer, chunk):
    """Everything after it goes through, in both directions."""
    server = layer()
    options: dict[str, Any] = {name: True}

    def said(*frames):
        server.send(b"".join(frames))
        return server.output()

    opener, link = opened(
        ConsumerOptions(**options),
        agreed(**{name: True}) + said(OK),
        said(OK, message_frame(5)),
        chunk=chunk,
    )

    assert [5] == [int(message.id, 16) for message in link.inbox.waiting]
    heard = layer()
    heard.received(opener.heard[17 + int.from_bytes(opener.heard[13:17], "big") :])
    assert b"SUB orders billing\n" == heard.take()


def test_compression_lies_above_tls(certificates):
    """TLS first, then OK inside, then snappy, then OK inside both."""
    certificate, key = certificates.server
    server = Tls(Certificates(NsqdOptions(tls_cert=certificate, tls_key=key)), Identity(Limits()))
    layers = Layers()

    class Server(Local):
        """Talks TLS."""

        said: tuple[str, ...] = ()

        def _answer(self):
            link = self.link
            link.flush()
            data = self.wire.take()
            if data and not self.said:
                self.said = ("identify",)
                link.data_received(agreed(tls_v1=True, snappy=True))
                layers.add(server)
            elif data:
                layers.received(data)
                heard = b""
                while piece := layers.take():
                    heard += piece
                out = layers.send(b"")
                if layers.ready() and len(self.said) == 1:
                    self.said += ("tls",)
                    out += layers.send(OK)
                    layers.add(Snappy())
                    out += layers.send(OK)
                if b"SUB" in heard:
                    self.said += ("sub",)
                    out += layers.send(OK + message_frame(9))
                link.data_received(out)
            if not link.is_open and not link.lost:
                asyncio.get_running_loop().call_soon(self._answer)

    async def run():
        opener = Server(
            ConsumerOptions(tls_v1=True, snappy=True, tls_insecure_skip_verify=True, read_timeout=30), ()
        )
        inbox = Inbox("orders", "billing", lambda: 0.0, lambda _: 0)
        link = await opener.open("n:4150", inbox)
        link.begin()
        assert [9] == [int(message.id, 16) for message in inbox.waiting]

    asyncio.run(run())


def test_a_handshake_that_hangs_is_given_up():
    """After read_timeout."""

    async def run():
        opener = Local(ConsumerOptions(read_timeout="100ms", heartbeat_interval="100ms"), [])
        with pytest.raises(HandshakeFailed, match=r"no answer within 0.1 s .read_timeout"):
            await opener.open("n:4150", None)
        assert opener.wire.closed

    asyncio.run(run())


def test_a_handshake_that_is_cancelled_closes_the_connection():
    """Nothing is left open."""

    async def run():
        opener = Local(ConsumerOptions(), [])
        task = asyncio.ensure_future(opener.open("n:4150", None))
        while opener.link is None:  # noqa: ASYNC110 - a pass of the loop is what it waits for
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert opener.wire.closed

    asyncio.run(run())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tls_root_ca_file": "/no/such.pem"}, "/no/such.pem"),
        ({"tls_cert": "/no/cert.pem", "tls_key": "/no/key.pem"}, "/no/cert.pem, /no/key.pem"),
    ],
)
def test_files_that_can_not_be_read_are_named(options, words):
    """When the producer or consumer starts."""
    with pytest.raises(OptionError, match=words):
        Opener(ConsumerOptions(tls_v1=True, **options), lambda: 0.0, LOG)


def test_a_context_of_ones_own_is_taken():
    """As it is."""
    context = ssl.create_default_context()

    assert context is Opener(ConsumerOptions(tls_v1=True, tls_context=context), lambda: 0.0, LOG)._context


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('127.0.0.1', 1)"),
            "connection refused",
        ),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), "network is unreachable"),
        (OSError("Multiple exceptions: a, b"), "Multiple exceptions: a, b"),
        (
            socket.gaierror(-2, "Name or service not known"),
            "the name is not known: Name or service not known",
        ),
    ],
)
def test_failures_to_connect_are_said_in_words(error, words):
    """Not in those of asyncio."""
    assert words == _in_words(error)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("", None),
        ("10.0.0.1", ("10.0.0.1", 0)),
        ("10.0.0.1:5", ("10.0.0.1", 5)),
        ("[::1]:5", ("::1", 5)),
        ("::1", ("::1", 0)),
    ],
)
def test_the_local_address_may_be_without_a_port(text, address):
    """Any port will do then."""
    assert address == _local_address(text)
