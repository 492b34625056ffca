"""Attacks on the real program: each ends with its connection closed and one line in the log, and others are served."""

import socket
import ssl
from contextlib import suppress

import pytest

from tests.scenarios.conftest import WAIT_S, Client, Closed
from tests.scenarios.test_compression import compress, compress_with
from tests.scenarios.test_tls import https_port, secure

ENDLESS = b"PUB " + b"x" * (1 << 22)  # 4 MiB of a line without an end

SCANNER = (
    b"GET / HTTP/1.0\r\n\r\n",
    b"\x16\x03\x01\x02\0\x01\0",
    b"SSH-2.0-x\r\n",
    b"\0" * 64,
    b"HELP\r\n",
)


def ends(client: socket.socket) -> bool:
    """The peer hangs up, whatever it says before that."""
    client.settimeout(WAIT_S)
    with suppress(ConnectionResetError):
        while client.recv(65536):
            pass
    return True


@pytest.mark.parametrize("words", SCANNER)
def test_port_scanner(launch, words):
    """What is not the protocol is one line for a whole series of tries from one address."""
    nsqd = launch()
    innocent = nsqd.connect()

    for _ in range(30):
        with socket.create_connection(nsqd.address, WAIT_S) as one:
            one.sendall(words)
            assert ends(one)
        innocent.publish("orders", b"x")

    assert 0 < nsqd.log().count("bad protocol magic") <= 11


def test_scanner_of_https(launch, certificates):
    """Who speaks no TLS to the HTTPS port is one line, and others are served."""
    nsqd = launch(*certificates.flags("--https-address=127.0.0.1:0"), http=True)
    port = https_port(nsqd)

    for _ in range(5):
        with socket.create_connection(("127.0.0.1", port), WAIT_S) as one:
            one.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert ends(one)

    assert (200, b"OK") == nsqd.request("GET", "/ping")
    nsqd.stop()
    assert 1 == nsqd.log().count("TLS: handshake failed with 127.0.0.1: http request\n")


def test_tls_handshake_that_stalls(launch, certificates):
    """Whoever agrees to TLS and says nothing more is closed after --handshake-timeout."""
    nsqd = launch(*certificates.flags("--https-address=", "--handshake-timeout=200ms"))
    stalled = [nsqd.connect() for _ in range(20)]
    for one in stalled:
        one.identify('{"feature_negotiation": true, "tls_v1": true}')

    innocent = secure(nsqd.connect(), certificates.trusting())
    innocent.publish("orders", b"x")

    assert all(ends(one.socket) for one in stalled)
    innocent.publish("orders", b"x")


def test_silent_connections_make_room(launch):
    """Of more silent connections than --max-handshakes the oldest are closed, with one line; who speaks is served."""
    nsqd = launch("--max-handshakes=10", "--handshake-timeout=0")
    silent = [socket.create_connection(nsqd.address, WAIT_S) for _ in range(40)]

    nsqd.connect().publish("orders", b"x")

    assert all(ends(one) for one in silent[:25])
    assert 1 == nsqd.log().count("connections have not said yet who they are")
    for one in silent:
        one.close()


def test_one_address_has_so_many(launch):
    """One address may have --max-connections-per-address; more are closed at once, with one line."""
    nsqd = launch("--max-connections-per-address=3")
    innocent = [nsqd.connect() for _ in range(3)]
    innocent[0].publish("orders", b"x")

    for _ in range(20):
        with socket.create_connection(nsqd.address, WAIT_S) as one:
            assert ends(one)

    innocent[2].publish("orders", b"x")
    assert 1 == nsqd.log().count("and more are refused: --max-connections-per-address")


@pytest.mark.parametrize("layers", ["deflate", "snappy", "tls", "tls deflate", "tls snappy"])
def test_bomb(launch, certificates, layers):
    """A line without an end is found out through every layer: the connection ends with one line, others are served."""
    nsqd = launch(*certificates.flags("--https-address="))
    innocent = nsqd.connect()
    bomber: Client = nsqd.connect()
    codec = layers.split()[-1]
    if "tls" in layers:
        secure(bomber, certificates.trusting(), **({codec: True} if codec != "tls" else {}))
        if codec != "tls":
            compress_with(bomber, codec)
            bomber.ok()
    else:
        compress(bomber, codec)

    with suppress(Closed, ssl.SSLError, OSError):
        bomber.send(ENDLESS)
    innocent.publish("orders", b"x")
    with suppress(ssl.SSLError):
        assert ends(bomber.socket)

    innocent.publish("orders", b"x")
    assert 1 == nsqd.log().count("a command's line does not end")


def test_consumer_that_never_reads(launch):
    """A consumer that subscribes and never reads is hung up on after its heartbeats; publishing goes on."""
    nsqd = launch()
    publisher = nsqd.connect()
    lazy = nsqd.connect()
    lazy.identify('{"feature_negotiation": true, "heartbeat_interval": 1000}')
    lazy.subscribe("orders", "ch")

    for _ in range(200):
        publisher.publish("orders", bytes(100_000))

    wait_for_line(nsqd, lazy)
    publisher.publish("orders", b"x")


def wait_for_line(nsqd, lazy: Client) -> None:
    """Until it is said that this client was hung up on; it reads only then."""
    from tests.scenarios.test_nsqlookupd import wait_until

    wait_until(lambda: "client(127.0.0.1" in nsqd.log() or "exiting ioloop" in nsqd.log())
    assert ends(lazy.socket)
