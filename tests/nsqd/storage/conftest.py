"""A disk that fails and loses power, logs on it, and a broker on those.

`disk` keeps real files in a temporary directory and knows what a power cut leaves of them. `home` opens logs on it,
and opens them again as the next process would. `new_life` makes a broker that can be killed, cut off and restarted.
"""

import shutil
from collections.abc import Callable, Iterator

import pytest

from nsqkit.nsqd.core.batch import Batch
from tests.nsqd.storage.faulty_disk import FaultyDisk, Killed
from tests.nsqd.storage.home import Home, bodies_of, read_all
from tests.nsqd.storage.life import Life


@pytest.fixture
def disk(tmp_path) -> Iterator[FaultyDisk]:
    """A disk that does not fail until it is told to."""
    disk = FaultyDisk(str(tmp_path))
    yield disk
    disk.kill()


@pytest.fixture
def home(disk: FaultyDisk) -> Home:
    """Logs on the disk, in one segment each."""
    return Home(disk)


@pytest.fixture(scope="session")
def new_disk(tmp_path_factory) -> Iterator[Callable[[], FaultyDisk]]:
    """Make an empty disk: for each example of a property test."""
    made: list[FaultyDisk] = []

    def make() -> FaultyDisk:
        for old in made:
            old.kill()
            shutil.rmtree(old.root, ignore_errors=True)
        made[:] = [FaultyDisk(str(tmp_path_factory.mktemp("disk")))]
        return made[0]

    yield make
    for old in made:
        old.kill()


@pytest.fixture(scope="session")
def new_home(new_disk) -> Callable[..., Home]:
    """Make logs on an empty disk."""
    return lambda **options: Home(new_disk(), **options)


@pytest.fixture(scope="session")
def new_life(new_disk) -> Callable[..., Life]:
    """Make a broker on an empty disk."""
    return lambda durability, **options: Life(new_disk(), durability, **options)


@pytest.fixture(scope="session")
def contents() -> Callable[..., list[tuple[int, bytes]]]:
    """Every message of a log, with its position."""
    return read_all


@pytest.fixture(scope="session")
def bodies() -> Callable[[Batch], list[bytes]]:
    """The bodies of a batch."""
    return bodies_of


@pytest.fixture(scope="session")
def killed() -> type[Killed]:
    """What is raised where the process dies."""
    return Killed
