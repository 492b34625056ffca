"""The part of the plugin that needs pytest-asyncio: one fixture for each kind of loop that a test may run in."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Literal

import pytest_asyncio
from pytest_asyncio import is_async_test

from nsqkit.testing.plugin import running

if TYPE_CHECKING:
    from nsqkit.testing.nsq import Nsq

__all__ = ["is_async_test"]

Scope = Literal["function", "class", "module", "package", "session"]


def _fixture(scope: Scope) -> Any:
    @pytest_asyncio.fixture(loop_scope=scope, name=f"_nsq_in_{scope}_loop")
    async def one(nsq_options: dict[str, Any], _nsq_log: None) -> "AsyncIterator[Nsq]":
        async with running(nsq_options) as nsq:
            yield nsq

    return one


in_function_loop = _fixture("function")
in_class_loop = _fixture("class")
in_module_loop = _fixture("module")
in_package_loop = _fixture("package")
in_session_loop = _fixture("session")
