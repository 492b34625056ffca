"""Addresses as text."""

import pytest

from nsqkit.address import join_address, split_address


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
