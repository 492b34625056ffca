"""The pytest plugin: the fixture `nsq`, for tests of pytest-asyncio and of anyio.

Nothing of nsqkit is loaded before a test asks for the fixture.
"""

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from nsqkit.testing.nsq import Nsq

LOGGER = "nsqkit.testing"


def pytest_configure(config: pytest.Config) -> None:
    """Work with pytest-asyncio, if it is there."""
    if config.pluginmanager.hasplugin("asyncio"):
        from nsqkit.testing import asyncio_plugin  # noqa: PLC0415 - it imports pytest-asyncio

        config.pluginmanager.register(asyncio_plugin, asyncio_plugin.__name__)


@pytest.fixture
def nsq_options() -> dict[str, Any]:
    """Options of the fixture's nsqd, and `keep`: none. Have a fixture of this name to say some."""
    return {}


@pytest.fixture
def nsq(request: pytest.FixtureRequest) -> "Nsq":
    """A true nsqd and nsqlookupd in the test's own event loop."""
    with_asyncio: Any = request.config.pluginmanager.get_plugin("nsqkit.testing.asyncio_plugin")
    if with_asyncio is not None and with_asyncio.is_async_test(request.node):
        name = f"_nsq_in_{_loop_scope(request)}_loop"
    elif "anyio_backend" in request.fixturenames:
        name = "_nsq_in_anyio"
    else:
        pytest.fail(
            "the fixture nsq is for asynchronous tests: install pytest-asyncio, or mark them with anyio"
        )
    one: Nsq = request.getfixturevalue(name)
    return one


def _loop_scope(request: pytest.FixtureRequest) -> str:
    """Whose event loop pytest-asyncio runs the test in."""
    marker = request.node.get_closest_marker("asyncio")
    default = request.config.getini("asyncio_default_test_loop_scope")
    return str((marker.kwargs.get("loop_scope") if marker is not None else None) or default)


@pytest.fixture
def _nsq_log() -> Iterator[None]:
    """What the daemons log at INFO is shown with a test that fails, unless somebody has set another level."""
    log = logging.getLogger(LOGGER)
    before = log.level
    if before == logging.NOTSET:
        log.setLevel(logging.INFO)
    yield
    log.setLevel(before)


@pytest.fixture
async def _nsq_in_anyio(
    anyio_backend: object,  # noqa: ARG001 - it runs this
    nsq_options: dict[str, Any],
    _nsq_log: None,
) -> "AsyncIterator[Nsq]":
    async with running(nsq_options) as one:
        yield one


@asynccontextmanager
async def running(options: dict[str, Any]) -> "AsyncIterator[Nsq]":
    """One that is started, and stopped."""
    from nsqkit.testing.nsq import Nsq  # noqa: PLC0415 - it loads the daemons

    async with Nsq(**options) as one:
        yield one
