"""For which durability, and with which store, a test runs. Without a mark it runs for all of them."""

import pytest

from nsqkit.nsqd.durability import Durability

FLAVOURS = {
    "nothing": Durability.OS,
    "memory": Durability.MEMORY,
    "os": Durability.OS,
    "fsync": Durability.FSYNC,
}

with_log = pytest.mark.parametrize("flavour", ["memory", "os", "fsync"], indirect=True)
stored = pytest.mark.parametrize("flavour", ["os", "fsync"], indirect=True)
in_memory = pytest.mark.parametrize("flavour", ["memory"], indirect=True)
