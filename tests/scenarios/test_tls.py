"""TLS over real sockets: the program nsqd with certificates, and OpenSSL's client."""

import json
import shutil
import signal
import socket
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.certificates import Certificates, Pair, der
from tests.scenarios.conftest import WAIT_S, Client, Closed, Daemon
from tests.scenarios.test_compression import bodies_of_all_kinds, compress_with

HTTPS = ("--https-address=127.0.0.1:0",)


def secure(client: Client, context: ssl.SSLContext, **features: object) -> Client:
    """Negotiate, and go on in TLS."""
    agreed = json.loads(
        client.identify(json.dumps({"feature_negotiation": True, "tls_v1": True, **features}))
    )
    assert agreed["tls_v1"] is True
    client.socket = context.wrap_socket(client.socket, server_hostname="127.0.0.1")
    client.ok()
    return client


def https_port(nsqd: Daemon) -> int:
    """Where it listens for HTTPS."""
    end = time.monotonic() + WAIT_S
    while "HTTPS: listening on " not in nsqd.log():
        assert time.monotonic() < end
    return int(nsqd.log().partition("HTTPS: listening on ")[2].split()[0].rpartition(":")[2])


@pytest.mark.parametrize("codec", ["", "snappy", "deflate"])
def test_both_directions(launch, certificates, codec):
    """Publishes and deliveries of any size, in TLS alone and compressed inside it."""
    nsqd = launch(*certificates.flags("--https-address="))
    context = certificates.trusting()

    def connect() -> Client:
        client = secure(nsqd.connect(), context, **({codec: True} if codec else {}))
        if codec:
            compress_with(client, codec)
            client.ok()
        return client

    bodies = bodies_of_all_kinds()
    publisher, consumer = connect(), connect()
    consumer.subscribe("orders", "ch")
    publisher.publish("orders", *bodies)

    assert sorted(bodies) == sorted(message.body for message in consumer.messages(len(bodies)))
    consumer.send(b"FROB\n")
    assert consumer.error() == "E_INVALID invalid command FROB"
    assert consumer.closed()


def test_what_is_shown_and_required(launch, certificates):
    """With --tls-required plain clients are refused, on TCP and HTTP; /stats over HTTPS shows what was agreed on."""
    nsqd = launch(*certificates.flags("--tls-required=true", *HTTPS), http=True)
    port = https_port(nsqd)
    plain = nsqd.connect()
    plain.send(b"NOP\n")
    assert plain.error() == "E_INVALID cannot NOP in current state (TLS required)"
    assert nsqd.request("GET", "/ping") == (
        403,
        b'{"message": "TLS_REQUIRED", "https_port": %d}' % port,
    )

    context = certificates.trusting()
    consumer = secure(nsqd.connect(), context)
    consumer.subscribe("orders", "ch")
    consumer.sync()
    url = f"https://127.0.0.1:{port}/stats?format=json"
    with urllib.request.urlopen(url, context=context, timeout=WAIT_S) as answer:
        (client,) = json.load(answer)["topics"][0]["channels"][0]["clients"]

    assert (True, "TLS1.3", "", True) == (
        client["tls"],
        client["tls_version"],
        client["tls_negotiated_protocol"],
        client["tls_negotiated_protocol_is_mutual"],
    )
    assert client["tls_cipher_suite"].startswith("TLS_")


def test_a_handshake_that_fails(launch, certificates):
    """It costs its own connection only, and is a line with the address and the cause; so is one that stalls."""
    nsqd = launch(*certificates.flags("--https-address=", "--handshake-timeout=200ms"))
    good = secure(nsqd.connect(), certificates.trusting())
    for said, why in (
        (b"PUB orders\n\0\0\0\1x", "TLS: handshake failed: "),
        (b"\x16\x03\x01", "handshake not finished in time"),
    ):
        bad = nsqd.connect()
        host, port = bad.socket.getsockname()
        bad.identify('{"feature_negotiation": true, "tls_v1": true}')
        bad.socket.sendall(said)
        while bad.socket.recv(1000):
            pass
        nsqd.wait_for(f"client({host}:{port}) - {why}")

    good.publish("orders", b"x")


