"""Addresses as text."""

import pytest

from nsqkit.address import is_unix, join_address, peer_address, split_address, split_listen_address


@pytest.mark.parametrize("node, address", [
    ("a.b:1", ("a.b", 1)),
    ("127.0.0.1:65535", ("127.0.0.1", 65535)),
    ("[::1]:4161", ("::1", 4161)),
    ("[fe80::1%eth0]:4161", ("fe80::1%eth0", 4161)),
])  # fmt: skip
def test_an_address_is_host_and_port(node, address):
    """IPv6 stands in brackets; what is split can be joined again."""
    assert address == split_address(node)
    assert node == join_address(*address)


@pytest.mark.parametrize("node", [
    "", "a", ":80", "a:", "a:0", "a:65536", "a:99999999999", "a:-1", "a:1a", "a:٣", "::1:80", "[]:80", "[::1]",
    "[a]b:80", "http://a:80", "a:80\n",
])  # fmt: skip
def test_what_is_no_address_is_refused(node):
    """The error says what an address looks like."""
    with pytest.raises(ValueError, match="write host:port, or \\[host\\]:port for IPv6"):
        split_address(node)


@pytest.mark.parametrize("text, address", [
    (":0", ("", 0)),
    ("0.0.0.0:4150", ("0.0.0.0", 4150)),
    ("[::1]:65535", ("::1", 65535)),
    ("name:80", ("name", 80)),
])  # fmt: skip
def test_an_address_to_listen_on_may_have_no_host(text, address):
    """The host may be missing, the port may be 0."""
    assert address == split_listen_address(text)
    assert not is_unix(text)


@pytest.mark.parametrize(
    "text", ["", "foo", "127.0.0.1:80x", "127.0.0.1:99999", "a:65536", "::1:80", "a b:1", "a:-1"]
)
def test_what_cannot_be_listened_on_is_refused(text):
    """The error says what would be right."""
    with pytest.raises(ValueError, match="write host:port or :port, .* with a port up to 65535"):
        split_listen_address(text)
    assert not is_unix(text)


@pytest.mark.parametrize(
    "text, unix", [("/run/a.sock", True), ("./a", True), ("/a:80", True), ("http://a:80", False)]
)
def test_a_path_has_a_slash(text, unix):
    """Nothing else is the path of a unix socket."""
    assert unix == is_unix(text)


@pytest.mark.parametrize("peer, text", [
    (("10.0.0.1", 7), "10.0.0.1:7"),
    (("::ffff:10.0.0.1", 7, 0, 0), "10.0.0.1:7"),
    (("fe80::1", 7, 0, 2), "[fe80::1]:7"),
    (("::ffff:1", 7, 0, 0), "[::ffff:1]:7"),
    ("", "@"), (b"", "@"), (None, "@"),
])  # fmt: skip
def test_peers_are_shown_as_they_know_themselves(peer, text):
    """An IPv4 client of a socket for both kinds has its IPv4 address; one of a unix socket has none."""
    assert text == peer_address(peer)
