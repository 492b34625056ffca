"""A session and IDENTIFY: what is agreed on, layers, TLS."""

import json

import pytest

from nsqkit.wire.frames import RESPONSE
from nsqkit.wire.identify import Security
from tests.nsqd.core.sent import identify, pub

OK = (RESPONSE, b"OK")


# -- IDENTIFY


def test_negotiation(node, chunks):
    """A client that negotiates is answered with JSON, one that does not with OK."""
    client = node.client()

    client.send_chunks(chunks(identify(feature_negotiation=True, msg_timeout=2000)))
    client.send(b"NOP\n" + identify())

    (_, document), second = client.replies()
    assert 2000 == json.loads(document)["msg_timeout"]
    assert OK == second


@pytest.mark.parametrize("codec", ["snappy", "deflate"])
def test_compression(node, codec):
    """The JSON goes out in the clear, then the codec is put in place, then OK goes through it."""
    client = node.client()

    client.send(identify(feature_negotiation=True, **{codec: True}))

    (_, document), ok = client.replies()
    assert json.loads(document)[codec]
    assert [(codec, 1)] == client.outlet.upgrades
    assert OK == ok


def test_a_layer_that_is_ready_later(node):
    """OK waits until the layer is ready; what comes before that is thrown away, and commands after it count."""
    client = node.client()
    client.outlet.ready = False

    client.send(identify(feature_negotiation=True, snappy=True))
    client.send(b"NONSENSE\n")
    assert 1 == len(client.replies())
    client.session.upgraded()
    client.send(pub(b"t", b"x"))

    assert [OK, OK] == client.replies()


def test_what_is_sent_too_early_is_dropped(node):
    """What a client sends in the clear after such an IDENTIFY is thrown away."""
    client = node.client()

    client.send(identify(feature_negotiation=True, snappy=True) + b"NONSENSE\n")

    assert 2 == len(client.replies())
    assert "" == client.ended


def test_compression_waits_for_earlier_replies(node, flavour):
    """Replies to what was sent before IDENTIFY go out in the clear, before its own."""
    node.syncing = False
    client = node.client()

    client.send(pub(b"t", b"x") + identify(feature_negotiation=True, deflate=True))
    assert (flavour == "fsync") == (not client.outlet.upgrades)
    node.sync()

    first, (_, document), last = client.replies()
    assert (OK, OK) == (first, last)
    assert json.loads(document)["deflate"]
    assert [2] == [sent_before for _, sent_before in client.outlet.upgrades]


@pytest.mark.parametrize("flavour", ["fsync"], indirect=True)
def test_no_compression_after_a_failure(node):
    """If an earlier publish failed, its error is the last thing that is sent, in the clear."""
    node.syncing = False
    client = node.client()

    client.send(pub(b"t", b"x") + identify(feature_negotiation=True, snappy=True))
    node.sync("broken")

    assert b"E_PUB_FAILED PUB failed broken" == client.error()
    assert ([], "closed") == (client.outlet.upgrades, client.ended)


# -- TLS


@pytest.mark.parametrize("line", [b"PUB t", b"SUB t c", b"NOP", b"RDY 1", b"AUTH", b"WHAT"])
def test_tls_required(node, settings, line):
    """Where TLS is required every word but IDENTIFY is refused, before anything else is looked at."""
    settings.tls_required = True
    for greeting in (b"", identify()):
        client = node.client()
        client.send(greeting)
        client.replies()

        client.send(line + b"\n")

        expected = b"E_INVALID cannot %s in current state (TLS required)" % line.split()[0]
        assert expected == client.error()
        assert "closed" == client.ended


def test_compression_is_no_tls(node, settings):
    """Where TLS is required, no other layer stands in for it."""
    settings.tls_required = settings.limits.tls = True
    client = node.client()
    client.send(identify(feature_negotiation=True, snappy=True))
    client.replies()

    client.send(pub(b"t", b"x"))

    assert b"E_INVALID cannot PUB in current state (TLS required)" == client.error()


def test_tls_required_and_there(node, settings):
    """With TLS in place everything is allowed; what it came to outlives a second IDENTIFY."""
    settings.tls_required = settings.limits.tls = True
    client = node.client()
    client.outlet.ready = False
    client.send(identify(feature_negotiation=True, tls_v1=True, snappy=True))
    client.session.identity.security = Security("TLS1.3", "TLS_AES_128_GCM_SHA256", "", "")
    client.replies()

    client.outlet.ready = True
    client.session.upgraded()
    node.turn()
    assert ["tls", "snappy"] == [name for name, _ in client.outlet.upgrades]
    assert [OK, OK] == client.replies()

    client.send(identify() + b"NOP\n" + pub(b"t", b"x"))
    assert [OK, OK] == client.replies()
    assert "TLS1.3" == client.session.identity.security.version
