"""Who gets the descriptors that there are."""

import pytest

from nsqkit.nsqd.descriptors import FEWEST_CLIENTS, OTHERS, Shares


@pytest.mark.parametrize("limit", [150, 200, 256, 1024, 4096, 65_536, 1 << 20])
def test_all_together_have_enough(limit):
    """Logs with two files each, clients and the rest fit the limit, and clients get the largest part of a large one."""
    shares = Shares(limit)

    assert 2 * shares.logs + shares.clients + OTHERS <= limit
    assert shares.logs >= 18
    if limit >= 1024:
        assert shares.clients >= limit // 2


def test_there_is_always_somebody():
    """A limit that is too small for everything still lets some in."""
    assert (1, FEWEST_CLIENTS) == (Shares(0).logs, Shares(0).clients)