@pytest.mark.parametrize("policy", ["require", "require-verify"])
def test_clients_show_certificates(launch, certificates, policy):
    """Over TCP and over HTTPS; a client without one is turned away."""
    flags = ("--tls-client-auth-policy=" + policy, "--tls-root-ca-file=" + certificates.authority)
    nsqd = launch(*certificates.flags(*flags, *HTTPS), http=True)
    url = f"https://127.0.0.1:{https_port(nsqd)}/ping"
    known, unknown = certificates.trusting(certificates.client), certificates.trusting()

    secure(nsqd.connect(), known).publish("orders", b"x")
    with pytest.raises((ssl.SSLError, Closed, ConnectionError)):
        secure(nsqd.connect(), unknown)
    with urllib.request.urlopen(url, context=known, timeout=WAIT_S) as answer:
        assert answer.read() == b"OK"
    with pytest.raises((urllib.error.URLError, ssl.SSLError, ConnectionError)):
        urllib.request.urlopen(url, context=unknown, timeout=WAIT_S)


def test_a_certificate_is_replaced(launch, certificates, tmp_path):
    """SIGHUP: new connections get the new one, old ones go on, and a bad file changes nothing but the log."""
    own = Pair(str(tmp_path / "own.pem"), str(tmp_path / "own.key"))
    put(certificates.server, own)
    nsqd = launch(f"--tls-cert={own.certificate}", f"--tls-key={own.key}", *HTTPS, http=True)
    context = certificates.trusting()
    port = https_port(nsqd)
    old = secure(nsqd.connect(), context)

    put(certificates.other_server, own)
    nsqd.send_signal(signal.SIGHUP)
    nsqd.wait_for(f"TLS: {own.certificate} is loaded anew")
    Path(own.key).write_text("nonsense")
    nsqd.send_signal(signal.SIGHUP)
    nsqd.wait_for("ERROR: TLS: what was loaded before stays in use: failed to build TLS config - --tls-key")

    old.publish("orders", b"x")
    new = secure(nsqd.connect(), context)
    assert der(certificates.other_server) == new.socket.getpeercert(True)  # type: ignore[attr-defined]
    with context.wrap_socket(
        socket.create_connection(("127.0.0.1", port)), server_hostname="127.0.0.1"
    ) as web:
        assert der(certificates.other_server) == web.getpeercert(True)


def test_a_certificate_is_replaced_under_load(launch, certificates: Certificates, tmp_path: Path):
    """Ten times, while consumers and publishers are at work: no connection ends, no message is lost."""
    own = Pair(str(tmp_path / "own.pem"), str(tmp_path / "own.key"))
    put(certificates.server, own)
    nsqd = launch(f"--tls-cert={own.certificate}", f"--tls-key={own.key}", "--https-address=127.0.0.1:0")
    context = certificates.trusting()
    publishers = [secure(nsqd.connect(), context) for _ in range(4)]
    consumer = secure(nsqd.connect(), context)
    consumer.subscribe("orders", "ch", 2500)
    bodies = [b"x" * 500] * 50

    for turn in range(10):
        put(certificates.other_server if turn % 2 == 0 else certificates.server, own)
        nsqd.send_signal(signal.SIGHUP)
        for publisher in publishers:
            publisher.publish_many("orders", bodies)
        consumer.messages(len(publishers) * len(bodies))
        newcomer = secure(nsqd.connect(), context)
        newcomer.publish_many("orders", bodies)
        consumer.messages(len(bodies))
        publishers.append(newcomer)

    nsqd.wait_for("is loaded anew")
    assert "ERROR" not in nsqd.log()
    for publisher in publishers:
        publisher.publish("orders", b"still here")
    consumer.messages(len(publishers))
    consumer.sync()


def put(source: Pair, target: Pair) -> None:
    """The files of one pair over those of another."""
    for one, other in zip(source, target, strict=True):
        shutil.copy(one, other)


def test_a_start_with_bad_files(make_daemon, certificates: Certificates):
    """It fails, with the flag, the file and the reason."""
    nsqd = make_daemon(f"--tls-cert={certificates.server.certificate}", "--tls-key=/nonexistent/key")
    nsqd.spawn()

    assert nsqd.wait() == 1
    assert "failed to build TLS config - --tls-key /nonexistent/key: No such file or directory" in nsqd.log()
