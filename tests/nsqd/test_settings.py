"""What the broker is told of the options."""

import pytest

from nsqkit.nsqd.options import DEFAULT_RESERVE, NsqdOptions
from nsqkit.nsqd.settings import reserve_of, settings_of
from nsqkit.nsqd.storage.disk import Disk

MB = 1 << 20


class Volume(Disk):
    """One of some size."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.total = size

    def total_bytes(self, path: str) -> int:  # noqa: ARG002
        """Its size."""
        return self.total


@pytest.mark.parametrize(
    ("size", "reserve"), [(60 * MB, 3 * MB), (1280 * MB, 64 * MB), (10_000 * MB, 64 * MB), (0, 0)]
)
def test_the_default_reserve_fits_the_volume(size: int, reserve: int) -> None:
    """A volume of 60 MB is not full from the beginning."""
    assert reserve == reserve_of(NsqdOptions(), Volume(size), "/data")


@pytest.mark.parametrize("wanted", [0, 1, 50 * MB, 500 * MB])
def test_a_reserve_that_somebody_wants(wanted: int) -> None:
    """It is taken as it is, on a small volume as well."""
    assert wanted != DEFAULT_RESERVE
    assert wanted == reserve_of(NsqdOptions(min_free_space=wanted), Volume(60 * MB), "/data")


@pytest.mark.parametrize(
    "experiments,near", [((), False), (("topology-aware-consumption",), True), (("telepathy",), False)]
)
def test_near_consumers_come_first_if_that_is_asked_for(experiments, near):
    """Experiments that nobody knows are passed over, as in NSQ."""
    assert near == settings_of(NsqdOptions(enable_experiment=experiments)).prefer_near
