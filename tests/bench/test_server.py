"""Where an nsqd to be measured is."""

import pytest

from nsqkit.bench.process import UNIX
from nsqkit.bench.server import Address


@pytest.mark.parametrize(
    "text, address",
    [
        ("a:1", Address("a", 1)),
        (":1", Address("127.0.0.1", 1)),
        ("[::1]:2", Address("::1", 2)),
        ("/run/nsqd.sock", Address("/run/nsqd.sock", UNIX)),
        ("./s", Address("./s", UNIX)),
    ],
)
def test_an_address_is_host_and_port_or_a_path(text, address):
    """A path has a slash; each is shown as it was written, but for the host that was left out."""
    assert address == Address.parse(text)
    assert str(address) == text if not text.startswith(":") else "127.0.0.1:1"


@pytest.mark.parametrize("text", ["a", "a:b", "a:70000", "nsqd.sock"])
def test_what_is_no_address(text):
    """The error tells both forms."""
    with pytest.raises(ValueError, match="is neither host:port nor the path of a unix socket"):
        Address.parse(text)
